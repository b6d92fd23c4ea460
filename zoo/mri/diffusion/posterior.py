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
        paired: whether samples 2 j and 2 j + 1 came of opposite noise. Most of their deviations cancel in the mean.
    """

    samples: Tensor
    residual: Tensor
    noise: Tensor
    paired: bool = False

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
        return variance(self.samples.abs(), self.paired).sqrt()

    @property
    def complex_std(self) -> Tensor:
        """(B, H, W) root of the mean squared distance of the complex values from their mean, unbiased."""
        return (variance(self.samples.real, self.paired) + variance(self.samples.imag, self.paired)).sqrt()


def variance(x: Tensor, paired: bool = False) -> Tensor:
    """Unbiased variance over the samples of (B, K, ...); 0 for a single one.

    Args:
        x: real.
        paired: see `Posterior`; then the variance within the pairs and that of their means add up to it. Less than
            two pairs do not tell them apart, and an odd last sample does not count.
    """
    if x.shape[1] == 1:
        return torch.zeros_like(x[:, 0])
    pairs = _pairs(x, paired)
    return x.var(1) if pairs is None else pairs.diff(dim=2).square().mean((1, 2)) / 4 + pairs.mean(2).var(1)


def _pairs(x: Tensor, paired: bool) -> Tensor | None:
    """(B, K / 2, 2, ...) if there are at least two pairs."""
    count = x.shape[1]
    return x[:, : count // 2 * 2].unflatten(1, (-1, 2)) if paired and count >= 4 else None


def dispersion(samples: Tensor, mask: Tensor, paired: bool = False) -> tuple[Tensor, Tensor]:
    """Root mean variance of the samples' k-space where it was measured and where it was not, each (B,).

    Args:
        samples: (B, K, H, W) complex, K of 2 or more.
        mask: boolean, broadcastable to (B, H, W).
        paired: see `variance`.
    """
    kspace = fft2(samples)
    spread = variance(kspace.real, paired) + variance(kspace.imag, paired)
    measured = mask.expand_as(spread).to(spread.dtype)
    axes = (-2, -1)

    def root_mean(weight: Tensor) -> Tensor:
        return ((spread * weight).sum(axes) / weight.sum(axes).clamp_min(1)).sqrt()

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


def crps(samples: Tensor, target: Tensor, paired: bool = False) -> Tensor:
    """Continuous ranked probability score of magnitudes, mean over the pixels, (B,); fair in the samples' number.

    Source: Ferro, Quarterly Journal of the Royal Meteorological Society 140, 2014.

    Args:
        samples: (B, K, H, W) real, K of 2 or more.
        target: (B, H, W).
        paired: see `variance`; the distances within the pairs are left out.
    """
    pairs = _pairs(samples, paired)
    if pairs is not None:
        samples = pairs.flatten(1, 2)
    count = samples.shape[1]
    distance = (samples - target.unsqueeze(1)).abs().mean(1)
    # Sum over pairs |a - b| from the sorted values: the k-th enters with 2 k - K - 1.
    weight = 2 * torch.arange(1, count + 1, dtype=samples.dtype, device=samples.device) - count - 1
    between = (samples.sort(1).values * weight.view(1, -1, 1, 1)).sum(1)
    counted = count * (count - 1)
    if pairs is not None:
        between, counted = between - pairs.diff(dim=2).abs().sum((1, 2)), counted - count
    return (distance - between / counted).mean((-2, -1))
