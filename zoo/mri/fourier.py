"""Two-dimensional Fourier transforms of images, as MRI counts them.

Image and k-space are complex tensors (..., H, W). In a centred transform the origin of both lies at index
n // 2 of each axis; otherwise at index 0, as in ``torch.fft``.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["ortho", "backward"]
AXES = (-2, -1)


def fft2(image: Tensor, centered: bool = True, norm: Norm = "ortho") -> Tensor:
    """Image -> k-space.

    Args:
        image: (..., H, W) complex.
        centered: the origin lies at index n // 2.
        norm: ``"ortho"`` is unitary; ``"backward"`` leaves this direction unscaled.
    """
    if not centered:
        return torch.fft.fft2(image, norm=norm)
    return shift(torch.fft.fft2(unshift(image), norm=norm))


def ifft2(kspace: Tensor, centered: bool = True, norm: Norm = "ortho") -> Tensor:
    """k-space -> image; the inverse of `fft2` with the same arguments."""
    if not centered:
        return torch.fft.ifft2(kspace, norm=norm)
    return shift(torch.fft.ifft2(unshift(kspace), norm=norm))


def move_origin(kspace: Tensor, centered: bool) -> Tensor:
    """k-space of the other convention of images -> k-space whose image, up to its phase, is that of `centered`.

    k-space has its origin at index n // 2 in both, so that masks stay as they are.

    Args:
        kspace: (..., H, W) complex; its image is centred if `centered` is false, and the other way round.
        centered: the convention that is wanted.
    """
    for axis in AXES:
        n = kspace.shape[axis]
        frequency = torch.arange(n, device=kspace.device) - n // 2
        turn = 2 * math.pi / n * (frequency * (n // 2) % n).to(kspace.real.dtype)
        phase = torch.polar(torch.ones_like(turn), turn if centered else -turn)
        kspace = kspace * (phase if axis == -1 else phase[:, None])
    return kspace


def shift(x: Tensor) -> Tensor:
    """Moves the origin of both axes from index 0 to n // 2."""
    return torch.fft.fftshift(x, dim=AXES)


def unshift(x: Tensor) -> Tensor:
    """Moves the origin of both axes from index n // 2 to 0."""
    return torch.fft.ifftshift(x, dim=AXES)
