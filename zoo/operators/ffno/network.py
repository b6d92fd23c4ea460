"""The factorised Fourier neural operator (F-FNO): one spectral convolution per axis, then an MLP.

Source: Tran, Mathews, Xie and Ong, "Factorized Fourier Neural Operators", ICLR 2023 (arXiv 2111.13802), in the
form of the Transform Once repository: no grid, each block's output subtracted from its input, and the last
block's output decoded.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.operators.initialisation import laid_out
from zoo.ops.precision import full_precision

_HEAD_WIDTH = 128


class FactorisedBlock(nn.Module):
    """The sum of one-dimensional spectral convolutions along each axis, then an MLP on channels.

    Args:
        width: channels.
        modes: complex modes kept per axis.
        dims: spatial axes.
        factor: the MLP's hidden channels are `factor` times the width.
    """

    def __init__(self, width: int, modes: int, dims: int, factor: int) -> None:
        super().__init__()
        self.modes = modes
        std = (1 / width) ** 0.5
        # Published order: the first weight belongs to the last axis.
        self.fourier_weight = nn.ParameterList(
            laid_out((width, width, modes, 2), (2, 0, 1, 3), std) for _ in range(dims)
        )
        sizes = ((width, factor * width), (factor * width, width))
        layers = [nn.Sequential(nn.Linear(*size)) for size in sizes]
        self.backcast_ff = nn.ModuleDict({"layers": nn.Sequential(*layers)})

    def forward(self, x: Tensor) -> Tensor:
        """(B, *space, width)."""
        axes = range(x.ndim - 2, 0, -1)
        with full_precision(x):
            field = x.to(self.fourier_weight[0].dtype)
            mixed = [self._convolve(field, axis, w) for axis, w in zip(axes, self.fourier_weight, strict=True)]
            y = torch.stack(mixed).sum(0)
        first, second = self.backcast_ff["layers"].children()
        return second(F.relu(first(y)))

    def _convolve(self, x: Tensor, axis: int, weight: Tensor) -> Tensor:
        size = x.shape[axis]
        count = min(self.modes, size // 2 + 1)
        spectrum = torch.fft.rfft(x, dim=axis, norm="ortho").narrow(axis, 0, count).movedim(axis, 0)
        matrices = torch.view_as_complex(weight).permute(2, 0, 1)[:count]
        product = torch.bmm(spectrum.flatten(1, -2), matrices).view(spectrum.shape).movedim(0, axis)
        return torch.fft.irfft(product, n=size, dim=axis, norm="ortho")


class FFNO(nn.Module):
    """The factorised Fourier neural operator in any number of dimensions.

    Args:
        modes: complex modes kept per axis.
        width: channels.
        in_channels, out_channels: of the fields.
        n_layers: blocks.
        factor: hidden channels of the MLPs, as a multiple of the width.
        dims: spatial axes.

    A field (B, *space) without a channel axis is taken where in_channels is 1.

    Raises:
        ValueError: numbers below 1.
    """

    def __init__(
        self,
        modes: int,
        width: int,
        in_channels: int = 1,
        out_channels: int = 1,
        n_layers: int = 4,
        factor: int = 2,
        dims: int = 2,
    ) -> None:
        super().__init__()
        if min(modes, width, n_layers, factor, dims) < 1:
            raise ValueError(
                f"modes {modes}, width {width}, n_layers {n_layers}, factor {factor} and dims {dims} should be "
                "1 or more"
            )
        self.dims, self.out_channels = dims, out_channels
        self.in_proj = nn.Linear(in_channels, width)
        self.spectral_layers = nn.ModuleList(FactorisedBlock(width, modes, dims, factor) for _ in range(n_layers))
        self.out = nn.Sequential(nn.Linear(width, _HEAD_WIDTH), nn.Linear(_HEAD_WIDTH, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, *space) -> (B, out_channels, *space)."""
        without_channels = x.ndim == self.dims + 1
        if without_channels:
            x = x.unsqueeze(1)
        x = self.in_proj(x.movedim(1, -1))
        b = x
        for layer in self.spectral_layers:
            b = layer(x)
            x = x - b
        y = self.out(b).movedim(-1, 1)
        return y.squeeze(1) if without_channels and self.out_channels == 1 else y
