"""What one writes in plain torch for `zoo.ops.rational`."""

from __future__ import annotations

from torch import Tensor


def horner(x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
    """Form A with orders 5 and 4, left to autograd. It has the wrong derivative at b = 0."""
    groups = len(denominator)
    grouped = x.unflatten(-1, (groups, -1)).float()
    a, b = numerator.unsqueeze(-1).unbind(1), denominator.abs().unsqueeze(-1).unbind(1)
    r = grouped.abs()
    p = ((((a[5] * grouped + a[4]) * grouped + a[3]) * grouped + a[2]) * grouped + a[1]) * grouped + a[0]
    q = (((b[3] * r + b[2]) * r + b[1]) * r + b[0]) * r + 1
    return (p / q).flatten(-2).to(x.dtype)
