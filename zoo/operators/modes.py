"""How many modes to keep: what a block of them can't hold of given fields."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.operators.transforms import Basis, analyse


def truncation_floors(fields: Tensor, basis: Basis, dims: int = 2) -> Tensor:
    """The relative L2 error of keeping m modes per axis, for m = 1, 2, ... up to the points of the shortest axis.

    No model that gives m modes per axis can have a smaller error on these targets, if errors of all fields are
    weighted by their energy.

    Args:
        fields: (N, ..., *space), for example the training targets.
        basis: see `zoo.operators.transforms.basis_matrix`.
        dims: spatial axes.

    Returns:
        (M,), falling.
    """
    space = fields.shape[-dims:]
    energy = analyse(fields.double(), space, basis).square().flatten(0, -dims - 1).sum(0)
    held = energy
    for axis in range(dims):
        held = held.cumsum(axis)
    largest = min(space)
    diagonal = torch.arange(largest)
    blocks = held[tuple(diagonal for _ in space)] if dims > 1 else held[:largest]
    return (1 - blocks / energy.sum()).clamp_min(0).sqrt()


def smallest_block(fields: Tensor, basis: Basis, floor: float = 0.01, dims: int = 2) -> int:
    """The smallest number of modes per axis whose `truncation_floors` are at most `floor`.

    Raises:
        ValueError: a floor that is not positive.
    """
    if floor <= 0:
        raise ValueError(f"the floor should be positive, not {floor}")
    enough = truncation_floors(fields, basis, dims) <= floor
    return int(enough.nonzero()[0]) + 1 if enough.any() else min(fields.shape[-dims:])
