"""Operations with a readable PyTorch reference and, where one exists, a fast kernel behind the same signature."""

from zoo.ops.rational import Form, rational

__all__ = ["Form", "rational"]
