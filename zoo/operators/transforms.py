"""Orthonormal real transforms of fields, whole (by FFT) and of a low block of modes (by matrices).

A block transform maps a field of N points per axis to its m lowest modes per axis with an (m, N) matrix of
orthonormal rows, so that the sum of squares of the coefficients is the energy of the field's projection
(Parseval) and the transpose is the inverse. At the sizes of operator learning two matrix products are faster
than an FFT of the whole field, on CPU and GPU alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from zoo.ops.kept import kept
from zoo.ops.precision import full_precision

Basis = Literal["dct", "fourier"]
Norm = Literal["ortho", "none"]


def dct(x: Tensor, norm: Norm = "ortho", dim: int = -1) -> Tensor:
    """DCT-II along `dim`, by an FFT of the signal reordered into its even and reversed odd samples.

    Args:
        x: real, any shape.
        norm: ``"ortho"``: X_k = c_k sum_n x_n cos(pi k (2n + 1) / 2N) with c_0 = sqrt(1/N) and c_k = sqrt(2/N);
            ``"none"``: 2 sum_n x_n cos(...), as scipy without a norm.
        dim: the axis.

    Returns:
        Of the shape of `x`, in its precision, but at least float32.

    Raises:
        ValueError: an unknown norm, or a complex `x`.
    """
    x = _checked(x, norm).movedim(dim, -1)
    size = x.shape[-1]
    spectrum = torch.fft.fft(torch.cat((x[..., ::2], x[..., 1::2].flip(-1)), -1))
    angle = torch.arange(size, dtype=x.dtype, device=x.device) * (math.pi / (2 * size))
    transformed = 2 * (spectrum.real * angle.cos() + spectrum.imag * angle.sin())
    if norm == "ortho":
        transformed = transformed * _ortho_scale(size, x)
    return transformed.movedim(-1, dim)


def idct(x: Tensor, norm: Norm = "ortho", dim: int = -1) -> Tensor:
    """The inverse of `dct`, with the same arguments (for ``"none"`` it carries the factor 1 / 2N)."""
    x = _checked(x, norm).movedim(dim, -1)
    size = x.shape[-1]
    if norm == "ortho":
        x = x / _ortho_scale(size, x)
    # 2 exp(-i angle) V = X - i X reversed, with X_N = 0: the reordered signal's spectrum V follows.
    mirrored = torch.cat((torch.zeros_like(x[..., :1]), x[..., 1:].flip(-1)), -1)
    angle = torch.arange(size, dtype=x.dtype, device=x.device) * (math.pi / (2 * size))
    real = x * angle.cos() + mirrored * angle.sin()
    imaginary = x * angle.sin() - mirrored * angle.cos()
    reordered = torch.fft.ifft(torch.complex(real, imaginary) / 2).real
    half = (size + 1) // 2
    signal = torch.stack((reordered[..., :half], _pad_to(reordered[..., half:].flip(-1), half)), -1)
    return signal.flatten(-2)[..., :size].movedim(-1, dim)


def _checked(x: Tensor, norm: Norm) -> Tensor:
    if norm not in ("ortho", "none"):
        raise ValueError(f"there is no norm '{norm}': use ortho or none")
    if x.is_complex():
        raise ValueError("a cosine transform takes real fields: transform real and imaginary part on their own")
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _ortho_scale(size: int, like: Tensor) -> Tensor:
    scale = torch.full((size,), math.sqrt(1 / (2 * size)), dtype=like.dtype, device=like.device)
    scale[0] = math.sqrt(1 / (4 * size))
    return scale


def _pad_to(x: Tensor, size: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, size - x.shape[-1]))


def dct2(x: Tensor) -> Tensor:
    """Orthonormal DCT-II over the last two axes."""
    return dct(dct(x, dim=-1), dim=-2)


def idct2(x: Tensor) -> Tensor:
    """The inverse of `dct2`."""
    return idct(idct(x, dim=-1), dim=-2)


def basis_matrix(basis: Basis, modes: int, points: int) -> Tensor:
    """The first `modes` orthonormal basis functions at `points` points, (modes, points) float64.

    ``"dct"``: c_k cos(pi k (2n + 1) / 2N), for fields without periodicity. ``"fourier"``: 1, cos, sin of one
    period, cos, sin of two, ... at n / N, for periodic fields; an even number of modes ends with a cosine.

    Raises:
        ValueError: more modes than points, or an unknown basis.
    """
    if not 1 <= modes <= points:
        raise ValueError(f"{modes} modes can't be told apart on {points} points")
    n = torch.arange(points, dtype=torch.float64)
    if basis == "dct":
        k = torch.arange(modes, dtype=torch.float64).unsqueeze(1)
        matrix = torch.cos(math.pi * k * (2 * n + 1) / (2 * points)) * math.sqrt(2 / points)
    elif basis == "fourier":
        k = torch.arange(1, modes + 1, dtype=torch.float64).unsqueeze(1)
        angle = 2 * math.pi * torch.div(k, 2, rounding_mode="floor") * n / points
        matrix = torch.where(k % 2 == 0, angle.cos(), angle.sin()) * math.sqrt(2 / points)
        if modes == points and points % 2 == 0:
            matrix[-1] /= math.sqrt(2)  # the cosine of the Nyquist frequency is +-1 everywhere
        matrix[0] = 1.0
    else:
        raise ValueError(f"there is no basis '{basis}': use dct or fourier")
    matrix[0] = math.sqrt(1 / points)
    return matrix


def matrices(basis: Basis, modes: Sequence[int], points: Sequence[int], like: Tensor) -> list[Tensor]:
    """`basis_matrix` of each axis, with dtype (at least float32) and device of `like`."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return [_matrix_on(basis, m, n, dtype, like.device) for m, n in zip(modes, points, strict=True)]


