"""Transmission through a potential on the open line, by the spectral elements of the reference solver."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_array, diags_array
from scipy.sparse.linalg import splu

from zoo.errors import ConfigError
from zoo.pinn.potentials import Array, Potential
from zoo.pinn.reference import DEGREE, discretise


def leads(potential: Potential) -> tuple[float, float]:
    """V of the half lines to the left and to the right, where a wave comes from and goes to.

    Raises:
        ConfigError: V is not constant towards the ends, so that the walls can't be taken away.
    """
    if not potential.is_open:
        raise ConfigError(
            f"{type(potential).__name__} has no constant V at both ends: there is nothing to scatter from. "
            "Give the potential as layers."
        )
    left, *_, right = potential.edges
    return float(potential(np.nextafter(left, right))), float(potential(np.nextafter(right, left)))


def transmission(potential: Potential, energies: Array) -> Array:
    """Probability that a particle that comes from the left gets through, with the walls taken away.

    Solves -(hbar^2/2) (psi'/m)' + V psi = E psi between the walls' places with the conditions of open ends:
    psi' = i k (2 - psi) on the left, where the incoming wave has amplitude 1, and psi' = i k psi on the right.

    Args:
        potential: constant towards both ends.
        energies: (N,), above V at both ends.

    Returns:
        (N,) in [0, 1].

    Raises:
        ConfigError: an energy at which no wave can come in or go out, or a potential without open ends.
    """
    energies = np.atleast_1d(np.asarray(energies, dtype=np.float64))
    V_left, V_right = leads(potential)
    if energies.size == 0 or not (np.isfinite(energies) & (energies > max(V_left, V_right))).all():
        raise ConfigError(f"Scattering needs finite energies above V at the ends ({max(V_left, V_right):g}).")
    kinetic_left = potential.kinetic / potential.masses[0]
    kinetic_right = potential.kinetic / potential.masses[-1]
    shortest = np.sqrt((energies.max() - potential.minimum) * max(potential.masses) / potential.kinetic)
    parts = max(6, int(np.ceil(np.ptp(potential.edges) * shortest / 6)))  # a wave length of 6 per element of degree 16
    mesh = discretise(potential, parts, DEGREE)

    mass = diags_array(mesh.mass).tocsc()
    size = len(mesh.mass)
    result = []
    for energy in energies:
        flow_left = np.sqrt((energy - V_left) * kinetic_left)
        flow_right = np.sqrt((energy - V_right) * kinetic_right)
        ends = csc_array(([-1j * flow_left, -1j * flow_right], ([0, size - 1], [0, size - 1])), shape=(size, size))
        source = np.zeros(size, dtype=np.complex128)
        source[0] = -2j * flow_left
        psi = splu((mesh.stiffness - energy * mass + ends).tocsc()).solve(source)
        result.append(abs(psi[-1]) ** 2 * flow_right / flow_left)
    return np.array(result)
