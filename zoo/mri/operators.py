"""The measurement of parallel MRI, y_c = M F (S_c x), and the pieces it is made of.

Shapes: image x (B, H, W); coil images, coil maps S and k-space y (B, C, H, W); all complex. The mask M is
boolean, (B, 1, H, W) or whatever broadcasts to that. With maps normalised to sum_c |S_c|^2 = 1 the operator
has norm at most 1. A single coil is C = 1 with maps of ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.mri.fourier import Norm, fft2, ifft2


def expand(image: Tensor, maps: Tensor) -> Tensor:
    """What each coil sees of an image: S_c x, (B, H, W) -> (B, C, H, W)."""
    return maps * image.unsqueeze(-3)


def reduce(coil_images: Tensor, maps: Tensor) -> Tensor:
    """The adjoint of `expand`: sum_c conj(S_c) z_c, (B, C, H, W) -> (B, H, W)."""
    return (maps.conj() * coil_images).sum(-3)


def rss(coil_images: Tensor) -> Tensor:
    """Root of the sum of squares over coils, (B, C, H, W) -> real (B, H, W).

    Its gradient at a pixel without signal is 0.
    """
    square = (coil_images.real.square() + coil_images.imag.square()).sum(-3)
    signal = square > 0
    return torch.where(signal, torch.where(signal, square, 1.0).sqrt(), 0.0)


def safe_divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient of real or complex tensors that is 0 where the denominator is."""
    zero = denominator == 0
    return torch.where(zero, 0, numerator / torch.where(zero, 1, denominator))


def normalize_maps(maps: Tensor) -> Tensor:
    """Scales coil maps (..., C, H, W) to sum_c |S_c|^2 = 1 where there is any signal, 0 elsewhere."""
    return safe_divide(maps, rss(maps).unsqueeze(-3))


def center_crop(x: Tensor, height: int, width: int) -> Tensor:
    """The middle of the last two axes, beginning at (n - size) // 2; an axis that is smaller stays as it is."""
    top, left = max(x.shape[-2] - height, 0) // 2, max(x.shape[-1] - width, 0) // 2
    return x[..., top : top + height, left : left + width]


def to_channels(image: Tensor) -> Tensor:
    """Complex (B, H, W) -> real (B, 2, H, W), real part first."""
    return torch.stack((image.real, image.imag), dim=-3)


def from_channels(channels: Tensor) -> Tensor:
    """Real (B, 2, H, W) -> complex (B, H, W), complex64 for half precisions: transforms stay in float32."""
    if channels.dtype in (torch.float16, torch.bfloat16):
        channels = channels.float()
    return torch.complex(channels[..., 0, :, :].contiguous(), channels[..., 1, :, :].contiguous())


@dataclass(frozen=True)
class SenseOperator:
    """A = M F S with its adjoint, for images (B, H, W) and k-space (B, C, H, W).

    Attributes:
        maps: coil maps (B, C, H, W), complex.
        mask: boolean, broadcastable to (B, 1, H, W).
        centered: convention of the Fourier transform, see `zoo.mri.fourier`.
        norm: likewise.
    """

    maps: Tensor
    mask: Tensor
    centered: bool = True
    norm: Norm = "ortho"

    def forward(self, image: Tensor) -> Tensor:
        """A x: image -> sampled k-space."""
        return self.mask * fft2(expand(image, self.maps), self.centered, self.norm)

    def adjoint(self, kspace: Tensor) -> Tensor:
        """A^H y: k-space -> image (the adjoint for the orthonormal transform)."""
        return reduce(ifft2(self.mask * kspace, self.centered, self.norm), self.maps)

    def normal(self, image: Tensor) -> Tensor:
        """A^H A x."""
        return self.adjoint(self.forward(image))

    def gradient(self, image: Tensor, kspace: Tensor) -> Tensor:
        """A^H (A x - y), the gradient of 1/2 ||A x - y||^2."""
        return self.adjoint(self.forward(image) - kspace)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Re <a, b> of each sample, (B, ...) -> (B,)."""
    product = a.conj() * b
    return product.real.flatten(1).sum(1)


def conjugate_gradient(normal: Callable[[Tensor], Tensor], right: Tensor, start: Tensor, iterations: int) -> Tensor:
    """Solves N x = b for a positive definite N, each sample of the batch by itself.

    Args:
        normal: N.
        right: b, (B, ...).
        start: first guess of x.
        iterations: steps; a sample that has converged stays where it is.
    """
    x = start
    residual = right - normal(x)
    direction = residual
    # Below rounding error a residual has no direction, and following it would lead away again.
    floor = (2 * torch.finfo(right.dtype).eps) ** 2 * inner(right, right)
    energy = _above(inner(residual, residual), floor)
    shape = (-1, *[1] * (right.ndim - 1))
    for _ in range(iterations):
        image = normal(direction)
        step = safe_divide(energy, inner(direction, image)).view(shape)
        x = x + step * direction
        residual = residual - step * image
        previous, energy = energy, _above(inner(residual, residual), floor)
        direction = residual + safe_divide(energy, previous).view(shape) * direction
    return x


def _above(values: Tensor, floor: Tensor) -> Tensor:
    return torch.where(values > floor, values, 0)
