"""Real spherical harmonics up to degree 3, as Gaussian splatting uses them for colours that depend on the view.

Order and signs are those of 3DGS files: degree by degree, m from -l to l, with the Condon-Shortley phase; the three
functions of degree 1 are proportional to -y, z, -x.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_DEGREE = 3
SH_C0 = 0.28209479177387814


def sh_count(degree: int) -> int:
    """Number of functions up to a degree, which is 0 to 3."""
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"spherical harmonics are there for degrees 0 to {MAX_DEGREE}, not {degree}")
    return (degree + 1) ** 2


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """The functions at given directions.

    Args:
        directions: (..., 3), of any length but zero.
        degree: 0 to 3.

    Returns:
        (..., (degree + 1)^2).
    """
    sh_count(degree)
    x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
    functions = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        c = 0.4886025119029199
        functions += [-c * y, c * z, -c * x]
    if degree >= 2:
        c = 1.0925484305920792
        functions += [
            c * x * y,
            -c * y * z,
            0.31539156525252005 * (2 * z * z - x * x - y * y),
            -c * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    if degree >= 3:
        functions += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
            0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
            -0.4570457994644658 * x * (4 * z * z - x * x - y * y),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    return torch.stack(functions, dim=-1)


def evaluate_sh(directions: Tensor, coefficients: Tensor, degree: int) -> Tensor:
    """A function given by its coefficients, at given directions: no offset, no clamp.

    Args:
        directions: (..., 3).
        coefficients: (..., K, channels), K >= (degree + 1)^2; those beyond are not used.
        degree: 0 to 3.

    Returns:
        (..., channels).
    """
    basis = sh_basis(directions, degree)
    return (basis.unsqueeze(-1) * coefficients[..., : basis.shape[-1], :]).sum(-2)


def rgb_to_sh0(rgb: Tensor) -> Tensor:
    """The coefficient of degree 0 that alone gives a colour: (rgb - 0.5) / Y_0."""
    return (rgb - 0.5) / SH_C0


def sh0_to_rgb(sh0: Tensor) -> Tensor:
    """The colour that a coefficient of degree 0 gives alone, clamped at 0."""
    return (0.5 + SH_C0 * sh0).clamp_min(0)
