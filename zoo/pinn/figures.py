"""Figures of quantum wells."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from zoo.pinn.closed_forms import barrier_transmission, bound_states, finite_well_energies
from zoo.pinn.potentials import Array, Barrier, Potential
from zoo.pinn.reference import Eigenstates
from zoo.pinn.scattering import leads
from zoo.pinn.scattering import transmission as solve_transmission
from zoo.pinn.units import Units

_LABELS: dict[Units, tuple[str, str]] = {
    "natural": ("x", "energy"),
    "nm-eV": ("x / nm", "energy / eV"),
    "SI": ("x / m", "energy / J"),
}


def _color(k: int) -> str:
    return f"C{k % 10}"


def _draw_potential(axes: Axes, potential: Potential, top: float, bottom: float) -> None:
    """V as a filled line with its jumps upright, cut at `top`, and the hard walls hatched."""
    left, right = potential.walls
    xs, Vs = [left], [top]
    for a, b in pairwise(potential.edges):
        x = np.linspace(a, b, 301)
        xs += x.tolist()
        Vs += potential.inside(a, b, x).tolist()
    x, V = np.array([*xs, right]), np.minimum([*Vs, top], top)
    axes.fill_between(x, V, bottom, color="0.88", lw=0)
    axes.plot(x, V, color="k", lw=1.6)
    margin = 0.04 * (right - left)
    for a, b in ((left - margin, left), (right, right + margin)):
        axes.axvspan(a, b, facecolor="0.95", edgecolor="0.6", hatch="////", lw=0)
    axes.set(xlim=(left - margin, right + margin), ylim=(bottom, top))


def states(potential: Potential, x: Array, psi: Array, energies: Array, units: Units = "natural") -> Figure:
    """Wave functions on their levels in the potential.

    Args:
        potential: V.
        x: (P,) positions.
        psi: (K, P) states.
        energies: (K,).
        units: for the labels.
    """
    low = potential.minimum
    span = energies.max() - low
    gaps = np.diff(np.sort(energies))
    wide = gaps[gaps > 0.12 * span]
    height = 0.42 * (wide.min() if wide.size else span) if len(energies) > 1 else 0.45 * span
    top, bottom = energies.max() + 1.6 * height + 0.05 * span, low - 0.06 * span
    rim = float(min(potential.inside(*potential.walls, np.array(potential.walls))))
    if top < rim < 2.2 * top - low:  # show how deep the well is
        top = rim + 0.05 * (rim - low)
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    axes = figure.subplots()
    _draw_potential(axes, potential, top, bottom)
    scale = height / np.abs(psi).max()
    label_at = _spread(energies, 0.035 * (top - bottom))
    for k, (state, energy) in enumerate(zip(psi, energies, strict=True)):
        axes.axhline(energy, color=_color(k), lw=0.7, ls=(0, (5, 4)))
        axes.fill_between(x, energy, energy + scale * state, color=_color(k), alpha=0.22, lw=0)
        axes.plot(x, energy + scale * state, color=_color(k), lw=1.6)
        axes.annotate(
            f"$E_{{{k}}}$ = {energy:.6g}",
            (1.0, energy),
            (1.015, label_at[k]),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            color=_color(k),
            va="center",
            fontsize=9,
        )
    axes.set(xlabel=_LABELS[units][0], ylabel=_LABELS[units][1])
    axes.set(title=r"potential, levels and wave functions $\psi_k$ (drawn at $E_k$)")
    return figure


def _spread(values: Array, distance: float) -> Array:
    """Places for labels in ascending order, none nearer to its neighbour than `distance`."""
    places = np.asarray(values, dtype=np.float64).copy()
    for _ in range(100):
        close = np.diff(places) < distance - 1e-12
        if not close.any():
            break
        push = (distance - np.diff(places)).clip(0) / 2
        places[:-1] -= push
        places[1:] += push
    return places


def psi_error(x: Array, psi: Array, reference: Eigenstates, units: Units = "natural") -> Figure:
    """Network and direct solver on top of each other, and the difference below.

    Args:
        x: (P,) positions.
        psi: (K, P) states.
        reference: the direct solver's.
        units: for the labels.
    """
    exact = reference.psi(x)
    exact *= np.sign((psi * exact).sum(1, keepdims=True))
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for k, (found, target) in enumerate(zip(psi, exact, strict=True)):
        above.plot(x, found, color=_color(k), lw=1.8, label=rf"$\psi_{{{k}}}$")
        above.plot(x, target, color="k", lw=0.9, ls=(0, (2, 3)), label="direct solver" if k == len(psi) - 1 else None)
        below.semilogy(x, np.abs(found - target) + 1e-18, color=_color(k), lw=1)
    above.legend(ncols=min(len(psi) + 1, 6), fontsize=8, loc="upper right")
    above.margins(y=0.22)
    above.set(ylabel=r"$\psi$", title="network and direct solver")
    _bound_below(below, np.abs(psi - exact))
    below.set(xlabel=_LABELS[units][0], ylabel=r"$|\psi - \psi_{\rm direct}|$")
    return figure


def residual(x: Array, values: Array, potential: Potential, units: Units = "natural") -> Figure:
    """How well the equation holds at each point.

    Args:
        x: (Q,) quadrature nodes, in ascending order.
        values: (K, Q), abs(H psi - E psi) / max abs(psi).
        potential: its breaks are marked.
        units: for the labels.
    """
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for k, state in enumerate(values):
        axes.semilogy(x, state + 1e-18, color=_color(k), lw=1, label=f"state {k}")
    for place in potential.breaks:
        axes.axvline(place, color="0.7", lw=0.8, zorder=0)
    _bound_below(axes, values)
    axes.legend(fontsize=8, ncols=min(len(values), 6), loc="upper right")
    axes.margins(y=0.15)
    axes.set(
        xlabel=_LABELS[units][0], ylabel=r"$|H\psi_k - E_k\psi_k|\,/\,\max|\psi_k|$", title="residual of the equation"
    )
    return figure


def _bound_below(axes: Axes, values: Array) -> None:
    """Keeps the zeros of an error from stretching a logarithmic axis."""
    largest = float(values.max())
    if largest > 0:
        axes.set_ylim(max(float(np.quantile(values, 0.02)) / 3, largest * 1e-9), largest * 5)


def convergence(trace: Array, exact: Array, iterations: int) -> Figure:
    """Energies over the training.

    Args:
        trace: (T, 1 + K), per training step: 1 in the second phase, and the energies.
        exact: (K,) the direct solver's energies.
        iterations: of the optimiser per training step.
    """
    done = iterations * np.arange(1, len(trace) + 1)
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    for k, energy in enumerate(exact):
        above.plot(done, trace[:, 1 + k], color=_color(k), lw=1.4)
        above.axhline(energy, color="k", lw=0.7, ls=(0, (2, 3)))
        error = np.abs(trace[:, 1 + k] - energy) / abs(energy)
        below.semilogy(done, error + 1e-17, color=_color(k), lw=1.2, label=f"$E_{{{k}}}$")
    span = np.ptp(exact) if len(exact) > 1 else exact[0]
    above.set_ylim(exact.min() - 0.4 * abs(span), exact.max() + 0.6 * abs(span))
    second = trace[:, 0] > 0
    if second.any() and not second.all():
        change = done[second.argmax()] - iterations
        for axes in (above, below):
            axes.axvline(change, color="0.5", lw=1)
        for name, side in (("Adam ", "right"), (" L-BFGS", "left")):
            above.text(change, 0.94, name, ha=side, va="top", transform=above.get_xaxis_transform(), color="0.35")
    above.set(ylabel="energy", title="energies during training; dotted: direct solver")
    below.set(xlabel="iterations", ylabel=r"$|E - E_{\rm direct}| / |E_{\rm direct}|$")
    below.legend(fontsize=8, ncols=min(len(exact), 6))
    below.grid(alpha=0.3)
    return figure


def transmission(potential: Potential, units: Units = "natural", points: int = 600) -> Figure:
    """T(E) on the open line, with the heights of the potential marked; for a barrier the closed form as well.

    Args:
        potential: constant at both ends.
        units: for the labels.
        points: energies.
    """
    base = max(leads(potential))
    x = np.linspace(*potential.walls, 2001)[1:-1]
    top = float(potential(x).max())
    # High enough to show the resonances above the barrier, where its width is a multiple of half the wave length.
    width = potential.breaks[-1] - potential.breaks[0]
    limit = top + max(0.8 * (top - potential.minimum), 3.0 * potential.kinetic * (np.pi / width) ** 2)
    energies = base + (limit - base) * np.linspace(0, 1, points + 1)[1:] ** 1.5
    T = solve_transmission(potential, energies)
    tunnels = top > base
    figure = Figure(figsize=(7.2, 4.6 if tunnels else 3.2), layout="constrained")
    panels = figure.subplots(1 + tunnels, 1, sharex=True, squeeze=False)[:, 0]
    for axes in panels:
        axes.plot(energies, T, color="C0", lw=1.8, label="spectral elements")
        if isinstance(potential, Barrier):
            exact = barrier_transmission(energies, potential.V0, potential.w, potential.kinetic)
            axes.plot(energies, exact, color="k", lw=1, ls=(0, (2, 3)), label="closed form")
        axes.axhline(1, color="0.7", lw=0.7, zorder=0)
        if tunnels:
            axes.axvspan(base, top, color="0.93", lw=0, zorder=0)
            axes.axvline(top, color="0.5", lw=1)
        axes.set(ylabel="T(E)", xlim=(base, limit))
    panels[0].set(ylim=(0, 1.05), title="transmission on the open line" + ("; grey: tunnelling" if tunnels else ""))
    if tunnels:
        panels[0].text(top, 0.06, " $V_{\\rm max}$", transform=panels[0].get_xaxis_transform(), color="0.35")
        panels[1].set_yscale("log")
    if isinstance(potential, Barrier):
        panels[0].legend(fontsize=8, loc="lower right")
    panels[-1].set_xlabel(_LABELS[units][1])
    return figure


def well_levels(strengths: Array, levels: Array) -> Figure:
    """Bound levels of the finite square well over its strength, against the transcendental equation.

    Args:
        strengths: (N,) g = V0 L^2 / (hbar^2/2m), ascending.
        levels: (N, K) energies in units of hbar^2/2m / L^2 in a wide box.
    """
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    for k in range(levels.shape[1]):
        bound = np.array([bound_states(g, 1.0) > k for g in strengths])
        exact = [finite_well_energies(g, 1.0, k + 1)[k] / g for g in strengths[bound]]
        axes.plot(strengths, levels[:, k] / strengths, color=_color(k), lw=3, alpha=0.45, label=f"$E_{{{k}}}$, network")
        axes.plot(strengths[bound], exact, color="k", lw=0.9, label="open line, exact" if k == 0 else None)
    axes.axhline(1, color="0.5", lw=0.8)
    axes.set(xscale="log", xlabel=r"strength $V_0 L^2 / (\hbar^2/2m)$", ylabel="$E / V_0$", ylim=(0, 1.25))
    axes.set(title="levels of the finite square well; above $V_0$: states of the box")
    axes.legend(fontsize=8, loc="lower left")
    return figure


def well_errors(strength: Array, box: Array, energies: Array, exact: Array, bound: NDArray[np.bool_]) -> Figure:
    """Relative energy errors of bound states over the range of wells.

    Args:
        strength, box: (B,) of the wells.
        energies, exact: (B, K).
        bound: (B, K) which of them are bound.
    """
    error = np.abs(energies / exact - 1) + 1e-12
    count = energies.shape[1]
    figure = Figure(figsize=(3.2 * count, 3.4), layout="constrained")
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    norm = LogNorm(float(error[bound].min()), float(error[bound].max()))
    for k, axes in enumerate(panels):
        free = ~bound[:, k]
        axes.scatter(strength[free], box[free], color="0.88", s=12)
        dots = axes.scatter(
            strength[~free], box[~free], c=error[~free, k], norm=norm, cmap="viridis", s=22, edgecolors="none"
        )
        largest = error[~free, k].max() if (~free).any() else 0.0
        axes.set(xscale="log", xlabel="strength $V_0 L^2$", title=f"state {k}: largest {largest:.0e}")
    panels[0].set_ylabel("box $D / L$")
    figure.colorbar(dots, ax=panels, label="relative energy error")
    figure.suptitle("errors of bound states of wells not trained on (grey: not bound)", fontsize=10)
    return figure
