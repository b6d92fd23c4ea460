"""Losses on images (B, H, W)."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.mri.metrics import ssim


def ssim_loss(prediction: Tensor, target: Tensor, data_range: Tensor | float | None = None) -> Tensor:
    """1 - SSIM, mean over the batch.

    Args:
        prediction, target: (B, H, W).
        data_range: (B,) or a scalar; by default the maximum of the whole batch's target, as published.
    """
    return 1 - ssim(prediction, target, target.amax() if data_range is None else data_range).mean()


def relative_l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of each sample over the mean of its target, mean over the batch."""
    error = (prediction - target).abs().mean((-2, -1))
    return (error / target.mean((-2, -1)).clamp_min(torch.finfo(target.dtype).tiny)).mean()


def relative_l2(prediction: Tensor, target: Tensor) -> Tensor:
    """Norm of each sample's error over that of its target, mean over the batch; of real or complex images."""
    error = torch.linalg.vector_norm(prediction - target, dim=(-2, -1))
    norm = torch.linalg.vector_norm(target, dim=(-2, -1))
    return (error / norm.clamp_min(torch.finfo(norm.dtype).tiny)).mean()
