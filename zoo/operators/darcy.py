"""Darcy flow on the unit square, -div(a grad u) = f with u = 0 on the border, by finite volumes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def solve(coefficient: Tensor, source: float = 1.0) -> Tensor:
    """The pressure of a permeability, by a sparse direct solution of the five-point scheme.

    Args:
        coefficient: a > 0, (B, s, s) or (s, s), at the nodes i / (s - 1), border included. The permeability
            between two nodes is their harmonic mean.
        source: f.

    Returns:
        u with the shape and dtype of `coefficient`.

    Raises:
        ValueError: fewer than four nodes per side, or a coefficient that is not real, finite and positive.
    """
    if coefficient.ndim < 2 or coefficient.shape[-1] != coefficient.shape[-2] or coefficient.shape[-1] < 4:
        raise ValueError(f"the coefficient should be (B, s, s) with s >= 4, not {tuple(coefficient.shape)}")
    if not coefficient.is_floating_point():
        raise ValueError(f"the coefficient should be real, not of {coefficient.dtype}: the pressure takes its dtype")
    if not ((coefficient > 0) & coefficient.isfinite()).all():
        raise ValueError("the coefficient should be positive and finite everywhere")
    fields = coefficient.reshape(-1, *coefficient.shape[-2:]).double().cpu().numpy()
    solutions = np.stack([_solve_one(a, source) for a in fields])
    return torch.from_numpy(solutions).to(coefficient).reshape(coefficient.shape)


def _solve_one(a: NDArray[np.float64], source: float) -> NDArray[np.float64]:
    from scipy.sparse import diags
    from scipy.sparse.linalg import spsolve

    size = len(a)
    inner = size - 2
    vertical = 2 * a[1:, 1:-1] * a[:-1, 1:-1] / (a[1:, 1:-1] + a[:-1, 1:-1])  # between (i, j) and (i + 1, j)
    horizontal = 2 * a[1:-1, 1:] * a[1:-1, :-1] / (a[1:-1, 1:] + a[1:-1, :-1])
    centre = vertical[1:] + vertical[:-1] + horizontal[:, 1:] + horizontal[:, :-1]
    # Neighbours in the same row stand side by side, except across the ends of rows.
    beside = horizontal[:, 1:].copy()
    beside[:, -1] = 0.0
    below = vertical[1:-1].ravel()
    along = beside.ravel()[:-1]
    matrix = (
        diags([centre.ravel(), -along, -along, -below, -below], [0, 1, -1, inner, -inner], format="csc")
        * (size - 1) ** 2
    )
    solution = np.zeros((size, size))
    solution[1:-1, 1:-1] = spsolve(matrix, np.full(inner * inner, source)).reshape(inner, inner)
    return solution


def binary_coefficient(field: Tensor, low: float = 3.0, high: float = 12.0) -> Tensor:
    """A medium of two materials: `high` where a random field is at least 0, `low` elsewhere."""
    return torch.where(field >= 0, high, low).to(field.dtype)
