"""Data consistency: ways to bring an image estimate into agreement with what was measured.

Images are complex (B, H, W), k-space (B, C, H, W), y = A x + n with A = M F S and noise of standard deviation
sigma in each of real and imaginary part. With one coil and |S| = 1, A A^H is the identity on the samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from zoo.mri.operators import SenseOperator, conjugate_gradient

ConsistencyName = Literal["auto", "none", "hard", "soft", "gradient", "cg", "noisy", "dps"]
# Part of the samples, of the rows and of the columns farthest from the centre, that the noise is estimated from.
PERIPHERY, AIR, OUTER_COLUMNS = 0.1, 0.05, 0.5
MAD_TO_STD = 1.4826


@dataclass(frozen=True)
class Measurement:
    """What was measured, and how.

    Attributes:
        operator: A.
        kspace: (B, C, H, W) y, 0 where not sampled.
        noise: (B,) sigma, in the units of `kspace`.
    """

    operator: SenseOperator
    kspace: Tensor
    noise: Tensor

    @property
    def coils(self) -> int:
        """C."""
        return self.kspace.shape[1]

    def residual(self, image: Tensor) -> Tensor:
        """||A x - y||^2 / (2 sigma^2 n) over the n samples, (B,): 1 for the truth, on average."""
        error = self.operator.forward(image) - self.kspace
        energy = (error.real.square() + error.imag.square()).sum((1, 2, 3))
        mask = self.operator.mask.expand(len(self.kspace), 1, *self.kspace.shape[-2:])
        return energy / (2 * self.noise.square() * mask.sum((1, 2, 3)) * self.coils)

    def redrawn(self, noise: Tensor) -> Measurement:
        """The same scan with noise once more.

        Samples that are made to agree with y itself do not spread where it was measured. Each in agreement with y
        plus a draw of its noise, they spread as the data allow: for a Gaussian that is its posterior (Papandreou and
        Yuille, NIPS 2010), whatever the network's estimate is there.

        Args:
            noise: (B, C, 2, H, W) standard normal.
        """
        drawn = torch.complex(noise[:, :, 0], noise[:, :, 1]) * self.noise.view(-1, 1, 1, 1)
        return replace(self, kspace=self.kspace + self.operator.mask * drawn)

    def about(self, origin: Tensor, unit: float) -> Measurement:
        """The same scan as one of (x - origin) / unit.

        Args:
            origin: (B, H, W) complex, in the units of the images.
            unit: likewise.
        """
        rest = (self.kspace - self.operator.forward(origin)) / unit
        return replace(self, kspace=rest, noise=self.noise / unit)

    def repeat(self, count: int) -> Measurement:
        """Each sample of the batch `count` times in a row."""

        def repeated(x: Tensor) -> Tensor:
            return x.repeat_interleave(count, dim=0) if len(x) > 1 else x.expand(count, *x.shape[1:])

        operator = self.operator
        operator = SenseOperator(repeated(operator.maps), repeated(operator.mask), operator.centered, operator.norm)
        return Measurement(operator, repeated(self.kspace), repeated(self.noise))


def hard(image: Tensor, measurement: Measurement) -> Tensor:
    """x + A^H (y - A x): with one coil, the measured samples replaced by y."""
    return gradient(image, measurement, 1.0)


def gradient(image: Tensor, measurement: Measurement, rate: float | Tensor) -> Tensor:
    """A step of gradient descent, x - rate A^H (A x - y); converges for rates below 2 / ||A^H A||.

    Args:
        image: x.
        measurement: y and A.
        rate: a number, or (B, 1, 1).
    """
    return image - rate * measurement.operator.gradient(image, measurement.kspace)


def soft(image: Tensor, measurement: Measurement, strength: float | Tensor) -> Tensor:
    """argmin_z |z - x|^2 / 2 + strength / 2 |A z - y|^2, with one coil.

    Args:
        image: x.
        measurement: y and A.
        strength: a number, or (B, 1, 1); infinite for `hard`.
    """
    gain = 1 / (1 + 1 / torch.as_tensor(strength, dtype=image.real.dtype, device=image.device))
    return gradient(image, measurement, gain)


def proximal(image: Tensor, measurement: Measurement, weight: float | Tensor, iterations: int = 5) -> Tensor:
    """argmin_z |A z - y|^2 + weight |z - x|^2 by conjugate gradients from x, for any number of coils.

    Args:
        image: x.
        measurement: y and A.
        weight: a number, or (B, 1, 1).
        iterations: of conjugate gradients.
    """
    operator = measurement.operator

    def normal(z: Tensor) -> Tensor:
        return operator.normal(z) + weight * z

    right = operator.adjoint(measurement.kspace) + weight * image
    return conjugate_gradient(normal, right, image, iterations)


def noisy_space(state: Tensor, noise: Tensor, measurement: Measurement, alpha: float) -> Tensor:
    """The measured samples of a noisy image replaced by those of the data at the same noise.

    Args:
        state: (B, H, W) x_t.
        noise: (B, H, W) complex, standard normal in real and imaginary part.
        measurement: y and A.
        alpha: abar of the state.
    """
    operator = measurement.operator
    wanted = math.sqrt(alpha) * measurement.kspace + math.sqrt(1 - alpha) * operator.forward(noise)
    return state + operator.adjoint(wanted - operator.forward(state))


def estimate_noise(kspace: Tensor, mask: Tensor) -> Tensor:
    """sigma of each sample of a batch, (B,), from where there is the least signal.

    That is the periphery of k-space, or, if whole columns are sampled, the air beyond both ends of the readout
    in the Fourier transform of the outer half of them. The median absolute value of real and imaginary parts there
    is that of noise plus the signal that is left, so the smaller of the two estimates counts. Both are too large for
    a small matrix at a high signal-to-noise ratio whose object fills the field of view: for the procedural heads of
    64 x 64 at 30 by a quarter on average if columns are sampled, and several times if single points are.

    Args:
        kspace: (B, C, H, W) complex, with its origin at index n // 2.
        mask: boolean, broadcastable to (B, 1, H, W).
    """
    height, width = kspace.shape[-2:]
    y = (torch.arange(height, device=kspace.device) - height // 2) / (height / 2)
    x = (torch.arange(width, device=kspace.device) - width // 2) / (width / 2)
    distance = torch.hypot(y[:, None], x[None])
    estimates = []
    for sample, sampled in zip(kspace, mask.expand(len(kspace), 1, height, width)[:, 0], strict=True):
        measured = sampled & (sample != 0).any(0)  # not what a scanner pads with zeros
        if not measured.any():
            estimates.append(sample.real.new_zeros(()))
            continue
        outer = measured & (distance >= distance[measured].quantile(1 - PERIPHERY))
        estimate = _spread(sample[:, outer])
        columns = measured.all(0)
        if columns.any():
            # The window keeps the object's edges from ringing into the air.
            window = (math.pi / 2 * y).cos().square().unsqueeze(-1)
            far = columns & (x.abs() >= x[columns].abs().quantile(1 - OUTER_COLUMNS))
            image = torch.fft.fftshift(torch.fft.ifft(window * sample[..., far], dim=-2, norm="ortho"), dim=-2)
            air = image[:, y.abs() >= 1 - AIR]
            estimate = torch.minimum(estimate, _spread(air.flatten(1)) / window.square().mean().sqrt())
        estimates.append(estimate)
    return torch.stack(estimates)


def _spread(values: Tensor) -> Tensor:
    """Standard deviation in each real component of mostly noise, (C, n) complex: root mean square of the coils'."""
    parts = torch.view_as_real(values).flatten(1).abs()
    return (MAD_TO_STD * parts.median(dim=1).values).square().mean().sqrt()


