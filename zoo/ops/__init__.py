"""Operations with a readable PyTorch reference and, where one exists, a fast kernel behind the same signature."""

from zoo.ops.disco import DiscoConv2d, disco2d
from zoo.ops.native import Implementation
from zoo.ops.plane_sweep import plane_sweep
from zoo.ops.points import ball_query, furthest_points, rotation_convolution
from zoo.ops.rasterize import rasterize
from zoo.ops.rational import rational
from zoo.ops.rational_reference import FORMS, Form
from zoo.ops.ssim import ssim
from zoo.ops.udno import UDNO

__all__ = [
    "FORMS",
    "UDNO",
    "DiscoConv2d",
    "Form",
    "Implementation",
    "ball_query",
    "disco2d",
    "furthest_points",
    "plane_sweep",
    "rasterize",
    "rational",
    "rotation_convolution",
    "ssim",
]
