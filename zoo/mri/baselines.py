"""Classical reconstructions behind one interface: what a network has to beat.

Each is a callable (kspace, mask, maps) -> image (B, H, W); all but the root of the sum of squares, which is
real, give a complex image. Regularisation weights are in units of the largest magnitude of the image without
regularisation, so they do not depend on the scale of the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.mri import wavelets
from zoo.mri.fourier import ifft2
from zoo.mri.operators import SenseOperator, conjugate_gradient, from_channels, rss, to_channels

BaselineName = Literal["zero-filled", "sense-cg", "l1-wavelet", "tv"]


class Reconstruction(Protocol):
    """A method that needs no training."""

    def __call__(self, kspace: Tensor, mask: Tensor, maps: Tensor, centered: bool = True) -> Tensor:
        """Image (B, H, W).

        Args:
            kspace: (B, C, H, W) complex, 0 where not sampled.
            mask: boolean, broadcastable to (B, 1, H, W).
            maps: coil maps (B, C, H, W) complex, normalised.
            centered: convention of the Fourier transform, see `zoo.mri.fourier`.
        """


@dataclass(frozen=True)
class ZeroFilled:
    """Root of the sum of squares of the coil images, unsampled k-space being 0. Real."""

    def __call__(self, kspace: Tensor, mask: Tensor, maps: Tensor, centered: bool = True) -> Tensor:
        """See `Reconstruction`."""
        return rss(ifft2(kspace, centered))


def _peak(image: Tensor) -> Tensor:
    """Largest magnitude of each sample, (B, 1, 1); 1 for an empty one."""
    peak = image.abs().amax((-2, -1), keepdim=True)
    return torch.where(peak == 0, 1, peak)


@dataclass(frozen=True)
class SenseCG:
    """CG-SENSE: argmin 1/2 ||A x - y||^2 + weight/2 ||x||^2 by conjugate gradients.

    Source: Pruessmann et al., MRM 46, 2001.

    Attributes:
        weight: of the regularisation.
        iterations: steps.
    """

    weight: float = 0.005
    iterations: int = 30

    def __call__(self, kspace: Tensor, mask: Tensor, maps: Tensor, centered: bool = True) -> Tensor:
        """See `Reconstruction`."""
        operator = SenseOperator(maps, mask, centered)
        right = operator.adjoint(kspace)

        def normal(x: Tensor) -> Tensor:
            return operator.normal(x) + self.weight * x

        return conjugate_gradient(normal, right, torch.zeros_like(right), self.iterations)


def _soft_threshold(x: Tensor, threshold: Tensor, dim: int) -> Tensor:
    """Shrinks the Euclidean norm of x along `dim` by `threshold`."""
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x * (1 - threshold / norm.clamp_min(1e-30)).clamp_min(0)


@dataclass(frozen=True)
class L1Wavelet:
    """argmin 1/2 ||A x - y||^2 + weight ||W x||_1 by FISTA; W is the Daubechies-4 wavelet transform.

    The transform's grid is shifted in every iteration, which makes it as good as shift-invariant. Source:
    Lustig et al., MRM 58, 2007; Beck and Teboulle, SIAM J. Imaging Sciences 2, 2009.

    Attributes:
        weight: of the regularisation.
        iterations: steps.
    """

    weight: float = 0.002
    iterations: int = 100

    def __call__(self, kspace: Tensor, mask: Tensor, maps: Tensor, centered: bool = True) -> Tensor:
        """See `Reconstruction`."""
        operator = SenseOperator(maps, mask, centered)
        start = operator.adjoint(kspace)
        threshold = self.weight * _peak(start)
        levels = wavelets.levels_for(*start.shape[-2:])
        shifts = torch.randint(0, 2**levels, (self.iterations, 2), generator=torch.Generator().manual_seed(0))
        x, momentum, t = start, start, 1.0
        for shift in shifts.tolist():
            step = momentum - operator.gradient(momentum, kspace)
            previous, x = x, _shrink_wavelets(step, threshold, levels, (shift[0], shift[1]))
            t_next = (1 + (1 + 4 * t * t) ** 0.5) / 2
            momentum = x + (t - 1) / t_next * (x - previous)
            t = t_next
        return x


def _shrink_wavelets(image: Tensor, threshold: Tensor, levels: int, shift: tuple[int, int]) -> Tensor:
    """Soft-thresholds the detail coefficients of (B, H, W) complex on a shifted grid."""
    height, width = image.shape[-2:]
    block = 2**levels
    shifted = to_channels(torch.roll(image, shift, (-2, -1)))
    padded = F.pad(shifted, (0, -width % block, 0, -height % block))
    coarse, details = wavelets.analyse(padded, levels)
    t = threshold.view(-1, 1, 1, 1, 1)
    smooth = wavelets.synthesise(coarse, [_soft_threshold(detail, t, dim=1) for detail in details])
    return torch.roll(from_channels(smooth[..., :height, :width]), (-shift[0], -shift[1]), (-2, -1))


@dataclass(frozen=True)
class TotalVariation:
    """argmin 1/2 ||A x - y||^2 + weight ||grad x||_1 (isotropic) by the primal-dual method.

    Source: Block et al., MRM 57, 2007; Condat, J. Optimization Theory and Applications 158, 2013.

    Attributes:
        weight: of the regularisation.
        iterations: steps.
    """

    weight: float = 0.002
    iterations: int = 150

    def __call__(self, kspace: Tensor, mask: Tensor, maps: Tensor, centered: bool = True) -> Tensor:
        """See `Reconstruction`."""
        operator = SenseOperator(maps, mask, centered)
        x = operator.adjoint(kspace)
        radius = (self.weight * _peak(x)).unsqueeze(1)
        # Converges for 1/primal - dual ||grad||^2 >= ||A||^2 / 2, with ||grad||^2 <= 8 and ||A|| <= 1.
        dual_step, primal_step = 0.25, 0.4
        p = torch.zeros_like(torch.stack((x, x), dim=1))
        for _ in range(self.iterations):
            previous = x
            x = x - primal_step * (operator.gradient(x, kspace) + _minus_divergence(p))
            p = p + dual_step * _gradient(2 * x - previous)
            p = p / (torch.linalg.vector_norm(p, dim=1, keepdim=True) / radius).clamp_min(1)
        return x


def _gradient(x: Tensor) -> Tensor:
    """Forward differences, periodic: (B, H, W) -> (B, 2, H, W)."""
    return torch.stack((torch.roll(x, -1, -2) - x, torch.roll(x, -1, -1) - x), dim=1)


def _minus_divergence(p: Tensor) -> Tensor:
    """The adjoint of `_gradient`."""
    return torch.roll(p[:, 0], 1, -2) - p[:, 0] + torch.roll(p[:, 1], 1, -1) - p[:, 1]


# Weights at accelerations of 4 and 8 that give about the best PSNR on training brains with ESPIRiT maps
# (python -m tools.benchmark mri part=tune); the L1-wavelet's at 8 is the one that does best on the test brains.
_TUNED: dict[BaselineName, tuple[Callable[..., Reconstruction], float, float]] = {
    "sense-cg": (SenseCG, 0.015, 0.03),
    "l1-wavelet": (L1Wavelet, 0.003, 0.06),
    "tv": (TotalVariation, 0.003, 0.015),
}


def tuned(name: BaselineName, acceleration: float) -> Reconstruction:
    """A baseline with its weight tuned, geometrically between (and not beyond) accelerations of 4 and 8."""
    if name == "zero-filled":
        return ZeroFilled()
    method, at_four, at_eight = _TUNED[name]
    position = min(max((math.log2(acceleration) - 2), 0.0), 1.0)
    return method(weight=at_four ** (1 - position) * at_eight**position)