@kept(maxsize=64)
def _matrix_on(basis: Basis, modes: int, points: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return basis_matrix(basis, modes, points).to(device, dtype)


def apply_axes(x: Tensor, along: Sequence[Tensor]) -> Tensor:
    """Multiplies the last axes of `x` by a matrix each: (..., N1, N2) with (m1, N1), (m2, N2) -> (..., m1, m2).

    Always in float32 at least, under autocast too: a half-precision transform loses the high modes.
    """
    with full_precision(x):
        x = x.to(along[0].dtype)
        x = x @ along[-1].mT
        for axis, matrix in enumerate(reversed(along[:-1]), start=2):
            x = matrix @ x if axis == 2 else torch.movedim(torch.movedim(x, -axis, -1) @ matrix.mT, -1, -axis)
        return x


def analyse(x: Tensor, modes: Sequence[int], basis: Basis) -> Tensor:
    """The lowest `modes` coefficients per axis of fields (..., *points): (..., *modes)."""
    return apply_axes(x, matrices(basis, modes, x.shape[-len(modes) :], x))


def synthesise(z: Tensor, points: Sequence[int], basis: Basis) -> Tensor:
    """The field (..., *points) of coefficients (..., *modes): `analyse` backwards."""
    modes = z.shape[-len(points) :]
    return apply_axes(z, [matrix.mT for matrix in matrices(basis, modes, points, z)])


def corner(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """The first `sizes` entries of the last axes."""
    for axis, size in enumerate(reversed(sizes), start=1):
        x = x.narrow(-axis, 0, size)
    return x


def resample(x: Tensor, points: Sequence[int]) -> Tensor:
    """Periodic fields (..., *old points) at other points: the trigonometric polynomial through the old ones.

    Frequencies that either grid can't hold, the Nyquist frequency included, are dropped.
    """
    old = x.shape[-len(points) :]
    if tuple(old) == tuple(points):
        return x
    dtype = torch.promote_types(x.dtype, torch.float32)
    along = [_resampling_matrix(before, after, dtype, x.device) for before, after in zip(old, points, strict=True)]
    return apply_axes(x, along)


@kept(maxsize=64)
def _resampling_matrix(before: int, after: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    held = min(before, after)
    held -= 1 - held % 2
    there, here = (basis_matrix("fourier", held, points) for points in (before, after))
    return (here.mT @ there * math.sqrt(after / before)).to(device, dtype)
