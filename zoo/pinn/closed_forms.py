"""Energies and transmissions known in closed form, or as roots of a transcendental equation."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import ai_zeros

from zoo.errors import ConfigError
from zoo.pinn.potentials import Array, Layered


def infinite_well_psi(L: float, states: int, x: Array) -> Array:
    """psi_n = sqrt(2/L) sin(n pi x / L), n = 1 ... states, at positions x (N,): (states, N)."""
    n = np.arange(1, states + 1)[:, None]
    return math.sqrt(2.0 / L) * np.sin(n * np.pi * x / L)


def finite_well_energies(V0: float, L: float, states: int, kinetic: float = 1.0) -> Array:
    """Bound states of the finite square well on the infinite line: k tan(k a) = kappa and -k cot(k a) = kappa.

    Here a = L/2, kinetic k^2 = E and kinetic kappa^2 = V0 - E. With z = k a and the well's strength
    p = a sqrt(V0 / kinetic), state n has the only root of z = p cos(z - n pi/2) between n pi/2 and
    (n + 1) pi/2.

    Returns:
        (states,) energies above the bottom of the well.

    Raises:
        ConfigError: the well binds fewer states.
    """
    a = L / 2
    p = a * math.sqrt(V0 / kinetic)
    bound = bound_states(V0, L, kinetic)
    if states > bound:
        raise ConfigError(f"A well of depth V0={V0:g} and width L={L:g} binds {bound} states; {states} were asked for.")
    low = np.arange(states) * np.pi / 2
    roots = [brentq(lambda z, b=b: z - p * math.cos(z - b), b, min(b + np.pi / 2, p), xtol=1e-15) for b in low]
    return kinetic * (np.array(roots) / a) ** 2


def bound_states(V0: float, L: float, kinetic: float = 1.0) -> int:
    """How many states the finite square well binds on the infinite line."""
    return math.ceil(L * math.sqrt(V0 / kinetic) / math.pi)


def harmonic_energies(omega: float, states: int) -> Array:
    """(n + 1/2) omega for the oscillator on the infinite line, `omega` standing for hbar omega."""
    return omega * (np.arange(states) + 0.5)


def triangular_well_energies(F: float, states: int, kinetic: float = 1.0) -> Array:
    """-a_n (F^2 hbar^2/2m)^(1/3) with the zeros a_n of Airy's function, for V = F x on the half line."""
    return -ai_zeros(states)[0] * (F**2 * kinetic) ** (1.0 / 3.0)


def layered_energies(potential: Layered, states: int) -> Array:
    """The lowest energies of a potential that is constant in layers, between its walls.

    The solutions that start at the left and at the right wall are sine, straight line or hyperbolic sine in each
    layer. Each zero they have, and their slopes where they meet, say how many states lie below an energy, and
    counting encloses every state, however near to its neighbour.

    Returns:
        (states,), to the last bits of float64 as long as no layer is so opaque that its exp(-kappa width) is
        beyond float64.
    """
    widths, heights = np.diff(potential.edges), np.asarray(potential.heights)
    kinetics = potential.kinetic / np.asarray(potential.masses)
    top = max(potential.heights) + float(kinetics.max()) * (np.pi * states / widths.sum()) ** 2
    energies = []
    for n in range(states):
        low, high = potential.minimum, top
        while low < (middle := 0.5 * (low + high)) < high:
            if _states_below(middle, widths, heights, kinetics) > n:
                high = middle
            else:
                low = middle
        energies.append(high)
    return np.array(energies)


def _states_below(energy: float, widths: Array, heights: Array, kinetics: Array) -> int:
    # The two solutions meet in the middle of the most opaque layer: either would forget, on its way through the
    # whole of it, what lies behind.
    meeting = int(np.argmax(widths * np.sqrt(np.maximum(heights - energy, 0) / kinetics)))
    layers = list(zip(widths, heights, kinetics, strict=True))
    half = (widths[meeting] / 2, heights[meeting], kinetics[meeting])
    from_left, psi_left, flux_left = _shoot(energy, [*layers[:meeting], half])
    from_right, psi_right, flux_right = _shoot(energy, [*layers[:meeting:-1], half])
    # flux_left / psi_left falls with energy, -flux_right / psi_right rises: they cross at each state.
    crossed = (flux_left * psi_right + flux_right * psi_left) * (psi_left * psi_right) < 0
    return from_left + from_right + crossed


def _shoot(energy: float, layers: list[tuple[float, float, float]]) -> tuple[int, float, float]:
    """Zeros, last psi and last flux of the solution with psi = 0 at the beginning of the first layer.

    The flux kinetic psi' / mass is continuous across layers.
    """
    psi, flux, count = 0.0, 1.0, 0
    for width, height, kinetic in layers:
        slope, square = flux / kinetic, (energy - height) / kinetic
        k = math.sqrt(abs(square))
        if square > 0:
            phase = math.atan2(k * psi, slope)
            count += math.floor((phase + k * width) / math.pi) - math.floor(phase / math.pi)
            cosine, sine = math.cos(k * width), math.sin(k * width)
            psi, slope = psi * cosine + slope * sine / k, slope * cosine - k * psi * sine
        else:
            # cosh and sinh divided by exp(k width), which would overflow
            decay = math.exp(-2 * k * width)
            cosh, sinh = 0.5 * (1 + decay), -0.5 * math.expm1(-2 * k * width)
            before = psi
            psi, slope = psi * cosh + slope * (sinh / k if k else width), slope * cosh + k * psi * sinh
            count += before * psi < 0
            if psi == 0.0 == slope:  # all of it decays: a state of what lies before, to the last bit
                psi, slope = before, k * before
        scale = math.hypot(psi, slope * width)
        psi, flux = psi / scale, kinetic * slope / scale
    return count, psi, flux


def barrier_transmission(energy: Array, V0: float, w: float, kinetic: float = 1.0) -> Array:
    """Transmission through a rectangular barrier on the open line, at energies E > 0.

    1/T = 1 + V0^2 sinh^2(kappa w) / (4 E (V0 - E)), with the sine of k = i kappa above the barrier.

    Raises:
        ConfigError: an energy that is not positive.
    """
    energy = np.asarray(energy, dtype=np.float64)
    if not (energy > 0).all():
        raise ConfigError("A barrier on the open line is met by waves of positive energy only.")
    z = np.sqrt((V0 - energy) / kinetic + 0j) * w
    # sinh(z)/z is smooth through E = V0, where the other factors vanish and diverge.
    ratio = np.where(np.abs(z) < 1e-8, 1.0, np.sinh(z) / np.where(z == 0, 1.0, z))
    return 1.0 / (1.0 + V0**2 * w**2 * (ratio**2).real / (4.0 * energy * kinetic))
