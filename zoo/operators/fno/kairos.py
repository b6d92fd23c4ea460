"""The Fourier neural operator in the form of the Transform Once repository, its own baseline.

Source: Li et al., ICLR 2021 (arXiv 2010.08895), with the residual of Poli et al., NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.operators.initialisation import InitRule, convolution_std, laid_out
from zoo.operators.t1.network import unit_grid
from zoo.ops.precision import full_precision

_HEAD_WIDTH = 128


class CornerConv2d(nn.Module):
    """Multiplies the channels of the lowest m x m modes of either sign by complex matrices.

    Args:
        width: channels.
        modes: m, per sign on the first axis.
        resolution: points per axis, for the variance-preserving rule.
        weight_init: rule, see `zoo.operators.initialisation.convolution_std`.
        drop_imaginary: loses the imaginary part of the products, as the released code does.
    """

    def __init__(
        self, width: int, modes: int, resolution: Sequence[int], weight_init: InitRule, drop_imaginary: bool
    ) -> None:
        super().__init__()
        self.modes, self.drop_imaginary = modes, drop_imaginary
        std = convolution_std(weight_init, "dft", width, width, (modes, modes), resolution)
        shape, order = (width, width, modes, modes, 2), (2, 3, 0, 1, 4)
        self.weights1 = laid_out(shape, order, std)
        self.weights2 = laid_out(shape, order, std)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W)."""
        m, (height, width) = self.modes, x.shape[2:]
        check_modes(m, (height, width))
        with full_precision(x):
            spectrum = torch.fft.rfft2(x.to(self.weights1.dtype), norm="ortho")
            corners = torch.cat((spectrum[..., :m, :m], spectrum[..., height - m :, :m]), -2)
            weights = torch.cat([torch.view_as_complex(w).permute(2, 3, 0, 1) for w in (self.weights1, self.weights2)])
            products = torch.bmm(corners.permute(2, 3, 0, 1).flatten(0, 1), weights.flatten(0, 1))
            products = products.view(2 * m, m, *products.shape[1:]).permute(2, 3, 0, 1)
            if self.drop_imaginary:
                products = products.real + 0j
            gap = products.new_zeros(*products.shape[:2], height - 2 * m, m)
            low, high = products.split(m, -2)
            return torch.fft.irfft2(torch.cat((low, gap, high), -2), s=(height, width), norm="ortho")


def check_modes(modes: int, resolution: Sequence[int]) -> None:
    """Raises `ValueError` unless m rows of either sign and m columns of a half spectrum fit the points."""
    if len(resolution) != 2 or modes < 1 or 2 * modes > resolution[0] or modes > resolution[1] // 2 + 1:
        raise ValueError(f"{modes} modes of either sign do not fit {tuple(resolution)} points")


class KairosBlock(nn.Module):
    """gelu(spectral convolution + x + 1 x 1 convolution).

    Args:
        width, modes, resolution, weight_init, drop_imaginary: see `CornerConv2d`.
    """

    def __init__(
        self, width: int, modes: int, resolution: Sequence[int], weight_init: InitRule, drop_imaginary: bool
    ) -> None:
        super().__init__()
        self.conv = CornerConv2d(width, modes, resolution, weight_init, drop_imaginary)
        self.w = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W)."""
        return F.gelu(self.conv(x) + x + self.w(x))


class KairosFNO(nn.Module):
    """FNO in two dimensions as in the Transform Once repository.

    Args:
        modes: m, modes of either sign kept per axis.
        width: channels.
        signal_resolution: points per axis, for the variance-preserving rule.
        in_channels, out_channels: of the fields.
        nlayers: blocks.
        weight_init: rule of the spectral weights.
        drop_imaginary: the released code's output, in which the spectral products lose their imaginary part.

    A field (B, H, W) without a channel axis is taken where in_channels is 1.

    Raises:
        ValueError: more modes than the points hold.
    """

    def __init__(
        self,
        modes: int,
        width: int,
        signal_resolution: Sequence[int],
        in_channels: int = 1,
        out_channels: int = 1,
        nlayers: int = 4,
        weight_init: InitRule = 1,
        drop_imaginary: bool = False,
    ) -> None:
        super().__init__()
        check_modes(modes, signal_resolution)
        self.out_channels = out_channels
        self.fc0 = nn.Linear(in_channels + 2, width)
        self.layers = nn.ModuleList(
            KairosBlock(width, modes, signal_resolution, weight_init, drop_imaginary) for _ in range(nlayers)
        )
        self.fc1 = nn.Linear(width, _HEAD_WIDTH)
        self.fc2 = nn.Linear(_HEAD_WIDTH, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        without_channels = x.ndim == 3
        if without_channels:
            x = x.unsqueeze(1)
        grid = unit_grid(x.shape[2:], x.dtype, x.device).expand(x.shape[0], -1, -1, -1)
        z = self.fc0(torch.cat((x.movedim(1, -1), grid), -1)).movedim(-1, 1)
        for layer in self.layers:
            z = layer(z)
        y = self.fc2(F.gelu(self.fc1(z.movedim(1, -1)))).movedim(-1, 1)
        return y.squeeze(1) if without_channels and self.out_channels == 1 else y
