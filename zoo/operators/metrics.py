"""Errors between fields: relative norms, the measures of PDEBench, and energy spectra."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from zoo.operators.transforms import corner

_EPSILON = 1e-8  # of norms in denominators


def relative_l2(prediction: Tensor, target: Tensor) -> Tensor:
    """||p - t|| / ||t|| over all axes but the first, per sample (B,).

    Its mean over samples is what the paper of Transform Once calls N-MSE on Navier-Stokes. With orthonormal
    transforms of both fields it is the same number (Parseval).
    """
    error, size = (x.flatten(1).norm(dim=1) for x in (prediction - target, target))
    return error / (size + _EPSILON)


def normalised_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """||p - t||^2 / ||t||^2 over all axes but the first, per sample (B,)."""
    return relative_l2(prediction, target).square()


def relative_h1(prediction: Tensor, target: Tensor, dims: int) -> Tensor:
    """||p - t|| / ||t|| in the Sobolev norm of values and first derivatives, per sample (B,), of periodic fields.

    Derivatives are central differences on the unit interval, square or cube, as in neuraloperator's ``H1Loss``, which
    is the sum of these over samples.

    Args:
        prediction, target: (B, ..., *space), real.
        dims: spatial axes.
    """
    error, size = (_h1_norm(x, dims) for x in (prediction - target, target))
    return error / (size + _EPSILON)


def _h1_norm(x: Tensor, dims: int) -> Tensor:
    squares = x.square()
    for axis in range(-dims, 0):
        slope = (x.roll(-1, axis) - x.roll(1, axis)) * (x.shape[axis] / 2)
        squares = squares + slope.square()
    return squares.flatten(1).mean(1).sqrt()


def energy_spectrum(field: Tensor, dims: int) -> Tensor:
    """Power per shell floor |k| = 0, 1, ... of the last `dims` axes: (..., K), K = half the smallest side.

    The sum over all modes (corners beyond the last shell included) is the field's mean square.
    """
    sizes = field.shape[-dims:]
    points = float(torch.Size(sizes).numel())
    power = (torch.fft.fftn(field, dim=tuple(range(-dims, 0))) / points).abs().square()
    wavenumbers = [torch.fft.fftfreq(size, 1 / size, device=field.device) for size in sizes]
    return _sum_by_shell(power, _shells(wavenumbers), min(sizes) // 2)


def spectral_distance(prediction: Tensor, target: Tensor, dims: int) -> Tensor:
    """Mean of |log10 (E_p(k) / E_t(k))| over shells 1 <= |k| < N / 4, per sample (B,).

    Args:
        prediction, target: (B, ..., *space); other axes are averaged over.
        dims: number of spatial axes.
    """
    below = max(2, min(prediction.shape[-dims:]) // 4)
    spectra = [energy_spectrum(x, dims)[..., 1:below] for x in (prediction, target)]
    floor = 1e-12 * spectra[1].amax(-1, keepdim=True) + 1e-30
    return torch.log10((spectra[0] + floor) / (spectra[1] + floor)).abs().flatten(1).mean(1)


def _shells(wavenumbers: list[Tensor]) -> Tensor:
    """floor |k| of every mode."""
    squared = torch.stack(torch.meshgrid(*[k.double() ** 2 for k in wavenumbers], indexing="ij")).sum(0)
    return squared.sqrt().floor().long()


def _sum_by_shell(power: Tensor, shells: Tensor, count: int) -> Tensor:
    """Sums (..., *modes) over the modes of each shell below `count`: (..., count)."""
    flat, index = power.flatten(-shells.ndim), shells.flatten()
    inside = index < count
    total = torch.zeros(*flat.shape[:-1], count, dtype=power.dtype, device=power.device)
    return total.index_add(-1, index[inside], flat[..., inside])


class PeakSignalToNoise(Metric):
    """10 log10 of the squared range of all targets over the mean squared error, in dB."""

    full_state_update = False
    lowest: Tensor
    highest: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("lowest", default=torch.tensor(float("inf")), dist_reduce_fx="min")
        self.add_state("highest", default=torch.tensor(float("-inf")), dist_reduce_fx="max")
        self.add_state("squares", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Takes in fields of equal shape."""
        self.lowest = torch.minimum(self.lowest, target.min())
        self.highest = torch.maximum(self.highest, target.max())
        self.squares += (prediction - target).square().sum(dtype=torch.float64)
        self.count += target.numel()

    def compute(self) -> Tensor:
        """In dB."""
        return (10 * torch.log10((self.highest - self.lowest) ** 2 * self.count / self.squares)).float()


class PDEBenchErrors(Metric):
    """The measures of PDEBench (Takamoto et al., NeurIPS 2022, arXiv 2210.07182, appendix B).

    ``rmse``; ``nrmse``, relative to the target's root mean square; ``crmse``, of the conserved integral;
    ``max_error``; ``brmse``, on the border; ``frmse_low``, ``frmse_mid``, ``frmse_high``, of the Fourier
    coefficients with k < 4, 4 <= k < 12 and k >= 12 (where the grid has such). Each is taken per time and
    channel over all samples (`by_time_and_channel`) and then averaged over times and channels.
    """

    full_state_update = False
    rms: list[Tensor]
    relative: list[Tensor]
    integral: list[Tensor]
    largest: list[Tensor]
    border: list[Tensor]
    fourier: list[Tensor]

    BANDS = (("low", 0, 4), ("mid", 4, 12), ("high", 12, None))

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in ("rms", "relative", "integral", "largest", "border", "fourier"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Takes in (B, T, C, *space) with one or two spatial axes."""
        space = tuple(range(3, prediction.ndim))
        sizes = prediction.shape[3:]
        points = float(torch.Size(sizes).numel())
        error = prediction - target
        rms = error.square().mean(space).sqrt()
        self.rms.append(rms)
        self.relative.append(rms / (target.square().mean(space).sqrt() + _EPSILON))
        self.integral.append(error.mean(space).square())
        self.largest.append(error.abs().amax(space))
        ends = [
            error.index_select(axis, torch.tensor([0, error.shape[axis] - 1], device=error.device)) for axis in space
        ]
        squares = torch.stack([end.square().sum(space) for end in ends]).sum(0)
        self.border.append((squares / sum(2 * points / size for size in sizes)).sqrt())
        # As published, the shells are summed over non-negative wavenumbers only.
        power = (torch.fft.fftn(error, dim=space) / points).abs().square()
        quadrant = corner(power, [size // 2 for size in sizes])
        shells = _shells([torch.arange(size // 2, device=error.device) for size in sizes])
        self.fourier.append(_sum_by_shell(quadrant, shells, min(sizes) // 2))

    def by_time_and_channel(self) -> dict[str, Tensor]:
        """The measures by name, (T, C) each."""
        fourier = dim_zero_cat(self.fourier).mean(0).sqrt()
        bands = {f"frmse_{name}": fourier[..., first:end] for name, first, end in self.BANDS}
        return {
            "rmse": dim_zero_cat(self.rms).mean(0),
            "nrmse": dim_zero_cat(self.relative).mean(0),
            "crmse": dim_zero_cat(self.integral).mean(0).sqrt(),
            "max_error": dim_zero_cat(self.largest).amax(0),
            "brmse": dim_zero_cat(self.border).mean(0),
            **{name: band.mean(-1) for name, band in bands.items() if band.numel()},
        }

    def compute(self) -> dict[str, Tensor]:
        """The measures by name, averaged over times and channels."""
        return {name: values.mean() for name, values in self.by_time_and_channel().items()}
