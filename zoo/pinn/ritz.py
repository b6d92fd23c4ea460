"""The Schroedinger equation on a grid, in the network's own units, and the functionals that are minimised.

With a half of the box's length, mbar its mean mass and energies in units of e0 = hbar^2 / (2 mbar a^2), the
equation on t in [-1, 1] is -(psi_t / rho)_t + v psi = E psi with rho = m / mbar. In the mass-weighted coordinate,
dy = rho dt, it reads -rho psi_yy + v psi = E psi, and psi_y = psi_t / rho is continuous.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo.pinn.potentials import Array, Potential


@dataclass(frozen=True)
class Grid:
    """Quadrature nodes over the box (or its right half, for a symmetric potential).

    Attributes:
        x: (Q,) positions in the user's units.
        t: (Q,) the same in units of a from the middle of the box.
        weight: (Q,) quadrature weights of t, with sum 2.
        v: (Q,) potential in units of e0.
        rho: (Q,) mass relative to its mean.
        v_min: lowest v in the box.
    """

    x: Tensor
    t: Tensor
    weight: Tensor
    v: Tensor
    rho: Tensor
    v_min: float


@dataclass(frozen=True)
class Scales:
    """What takes a potential's own units to the network's.

    Attributes:
        middle: of the box.
        half: half of its length, the unit of length.
        energy: e0, the unit of energy.
    """

    middle: float
    half: float
    energy: float

    @staticmethod
    def of(potential: Potential) -> Scales:
        """The scales of a potential."""
        left, right = potential.walls
        half = (right - left) / 2
        return Scales((left + right) / 2, half, potential.kinetic / (_mean_mass(potential) * half**2))


def _mean_mass(potential: Potential) -> float:
    return float(np.average(potential.masses, weights=np.diff(potential.edges)))


def make_grid(
    potential: Potential, node: Tensor, weight: Tensor, half: bool = False, dtype: torch.dtype = torch.float64
) -> Grid:
    """Maps a rule on [-1, 1] onto each sub-interval between walls and breaks.

    Args:
        potential: gives the sub-intervals, V and the masses.
        node, weight: (n,) the rule.
        half: keep the right half of the box only, with doubled weights (for integrals of even functions).
        dtype: of the grid; its device is that of `node`.
    """
    scales, edges = Scales.of(potential), potential.edges
    left, right = edges[:-1, None], edges[1:, None]
    x = (left + right) / 2 + (right - left) / 2 * node.double().cpu().numpy()
    w = (right - left) / 2 * weight.double().cpu().numpy() / scales.half
    v = np.stack([potential.inside(a, b, piece) for a, b, piece in zip(edges, edges[1:], x, strict=False)])
    rho = np.asarray(potential.masses)[:, None] / _mean_mass(potential) * np.ones_like(x)
    t = (x - scales.middle) / scales.half
    if half:
        keep = t > -1e-12
        w = np.where(t > 1e-12, 2 * w, w)
        x, t, w, v, rho = (array[keep] for array in (x, t, w, v, rho))

    def tensor(array: Array) -> Tensor:
        return torch.from_numpy(array.ravel()).to(node.device, dtype)

    v_min = potential.minimum / scales.energy
    return Grid(tensor(x), tensor(t), tensor(w), tensor(v / scales.energy), tensor(rho), v_min)


def interface_reach(potential: Potential) -> tuple[float, ...]:
    """How far, in the mass-weighted coordinate, a network's interface features reach (see `QuantumWellNetwork`).

    Behind a jump of V by dv a wave function bends within 1/sqrt(dv); five times that was found best, and no more
    than the mean distance of walls and breaks.
    """
    scales = Scales.of(potential)
    reach = []
    for place in potential.breaks:
        below, above = potential(np.array([np.nextafter(place, -np.inf), np.nextafter(place, np.inf)]))
        jump = abs(above - below) / scales.energy
        reach.append(min(2.0 / (len(potential.edges) - 1), 5.0 / math.sqrt(max(jump, 1.0))))
    return tuple(reach)


def gram(u: Tensor, grid: Grid, block: Tensor) -> tuple[Tensor, Tensor]:
    """Overlaps S and energy matrix A of trial functions, both (..., K, K).

    Args:
        u: jets (3, ..., Q, K) with respect to the mass-weighted coordinate.
        grid: the quadrature, its tensors (..., Q).
        block: (K, K), 1 for pairs of equal parity, 0 for others, whose integrals vanish over the whole box.
    """
    weight, rho, v = grid.weight.unsqueeze(-1), grid.rho.unsqueeze(-1), grid.v.unsqueeze(-1)
    overlap = u[0].mT @ (weight * u[0])
    energy = u[1].mT @ (weight * rho * u[1]) + u[0].mT @ (weight * v * u[0])
    return overlap * block, energy * block


def hamiltonian(u: Tensor, grid: Grid) -> Tensor:
    """H u = -rho u_yy + v u at the nodes: (..., Q, K)."""
    return grid.v.unsqueeze(-1) * u[0] - grid.rho.unsqueeze(-1) * u[2]


def ritz(overlap: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
    """Energies (..., K), ascending, and coefficients (..., K, K) of the normalised states in the trial functions."""
    inverse = torch.linalg.inv(torch.linalg.cholesky(overlap))
    energies, vectors = torch.linalg.eigh(inverse @ energy @ inverse.mT)
    return energies, inverse.mT @ vectors


def ritz_of_frame(overlap: Tensor, energy: Tensor, tolerance: float = 1e-10) -> tuple[Tensor, Tensor]:
    """As `ritz`, for functions that may be linearly dependent.

    Args:
        overlap, energy: (..., K, K).
        tolerance: directions whose overlap is below this fraction of the largest one, once all functions have
            norm 1, are left out.

    Returns:
        Energies (..., K), infinite for as many states as there are directions left out, and coefficients (..., K, K).
    """
    norm = overlap.diagonal(dim1=-2, dim2=-1).rsqrt()
    sizes, directions = torch.linalg.eigh(norm.unsqueeze(-1) * overlap * norm.unsqueeze(-2))
    keep = sizes > tolerance * sizes[..., -1:]
    frame = norm.unsqueeze(-1) * directions * torch.where(keep, sizes, torch.inf).rsqrt().unsqueeze(-2)
    inside = frame.mT @ energy @ frame
    # The directions left out are uncoupled now; above all others, they come last.
    above = 2 * inside.diagonal(dim1=-2, dim2=-1).abs().sum(-1, keepdim=True) + 1
    energies, vectors = torch.linalg.eigh(inside + torch.where(keep, 0.0, above).diag_embed())
    left_out = torch.arange(energies.shape[-1], device=keep.device) >= keep.sum(-1, keepdim=True)
    return energies.masked_fill(left_out, torch.inf), frame @ vectors


def ritz_sum(overlap: Tensor, energy: Tensor) -> Tensor:
    """Sum of the Ritz energies, tr(S^-1 A): its minimum is the sum of the K lowest energies (Ky Fan).

    For one function it is the Rayleigh quotient.
    """
    return _trace(torch.linalg.solve(overlap, energy))


def space_residual(u: Tensor, grid: Grid, block: Tensor) -> Tensor:
    """How far a space of trial functions is from being mapped into itself by H.

    The residual of the space is r = H u - u S^-1 A. Weighted by the inverse of A - v_min S it gives

        sum_k |(H - E_k) psi_k|^2 / (E_k - v_min)

    over the Ritz states psi_k, whose energy error |r|^2 / gap it thus controls relative to the energy, without
    ever computing them: it does not change when the trial functions are mixed among each other, so that
    near-degenerate states do no harm to its gradient.
    """
    overlap, energy = gram(u, grid, block)
    r = hamiltonian(u, grid) - u[0] @ torch.linalg.solve(overlap, energy)
    squares = r.mT @ (grid.weight.unsqueeze(-1) * r) * block
    return _trace(torch.linalg.solve(energy - grid.v_min * overlap, squares))


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


def state_residuals(u: Tensor, grid: Grid, E: Tensor) -> Tensor:
    """The paper's loss: sum_i w_i (H psi - E psi)^2 / sum_i w_i psi^2 for each state with its own E, (K,)."""
    weight = grid.weight.unsqueeze(1)
    r = hamiltonian(u, grid) - E * u[0]
    return (weight * r * r).sum(0) / (weight * u[0] * u[0]).sum(0)


def virial(u: Tensor, grid: Grid) -> Tensor:
    """Relative violation of the virial theorem, (K,), on a grid over the whole box.

    Multiplying the equation by t psi_t and integrating by parts gives, for any potential between walls,

        2 T = <t dV/dt> + wall terms = - int v (psi^2 + 2 t psi psi_t) dt + int rho (psi_y^2 + 2 t psi_y (psi_y)_t) dt

    in which no derivative of V is left, so that it holds for jumps as well.
    """
    t, v, rho, weight = (array.unsqueeze(1) for array in (grid.t, grid.v, grid.rho, grid.weight))
    psi, flux, psi_t, flux_t = u[0], u[1], rho * u[1], rho * u[2]
    kinetic = (weight * rho * flux**2).sum(0)
    force = -(weight * v * (psi**2 + 2 * t * psi * psi_t)).sum(0)
    walls = (weight * rho * (flux**2 + 2 * t * flux * flux_t)).sum(0)
    return (2 * kinetic - force - walls).abs() / (2 * kinetic)
