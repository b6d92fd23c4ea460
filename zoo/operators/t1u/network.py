"""T1U: one T1 layer, then a convolutional U-Net over the block of kept modes.

Source: Poli et al., "Transform Once", NeurIPS 2022 ("U-Net in the frequency domain").
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.operators import transforms
from zoo.operators.convolutions import UNet
from zoo.operators.t1.network import Activation, T1Layer, constant_block, embed
from zoo.operators.transforms import Basis


class T1U(nn.Module):
    """The published U-Net in the spectrum, in two dimensions.

    Args:
        modes: kept modes per axis, a key of `zoo.operators.convolutions.SIZES`.
        signal_resolution: points per axis.
        channel_exponent: see `UNet`.
        in_channels, out_channels: of the fields.
        act: activation of the T1 layer.
        perform_inverse: give a field; False gives its spectrum, zero outside the block.
        basis: ``"dct"``, or ``"fourier"`` for periodic fields.

    Shapes without channels and other resolutions: as `zoo.operators.t1.network.T1`.
    """

    def __init__(
        self,
        modes: int,
        signal_resolution: Sequence[int],
        channel_exponent: int = 6,
        in_channels: int = 1,
        out_channels: int = 1,
        act: Activation = "gelu",
        perform_inverse: bool = False,
        basis: Basis = "dct",
    ) -> None:
        super().__init__()
        self.signal_resolution = tuple(signal_resolution)
        if any(modes > n for n in self.signal_resolution) or len(self.signal_resolution) != 2:
            raise ValueError(f"{modes} x {modes} modes do not fit {self.signal_resolution} points")
        self.modes, self.in_channels, self.out_channels = (modes, modes), in_channels, out_channels
        self.perform_inverse = perform_inverse
        self.basis: Basis = basis
        width = 2 + in_channels
        self.fc0 = nn.Linear(width, width)
        self.op_layer = T1Layer(width, self.modes, self.signal_resolution, act)
        self.dfpnet = UNet(modes, width, out_channels, channel_exponent)

    def forward(self, x: Tensor) -> Tensor:
        """Fields (B, in_channels, H, W) -> spectrum or field (B, out_channels, H, W)."""
        without_channels = x.ndim == 3
        if without_channels:
            x = x.unsqueeze(1)
        block = self.process(self.coefficients(x), x.shape[2:])
        y = transforms.synthesise(block, x.shape[2:], self.basis) if self.perform_inverse else embed(block, x.shape[2:])
        return y.squeeze(1) if without_channels and self.out_channels == 1 else y

    def coefficients(self, x: Tensor) -> Tensor:
        """The block (B, C, m, m) that the network sees of fields (B, C, H, W)."""
        return transforms.analyse(x, self.modes, self.basis)

    def field(self, block: Tensor, space: Sequence[int]) -> Tensor:
        """The field (B, C, H, W) of a block."""
        return transforms.synthesise(block, space, self.basis)

    def process(self, block: Tensor, space: Sequence[int]) -> Tensor:
        """The network on the block; see `zoo.operators.t1.network.T1.process`."""
        scale = math.sqrt(math.prod(self.signal_resolution) / math.prod(space))
        constant = constant_block(tuple(space), self.modes, self.basis, 0, True, block.dtype, block.device)
        weight, grid_weight = self.fc0.weight.split((self.in_channels, 2), 1)
        fixed = constant[..., :2] @ grid_weight.mT + constant[..., 2:] * self.fc0.bias
        z = scale * (block.permute(2, 3, 0, 1) @ weight.mT + fixed.unsqueeze(-2))
        z = self.op_layer.block(z)
        y: Tensor = self.dfpnet(torch.permute(z, (2, 3, 0, 1)).contiguous())
        return y / scale
