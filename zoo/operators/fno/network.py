"""The Fourier neural operator (FNO), in the form of the neuraloperator library.

Source: Li et al., "Fourier Neural Operator for Parametric Partial Differential Equations", ICLR 2021
(arXiv 2010.08895); Kossaifi et al., "A Library for Learning Neural Operators", 2024 (arXiv 2412.10354), whose
defaults in version 2.0.0 these are: an MLP on channels and a soft gate beside each spectral convolution.
Weights carry the library's names, complex ones as real tensors with a last axis of two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.operators.initialisation import laid_out
from zoo.ops.precision import full_precision

Embedding = Literal["grid", "none"]


class SpectralConv(nn.Module):
    """Multiplies the channels of each kept Fourier mode by a complex matrix, and adds a bias in space.

    Args:
        channels_in, channels_out: channels.
        n_modes: modes kept per axis, both signs counted: n keeps wavenumbers -(n // 2) to (n - 1) // 2, on the
            last axis 0 to n // 2. On a grid too coarse for them the lowest ones are used.
    """

    def __init__(self, channels_in: int, channels_out: int, n_modes: Sequence[int]) -> None:
        super().__init__()
        self.n_modes = (*n_modes[:-1], n_modes[-1] // 2 + 1)
        dims = len(self.n_modes)
        std = math.sqrt(2 / (channels_in + channels_out))
        # One matrix product per mode: the modes lie first in memory. Real and imaginary part share the variance.
        shape = (channels_in, channels_out, *self.n_modes, 2)
        order = [*range(2, 2 + dims), 0, 1, 2 + dims]
        self.weight = laid_out(shape, order, std * math.sqrt(0.5))
        self.bias = nn.Parameter(std * torch.randn(channels_out, *[1] * dims))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, *space) -> (B, channels_out, *space)."""
        space = x.shape[2:]
        dims = len(space)
        axes = tuple(range(2, 2 + dims))
        with full_precision(x):
            spectrum = torch.fft.rfftn(x.to(self.bias.dtype), dim=axes, norm="forward")
            held = spectrum.shape[2:]
            weight = torch.view_as_complex(self.weight)
            for axis, (modes, size) in enumerate(zip(self.n_modes, held, strict=True)):
                count = min(modes, size)
                if axis < dims - 1:
                    spectrum = _centre(spectrum, axis + 2, size, count)
                    # The library's choice: an even number of modes on fewer, odd points begins one place early.
                    weight = weight.narrow(axis + 2, (modes - count) // 2, count)
                else:
                    spectrum, weight = spectrum.narrow(-1, 0, count), weight.narrow(-1, 0, count)
            kept = spectrum.shape[2:]
            # (modes, B, in) @ (modes, in, out)
            given = spectrum.permute(*axes, 0, 1).flatten(0, dims - 1)
            out = torch.bmm(given, weight.permute(*axes, 0, 1).flatten(0, dims - 1))
            out = out.view(*kept, *out.shape[1:]).permute(dims, dims + 1, *range(dims))
            for axis in range(dims - 1):
                out = _uncentre(out, axis + 2, held[axis])
            # irfftn supplies the zeros beyond the kept modes of the last axis.
            return torch.fft.irfftn(out, s=space, dim=axes, norm="forward") + self.bias


def _centre(spectrum: Tensor, axis: int, size: int, count: int) -> Tensor:
    """The `count` lowest wavenumbers of an FFT axis, from the most negative to the most positive."""
    negative = count // 2
    return torch.cat(
        (spectrum.narrow(axis, size - negative, negative), spectrum.narrow(axis, 0, count - negative)), axis
    )


def _uncentre(spectrum: Tensor, axis: int, size: int) -> Tensor:
    """`_centre` backwards, with zeros between.

    On an odd number of points the library puts every mode one place too low, and weights trained with it expect
    that: so it is kept.
    """
    count = spectrum.shape[axis]
    negative = count // 2
    shape = list(spectrum.shape)
    shape[axis] = size - count
    gap = spectrum.new_zeros(shape)
    whole = torch.cat(
        (spectrum.narrow(axis, negative, count - negative), gap, spectrum.narrow(axis, 0, negative)), axis
    )
    return whole.roll(-1, axis) if size % 2 else whole


class ChannelMLP(nn.Module):
    """Linear, GELU, linear over the channels of each point.

    Args:
        channels_in, hidden, channels_out: channels.
    """

    def __init__(self, channels_in: int, hidden: int, channels_out: int) -> None:
        super().__init__()
        self.fcs = nn.ModuleList([nn.Conv1d(channels_in, hidden, 1), nn.Conv1d(hidden, channels_out, 1)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, *space) -> (B, channels_out, *space)."""
        y = self.fcs[1](F.gelu(self.fcs[0](x.flatten(2))))
        return y.view(*y.shape[:2], *x.shape[2:])


class Skip(nn.Module):
    """A linear map of channels without bias.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *space)."""
        return self.conv(x.flatten(2)).view(x.shape)


class Gate(nn.Module):
    """A factor per channel.

    Args:
        channels: in and out.
        dims: spatial axes.
    """

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, *[1] * dims))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *space)."""
        return self.weight * x


class FNOBlocks(nn.Module):
    """The blocks between lifting and projection.

    Args:
        channels: in and out.
        n_modes: see `SpectralConv`.
        n_layers: blocks.
    """

    def __init__(self, channels: int, n_modes: Sequence[int], n_layers: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(SpectralConv(channels, channels, n_modes) for _ in range(n_layers))
        self.fno_skips = nn.ModuleList(Skip(channels) for _ in range(n_layers))
        hidden = round(channels / 2)  # the library's rounding of halves, to even numbers
        self.channel_mlp = nn.ModuleList(ChannelMLP(channels, hidden, channels) for _ in range(n_layers))
        self.channel_mlp_skips = nn.ModuleList(Gate(channels, len(n_modes)) for _ in range(n_layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *space)."""
        last = len(self.convs) - 1
        layers = zip(self.convs, self.fno_skips, self.channel_mlp, self.channel_mlp_skips, strict=True)
        for index, (conv, skip, mlp, gate) in enumerate(layers):
            gated = gate(x)
            x = conv(x) + skip(x)
            if index < last:
                x = F.gelu(x)
            x = mlp(x) + gated
            if index < last:
                x = F.gelu(x)
        return x


class FNO(nn.Module):
    """The Fourier neural operator in any number of dimensions.

    Args:
        n_modes: modes per axis, both signs counted; one number per axis.
        in_channels, out_channels: of the fields.
        hidden_channels: width.
        n_layers: blocks.
        positional_embedding: ``"grid"`` appends the coordinates i / N to the input.

    Raises:
        ValueError: no axes, or numbers below 1.
    """

    def __init__(
        self,
        n_modes: Sequence[int],
        in_channels: int = 1,
        out_channels: int = 1,
        hidden_channels: int = 32,
        n_layers: int = 4,
        positional_embedding: Embedding = "grid",
    ) -> None:
        super().__init__()
        dims = len(n_modes)
        if not dims or min(*n_modes, hidden_channels, n_layers) < 1:
            raise ValueError(
                f"n_modes {tuple(n_modes)} (one per axis), hidden_channels {hidden_channels} and n_layers {n_layers} "
                "should be 1 or more"
            )
        self.positional_embedding: Embedding = positional_embedding
        given = in_channels + (dims if positional_embedding == "grid" else 0)
        self.lifting = ChannelMLP(given, 2 * hidden_channels, hidden_channels)
        self.fno_blocks = FNOBlocks(hidden_channels, n_modes, n_layers)
        self.projection = ChannelMLP(hidden_channels, 2 * hidden_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, *space) -> (B, out_channels, *space)."""
        if self.positional_embedding == "grid":
            x = torch.cat((x, periodic_grid(x)), 1)
        return self.projection(self.fno_blocks(self.lifting(x)))


def periodic_grid(x: Tensor) -> Tensor:
    """Coordinates i / N of the points of fields (B, C, *space): (B, dims, *space)."""
    axes = [torch.arange(n, dtype=x.dtype, device=x.device) / n for n in x.shape[2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(x.shape[0], *[-1] * (x.ndim - 1))
