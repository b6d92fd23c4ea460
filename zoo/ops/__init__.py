"""Operations with a readable PyTorch reference and, where one exists, a fast kernel behind the same signature."""

from zoo.ops.native import Implementation
from zoo.ops.points import ball_query, furthest_points, rotation_convolution
from zoo.ops.rational import rational
from zoo.ops.rational_reference import Form

__all__ = ["Form", "Implementation", "ball_query", "furthest_points", "rational", "rotation_convolution"]
