"""The viscous Burgers equation on the unit circle, u_t + (u^2 / 2)_x = nu u_xx, pseudo-spectrally."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.operators.parallel import map_portions

_SOLVED_AT_ONCE = 64


@torch.no_grad()
def solve(u0: Tensor, times: Sequence[float], viscosity: float = 0.1, max_step: float | None = None) -> Tensor:
    """The solution at given times, by integrating-factor Runge-Kutta 4 under the 2/3 rule.

    Args:
        u0: initial values (B, N) or (N,), real, at x = i / N; the result has its dtype and device.
        times: increasing, positive.
        viscosity: nu.
        max_step: longest time step; 1.5 / (largest wavenumber * largest |u0|) if None, which the maximum
            principle keeps stable.

    Returns:
        (..., N, len(times)).

    Raises:
        ValueError: initial values that are not real and finite, times that do not increase from zero, a negative
            viscosity, or a step that is not positive.
        ZooError: the solution blew up.
    """
    if u0.ndim not in (1, 2) or not u0.is_floating_point() or not u0.isfinite().all():
        raise ValueError(f"u0 should be real, finite values (B, N) or (N,), not {tuple(u0.shape)} of {u0.dtype}")
    if not all(earlier < later < math.inf for earlier, later in zip([0.0, *times], times, strict=False)):
        raise ValueError(f"times should be positive, finite and increase: {times[:5]}")
    if not 0 <= viscosity < math.inf:
        raise ValueError(f"viscosity should be finite and should not be negative: {viscosity}")
    if max_step is not None and not max_step > 0:
        raise ValueError(f"max_step should be positive: {max_step}")
    portions = u0.reshape(-1, u0.shape[-1]).split(_SOLVED_AT_ONCE)
    solution = map_portions(lambda part: _trajectory(part, times, viscosity, max_step), portions)
    if not solution.isfinite().all():
        raise ZooError(
            f"The Burgers solution blew up before t = {times[-1]:g} on {u0.shape[-1]} points (viscosity "
            f"{viscosity:g}). Use a smaller max_step or a finer grid."
        )
    return solution.reshape(*u0.shape, len(times))


def _trajectory(u0: Tensor, times: Sequence[float], viscosity: float, max_step: float | None) -> Tensor:
    size = u0.shape[-1]
    integer = torch.fft.rfftfreq(size, 1 / size, dtype=u0.dtype, device=u0.device)
    wavenumber = 2 * math.pi * integer
    kept = integer < size / 3
    advection = -0.5j * wavenumber * kept
    if max_step is None:
        max_step = 1.5 / (2 * math.pi * size / 3 * max(float(u0.abs().max()), 1e-12))

    def tendency(spectrum: Tensor) -> Tensor:
        return advection * torch.fft.rfft(torch.fft.irfft(spectrum, n=size).square())

    spectrum = torch.fft.rfft(u0) * kept
    states, now = [], 0.0
    for moment in times:
        steps = math.ceil((moment - now) / max_step - 1e-9)
        dt = (moment - now) / steps
        half = torch.exp(-0.5 * dt * viscosity * wavenumber**2)
        for _ in range(steps):
            k1 = tendency(spectrum)
            k2 = tendency(half * (spectrum + 0.5 * dt * k1))
            halfway = half * spectrum
            k3 = tendency(halfway + 0.5 * dt * k2)
            k4 = tendency(half * (halfway + dt * k3))
            spectrum = half * (halfway + dt / 6 * half * k1 + dt / 3 * (k2 + k3)) + dt / 6 * k4
        now = moment
        states.append(torch.fft.irfft(spectrum, n=size))
    return torch.stack(states, -1)
