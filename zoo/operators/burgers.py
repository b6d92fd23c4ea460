"""The viscous Burgers equation on the unit circle, u_t + (u^2 / 2)_x = nu u_xx, pseudo-spectrally."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.operators.parallel import map_portions

_SOLVED_AT_ONCE = 64


@torch.no_grad()
def solve(u0: Tensor, times: list[float], viscosity: float = 0.1, max_step: float | None = None) -> Tensor:
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
        ValueError: times that do not increase from zero.
    """
    if any(later <= earlier for earlier, later in zip([0.0, *times], times, strict=False)):
        raise ValueError(f"times should be positive and increase: {times[:5]}")
    portions = u0.reshape(-1, u0.shape[-1]).split(_SOLVED_AT_ONCE)
    return map_portions(lambda part: _trajectory(part, times, viscosity, max_step), portions).reshape(
        *u0.shape, len(times)
    )


def _trajectory(u0: Tensor, times: list[float], viscosity: float, max_step: float | None) -> Tensor:
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
