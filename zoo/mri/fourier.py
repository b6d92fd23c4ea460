"""Two-dimensional Fourier transforms of images, as MRI counts them.

Image and k-space are complex tensors (..., H, W). In a centred transform the origin of both lies at index
n // 2 of each axis; otherwise at index 0, as in ``torch.fft``.
"""

from __future__ import annotations

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


def shift(x: Tensor) -> Tensor:
    """Moves the origin of both axes from index 0 to n // 2."""
    return torch.fft.fftshift(x, dim=AXES)


def unshift(x: Tensor) -> Tensor:
    """Moves the origin of both axes from index n // 2 to 0."""
    return torch.fft.ifftshift(x, dim=AXES)
