"""T1U+: a residual U-Net on the kept modes, fed and read in units of each mode's own spread.

A published T1 sees coefficients whose sizes differ by orders of magnitude from mode to mode. Here every
coefficient is divided by the square root of its standard deviation over the training set, and every output
multiplied by that of the targets: half-way to whitening, which would give the noise of the highest modes the
weight of the lowest. Learned planes tell the convolutions which mode they are at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.operators import transforms
from zoo.operators.t1.network import embed
from zoo.operators.transforms import Basis

Domain = Literal["modes", "points"]
Padding = Literal["zeros", "circular"]

_GROUPS = 4
_EMBEDDING_PLANES = 4


class ResidualBlock(nn.Module):
    """GroupNorm, GELU, convolution, twice, beside a 1 x 1 convolution where shapes change.

    Args:
        channels_in, channels_out: channels; channels_in divisible by 4, and so channels_out.
        stride: of the first convolution.
        padding_mode: see `torch.nn.Conv2d`.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1, padding_mode: Padding = "zeros") -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(_GROUPS, channels_in), nn.GroupNorm(_GROUPS, channels_out)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, padding_mode=padding_mode)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, padding_mode=padding_mode)
        plain = stride == 1 and channels_in == channels_out
        self.skip = nn.Identity() if plain else nn.Conv2d(channels_in, channels_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) -> (B, channels_out, H / stride, W / stride)."""
        y = self.conv1(F.gelu(self.norm1(x)))
        y = self.conv2(F.gelu(self.norm2(y)))
        shortcut: Tensor = self.skip(x)
        return y + shortcut


class T1UPlus(nn.Module):
    """An improved T1U in two dimensions.

    Args:
        modes: kept modes per axis, divisible by 4.
        signal_resolution: points per axis.
        width: channels of the outermost blocks, divisible by 4; the innermost have four times as many.
        in_channels, out_channels: of the fields.
        domain: ``"modes"``: convolutions run over neighbouring modes; ``"points"``: over neighbouring points of the
            coarse grid that holds exactly the kept modes, which an orthogonal m x m matrix per axis leads to.
        scaling: exponent of the standard deviations: 0 for none, 1 for whitening.
        perform_inverse: give a field; False gives its spectrum, zero outside the block.
        basis: ``"fourier"`` for periodic fields, or ``"dct"``.

    `fit` has to be called once with training data; until then every mode counts alike.
    """

    input_mean: Tensor
    input_scale: Tensor
    output_mean: Tensor
    output_scale: Tensor

    def __init__(
        self,
        modes: int = 24,
        signal_resolution: Sequence[int] = (64, 64),
        width: int = 24,
        domain: Domain = "modes",
        in_channels: int = 1,
        out_channels: int = 1,
        scaling: float = 0.5,
        perform_inverse: bool = False,
        basis: Basis = "fourier",
    ) -> None:
        super().__init__()
        self.signal_resolution = tuple(signal_resolution)
        if modes % 4 or width % _GROUPS:
            raise ValueError(f"modes and width should be divisible by 4: {modes}, {width}")
        if any(modes > n for n in self.signal_resolution) or len(self.signal_resolution) != 2:
            raise ValueError(f"{modes} x {modes} modes do not fit {self.signal_resolution} points")
        self.modes, self.out_channels = (modes, modes), out_channels
        self.scaling, self.perform_inverse = scaling, perform_inverse
        self.domain: Domain = domain
        self.basis: Basis = basis
        for name, channels in (("input", in_channels), ("output", out_channels)):
            self.register_buffer(f"{name}_mean", torch.zeros(channels, modes, modes))
            self.register_buffer(f"{name}_scale", torch.ones(channels, modes, modes))
        c = width
        self.position = nn.Parameter(0.1 * torch.randn(_EMBEDDING_PLANES, modes, modes))
        padding: Padding = "circular" if domain == "points" and basis == "fourier" else "zeros"
        self.first = nn.Conv2d(in_channels + _EMBEDDING_PLANES, c, 3, 1, 1, padding_mode=padding)
        self.down1 = ResidualBlock(c, c, 1, padding)
        self.down2 = ResidualBlock(c, 2 * c, 2, padding)
        self.down3 = ResidualBlock(2 * c, 4 * c, 2, padding)
        self.middle = ResidualBlock(4 * c, 4 * c, 1, padding)
        self.up2 = ResidualBlock(6 * c, 2 * c, 1, padding)
        self.up1 = ResidualBlock(3 * c, c, 1, padding)
        self.last = nn.Conv2d(c, out_channels, 1)

    @property
    def fitted(self) -> bool:
        """Whether the spread of the modes is known, from `fit` or from loaded weights."""
        return bool((self.output_scale != 1).any())

    @torch.no_grad()
    def fit(self, inputs: Tensor, outputs: Tensor, space: Sequence[int]) -> None:
        """Takes mean and spread of each mode from training data.

        Args:
            inputs, outputs: kept modes (N, channels, m, m) of fields with `space` points.
            space: points per axis.
        """
        for name, block in (("input", inputs), ("output", outputs)):
            block = self._to_signal_resolution(space) * block
            std = block.std(0)
            # Of modes that never change there is nothing to learn; the floor keeps them finite.
            std = std.clamp_min(1e-4 * float(std.max()) + 1e-12)
            getattr(self, f"{name}_mean").copy_(block.mean(0))
            getattr(self, f"{name}_scale").copy_(std**self.scaling * std.max() ** (1 - self.scaling))

    def forward(self, x: Tensor) -> Tensor:
        """Fields (B, in_channels, H, W) -> spectrum or field (B, out_channels, H, W)."""
        block = self.process(self.coefficients(x), x.shape[2:])
        return self.field(block, x.shape[2:]) if self.perform_inverse else embed(block, x.shape[2:])

    def coefficients(self, x: Tensor) -> Tensor:
        """The block (..., C, m, m) that the network sees of fields (..., C, H, W)."""
        return transforms.analyse(x, self.modes, self.basis)

    def field(self, block: Tensor, space: Sequence[int]) -> Tensor:
        """The field (..., C, H, W) of a block."""
        return transforms.synthesise(block, space, self.basis)

    def process(self, block: Tensor, space: Sequence[int]) -> Tensor:
        """The network on the block; see `zoo.operators.t1.network.T1.process`."""
        scale = self._to_signal_resolution(space)
        x = (scale * block - self.input_mean) / self.input_scale
        if self.domain == "points":
            x = transforms.synthesise(x, self.modes, self.basis)
        x = self.first(torch.cat((x, self.position.expand(x.shape[0], -1, -1, -1)), 1))
        d1 = self.down1(x)
        d2 = self.down2(d1)
        y = self.middle(self.down3(d2))
        y = self.up2(torch.cat((F.interpolate(y, scale_factor=2.0), d2), 1))
        y = self.up1(torch.cat((F.interpolate(y, scale_factor=2.0), d1), 1))
        y = self.last(y)
        if self.domain == "points":
            y = transforms.analyse(y, self.modes, self.basis)
        return (y * self.output_scale + self.output_mean) / scale

    def _to_signal_resolution(self, space: Sequence[int]) -> float:
        return math.sqrt(math.prod(self.signal_resolution) / math.prod(space))
