"""The U-Net of Transform Once's repository (after Thuerey et al., "Deep Learning Methods for
Reynolds-Averaged Navier-Stokes Simulations of Airfoil Flows", AIAA Journal 2020, arXiv 1810.08217).

Its kernels depend on the size of its square input; the sizes that were published are in `SIZES`. Names are the
published ones.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Down(NamedTuple):
    """A convolution of stride 2."""

    kernel: int
    padding: int


class Up(NamedTuple):
    """Bilinear upsampling by a factor, then a convolution of stride 1."""

    factor: int
    kernel: int
    padding: int


class Size(NamedTuple):
    """Kernels for one input size; layers 1, 2 and 2b are always `Down(4, 1)`.

    Attributes:
        down: of layers 3, 4, 5, 6.
        up: of layers 6, 5, 4, 3, 2b, 2.
        skips_fifth: layer 6 takes what layer 4 gives, not layer 5 (as published, for 100 and 128).
    """

    down: tuple[Down, Down, Down, Down]
    up: tuple[Up, Up, Up, Up, Up, Up]
    skips_fifth: bool = False


_HALVE = Down(4, 1)
_DOUBLE = Up(2, 3, 1)
SIZES = {
    24: Size(
        (Down(2, 2), Down(2, 2), Down(2, 3), Down(3, 0)),
        (Up(2, 1, 1), Up(1, 2, 0), Up(1, 3, 1), Up(1, 3, 1), _DOUBLE, _DOUBLE),
    ),
    64: Size(
        (_HALVE, Down(2, 2), Down(2, 2), Down(2, 0)),
        (Up(2, 1, 0), Up(1, 1, 0), Up(1, 3, 1), _DOUBLE, _DOUBLE, _DOUBLE),
    ),
    100: Size(
        (_HALVE, _HALVE, Down(2, 1), Down(2, 1)),
        (Up(1, 3, 1), Up(1, 2, 1), _DOUBLE, _DOUBLE, Up(2, 2, 1), _DOUBLE),
        skips_fifth=True,
    ),
    128: Size(
        (_HALVE, _HALVE, Down(2, 1), Down(2, 1)),
        (Up(1, 3, 1), Up(1, 2, 1), _DOUBLE, _DOUBLE, _DOUBLE, _DOUBLE),
        skips_fifth=True,
    ),
    224: Size(
        (_HALVE, Down(4, 0), Down(4, 0), Down(2, 0)),
        (Up(2, 1, 0), Up(3, 1, 0), Up(3, 5, 0), _DOUBLE, _DOUBLE, _DOUBLE),
    ),
    384: Size(
        (_HALVE, Down(4, 0), Down(4, 0), Down(3, 0)),
        (Up(4, 1, 0), Up(3, 2, 0), Up(2, 1, 1), _DOUBLE, _DOUBLE, _DOUBLE),
    ),
    512: Size(
        (_HALVE, Down(4, 0), Down(4, 0), Down(3, 0)),
        (Up(3, 1, 0), Up(3, 4, 0), Up(2, 1, 1), _DOUBLE, _DOUBLE, _DOUBLE),
    ),
}


class UNet(nn.Module):
    """Seven convolutions down, seven up, with skips between.

    Args:
        size: points per side of the input, a key of `SIZES`.
        in_channels, out_channels: channels.
        channel_exponent: the first layer has 2^e channels, the innermost eight times as many.

    Raises:
        ValueError: a size that was not published.
    """

    def __init__(self, size: int, in_channels: int, out_channels: int, channel_exponent: int) -> None:
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"the U-Net has kernels for inputs of {', '.join(map(str, SIZES))} a side, not {size}")
        form, c = SIZES[size], 2**channel_exponent
        self.skips_fifth = form.skips_fifth
        self.layer1 = nn.Sequential(OrderedDict(layer1_conv=nn.Conv2d(in_channels, c, 4, 2, 1)))
        self.layer2 = _down("layer2", c, 2 * c, _HALVE)
        self.layer2b = _down("layer2b", 2 * c, 2 * c, _HALVE)
        self.layer3 = _down("layer3", 2 * c, 4 * c, form.down[0])
        self.layer4 = _down("layer4", 4 * c, 8 * c, form.down[1])
        self.layer5 = _down("layer5", 8 * c, 8 * c, form.down[2])
        self.layer6 = _down("layer6", 8 * c, 8 * c, form.down[3], norm=False)
        self.dlayer6 = _up("dlayer6", 8 * c, 8 * c, form.up[0])
        self.dlayer5 = _up("dlayer5", 16 * c, 8 * c, form.up[1])
        self.dlayer4 = _up("dlayer4", 16 * c, 4 * c, form.up[2])
        self.dlayer3 = _up("dlayer3", 8 * c, 2 * c, form.up[3])
        self.dlayer2b = _up("dlayer2b", 4 * c, 2 * c, form.up[4])
        self.dlayer2 = _up("dlayer2", 4 * c, c, form.up[5])
        last = nn.ConvTranspose2d(2 * c, out_channels, 4, 2, 1)
        self.dlayer1 = nn.Sequential(OrderedDict(dlayer1_relu=nn.ReLU(), dlayer1_tconv=last))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, size, size) -> (B, out_channels, size, size)."""
        e1 = self.layer1(x)
        e2 = self.layer2(e1)
        e2b = self.layer2b(e2)
        e3 = self.layer3(e2b)
        e4 = self.layer4(e3)
        e5 = self.layer5(e4)
        y = self.dlayer6(self.layer6(e4 if self.skips_fifth else e5))
        for layer, skip in (
            (self.dlayer5, e5),
            (self.dlayer4, e4),
            (self.dlayer3, e3),
            (self.dlayer2b, e2b),
            (self.dlayer2, e2),
            (self.dlayer1, e1),
        ):
            y = layer(torch.cat((y, skip), 1))
        return y


def _down(name: str, channels_in: int, channels_out: int, form: Down, norm: bool = True) -> nn.Sequential:
    parts = OrderedDict[str, nn.Module]()
    parts[f"{name}_leakyrelu"] = nn.LeakyReLU(0.2)
    parts[f"{name}_conv"] = nn.Conv2d(channels_in, channels_out, form.kernel, 2, form.padding)
    if norm:
        parts[f"{name}_bn"] = nn.BatchNorm2d(channels_out)
    return nn.Sequential(parts)


def _up(name: str, channels_in: int, channels_out: int, form: Up) -> nn.Sequential:
    parts = OrderedDict[str, nn.Module]()
    parts[f"{name}_relu"] = nn.ReLU()
    if form.factor > 1:
        parts[f"{name}_upsampling"] = nn.Upsample(scale_factor=form.factor, mode="bilinear", align_corners=False)
    parts[f"{name}_tconv"] = nn.Conv2d(channels_in, channels_out, form.kernel, 1, form.padding)
    parts[f"{name}_bn"] = nn.BatchNorm2d(channels_out)
    return nn.Sequential(parts)
