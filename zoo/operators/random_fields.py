"""Gaussian random fields that initial conditions and coefficients are drawn from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.operators.transforms import synthesise


def periodic_field(
    count: int,
    size: int,
    alpha: float = 2.5,
    tau: float = 7.0,
    sigma: float | None = None,
    dims: int = 2,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Zero-mean fields on the unit torus with covariance 2 sigma^2 (-lap + tau^2)^-alpha.

    They are what the data of the Fourier neural operator start from: the real part of the inverse FFT of
    complex white noise, sqrt(2) sigma (4 pi^2 |k|^2 + tau^2)^(-alpha / 2) per mode.

    Args:
        count, size: the result is (count, size) or (count, size, size) float32.
        alpha, tau: smoothness and inverse length.
        sigma: amplitude; tau^((2 alpha - dims) / 2) if None.
        dims: 1 or 2.
        generator: source of randomness.
    """
    if sigma is None:
        sigma = tau ** (0.5 * (2 * alpha - dims))
    integer = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    axes = torch.meshgrid(*[integer] * dims, indexing="ij")
    squared = torch.stack(axes).square().sum(0)
    scale = size**dims * math.sqrt(2) * sigma * (4 * math.pi**2 * squared + tau**2) ** (-alpha / 2)
    scale.view(-1)[0] = 0.0
    shape = (2, count, *[size] * dims)
    real, imaginary = torch.randn(shape, generator=generator, dtype=torch.float64)
    field = torch.fft.ifftn(scale * torch.complex(real, imaginary), dim=tuple(range(1, dims + 1)))
    return field.real.float()


def pointwise_variance(size: int, alpha: float = 2.5, tau: float = 7.0, sigma: float | None = None) -> float:
    """The variance that `periodic_field` has at each point in two dimensions, 2 sigma^2 sum_k lambda_k."""
    if sigma is None:
        sigma = tau ** (alpha - 1)
    integer = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    squared = integer.unsqueeze(1) ** 2 + integer**2
    eigenvalues = (4 * math.pi**2 * squared + tau**2) ** -alpha
    eigenvalues[0, 0] = 0.0
    return float(2 * sigma**2 * eigenvalues.sum())


def neumann_field(
    count: int, size: int, alpha: float = 2.0, tau: float = 3.0, generator: torch.Generator | None = None
) -> Tensor:
    """Zero-mean fields on the unit square with covariance tau^(2 alpha - 2) (-lap + tau^2)^-alpha, zero flux.

    Args:
        count, size: the result is (count, size, size) float32, cosine series at the centres of size^2 cells.
        alpha, tau: smoothness and inverse length.
        generator: source of randomness.
    """
    k = torch.arange(size, dtype=torch.float64)
    squared = math.pi**2 * (k.unsqueeze(1) ** 2 + k**2)
    scale = size * tau ** (alpha - 1) * (squared + tau**2) ** (-alpha / 2)
    scale[0, 0] = 0.0
    noise = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    return synthesise(scale * noise, (size, size), "dct").float()
