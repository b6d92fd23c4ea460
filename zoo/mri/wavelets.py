"""Orthogonal wavelet transform of complex images with periodic borders."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops.kept import kept

# Daubechies' scaling filter with four vanishing moments ("db4"), Ten Lectures on Wavelets, table 6.1.
_DB4 = (
    0.2303778133088965,
    0.7148465705529157,
    0.6308807679298589,
    -0.0279837694168599,
    -0.1870348117190931,
    0.0308413818355607,
    0.0328830116668852,
    -0.0105974017850690,
)


@kept(maxsize=8)
def _filters(dtype: torch.dtype, device: torch.device) -> Tensor:
    """(4, 1, 8, 8): the separable filters low-low, low-high, high-low, high-high."""
    low = torch.tensor(_DB4, dtype=torch.float64)
    high = low.flip(0) * torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    pairs = [torch.outer(a, b) for a in (low, high) for b in (low, high)]
    return torch.stack(pairs).unsqueeze(1).to(device, dtype)


def levels_for(height: int, width: int) -> int:
    """Levels after which the coarsest band is still as large as the filter."""
    levels = 0
    while min(height, width) // 2 ** (levels + 1) >= len(_DB4) and levels < 4:
        levels += 1
    return levels


def analyse(image: Tensor, levels: int) -> tuple[Tensor, list[Tensor]]:
    """Image -> coarse band and detail bands, finest first.

    Args:
        image: (B, C, H, W) real, H and W divisible by 2^levels.
        levels: of the transform.
    """
    filters = _filters(image.dtype, image.device)
    size = filters.shape[-1]
    details = []
    for _ in range(levels):
        flat = image.flatten(0, 1).unsqueeze(1)
        bands = F.conv2d(F.pad(flat, (0, size - 2, 0, size - 2), mode="circular"), filters, stride=2)
        bands = bands.unflatten(0, image.shape[:2])
        image = bands[:, :, 0]
        details.append(bands[:, :, 1:])
    return image, details


def synthesise(image: Tensor, details: list[Tensor]) -> Tensor:
    """The inverse, and adjoint, of `analyse`."""
    filters = _filters(image.dtype, image.device)
    extra = filters.shape[-1] - 2
    for detail in reversed(details):
        bands = torch.cat((image.unsqueeze(2), detail), dim=2).flatten(0, 1)
        wide = F.conv_transpose2d(bands, filters, stride=2)
        height, width = wide.shape[-2] - extra, wide.shape[-1] - extra
        wide[..., :extra, :] += wide[..., height:, :]
        wide[..., :, :extra] += wide[..., :, width:]
        image = wide[:, 0, :height, :width].unflatten(0, detail.shape[:2])
    return image
