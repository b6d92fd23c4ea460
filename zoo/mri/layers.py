"""Layers that the networks share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ReplicateConv2d(nn.Conv2d):
    """A convolution that keeps the size by repeating the border.

    Args:
        in_channels, out_channels: of the image.
        kernel_size: odd.
        dilation: of the kernel.
        bias: add one.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation, bias=bias)
        self.margin = dilation * (kernel_size - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        return super().forward(F.pad(x, (self.margin,) * 4, mode="replicate") if self.margin else x)


def instance_norm(x: Tensor) -> Tensor:
    """Each channel of each sample to mean 0 and (biased) variance 1; (B, C, H, W)."""
    # Not F.instance_norm: with one sample and a channels_last gradient its gradient on the CPU is wrong
    # (seen in torch 2.13), and it is the slower of the two.
    return F.group_norm(x, x.shape[1])


class InstanceNorm2d(nn.Module):
    """`instance_norm` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return instance_norm(x)
