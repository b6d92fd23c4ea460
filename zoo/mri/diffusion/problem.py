"""A reconstruction in the units of the sampler, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from zoo.data.kspace import KSpaceBatch
from zoo.mri.diffusion.consistency import Measurement, estimate_noise
from zoo.mri.masks import find_acs
from zoo.mri.operators import SenseOperator, to_channels
from zoo.mri.sensitivity import acs_maps, espirit

MapsName = Literal["acs", "espirit"]
Diffused = Literal["image", "residual"]


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

        Raises:
            ValueError: the noise is negative, or not one number or B of them.
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
            sigma = torch.as_tensor(noise, dtype=scale.dtype, device=scale.device)
            if sigma.ndim > 1 or sigma.numel() not in (1, len(kspace)) or not (sigma >= 0).all():
                raise ValueError(f"Noise should be 0 or more, a number or one for each of {len(kspace)} slices")
            sigma = sigma.expand(len(kspace))
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


@dataclass(frozen=True)
class Frame:
    """What of an image x is diffused: (x - origin) / unit.

    Attributes:
        origin: (B, H, W) complex, in the sampler's units.
        unit: likewise.
    """

    origin: Tensor
    unit: float = 1.0

    def diffused(self, images: Tensor) -> Tensor:
        """Of images (B, H, W) in the sampler's units."""
        return (images - self.origin) / self.unit

    def images(self, diffused: Tensor) -> Tensor:
        """The way back, (B, K, H, W) of K samples."""
        return self.origin.unsqueeze(1) + self.unit * diffused


def scan_of(kspace: Tensor, mask: Tensor, maps: Tensor | MapsName | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """What a user may give of a scan, in the shapes that `Problem.create` takes.

    Args:
        kspace: (B, C, H, W), or (B, H, W) or (H, W) of one coil.
        mask: broadcastable to (B, 1, H, W), axes in front left out or not.
        maps: (B, C, H, W), or how to make them from the fully sampled centre; None for "acs". One coil has none.

    Returns:
        k-space (B, C, H, W) complex64, 0 where not sampled, mask (B, 1, H, W) boolean, and maps or None.

    Raises:
        ValueError: the shapes do not fit, k-space is not complex or not finite, or there is no such way.
    """
    if not 2 <= kspace.ndim <= 4 or not kspace.is_complex():
        raise ValueError(
            f"K-space should be complex, (H, W), (B, H, W) or (B, C, H, W), not {kspace.dtype} {tuple(kspace.shape)}"
        )
    while kspace.ndim < 4:
        kspace = kspace.unsqueeze(1 if kspace.ndim == 3 else 0)
    size = kspace.shape[-2:]
    given = mask.shape
    while mask.ndim < 4:
        mask = mask.unsqueeze(1 if mask.ndim == 3 else 0)
    allowed = ((1, len(kspace)), (1,), (1, size[0]), (1, size[1]))
    if mask.ndim > 4 or any(n not in sizes for n, sizes in zip(mask.shape, allowed, strict=True)):
        raise ValueError(f"A mask {tuple(given)} does not fit k-space {tuple(kspace.shape)}: give (B, 1, H, W)")
    mask = mask.bool().expand(len(kspace), 1, *size)
    kspace = torch.where(mask, kspace.to(torch.complex64), 0)
    if not kspace.isfinite().all():
        raise ValueError("K-space holds NaN or infinity where it was sampled")
    if isinstance(maps, Tensor):
        if maps.shape != kspace.shape:
            raise ValueError(f"Coil maps {tuple(maps.shape)} do not fit k-space {tuple(kspace.shape)}")
        return kspace, mask, maps.to(kspace)
    if maps not in (None, *get_args(MapsName)):
        raise ValueError(f"Coil maps are made by {' or '.join(get_args(MapsName))}, not {maps}")
    if kspace.shape[1] == 1:
        return kspace, mask, None
    acs = torch.stack([torch.from_numpy(find_acs(m[0].cpu().numpy())) for m in mask]).unsqueeze(1).to(mask.device)
    if maps == "espirit":
        return kspace, mask, espirit(kspace, acs)
    return kspace, mask, acs_maps(kspace, acs)


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
