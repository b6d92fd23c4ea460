"""Procedural multi-coil brains, generated as they are needed."""

from __future__ import annotations

import math
from typing import Literal

from zoo.data.kspace import KSpaceData
from zoo.errors import ConfigError
from zoo.mri.masks import Family, MaskFunction
from zoo.mri.phantom import CONTRASTS, Contrast, generate
from zoo.mri.pipeline import Preparation
from zoo.mri.volumes import ArrayVolume, Volume
from zoo.registry import register_data

SPLITS = {"train": 0, "val": 1, "test": 2}


@register_data("mri/phantom")
class PhantomKSpace(KSpaceData):
    """Simulated multi-coil brain scans, see `zoo.mri.phantom`.

    Validation and test volumes are the same whatever the seed.

    Args:
        size: (H, W) of each slice.
        coils: receive coils.
        slices: of each volume.
        train_volumes, val_volumes, test_volumes: numbers of volumes.
        train_volumes_3d: number of training volumes more, of size `size_3d`, whose slices are undersampled along both
            axes, as those of 3-D scans are: by Poisson discs at `accelerations_3d`, with a fully sampled centre that is
            one of `center_fractions_3d` of the area.
        size_3d, accelerations_3d, center_fractions_3d: see there.
        contrasts: which the volumes take in turns.
        test_contrasts: those of the test volumes, if others.
        snr: signal-to-noise ratios; each volume takes one from this range, see `zoo.mri.phantom.generate`.
        clean_target: the noise is in what is measured alone, not in the target.
        masks, accelerations, center_fractions, eval_mask, flip, batch_size, eval_batch_size, num_workers: see
            `zoo.data.kspace.KSpaceData`.
        taper: see `zoo.mri.sensitivity.acs_maps`.
        seed: of the training volumes, their order, masks and mirrorings.
    """

    def __init__(
        self,
        size: tuple[int, int] = (96, 96),
        coils: int = 6,
        slices: int = 5,
        train_volumes: int = 32,
        val_volumes: int = 4,
        test_volumes: int = 8,
        train_volumes_3d: int = 0,
        size_3d: tuple[int, int] = (176, 144),
        accelerations_3d: tuple[float, ...] = (4.0, 6.0, 8.0, 10.0),
        center_fractions_3d: tuple[float, ...] = (0.03, 0.02, 0.015, 0.014),
        contrasts: tuple[Contrast, ...] = CONTRASTS,
        test_contrasts: tuple[Contrast, ...] | None = None,
        snr: tuple[float, float] = (30.0, 30.0),
        clean_target: bool = False,
        masks: tuple[Family, ...] = ("equispaced",),
        accelerations: tuple[float, ...] = (4.0, 8.0),
        center_fractions: tuple[float, ...] = (0.08, 0.04),
        eval_mask: Family | None = None,
        flip: bool = True,
        taper: float | None = None,
        batch_size: int = 2,
        eval_batch_size: int = 4,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        if min(*size, coils, slices) < 1 or min(train_volumes, val_volumes, test_volumes) < 0 or not contrasts:
            raise ConfigError(
                f"data.size {list(size)}, data.coils ({coils}) and data.slices ({slices}) should be 1 or more, "
                f"data.train_volumes ({train_volumes}), data.val_volumes ({val_volumes}) and data.test_volumes "
                f"({test_volumes}) 0 or more, and data.contrasts {list(contrasts)} at least one."
            )
        if not 0 < min(snr) <= max(snr) < math.inf:
            raise ConfigError(f"data.snr should be two positive numbers, not {list(snr)}.")
        super().__init__(
            Preparation(taper=taper),
            masks,
            accelerations,
            center_fractions,
            eval_mask,
            flip,
            batch_size,
            eval_batch_size,
            seed,
            num_workers,
        )
        self.save_hyperparameters()
        self.size, self.coils, self.slices, self.snr = size, coils, slices, snr
        self.clean_target = clean_target
        self.counts = {"train": train_volumes, "val": val_volumes, "test": test_volumes}
        if train_volumes_3d < 0 or min(size_3d) < 1:
            raise ConfigError(
                f"data.train_volumes_3d ({train_volumes_3d}) should be 0 or more, data.size_3d {size_3d} positive."
            )
        self.train_volumes_3d, self.size_3d = train_volumes_3d, size_3d
        self.masks_3d = _discs(accelerations_3d, center_fractions_3d)
        self.contrasts = {"train": contrasts, "val": contrasts, "test": test_contrasts or contrasts}

    def split(self, name: Literal["train", "val", "test"]) -> list[Volume]:
        """Generates the volumes of a split."""
        contrasts = self.contrasts[name]

        def volume(number: int) -> ArrayVolume:
            words = (SPLITS[name], self.seed if name == "train" else 0, number)
            # The golden ratio's multiples spread over the range without clumps.
            snr = self.snr[0] + (self.snr[1] - self.snr[0]) * (number * 0.6180339887 % 1)
            is_3d = number >= self.counts[name]
            size = self.size_3d if is_3d else self.size
            scan = generate(words, contrasts[number % len(contrasts)], size, self.coils, self.slices, snr)
            made = ArrayVolume(
                scan.name, scan.kspace, truth=scan.truth if self.clean_target else None, noise=scan.noise
            )
            made.masks = self.masks_3d if is_3d else None
            return made

        return [
            volume(number) for number in range(self.counts[name] + (self.train_volumes_3d if name == "train" else 0))
        ]


def _discs(accelerations: tuple[float, ...], fractions: tuple[float, ...]) -> list[MaskFunction]:
    if len(accelerations) != len(fractions) or not accelerations:
        raise ConfigError(
            f"data.accelerations_3d has {len(accelerations)} rates and data.center_fractions_3d {len(fractions)} "
            "fractions: give one fraction for each rate, and at least one."
        )
    try:
        return [MaskFunction("poisson", accelerations, fractions)]
    except ValueError as error:
        raise ConfigError(f"data.accelerations_3d or data.center_fractions_3d: {error}.") from None
