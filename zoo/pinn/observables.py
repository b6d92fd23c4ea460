"""What is measured of states: errors against the reference, nodes, orthogonality, residual."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.pinn.potentials import Array
from zoo.pinn.reference import Eigenstates
from zoo.pinn.ritz import Grid, Scales, hamiltonian, virial


@dataclass(frozen=True)
class Quality:
    """Per state (K,) in the first five, over all states in the last.

    Attributes:
        energy_error: abs(E - E_ref) / abs(E_ref - V_min).
        psi_error: L2 norm of psi - psi_ref, psi given the sign of psi_ref.
        residual: largest abs(H psi - E psi) over the nodes, relative to (E - V_min) max abs(psi).
        virial: relative violation of the virial theorem.
        nodes: zeros between the walls.
        orthogonality: largest abs(<psi_i | psi_j> - delta_ij).
    """

    energy_error: Array
    psi_error: Array
    residual: Array
    virial: Array
    nodes: NDArray[np.int64]
    orthogonality: float


def assess(u: Tensor, E: Tensor, grid: Grid, reference: Eigenstates, scales: Scales) -> Quality:
    """Compares states with the reference.

    Args:
        u: jets (3, Q, K) of the states with respect to the mass-weighted coordinate, integral psi^2 dt = 1.
        E: (K,) their energies in units of ``scales.energy``.
        grid: nodes over the whole box.
        reference: solution of the direct solver, in the user's units.
        scales: units of `grid` and `E`.
    """
    u, E = u.double(), E.double()
    weight = grid.weight.double()
    target = torch.from_numpy(reference.psi(grid.x.double().cpu().numpy())).to(u).T * math.sqrt(scales.half)
    overlap = u[0].T @ (weight.unsqueeze(1) * u[0])
    sign = torch.sign((weight.unsqueeze(1) * u[0] * target).sum(0))
    psi_error = (weight.unsqueeze(1) * (sign * u[0] - target) ** 2).sum(0).sqrt()
    above = E - grid.v_min
    residual = (hamiltonian(u, grid) - E * u[0]).abs().amax(0) / (above * u[0].abs().amax(0))
    exact = reference.energies / scales.energy
    return Quality(
        energy_error=np.abs(E.cpu().numpy() - exact) / (exact - grid.v_min),
        psi_error=psi_error.cpu().numpy(),
        residual=residual.cpu().numpy(),
        virial=virial(u, grid).cpu().numpy(),
        nodes=count_nodes(u[0].T.cpu().numpy()),
        orthogonality=float((overlap - torch.eye(len(E)).to(overlap)).abs().max()),
    )


def count_nodes(psi: Array) -> NDArray[np.int64]:
    """Sign changes of states psi (K, N), sampled from left to right, where they exceed a 1000th of their maximum."""
    counts = []
    for state in psi:
        large = state[np.abs(state) > 1e-3 * np.abs(state).max()]
        counts.append(int((large[1:] * large[:-1] < 0).sum()))
    return np.array(counts)
