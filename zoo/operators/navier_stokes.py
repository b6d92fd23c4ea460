"""Batched pseudo-spectral solver of the 2-D Navier-Stokes equations in vorticity form on the unit torus.

    w_t + u . grad w = nu lap w + f,   u = (psi_y, -psi_x),   -lap psi = w

with zero mean, x = i / N along axis -2 and y = j / N along axis -1. Scheme ``"ifrk4"`` integrates viscosity
exactly and the rest with fourth-order Runge-Kutta, all modes truncated to |k| < N / 3 per axis, which removes
aliasing. Scheme ``"fno"`` is the one that the data of the Fourier neural operator (Li et al., ICLR 2021,
arXiv 2010.08895) were made with, for comparison with those.

Two flows are carried as the real and imaginary part of one complex field: every linear operator here maps real
fields to real fields, so it acts on both at once, and complex FFTs of half as many fields are faster than real
ones. The batch is dealt in portions that fit a processor's cache.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.operators.parallel import map_portions

Forcing = Literal["fno", "kolmogorov", "none"]
Scheme = Literal["ifrk4", "fno"]

# Runge-Kutta 4 is stable up to 2.8 on the imaginary axis; the advective frequency is estimated anew every
# few steps only, so some of that is kept back.
_COURANT = 2.0
_STEPS_BETWEEN_ESTIMATES = 4
_FNO_STEP = 1e-4
_CACHED_POINTS = 16384  # complex points per array: 128 kB in single precision


def grid(size: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Coordinates x (size, 1) and y (1, size) of the points."""
    points = torch.arange(size, dtype=dtype) / size
    return points.unsqueeze(1), points.unsqueeze(0)


