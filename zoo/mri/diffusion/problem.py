"""A reconstruction in the units of the sampler, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.data.kspace import KSpaceBatch
from zoo.mri.diffusion.consistency import Measurement, estimate_noise
from zoo.mri.operators import SenseOperator, to_channels


@dataclass(frozen=True)
class Problem:
    """What a conditional sampler is given.

    Attributes:
        measurement: in the sampler's units.
        zero_filled: (B, H, W) complex A^H y, likewise; its largest magnitude is the signal scale.
        scale: (B,) what one unit is in the data's.
    """

    measurement: Measurement
    zero_filled: Tensor
    scale: Tensor

    @classmethod
    def create(
        cls, kspace: Tensor, mask: Tensor, maps: Tensor | None, signal_scale: float, noise: float | Tensor | None = None
    ) -> Problem:
        """Scales a measurement by what is known from it alone.

        Args:
            kspace: (B, C, H, W) complex, 0 where not sampled.
            mask: boolean, broadcastable to (B, 1, H, W).
            maps: (B, C, H, W) complex coil maps; None for ones.
            signal_scale: largest magnitude of the zero-filled image in the sampler's units.
            noise: standard deviation of real and imaginary part of every sample, (B,) or a number; None to
                estimate it.
        """
        maps = torch.ones_like(kspace) if maps is None else maps
        mask = mask.bool().expand(len(kspace), 1, *kspace.shape[-2:])
        operator = SenseOperator(maps, mask)
        zero_filled = operator.adjoint(kspace)
        peak = zero_filled.abs().amax((1, 2))
        scale = torch.where(peak == 0, 1, peak) / signal_scale
        if noise is None:
            sigma = estimate_noise(kspace, mask)
        else:
            sigma = torch.as_tensor(noise, dtype=scale.dtype, device=scale.device).expand(len(kspace))
        scaled = kspace / scale.view(-1, 1, 1, 1)
        return cls(Measurement(operator, scaled, sigma / scale), zero_filled / scale.view(-1, 1, 1), scale)

    @property
    def condition(self) -> Tensor:
        """(B, 3, H, W): real and imaginary part of the zero-filled image, and the mask."""
        mask = self.measurement.operator.mask.to(self.zero_filled.real.dtype)
        return torch.cat((to_channels(self.zero_filled), mask), dim=1)

    def to_data(self, images: Tensor) -> Tensor:
        """Images (B, ..., H, W) in the data's units."""
        return images * self.scale.view(-1, *[1] * (images.ndim - 1))


def problem_of(batch: KSpaceBatch, signal_scale: float) -> Problem:
    """A batch in the sampler's units; a single coil has maps of ones. Noise that the data do not tell is estimated."""
    kspace, mask, noise = batch["masked_kspace"], batch["sampling_mask"], batch["noise"]
    if noise.isnan().any():
        noise = torch.where(noise.isnan(), estimate_noise(kspace, mask), noise)
    maps = batch["sensitivity_map"] if kspace.shape[1] > 1 else None
    return Problem.create(kspace, mask, maps, signal_scale, noise)


def true_image(batch: KSpaceBatch, problem: Problem) -> Tensor:
    """The fully sampled complex images (B, H, W) in the sampler's units."""
    image = batch["image"]
    if batch["masked_kspace"].shape[1] == 1:
        image = batch["sensitivity_map"][:, 0] * image  # its phase, which the map of one coil is, again
    return image / problem.scale.view(-1, 1, 1)
