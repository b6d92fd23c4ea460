"""The U-shaped DISCO neural operator (Jatyani et al., CVPR 2025, arXiv 2410.16290), with its official names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.ops.disco import DiscoConv2d, Sampling


class _InstanceNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, x.shape[1])


class DISCOBlock(nn.Module):
    """Twice: DISCO convolution, instance norm, LeakyReLU, dropout of channels.

    Args:
        in_channels, out_channels: of the image.
        radius, kernel_shape, sampling, grid: see `zoo.ops.disco.DiscoConv2d`.
        dropout: probability.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        radius: float,
        kernel_shape: Sequence[int],
        sampling: Sampling,
        dropout: float = 0.0,
        grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before in (in_channels, out_channels):
            layers += [
                DiscoConv2d(before, out_channels, kernel_shape, radius, bias=False, sampling=sampling, grid=grid),
                _InstanceNorm(),
                nn.LeakyReLU(0.2, inplace=True),
                nn.Dropout2d(dropout),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        return self.layers(x)


class _Up(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        radius: float,
        kernel_shape: Sequence[int],
        sampling: Sampling,
        grid: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            DiscoConv2d(in_channels, out_channels, kernel_shape, radius, bias=False, sampling=sampling, grid=grid),
            _InstanceNorm(),
            nn.LeakyReLU(0.2, inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class UDNO(nn.Module):
    """A U-Net of DISCO convolutions: one set of weights for any resolution.

    Args:
        in_chans, out_chans: of the image.
        chans: of the first level; each further level doubles them.
        num_pool_layers: levels below the first.
        radius_cutoff: radius of the filters at the first level; it doubles from level to level.
        kernel_shape: (rings, angles).
        dropout: probability.
        sampling: see `zoo.ops.disco.filter_basis`.
        in_shape: (H, W) of the images for which the filters are made once and for all, halved from level to level, as
            the released code does; None to make them for each image that comes.

    Raises:
        ValueError: there are no channels or levels, or the kernel shape is impossible.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        chans: int,
        num_pool_layers: int,
        radius_cutoff: float,
        kernel_shape: Sequence[int],
        dropout: float = 0.0,
        sampling: Sampling = "pixels",
        in_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if chans < 1 or num_pool_layers < 1:
            raise ValueError(f"a UDNO needs channels and levels below the first, not {chans} and {num_pool_layers}")
        widths = [chans * 2**level for level in range(num_pool_layers + 1)]
        radii = [radius_cutoff * 2**level for level in range(num_pool_layers + 1)]

        grids: list[tuple[int, int] | None] = [
            None if in_shape is None else (in_shape[0] // 2**level, in_shape[1] // 2**level)
            for level in range(num_pool_layers + 1)
        ]

        def block(before: int, after: int, level: int) -> nn.Module:
            return DISCOBlock(before, after, radii[level], kernel_shape, sampling, dropout, grids[level])

        self.down_sample_layers = nn.ModuleList(
            block(before, widths[level], level) for level, before in enumerate((in_chans, *widths[:-2]))
        )
        self.bottleneck = block(widths[-2], widths[-1], num_pool_layers)
        levels = range(num_pool_layers)[::-1]
        self.up_transpose = nn.ModuleList(
            _Up(widths[level + 1], widths[level], radii[level], kernel_shape, sampling, grids[level])
            for level in levels
        )
        self.up = nn.ModuleList(block(widths[level + 1], widths[level], level) for level in levels)
        self.up[-1] = nn.Sequential(self.up[-1], nn.Conv2d(chans, out_chans, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, out_chans, H, W)."""
        skips = []
        for block in self.down_sample_layers:
            x = block(x)
            skips.append(x)
            x = F.avg_pool2d(x, 2)
        x = self.bottleneck(x)
        for up, block in zip(self.up_transpose, self.up, strict=True):
            x, skip = up(x), skips.pop()
            below, right = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
            if below or right:
                x = F.pad(x, (0, right, 0, below), mode="reflect")
            x = block(torch.cat((x, skip), dim=1))
        return x
