"""Discrete-continuous (DISCO) convolution: filters that are functions of position, sampled on any grid.

Source: Ocampo et al., arXiv 2209.13603; Liu-Schiaffini et al., arXiv 2402.16845. A filter is a sum of hat functions
in polar coordinates on a disc of radius r within the domain [-1, 1]^2, so that the same weights serve images of
any resolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.ops.kept import kept

Padding = Literal["constant", "circular"]
Sampling = Literal["pixels", "published"]


def basis_size(kernel_shape: Sequence[int]) -> int:
    """Number of hat functions of (rings, angles), or of (rings,) without angles.

    Raises:
        ValueError: it is neither.
    """
    if len(kernel_shape) not in (1, 2) or min(kernel_shape) < 1:
        raise ValueError(f"a kernel shape is (rings, angles) or (rings,), each 1 or more, not {tuple(kernel_shape)}")
    return kernel_shape[0] if len(kernel_shape) == 1 else (kernel_shape[0] - 1) * kernel_shape[1] + 1


def _hats(y: Tensor, x: Tensor, kernel_shape: Sequence[int], radius: float) -> Tensor:
    """(K, h, w) values of the hat functions at offsets (h, w) along rows and columns."""
    rings = kernel_shape[0]
    angles = kernel_shape[1] if len(kernel_shape) > 1 else 1
    width, turn = radius / rings, 2 * math.pi / angles
    r, phi = torch.hypot(y, x), torch.atan2(x, y) + math.pi
    k = torch.arange(basis_size(kernel_shape), dtype=y.dtype, device=y.device).view(-1, 1, 1)
    ring = torch.where(k == 0, 0, (k - 1).div(angles, rounding_mode="floor") + 1)
    radial = (1 - (r - ring * width).abs() / width).clamp_min(0)
    distance = (phi - (k - 1).remainder(angles) * turn).abs()
    angular = (1 - torch.minimum(distance, 2 * math.pi - distance) / turn).clamp_min(0)
    if angles > 1:
        radial = radial * torch.where(k == 0, 1, angular)
    inner, outer = rings / (rings + 1), 3 * (rings + 1)
    area = math.pi * (radius * inner) ** 2 + math.pi * radius**2 * (2 * inner + 1) / outer
    return torch.where(r <= radius, radial, 0) / area


@kept(maxsize=256)
def filter_basis(
    shape: tuple[int, int], kernel_shape: tuple[int, ...], radius: float, sampling: Sampling = "pixels"
) -> Tensor:
    """The hat functions on a grid, times the area of a pixel: (K, n, m) float32.

    Args:
        shape: (H, W) of the image, which covers [-1, 1]^2.
        kernel_shape: (rings, angles), or (rings,) for filters without angles.
        radius: of the disc.
        sampling: "pixels" takes the values at the distances between pixels, n and m odd; "published" takes
            n = floor(radius * min(H, W)) + 1 points spread over the disc, as the released code does: these are
            not the pixels' distances, and with n even the filter sits half a pixel beside the centre.

    Raises:
        ValueError: the grid is so coarse that the basis on it is not linearly independent ("pixels" only), or radius or
            kernel shape are impossible.
    """
    basis_size(kernel_shape)
    if not radius > 0:
        raise ValueError(f"the radius of a filter should be positive, not {radius:g}")
    height, width = shape
    if sampling == "published":
        count = math.floor(radius * min(height, width)) + 1
        rows = columns = torch.linspace(-radius, radius, count, dtype=torch.float64)
    else:
        rows, columns = (_offsets(size, radius) for size in shape)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    basis = _hats(y, x, kernel_shape, radius)
    if sampling == "pixels":
        rank = int(torch.linalg.matrix_rank(basis.flatten(1)))
        if rank < len(basis):
            raise ValueError(
                f"Filters of radius {radius:g} have {len(basis)} weights, but only {rank} of them can be told apart on "
                f"a grid of {height} x {width}: take a larger radius or a smaller kernel shape than {kernel_shape}"
            )
    return (basis * 4 / (height * width)).float()


def _offsets(size: int, radius: float) -> Tensor:
    """Distances of pixels from the middle one along an axis, as far as the disc reaches."""
    reach = math.floor(radius * size / 2 + 1e-9)
    return torch.arange(-reach, reach + 1, dtype=torch.float64) * 2 / size


def smallest_radius(shape: tuple[int, int], kernel_shape: tuple[int, ...]) -> float:
    """The smallest radius, in steps of half a pixel, at which the basis is independent on a grid."""
    pixel = 2 / min(shape)
    for half_steps in range(2, 2 * max(shape)):
        radius = half_steps * pixel / 2
        try:
            filter_basis(shape, kernel_shape, radius)
        except ValueError:
            continue
        return radius
    raise ValueError(f"no radius lets a grid of {shape} carry the kernel shape {kernel_shape}")


def disco2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, basis: Tensor, groups: int = 1, padding: Padding = "constant"
) -> Tensor:
    """Convolves with the filters sum_k weight_k basis_k (a cross-correlation).

    Args:
        x: (B, in, H, W).
        weight: (out, in / groups, K).
        bias: (out,) or None.
        basis: (K, n, m), see `filter_basis`.
        groups: of channels.
        padding: zeros beyond the border, or the image repeated.

    Returns:
        (B, out, H, W).
    """
    n, m = basis.shape[-2:]
    kernel = torch.einsum("oik,knm->oinm", weight, basis.to(weight))
    around = (n // 2, m // 2)
    if padding != "constant" or n % 2 == 0 or m % 2 == 0:
        x = F.pad(x, (around[1], (m + 1) // 2 - 1, around[0], (n + 1) // 2 - 1), mode=padding)
        around = (0, 0)
    if x.device.type != "cpu":
        return F.conv2d(x, kernel, bias, padding=around, groups=groups)
    # The gradients of large filters of few channels take half the time in this layout, but norms take longer in it.
    x = x.contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, kernel, bias, padding=around, groups=groups).contiguous()


class DiscoConv2d(nn.Module):
    """`disco2d` as a layer; the basis follows the size of the image.

    Args:
        in_channels, out_channels: of the image.
        kernel_shape, radius, sampling: see `filter_basis`.
        groups, padding: see `disco2d`.
        bias: add one.
        grid: (H, W) for which the filters are made, whatever the size of the image; None for that size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_shape: Sequence[int],
        radius: float,
        groups: int = 1,
        bias: bool = True,
        padding: Padding = "constant",
        sampling: Sampling = "pixels",
        grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.kernel_shape, self.radius = tuple(kernel_shape), radius
        self.groups, self.padding, self.sampling, self.grid = groups, padding, sampling, grid
        scale = math.sqrt(groups / in_channels)
        size = basis_size(kernel_shape)
        self.weight = nn.Parameter(scale * torch.randn(out_channels, in_channels // groups, size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        grid = self.grid or (x.shape[-2], x.shape[-1])
        basis = filter_basis(grid, self.kernel_shape, self.radius, self.sampling).to(x.device)
        return disco2d(x, self.weight, self.bias, basis, self.groups, self.padding)
