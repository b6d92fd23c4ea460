"""Adding and removing Gaussians together with the optimiser's memory of them."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.splatting.gaussians import PARAMETERS, GaussianModel


@torch.no_grad()
def rearrange(
    model: GaussianModel, optimizer: torch.optim.Optimizer, source: Tensor, fresh: Tensor | None = None
) -> None:
    """Makes the Gaussians those at `source`, in that order; one may come up several times.

    Args:
        model: the Gaussians.
        optimizer: its moments go along with them.
        source: (M,) indices.
        fresh: (M,) bool, rows whose moments begin at zero; None for no row.
    """
    count = len(model)
    for name in PARAMETERS:
        parameter = getattr(model, name)
        state = optimizer.state.get(parameter, {})
        for key, value in state.items():
            if isinstance(value, Tensor) and value.ndim and len(value) == count:
                moved = value[source]
                if fresh is not None:
                    moved[fresh] = 0
                state[key] = moved
        parameter.data = parameter.data[source]
        parameter.grad = None


def keep(model: GaussianModel, optimizer: torch.optim.Optimizer, mask: Tensor) -> None:
    """Removes the Gaussians for which `mask` (N,) is False."""
    if not bool(mask.all()):
        rearrange(model, optimizer, mask.nonzero().squeeze(1))


@torch.no_grad()
def forget(model: GaussianModel, optimizer: torch.optim.Optimizer, name: str, rows: Tensor | None = None) -> None:
    """Zeroes the moments of one parameter, of all Gaussians or those at `rows`."""
    parameter = getattr(model, name)
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            if rows is None:
                value.zero_()
            else:
                value[rows] = 0
