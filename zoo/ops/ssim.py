"""Mean structural similarity of two images, as a fused op with its gradient.

Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004; window 11 x 11
with sigma 1.5, zeros beyond the border, per channel, C1 = 0.01^2, C2 = 0.03^2 for values in [0, 1].
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.ops import native
from zoo.ops import rasterize_op as rasterize_op  # defines the op

_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def ssim(image: Tensor, target: Tensor, implementation: native.Implementation = "auto") -> Tensor:
    """Mean of the SSIM map of two images; the gradient is that of `image`.

    Args:
        image: (B, H, W, C), values in [0, 1].
        target: the same shape; not differentiated.
        implementation: ``"auto"``, ``"reference"`` or ``"compiled"``.

    Returns:
        A scalar, 1 for equal images.

    Raises:
        ValueError: the shapes differ or are not 4-D.
    """
    if image.shape != target.shape or image.ndim != 4:
        raise ValueError(f"two images (B, H, W, C) are needed, not {tuple(image.shape)} and {tuple(target.shape)}")
    if implementation == "compiled":
        native.require("splat", image.device)
    elif (
        native.is_reference(implementation)
        or image.dtype != torch.float32
        or image.device.type != "cpu"
        or not native.covers("splat", image.device)
    ):
        return ssim_reference(image, target)
    return _Ssim.apply(image, target.detach())


class _Ssim(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor) -> Tensor:
        mean, gradient = torch.ops.zoo.ssim_with_gradient(image, target, image.requires_grad)
        ctx.save_for_backward(gradient)
        return mean.squeeze(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * (grad / gradient.numel()), None


def ssim_reference(image: Tensor, target: Tensor) -> Tensor:
    """`ssim` in plain torch."""
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    window = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    window = (window / window.sum()).to(image)
    x, y = image.permute(0, 3, 1, 2).flatten(0, 1).unsqueeze(1), target.permute(0, 3, 1, 2).flatten(0, 1).unsqueeze(1)

    def blur(planes: Tensor) -> Tensor:
        planes = F.conv2d(planes, window.view(1, 1, 1, -1), padding=(0, _RADIUS))
        return F.conv2d(planes, window.view(1, 1, -1, 1), padding=(_RADIUS, 0))

    mx, my, xx, yy, xy = blur(torch.cat([x, y, x * x, y * y, x * y])).chunk(5)
    luminance = (2 * mx * my + _C1) / (mx * mx + my * my + _C1)
    structure = (2 * (xy - mx * my) + _C2) / (xx - mx * mx + yy - my * my + _C2)
    return (luminance * structure).mean()
