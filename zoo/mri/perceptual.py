"""Perceptual distances of magnitude images (B, H, W): GMSD, HaarPSI, and LPIPS if its weights are given."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo import lpips
from zoo.lpips import lpips_distance as lpips_distance

GMSD_CONSTANT = 170 / 255**2
HAARPSI_CONSTANT, HAARPSI_SLOPE = 30.0, 4.2


def gmsd(prediction: Tensor, target: Tensor) -> Tensor:
    """Gradient magnitude similarity deviation, (B,): 0 for equal images.

    Source: Xue et al., IEEE TIP 23, 2014. Images count relative to the target's maximum.

    Args:
        prediction, target: (B, H, W).
    """
    peak = target.amax((-2, -1), keepdim=True)
    prewitt = torch.tensor([[1.0, 0, -1]] * 3, dtype=target.dtype, device=target.device) / 3
    kernels = torch.stack((prewitt, prewitt.mT)).unsqueeze(1)

    def edges(image: Tensor) -> Tensor:
        small = F.avg_pool2d((image / peak).unsqueeze(1), 2)
        return F.conv2d(small, kernels, padding=1).square().sum(1).sqrt()

    a, b = edges(prediction), edges(target)
    similarity = (2 * a * b + GMSD_CONSTANT) / (a.square() + b.square() + GMSD_CONSTANT)
    return similarity.flatten(1).std(1, correction=0)


def haarpsi(prediction: Tensor, target: Tensor) -> Tensor:
    """Haar wavelet-based perceptual similarity index, (B,): 1 for equal images.

    Source: Reisenhofer et al., Signal Processing: Image Communication 61, 2018. Images count relative to the target's
    maximum.

    Args:
        prediction, target: (B, H, W).
    """
    peak = target.amax((-2, -1), keepdim=True)
    a, b = (F.avg_pool2d((255 * x / peak).unsqueeze(1), 2) for x in (prediction, target))
    similarity, weight = [], []
    for across in (False, True):
        (a1, b1), (a2, b2), (a3, b3) = ((_haar(a, s, across), _haar(b, s, across)) for s in (1, 2, 3))
        likeness = [
            (2 * p * q + HAARPSI_CONSTANT) / (p.square() + q.square() + HAARPSI_CONSTANT)
            for p, q in ((a1, b1), (a2, b2))
        ]
        similarity.append(torch.sigmoid(HAARPSI_SLOPE * (likeness[0] + likeness[1]) / 2).flatten(1))
        weight.append(torch.maximum(a3, b3).flatten(1))
    weights = torch.cat(weight, 1)
    mean = (torch.cat(similarity, 1) * weights).sum(1) / weights.sum(1)
    return (torch.logit(mean) / HAARPSI_SLOPE).square()


def _haar(image: Tensor, scale: int, across: bool) -> Tensor:
    """Magnitudes of the Haar wavelet's coefficients at a scale, along rows or columns; (B, 1, H, W) -> the same."""
    size = 2**scale
    kernel = torch.full((size, size), 1 / size, dtype=image.dtype, device=image.device)
    kernel[: size // 2] *= -1
    kernel = (kernel.mT if across else kernel).view(1, 1, size, size)
    before = size // 2 - 1
    return F.conv2d(F.pad(image, (before, size // 2, before, size // 2)), kernel).abs()


class LPIPS(lpips.LPIPS):
    """See `zoo.lpips.LPIPS`; here of magnitude images."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(B,) distances of magnitude images (B, H, W), relative to the target's maximum."""
        peak = target.amax((-2, -1), keepdim=True)
        return super().forward(*(2 * (x / peak).clamp(0, 1) - 1 for x in (prediction, target)))
