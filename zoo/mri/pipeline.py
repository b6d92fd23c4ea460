"""From the raw k-space of a slice to what a network is given.

All functions take one slice, (C, H, W) complex, without a batch axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.mri.fourier import Norm, fft2, ifft2
from zoo.mri.masks import SamplingMask
from zoo.mri.operators import center_crop, reduce, rss
from zoo.mri.sensitivity import acs_maps


@dataclass(frozen=True)
class RawSlice:
    """A slice as its file holds it.

    Attributes:
        kspace: (C, H, W) complex64.
        mask: (H, W) boolean, what was sampled, if the acquisition was accelerated; None if it was not.
        unmeasured: (H, W) boolean, True where the scanner never measures (padding up to the matrix size).
        crop: (height, width) of the image that counts, around the centre.
        truth: (C, H, W) complex64, the k-space without noise, if it is known, as in a simulation.
        noise: standard deviation of real and imaginary part of every sample of `kspace`, if it is known, as from a
            noise scan.
    """

    kspace: NDArray[np.complex64]
    mask: NDArray[np.bool_] | None = None
    unmeasured: NDArray[np.bool_] | None = None
    crop: tuple[int, int] | None = None
    truth: NDArray[np.complex64] | None = None
    noise: float | None = None


class PreparedSlice(TypedDict):
    """What `Preparation` makes of a slice; shapes as in `zoo.data.kspace.KSpaceBatch` without the batch."""

    masked_kspace: Tensor
    sampling_mask: Tensor
    acs_mask: Tensor
    padding: Tensor
    sensitivity_map: Tensor
    scaling_factor: Tensor
    target: Tensor
    image: Tensor
    crop: Tensor


def detect_padding(kspace: Tensor, epsilon: float = 1e-3) -> Tensor:
    """(1, H, W), True where the modulus summed over coils is below `epsilon` times its mean."""
    modulus = kspace.abs().sum(0, keepdim=True)
    return modulus < epsilon * modulus.mean()


def scaling_factor(masked_kspace: Tensor, percentile: float = 0.99) -> Tensor:
    """The modulus below which a fraction `percentile` of all samples lies, counting the unsampled zeros.

    Coils without any signal do not count.
    """
    modulus = masked_kspace.abs()
    modulus = modulus[modulus.flatten(1).amax(1) > 0].flatten()
    if modulus.numel() == 0:
        return modulus.new_ones(())
    rank = int(np.floor((1 - percentile) * modulus.numel())) + 1
    return torch.topk(modulus, min(rank, modulus.numel())).values[-1]


def compress_coils(kspace: Tensor, coils: int) -> Tensor:
    """The strongest `coils` virtual coils (principal components), (C, H, W) -> (coils, H, W)."""
    flat = kspace.flatten(1)
    if coils >= len(flat):
        return kspace
    _, vectors = torch.linalg.eigh(flat @ flat.mH)
    return (vectors[:, -coils:].flip(1).mH @ flat).view(coils, *kspace.shape[1:])


def as_batch(
    prepared: PreparedSlice, device: torch.device | str = "cpu", noise: float | None = None
) -> dict[str, Tensor]:
    """A batch of one slice.

    Args:
        prepared: the slice.
        device: where the batch is to be.
        noise: see `RawSlice`; NaN in the batch if nobody knows.
    """
    batch = {key: value.unsqueeze(0).to(device) for key, value in prepared.items() if isinstance(value, Tensor)}
    unknown = float("nan") if noise is None else noise
    return {**batch, "noise": unknown / batch["scaling_factor"]}


@dataclass(frozen=True)
class Preparation:
    """The steps in the order of the published pipeline.

    Attributes:
        centered, norm: convention of the Fourier transform, see `zoo.mri.fourier`.
        taper: see `zoo.mri.sensitivity.acs_maps`.
        padding_epsilon: see `detect_padding`; None to believe what the file says alone.
        percentile: see `scaling_factor`; None leaves the scale as it is.
        coils: see `compress_coils`; None keeps all.
        image_crop: (height, width) to which the image is cropped first, which cuts away readout oversampling.
    """

    centered: bool = True
    norm: Norm = "ortho"
    taper: float | None = None
    padding_epsilon: float | None = 1e-3
    percentile: float | None = 0.99
    coils: int | None = None
    image_crop: tuple[int, int] | None = None

    def clean(self, raw: RawSlice, flip: tuple[bool, bool] = (False, False)) -> tuple[Tensor, Tensor]:
        """Crops, flips, compresses, and sets to 0 what was not measured.

        Args:
            raw: the slice.
            flip: mirror the image along rows and columns.

        Returns:
            k-space (C, H, W), and (1, H, W) boolean, True where nothing was measured.
        """
        kspace = torch.from_numpy(np.array(raw.kspace, order="C"))
        padding = torch.zeros(1, *kspace.shape[-2:], dtype=torch.bool)
        if raw.unmeasured is not None:
            padding |= torch.tensor(raw.unmeasured)
            kspace = kspace.masked_fill(padding, 0)
        axes = [axis for axis, mirrored in zip((-2, -1), flip, strict=True) if mirrored]
        if self.image_crop is not None or axes:
            image = self._ifft2(kspace)
            if self.image_crop is not None:
                image = center_crop(image, *self.image_crop)
            kspace = self._fft2(image.flip(axes) if axes else image)
            # What was not measured has moved along; it is found again by its missing signal.
            padding = torch.zeros(1, *kspace.shape[-2:], dtype=torch.bool)
        if self.coils is not None:
            kspace = compress_coils(kspace, self.coils)
        if self.padding_epsilon is not None and raw.mask is None:
            padding = padding | detect_padding(kspace, self.padding_epsilon)
            kspace = kspace.masked_fill(padding, 0)
        return kspace, padding

    def __call__(
        self,
        kspace: Tensor,
        padding: Tensor,
        mask: SamplingMask,
        crop: tuple[int, int],
        truth: Tensor | None = None,
    ) -> PreparedSlice:
        """A sample of cleaned k-space.

        Args:
            kspace, padding: as `clean` gives them.
            mask: what is (or is to be) sampled.
            crop: (height, width) of the image that counts.
            truth: cleaned k-space that the target is made of; by default `kspace`, noise included.
        """
        sampled = torch.tensor(mask.mask)[None] & ~padding
        acs = torch.tensor(mask.acs)[None] & ~padding
        maps = acs_maps(kspace[None], acs[None], self.taper, self.centered, self.norm)[0]
        masked = torch.where(sampled, kspace, 0)
        scale = torch.ones(()) if self.percentile is None else scaling_factor(masked, self.percentile)
        coil_images = self._ifft2((kspace if truth is None else truth) / scale)
        return {
            "masked_kspace": masked / scale,
            "sampling_mask": sampled,
            "acs_mask": acs,
            "padding": padding,
            "sensitivity_map": maps,
            "scaling_factor": scale,
            "target": rss(coil_images),
            "image": reduce(coil_images, maps),
            "crop": torch.tensor(crop),
        }

    def _fft2(self, image: Tensor) -> Tensor:
        return fft2(image, self.centered, self.norm)

    def _ifft2(self, kspace: Tensor) -> Tensor:
        return ifft2(kspace, self.centered, self.norm)
