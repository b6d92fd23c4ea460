"""What samples from a posterior say: mean, spread, and whether the spread can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.mri.fourier import fft2


@dataclass(frozen=True)
class Posterior:
    """Samples of reconstructed images.

    Attributes:
        samples: (B, K, H, W) complex, in the units of the data.
        residual: (B, K) mean squared misfit of each over the noise's variance, 1 for the truth on average.
        noise: (B,) standard deviation of real and imaginary part of the measurement, estimated or given.
    """

    samples: Tensor
    residual: Tensor
    noise: Tensor

    @property
    def mean(self) -> Tensor:
        """(B, H, W) complex mean: the best image by squared error."""
        return self.samples.mean(1)

    @property
    def image(self) -> Tensor:
        """(B, H, W) magnitude of the mean."""
        return self.mean.abs()

    @property
    def mean_magnitude(self) -> Tensor:
        """(B, H, W) mean of the magnitudes; where there is only noise it is too large."""
        return self.samples.abs().mean(1)

    @property
    def std(self) -> Tensor:
        """(B, H, W) standard deviation of the magnitudes, unbiased; 0 for a single sample."""
        return _std(self.samples.abs())

    @property
    def complex_std(self) -> Tensor:
        """(B, H, W) root of the mean squared distance of the complex values from their mean, unbiased."""
        return torch.hypot(_std(self.samples.real), _std(self.samples.imag))


def _std(x: Tensor) -> Tensor:
    return x.std(1) if x.shape[1] > 1 else torch.zeros_like(x[:, 0])


def dispersion(samples: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean variance of the samples' k-space where it was measured and where it was not, each (B,).

    Args:
        samples: (B, K, H, W) complex, K of 2 or more.
        mask: boolean, broadcastable to (B, H, W).
    """
    kspace = fft2(samples)
    variance = kspace.real.var(1) + kspace.imag.var(1)
    measured = mask.expand_as(variance).to(variance.dtype)
    axes = (-2, -1)

    def root_mean(weight: Tensor) -> Tensor:
        return ((variance * weight).sum(axes) / weight.sum(axes).clamp_min(1)).sqrt()

    return root_mean(measured), root_mean(1 - measured)


def coverage(image: Tensor, std: Tensor, target: Tensor, width: float = 2.0) -> Tensor:
    """Fraction of pixels whose error is within `width` standard deviations, (B,); 0.954 if it is Gaussian."""
    return ((image - target).abs() <= width * std).to(image.dtype).mean((-2, -1))


def rank_correlation(std: Tensor, error: Tensor) -> Tensor:
    """Spearman's correlation of spread and absolute error over the pixels, (B,)."""
    ranks = [x.flatten(1).argsort(1).argsort(1).double() for x in (std, error)]
    a, b = (r - r.mean(1, keepdim=True) for r in ranks)
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).to(std.dtype)


def sparsification(std: Tensor, error: Tensor, points: int = 20) -> tuple[Tensor, Tensor]:
    """Root mean squared error of what is left when the most uncertain pixels are taken away.

    Args:
        std: (B, H, W) by which pixels are taken away.
        error: (B, H, W) absolute error.
        points: fractions taken away, from 0 up to 1 - 1 / points.

    Returns:
        (B, points) by the spread, and by the error itself, both over the error of all pixels.
    """
    square = error.flatten(1).square()
    count = square.shape[1]
    kept = [count - count * index // points for index in range(points)]

    def curve(key: Tensor) -> Tensor:
        order = key.flatten(1).argsort(1)
        sums = square.gather(1, order).cumsum(1)
        values = torch.stack([(sums[:, k - 1] / k).sqrt() for k in kept], dim=1)
        return values / values[:, :1]

    return curve(std), curve(error)


def sparsification_error(std: Tensor, error: Tensor) -> Tensor:
    """Area between the two curves of `sparsification` (AUSE), (B,): 0 if the spread orders the errors."""
    by_std, by_error = sparsification(std, error)
    return (by_std - by_error).mean(1)


def crps(samples: Tensor, target: Tensor) -> Tensor:
    """Continuous ranked probability score of magnitudes, mean over the pixels, (B,); fair in the samples' number.

    Source: Ferro, Quarterly Journal of the Royal Meteorological Society 140, 2014.

    Args:
        samples: (B, K, H, W) real, K of 2 or more.
        target: (B, H, W).
    """
    count = samples.shape[1]
    distance = (samples - target.unsqueeze(1)).abs().mean(1)
    # Sum over pairs |a - b| from the sorted values: the k-th enters with 2 k - K - 1.
    weight = 2 * torch.arange(1, count + 1, dtype=samples.dtype, device=samples.device) - count - 1
    spread = (samples.sort(1).values * weight.view(1, -1, 1, 1)).sum(1) / (count * (count - 1))
    return (distance - spread).mean((-2, -1))
