"""Mixup and CutMix: training on blends of two images and of their labels.

Sources: Zhang et al., "mixup", ICLR 2018; Yun et al., "CutMix", ICCV 2019. One blend per batch, each image with the
one at the mirrored place in the batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SWITCH_PROBABILITY = 0.5  # of CutMix where both are on


def mix(image: Tensor, label: Tensor, num_classes: int, mixup: float, cutmix: float) -> tuple[Tensor, Tensor]:
    """Blends a batch with its own reverse.

    Args:
        image: (B, C, H, W).
        label: (B,) classes.
        num_classes: K.
        mixup, cutmix: parameter of the Beta distribution that the share is drawn from; 0 for off.

    Returns:
        The images, and targets (B, K) whose rows sum to 1.
    """
    target = F.one_hot(label, num_classes).to(image.dtype)
    if mixup <= 0 and cutmix <= 0:
        return image, target
    cut = cutmix > 0 and (mixup <= 0 or float(torch.rand(())) < SWITCH_PROBABILITY)
    alpha = cutmix if cut else mixup
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    other = image.flip(0)
    if cut:
        image, share = _paste(image, other, share)
    else:
        image = share * image + (1 - share) * other
    return image, share * target + (1 - share) * target.flip(0)


def _paste(image: Tensor, other: Tensor, share: float) -> tuple[Tensor, float]:
    """Puts a box of `other` into `image`; the share is corrected to the pixels that stay."""
    height, width = image.shape[-2:]
    side = math.sqrt(1 - share)
    y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    top, bottom = max(0, y - half_height), min(height, y + half_height)
    left, right = max(0, x - half_width), min(width, x + half_width)
    image = image.clone()
    image[..., top:bottom, left:right] = other[..., top:bottom, left:right]
    return image, 1 - (bottom - top) * (right - left) / (height * width)
