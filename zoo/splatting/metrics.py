"""How close a rendered view is to its photograph."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection

from zoo.lpips import LPIPS
from zoo.ops.ssim import ssim


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image (B, H, W, C) in [0, 1], over all its pixels."""
    error = (image.clamp(0, 1) - target).square().flatten(1).mean(1)
    return -10 * torch.log10(error.clamp_min(1e-12))


def total_variation(image: Tensor) -> Tensor:
    """Mean absolute difference of vertical neighbours plus that of horizontal ones, of images (B, H, W, C)."""
    return image.diff(dim=1).abs().mean() + image.diff(dim=2).abs().mean()


class ViewQuality(MetricCollection):
    """Mean over views of PSNR (dB), SSIM and L1, of renders clamped to [0, 1], and of LPIPS if there is one.

    LPIPS sees images from -1 to 1, as it was trained to; the original code of 3DGS gives it images from 0 to 1. By its
    backbone it is called ``lpips_vgg`` or ``lpips_alex``.

    Args:
        prefix: of the metrics' names.
        lpips: the distance; None for none.
    """

    def __init__(self, prefix: str, lpips: LPIPS | None = None) -> None:
        # In a list, lest its weights become part of every checkpoint.
        self._lpips = [] if lpips is None else [("lpips_vgg" if lpips.is_vgg else "lpips_alex", lpips)]
        parts = {name: MeanMetric() for name in ("psnr", "ssim", "l1", *(name for name, _ in self._lpips))}
        super().__init__(parts, prefix=prefix, compute_groups=False)  # type: ignore[arg-type]

    def measure(self, image: Tensor, target: Tensor) -> None:
        """Takes in renders (B, H, W, 3) of photographs."""
        image = image.clamp(0, 1)
        parts = dict(self.items(keep_base=True, copy_state=False))
        parts["psnr"].update(psnr(image, target))
        for one, other in zip(image, target, strict=True):
            parts["ssim"].update(ssim(one.unsqueeze(0), other.unsqueeze(0)))
        parts["l1"].update((image - target).abs().flatten(1).mean(1))
        for name, lpips in self._lpips:
            first, second = (2 * x.permute(0, 3, 1, 2) - 1 for x in (image, target))
            parts[name].update(lpips.to(image.device)(first, second))
