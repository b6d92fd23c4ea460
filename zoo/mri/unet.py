"""The U-Net of fastMRI, its normalised form for complex images, and what refines coil maps with it.

Parameters are named as officially (fastMRI and DIRECT agree in them).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.mri.layers import InstanceNorm2d
from zoo.mri.operators import from_channels, normalize_maps, safe_divide, to_channels


class ConvBlock(nn.Module):
    """Twice: 3 x 3 convolution, instance norm, LeakyReLU, dropout of channels.

    Args:
        in_channels, out_channels: of the image.
        dropout: probability.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before in (in_channels, out_channels):
            layers += [
                nn.Conv2d(before, out_channels, 3, padding=1, bias=False),
                InstanceNorm2d(),
                nn.LeakyReLU(0.2, inplace=True),
                nn.Dropout2d(dropout),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        return self.layers(x)


class TransposeConvBlock(nn.Module):
    """2 x 2 transposed convolution of stride 2, instance norm, LeakyReLU.

    Args:
        in_channels, out_channels: of the image.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False),
            InstanceNorm2d(),
            nn.LeakyReLU(0.2, inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, 2H, 2W)."""
        return self.layers(x)


class UNet(nn.Module):
    """U-Net with average pooling and instance norms, for images of any size from 2^pools on.

    Args:
        in_channels, out_channels: of the image.
        num_filters: of the first level; each further level doubles them.
        num_pool_layers: levels below the first.
        dropout: probability.
    """

    def __init__(
        self, in_channels: int, out_channels: int, num_filters: int, num_pool_layers: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = [num_filters * 2**level for level in range(num_pool_layers + 1)]
        self.down_sample_layers = nn.ModuleList(
            ConvBlock(before, after, dropout)
            for before, after in zip((in_channels, *widths), widths[:-1], strict=False)
        )
        self.conv = ConvBlock(widths[-2], widths[-1], dropout)
        self.up_transpose_conv = nn.ModuleList(TransposeConvBlock(2 * width, width) for width in reversed(widths[:-1]))
        self.up_conv = nn.ModuleList(ConvBlock(2 * width, width, dropout) for width in reversed(widths[:-1]))
        self.up_conv[-1] = nn.Sequential(self.up_conv[-1], nn.Conv2d(num_filters, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        skips = []
        for block in self.down_sample_layers:
            x = block(x)
            skips.append(x)
            x = F.avg_pool2d(x, 2)
        x = self.conv(x)
        for up, block in zip(self.up_transpose_conv, self.up_conv, strict=True):
            x, skip = up(x), skips.pop()
            missing_y, missing_x = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
            if missing_y or missing_x:
                x = F.pad(x, (0, missing_x, 0, missing_y), mode="reflect")
            x = block(torch.cat((x, skip), dim=1))
        return x


class NormUNet(nn.Module):
    """A `UNet` on complex images of mean 0 and standard deviation 1, zero-padded to multiples of 16.

    Real and imaginary part are standardised each by itself, and the output is scaled back.

    Args:
        num_filters, num_pool_layers, dropout: see `UNet`.
    """

    def __init__(self, num_filters: int, num_pool_layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.unet = UNet(2, 2, num_filters, num_pool_layers, dropout)

    def forward(self, image: Tensor) -> Tensor:
        """(B, H, W) complex -> (B, H, W) complex."""
        x = to_channels(image)
        std, mean = torch.std_mean(x, dim=(2, 3), keepdim=True)
        (left, right), (top, bottom) = (((-n % 16) // 2, (-n % 16 + 1) // 2) for n in (x.shape[-1], x.shape[-2]))
        y = self.unet(F.pad(safe_divide(x - mean, std), (left, right, top, bottom)))
        y = y[..., top : y.shape[-2] - bottom, left : y.shape[-1] - right]
        return from_channels(y * std + mean)


class SensitivityRefinement(nn.Module):
    """A `UNet` that refines coil maps one by one, with common weights, before they are normalised again.

    Args:
        num_filters, num_pool_layers: see `UNet`.
    """

    def __init__(self, num_filters: int = 8, num_pool_layers: int = 4) -> None:
        super().__init__()
        self.unet = UNet(2, 2, num_filters, num_pool_layers)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) complex -> the same, with sum_c |S_c|^2 = 1."""
        refined = from_channels(self.unet(to_channels(maps.flatten(0, 1))))
        return normalize_maps(refined.unflatten(0, maps.shape[:2]))
