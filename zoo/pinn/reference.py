"""The direct solver that the networks are measured against: spectral elements. They are never trained on it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.sparse import csc_array, diags_array
from scipy.sparse.linalg import eigsh

from zoo.errors import ConfigError
from zoo.pinn.potentials import Array, Potential

DEGREE = 16
_ROUNDING = 1e-9  # no smaller a change can be told from rounding if it grows with the mesh


@dataclass(frozen=True)
class Eigenstates:
    """The lowest states of a potential.

    Attributes:
        energies: (K,), ascending.
        elements: (M + 1,) ends of the spectral elements.
        values: (K, M, p + 1), psi at the Gauss-Lobatto nodes of each element. Integral psi^2 dx = 1, and psi is
            positive at the first point from the left where abs(psi) > 0.3 max abs(psi).
        seconds: what the solution took, without the search for a fine enough mesh.
        unknowns: size of the eigenproblem.
    """

    energies: Array
    elements: Array
    values: Array
    seconds: float
    unknowns: int

    def psi(self, x: Array) -> Array:
        """The states (K, N) at positions x (N,) between the walls."""
        count = len(self.elements) - 1
        element = np.clip(np.searchsorted(self.elements, x, side="right") - 1, 0, count - 1)
        left, right = self.elements[element], self.elements[element + 1]
        local = (2.0 * x - left - right) / (right - left)
        basis = np.polynomial.legendre.legvander(local, self.values.shape[2] - 1) @ _lobatto(self.values.shape[2]).modes
        return np.einsum("knp,np->kn", self.values[:, element], basis)


@dataclass(frozen=True)
class _Lobatto:
    """Gauss-Lobatto nodes and weights on [-1, 1], the derivative matrix, and values -> Legendre coefficients."""

    node: Array
    weight: Array
    derivative: Array
    modes: Array


@lru_cache
def _lobatto(count: int) -> _Lobatto:
    legendre = np.polynomial.legendre.Legendre.basis(count - 1)
    # All of these roots are real; NumPy 2.5 gives them as complex numbers.
    node = np.concatenate([[-1.0], np.real(legendre.deriv().roots()), [1.0]])
    weight = 2.0 / (count * (count - 1) * legendre(node) ** 2)
    modes = np.linalg.inv(np.polynomial.legendre.legvander(node, count - 1))
    slopes = np.stack(
        [np.polynomial.legendre.Legendre.basis(k).deriv()(node) if k else np.zeros(count) for k in range(count)], 1
    )
    return _Lobatto(node, weight, slopes @ modes, modes)


@dataclass(frozen=True)
class Discretisation:
    """Spectral elements with Gauss-Lobatto quadrature: A psi = E B psi before the walls' conditions are set.

    Attributes:
        stiffness: (N, N), integral of kinetic psi' phi' / mass + V psi phi.
        mass: (N,), the diagonal of B: integral psi phi.
        elements: (M + 1,) ends of the elements.
        degree: of the polynomials, N = M degree + 1.
    """

    stiffness: csc_array
    mass: Array
    elements: Array
    degree: int


def discretise(potential: Potential, parts: int, degree: int = DEGREE) -> Discretisation:
    """Elements that end at every knot of the potential, none longer than 1/`parts` of the box."""
    left, right = potential.walls
    cuts = np.array([left, *potential.knots, right])
    # Rounding should not give one of two mirrored pieces an element more.
    counts = [max(1, int(np.ceil((b - a) / (right - left) * parts - 1e-9))) for a, b in pairwise(cuts)]
    ends = [np.linspace(a, b, count + 1)[:-1] for (a, b), count in zip(pairwise(cuts), counts, strict=True)]
    elements = np.append(np.concatenate(ends), right)
    lobatto = _lobatto(degree + 1)
    half = np.diff(elements) / 2
    middle = (elements[:-1] + elements[1:]) / 2
    layer = np.searchsorted(potential.breaks, middle)
    x = middle[:, None] + half[:, None] * lobatto.node
    low, high = potential.edges[layer, None], potential.edges[layer + 1, None]
    V = potential(np.clip(x, np.nextafter(low, high), np.nextafter(high, low)))
    inverse_mass = potential.kinetic / np.asarray(potential.masses)[layer]

    gradient = lobatto.derivative.T @ (lobatto.weight[:, None] * lobatto.derivative)
    weight = half[:, None] * lobatto.weight
    local = (inverse_mass / half)[:, None, None] * gradient
    local[:, range(degree + 1), range(degree + 1)] += weight * V
    index = np.arange(len(half))[:, None] * degree + np.arange(degree + 1)
    rows, columns = np.broadcast_arrays(index[:, :, None], index[:, None, :])
    size = len(half) * degree + 1
    stiffness = csc_array((local.ravel(), (rows.ravel(), columns.ravel())), shape=(size, size))
    mass = np.zeros(size)
    np.add.at(mass, index, weight)
    return Discretisation(stiffness, mass, elements, degree)


def solve(potential: Potential, states: int, tolerance: float = 1e-11) -> Eigenstates:
    """The lowest `states` states, on a mesh halved until the energies stand still or only rounding moves them.

    Args:
        potential: V and the walls.
        states: how many.
        tolerance: relative to the energy above the potential's minimum.

    Raises:
        ConfigError: no state is asked for, or the mesh would have to be finer than 2^9 times the first one.
    """
    if states < 1:
        raise ConfigError(f"The reference solver finds 1 state or more, not {states}.")
    # A table brings elements of its own in great number: those need no high degree.
    degree = max(4, min(DEGREE, 400 // (len(potential.knots) + 1)))
    before = None
    change = np.inf
    for refinement in range(10):
        found = _solve(potential, states, parts=max(6, states) * 2**refinement, degree=degree)
        if before is not None:
            shift = np.abs(found.energies - before.energies) / (found.energies - potential.minimum)
            last, change = change, float(shift.max())
            if change < tolerance:
                return found
            if last <= change < _ROUNDING:  # with many states a finer mesh only rounds more
                return before
        before = found
    raise ConfigError("The reference solver does not converge for this potential: is V finite everywhere?")


def _solve(potential: Potential, states: int, parts: int, degree: int) -> Eigenstates:
    start = time.perf_counter()
    mesh = discretise(potential, parts, degree)
    root = np.sqrt(mesh.mass[1:-1])
    symmetric = diags_array(1 / root) @ mesh.stiffness[1:-1, 1:-1] @ diags_array(1 / root)
    # Shift and invert about a value below the spectrum. A fixed start makes the result reproducible.
    ground = potential.kinetic / max(potential.masses) * (np.pi / np.ptp(potential.edges)) ** 2
    sectors = _sectors(potential, mesh, len(root))
    energies, psi = np.empty(states), np.zeros((states, len(root) + 2))
    for first, basis in enumerate(sectors[:states]):
        mine = slice(first, None, len(sectors))  # even and odd states alternate
        seed = np.random.default_rng(0).standard_normal(basis.shape[1])
        sector = csc_array(basis.T @ symmetric @ basis)
        found, vectors = eigsh(sector, k=len(energies[mine]), sigma=potential.minimum - ground, v0=seed, tol=0)
        order = np.argsort(found)
        energies[mine], psi[mine, 1:-1] = found[order], (basis @ vectors[:, order]).T / root
    seconds = time.perf_counter() - start

    psi *= signs(psi)[:, None]
    count = len(mesh.elements) - 1
    index = np.arange(count)[:, None] * degree + np.arange(degree + 1)
    return Eigenstates(energies, mesh.elements, psi[:, index], seconds, len(root))


def _sectors(potential: Potential, mesh: Discretisation, size: int) -> list[csc_array]:
    """Orthonormal bases (size, n) of the even and of the odd vectors; without symmetry, of all of them.

    The two states that an opaque barrier splits are even and odd, but so near to each other that rounding mixes
    them where both are looked for at once.
    """
    middle = mesh.elements[0] + mesh.elements[-1]
    mirrored = np.allclose(mesh.elements + mesh.elements[::-1], middle, rtol=0, atol=1e-12 * np.ptp(mesh.elements))
    if not (potential.symmetric and mirrored):
        return [csc_array(diags_array(np.ones(size)))]
    column = np.arange(size // 2)
    rows, columns = np.concatenate([column, size - 1 - column]), np.concatenate([column, column])
    values = np.full(len(column), np.sqrt(0.5))
    odd = csc_array((np.concatenate([values, -values]), (rows, columns)), shape=(size, len(column)))
    if size % 2:
        rows, columns = np.append(rows, size // 2), np.append(columns, size // 2)
    ones = np.ones(size % 2)
    even = csc_array((np.concatenate([values, values, ones]), (rows, columns)), shape=(size, (size + 1) // 2))
    return [even, odd]


def signs(psi: Array) -> Array:
    """The factors +-1 (K,) that make states psi (K, N) positive where they first exceed 0.3 of their maximum."""
    large = np.abs(psi) > 0.3 * np.abs(psi).max(1, keepdims=True)
    return np.sign(psi[np.arange(len(psi)), large.argmax(1)])


def coarse_energies(potential: Potential, states: int, points: int = 100) -> Array:
    """First guesses of the energies, good to per cents: finite differences on `points` places.

    Where an energy is a trainable parameter it starts here, since it would settle on whichever state is near.
    """
    left, right = potential.walls
    step = (right - left) / (points + 1)
    x = left + step * np.arange(1, points + 1)
    between = left + step * (np.arange(points + 1) + 0.5)
    kinetic = potential.kinetic / np.asarray(potential.masses)[np.searchsorted(potential.breaks, between)] / step**2
    energies, _ = eigh_tridiagonal(
        kinetic[:-1] + kinetic[1:] + potential(x), -kinetic[1:-1], select="i", select_range=(0, states - 1)
    )
    return energies