def forcing_field(name: Forcing, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A vorticity source f, (size, size).

    ``"fno"``: 0.1 (sin 2 pi (x + y) + cos 2 pi (x + y)). ``"kolmogorov"``: the curl of the body force
    (sin 8 pi y, 0), which is -8 pi cos 8 pi y. ``"none"``: zero.

    Raises:
        ValueError: another name.
    """
    x, y = grid(size, dtype)
    if name == "fno":
        phase = 2 * math.pi * (x + y)
        return 0.1 * (phase.sin() + phase.cos())
    if name == "kolmogorov":
        return -8 * math.pi * torch.cos(8 * math.pi * y).expand(size, size).contiguous()
    if name == "none":
        return torch.zeros(size, size, dtype=dtype)
    raise ValueError(f"there is no forcing '{name}': use {', '.join(get_args(Forcing))}")


@torch.no_grad()
def solve(
    w0: Tensor,
    times: Sequence[float] | Tensor,
    viscosity: float = 1e-3,
    forcing: Forcing | Tensor = "fno",
    max_step: float | None = None,
    scheme: Scheme = "ifrk4",
) -> Tensor:
    """The vorticity at given times.

    Args:
        w0: initial vorticity (B, N, N) or (N, N), real; the result has its dtype and device. Its mean is removed.
        times: increasing, not negative; 0 gives w0 back (without the modes that the scheme does not carry).
        viscosity: nu, not negative.
        forcing: a name of `forcing_field`, or a field (N, N).
        max_step: longest time step. With ``"ifrk4"`` (default 0.1) the step is shortened where the flow is too
            fast for it; ``"fno"`` (default 1e-4) takes it as it is.
        scheme: see the module.

    Returns:
        (B, N, N, len(times)), or (N, N, len(times)) for a single field: the layout of the public data files.

    Raises:
        ValueError: a wrong shape, fields that are not finite, times that do not increase, a negative viscosity, a step
            that is not positive, or an unknown scheme or forcing.
        ZooError: the solution blew up.
    """
    if w0.ndim not in (2, 3) or w0.shape[-1] != w0.shape[-2] or not w0.is_floating_point():
        raise ValueError(f"w0 should be real fields (B, N, N) or (N, N), not {tuple(w0.shape)} of {w0.dtype}")
    moments = [float(t) for t in times]
    if not all(earlier < later < math.inf for earlier, later in zip([-1e-300, *moments], moments, strict=False)):
        raise ValueError(f"times should increase, be finite and not be negative: {moments[:5]}")
    if not 0 <= viscosity < math.inf:
        raise ValueError(f"viscosity should be finite and should not be negative: {viscosity}")
    if max_step is not None and not max_step > 0:
        raise ValueError(f"max_step should be positive: {max_step}")
    if scheme not in get_args(Scheme):
        raise ValueError(f"there is no scheme '{scheme}': use {' or '.join(get_args(Scheme))}")
    if not w0.isfinite().all():
        raise ValueError("w0 holds NaN or infinity")
    size = w0.shape[-1]
    source = forcing_field(forcing, size, w0.dtype) if isinstance(forcing, str) else forcing
    if source.shape != (size, size):
        raise ValueError(f"the forcing should be a field ({size}, {size}), not {tuple(source.shape)}")
    make = _IntegratingFactorRK4 if scheme == "ifrk4" else _FNOScheme
    stepper = make(size, viscosity, source.to(w0), max_step)

    pairs = _pack(w0.reshape(-1, size, size))
    portion = max(1, _CACHED_POINTS // size**2) if pairs.device.type == "cpu" else len(pairs)
    solved = map_portions(lambda part: _trajectory(stepper, part, moments), pairs.split(portion))
    solution = _unpack(solved, w0[..., 0, 0].numel())
    if not solution.isfinite().all():
        raise ZooError(
            f"The Navier-Stokes solution blew up before t = {moments[-1]:g} on {size} x {size} points "
            f"(viscosity {viscosity:g}). Use a smaller max_step or a finer grid."
        )
    return solution.reshape(*w0.shape, len(moments))


def _pack(fields: Tensor) -> Tensor:
    """Real (B, N, N) -> complex (ceil(B / 2), N, N)."""
    if len(fields) % 2:
        fields = torch.cat((fields, torch.zeros_like(fields[:1])))
    return torch.complex(fields[::2], fields[1::2])


def _unpack(pairs: Tensor, count: int) -> Tensor:
    """Complex (P, ...) -> the first `count` of real (2 P, ...)."""
    return torch.view_as_real(pairs).movedim(-1, 1).flatten(0, 1)[:count]


def _trajectory(stepper: _Scheme, pairs: Tensor, moments: Sequence[float]) -> Tensor:
    """The fields (P, N, N) at those moments, (P, N, N, T)."""
    spectrum = stepper.start(torch.fft.fft2(pairs))
    states, now = [], 0.0
    for moment in moments:
        spectrum = stepper.advance(spectrum, moment - now)
        now = moment
        states.append(torch.fft.ifft2(spectrum))
    return torch.stack(states, -1)


class _Scheme(ABC):
    """Spectra of pairs of flows (P, N, N), stepped in time.

    Args:
        size: N.
        viscosity: nu.
        source: f, (N, N).
    """

    def __init__(self, size: int, viscosity: float, source: Tensor) -> None:
        self.size = size
        integer = torch.fft.fftfreq(size, 1 / size, dtype=source.dtype, device=source.device)
        self.largest = torch.maximum(integer.abs().unsqueeze(1), integer.abs())
        # An odd derivative of the Nyquist mode is no real field: it is left out.
        odd = torch.where(integer.abs() == size / 2, 0.0, 2 * math.pi * integer)
        self.kx, self.ky = odd.unsqueeze(1), odd.unsqueeze(0)
        squared = (2 * math.pi) ** 2 * (integer.unsqueeze(1) ** 2 + integer**2)
        self.damping = viscosity * squared
        self.inverse_laplacian = 1 / squared
        self.inverse_laplacian[0, 0] = 0.0
        # Factors from the vorticity's spectrum to those of u = psi_y and v = -psi_x.
        self.velocity = (
            1j * torch.stack(torch.broadcast_tensors(self.ky, -self.kx)).unsqueeze(1) * self.inverse_laplacian
        )
        self.source = (1 + 1j) * torch.fft.fft2(source)
        self.source[0, 0] = 0.0

    def start(self, spectrum: Tensor) -> Tensor:
        """The modes that are carried, without the mean."""
        spectrum = spectrum.clone()
        spectrum[..., 0, 0] = 0.0
        return spectrum

    @abstractmethod
    def advance(self, spectrum: Tensor, duration: float) -> Tensor:
        """The spectrum `duration` later."""


class _IntegratingFactorRK4(_Scheme):
    """Viscosity exactly, advection and forcing by classical Runge-Kutta, 2/3 rule."""

    def __init__(self, size: int, viscosity: float, source: Tensor, max_step: float | None) -> None:
        super().__init__(size, viscosity, source)
        self.max_step = 0.1 if max_step is None else max_step
        self.kept = self.largest < size / 3
        self.source = self.source * self.kept
        # -(u . grad w) = (kx^2 - ky^2) F[uv] - kx ky F[u^2 - v^2] by incompressibility: 4 fields to transform, not 5.
        self.from_uv = (self.kx**2 - self.ky**2) * self.kept
        self.from_squares = -self.kx * self.ky * self.kept
        self.largest_wavenumber = 2 * math.pi * size / 3

    def start(self, spectrum: Tensor) -> Tensor:
        """The modes below N / 3, without the mean."""
        return super().start(spectrum * self.kept)

    def advance(self, spectrum: Tensor, duration: float) -> Tensor:
        """The spectrum `duration` later, in equal steps no longer than is stable."""
        left, since_estimate = duration, _STEPS_BETWEEN_ESTIMATES
        count, step, half = 0, 0.0, spectrum
        while left > 1e-9 * max(duration, 1.0):
            if since_estimate == _STEPS_BETWEEN_ESTIMATES:
                since_estimate = 0
                needed = math.ceil(left / self._stable_step(spectrum) - 1e-9)
                if needed != count:
                    count, step = needed, left / needed
                    half = torch.exp(-0.5 * step * self.damping)
            spectrum = self._step(spectrum, step, half)
            left -= step
            count -= 1
            since_estimate += 1
        return spectrum

    def _stable_step(self, spectrum: Tensor) -> float:
        u, v = torch.view_as_real(torch.fft.ifft2(self.velocity * spectrum)).abs()
        speed = float((u + v).max())
        if not math.isfinite(speed):
            return self.max_step  # the caller sees the blow-up
        return min(self.max_step, _COURANT / (self.largest_wavenumber * speed + 1e-30))

    def _tendency(self, spectrum: Tensor) -> Tensor:
        """Advection and forcing."""
        u, v = torch.view_as_real(torch.fft.ifft2(self.velocity * spectrum))
        products = torch.stack((u * v, (u - v) * (u + v)))
        of_uv, of_squares = torch.fft.fft2(torch.view_as_complex(products))
        return of_uv.mul_(self.from_uv).add_(of_squares.mul_(self.from_squares)).add_(self.source)

    def _step(self, w: Tensor, dt: float, half: Tensor) -> Tensor:
        """One step; `half` is the viscous decay over half of it."""
        k1 = self._tendency(w)
        k2 = self._tendency(torch.add(w, k1, alpha=0.5 * dt).mul_(half))
        halfway = half * w
        k3 = self._tendency(torch.add(halfway, k2, alpha=0.5 * dt))
        k4 = self._tendency(torch.add(halfway, k3, alpha=dt).mul_(half))
        # w + dt/6 k1 decays over the whole step, dt/3 (k2 + k3) over half of it.
        middle = halfway.add_(k1.mul_(half), alpha=dt / 6).add_(k2.add_(k3), alpha=dt / 3)
        return middle.mul_(half).add_(k4, alpha=dt / 6)


class _FNOScheme(_Scheme):
    """Explicit Euler for advection and forcing, Crank-Nicolson for viscosity; products masked, the state not."""

    def __init__(self, size: int, viscosity: float, source: Tensor, max_step: float | None) -> None:
        super().__init__(size, viscosity, source)
        self.step = _FNO_STEP if max_step is None else max_step
        self.kept = self.largest <= 2 / 3 * (size // 2)
        gradient = 1j * torch.stack(torch.broadcast_tensors(self.kx, self.ky)).unsqueeze(1)
        self.factors = torch.cat((self.velocity, gradient))

    def advance(self, spectrum: Tensor, duration: float) -> Tensor:
        """The spectrum after floor(duration / step) steps."""
        decay, growth = 1 - 0.5 * self.step * self.damping, 1 + 0.5 * self.step * self.damping
        for _ in range(math.floor(duration / self.step + 1e-6)):
            u, v, w_x, w_y = torch.view_as_real(torch.fft.ifft2(self.factors * spectrum))
            advection = torch.fft.fft2(torch.view_as_complex(u * w_x + v * w_y)) * self.kept
            spectrum = (decay * spectrum + self.step * (self.source - advection)) / growth
        return spectrum


@dataclass(frozen=True)
class Budget:
    """Quadratic quantities of a flow, (B,) each; <.> is the mean over the torus.

    Without forcing and viscosity energy and enstrophy are constant; in general dE/dt = -2 nu Z + <f psi> and
    dZ/dt = -2 nu P + <f w>.

    Attributes:
        energy: E = <w psi> / 2.
        enstrophy: Z = <w^2> / 2.
        palinstrophy: P = <|grad w|^2> / 2.
        energy_input: <f psi>.
        enstrophy_input: <f w>.
    """

    energy: Tensor
    enstrophy: Tensor
    palinstrophy: Tensor
    energy_input: Tensor
    enstrophy_input: Tensor


def budget(w: Tensor, forcing: Forcing | Tensor = "fno") -> Budget:
    """Energy, enstrophy and their sources and sinks of vorticity fields (B, N, N)."""
    size = w.shape[-1]
    source = forcing_field(forcing, size, w.dtype) if isinstance(forcing, str) else forcing
    scheme = _FNOScheme(size, 0.0, source.to(w), None)
    spectrum = torch.fft.fft2(w)
    _, _, w_x, w_y = torch.fft.ifft2(scheme.factors * spectrum).real
    psi = torch.fft.ifft2(scheme.inverse_laplacian * spectrum).real

    def mean(field: Tensor) -> Tensor:
        return field.mean((-2, -1))

    return Budget(
        energy=mean(w * psi) / 2,
        enstrophy=mean(w * w) / 2,
        palinstrophy=mean(w_x**2 + w_y**2) / 2,
        energy_input=mean(source * psi),
        enstrophy_input=mean(source * w),
    )