def error_variance(alpha: float, data_std: float) -> float:
    """Variance of x_0 given x_t in each real component, if all that is known of x_0 is its standard deviation."""
    return data_std**2 * (1 - alpha) / (alpha * data_std**2 + 1 - alpha)


@dataclass(frozen=True)
class Consistency:
    """What a sampler does to the image estimate of every step.

    Attributes:
        name: "hard", "gradient" and "none" as the functions say; "soft" and "cg" weigh the estimate's error against
            the measurement's noise, for one coil and for any number, as if the estimate knew nothing of the data;
            "auto" solves the same problem with the image's own variance for the estimate's error, so that all that
            can be known from the data comes from them: it is meant for a measurement that is `redrawn` for each
            sample, as `zoo.mri.diffusion.conditional.sample_posterior` does; "noisy" acts on the state instead
            (`noisy_space`), and "dps" moves it against the gradient of ||A x0(x_t) - y|| through the network (Chung
            et al., arXiv 2209.14687).
        data_std: standard deviation of real and imaginary part of the images, in the sampler's units.
        rate: of "gradient" and "dps".
        iterations: of conjugate gradients.
    """

    name: ConsistencyName = "auto"
    data_std: float = 0.5
    rate: float = 1.0
    iterations: int = 5

    def correct(self, image: Tensor, measurement: Measurement, alpha: float) -> Tensor:
        """The corrected estimate.

        Args:
            image: (B, H, W) complex estimate of x_0.
            measurement: y and A in the same units.
            alpha: abar of the state it was made from.
        """
        if self.name in ("none", "noisy", "dps"):
            return image
        if self.name == "hard":
            return hard(image, measurement)
        if self.name == "gradient":
            return gradient(image, measurement, self.rate)
        variance = self.data_std**2 if self.name == "auto" else error_variance(alpha, self.data_std)
        ratio = (measurement.noise.square() / variance).view(-1, 1, 1)
        if self.name == "soft" or (self.name == "auto" and measurement.coils == 1):
            return gradient(image, measurement, 1 / (1 + ratio))
        return proximal(image, measurement, ratio, self.iterations)
