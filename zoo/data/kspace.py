"""Undersampled multi-coil k-space: the batch, the data set of slices, and what its data modules share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, TypedDict, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from zoo.data.loading import EpochIndex, EpochSampler, eval_loader, sample_generator, train_loader
from zoo.errors import ConfigError, DataError
from zoo.mri.masks import Family, MaskFunction, MaskSource, seed_of
from zoo.mri.pipeline import Preparation
from zoo.mri.volumes import Volume

OnCorrupt = Literal["skip", "fatal"]
PURPOSES = {"train": "train on", "val": "validate with", "test": "test with"}


class KSpaceBatch(TypedDict):
    """Slices of equal size and number of coils.

    k-space has its origin at index n // 2; images too, unless the data set's convention is not centred.
    k-space and target are divided by `scaling_factor`; metrics are taken after multiplying it back.

    Keys:
        masked_kspace: (B, C, H, W) complex64, 0 where not sampled.
        sampling_mask: (B, 1, H, W) bool, True where sampled.
        acs_mask: (B, 1, H, W) bool, the fully sampled centre.
        padding: (B, 1, H, W) bool, True where the scanner never measures: 0 in any valid reconstruction.
        sensitivity_map: (B, C, H, W) complex64 coil maps from the fully sampled centre.
        scaling_factor: (B,) float32.
        target: (B, H, W) float32, root of the sum of squares of the fully sampled coil images.
        image: (B, H, W) complex64, the fully sampled coil images combined with the coil maps.
        crop: (B, 2) int64, height and width around the centre over which images are compared.
        volume: (B,) int64, index of the volume within the data set.
        volume_max: (B,) float32, maximum of the volume's target in its own units; NaN if not needed.
        slice_no: (B,) int64.
        acceleration: (B,) float32, the wanted acceleration.
        filename: B strings.
        noise: (B,) float32, standard deviation of real and imaginary part of the samples of `masked_kspace`; NaN
            where nobody knows.
    """

    masked_kspace: Tensor
    sampling_mask: Tensor
    acs_mask: Tensor
    padding: Tensor
    sensitivity_map: Tensor
    scaling_factor: Tensor
    target: Tensor
    image: Tensor
    crop: Tensor
    volume: Tensor
    volume_max: Tensor
    slice_no: Tensor
    acceleration: Tensor
    filename: list[str]
    noise: Tensor


class KSpaceSlices(Dataset[dict[str, Any]]):
    """Slices of volumes, undersampled as they are read.

    Args:
        volumes: fully sampled.
        preparation: makes a sample of a slice.
        masks: in training each sample draws one of them, or of its volume's own; in evaluation every slice comes
            once with each.
        training: draw masks and mirrorings anew in every epoch; otherwise they follow from the file's name.
        seed: of the training's draws.
        flip: mirror training images along rows and columns at random.
    """

    def __init__(
        self,
        volumes: Sequence[Volume],
        preparation: Preparation,
        masks: Sequence[MaskSource],
        training: bool = False,
        seed: int = 0,
        flip: bool = False,
    ) -> None:
        self.volumes, self.preparation, self.masks = volumes, preparation, masks
        self.training, self.seed, self.flip = training, seed, flip
        choices: list[int | None] = [None] if training else list(range(len(masks)))
        self.index = [(v, s, c) for v, volume in enumerate(volumes) for s in range(volume.slices) for c in choices]

    def __len__(self) -> int:
        """Number of slices, times the number of masks in evaluation."""
        return len(self.index)

    def shape(self, index: int) -> tuple[int, ...]:
        """(C, H, W) of a sample and the size of its crop, without reading it: what the slices of a batch share."""
        volume = self.volumes[self.index[index][0]]
        channels, height, width = volume.shape
        coils, crop = self.preparation.coils, self.preparation.image_crop
        if crop is not None:
            height, width = min(height, crop[0]), min(width, crop[1])
        return (min(channels, coils or channels), height, width, *volume.crop())

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample of `KSpaceBatch`, without the batch axis.

        Raises:
            DataError: the slice can't be read, or is undersampled already.
            ConfigError: the mask's rate and centre do not fit its size.
        """
        v, s, choice = self.index[index]
        volume = self.volumes[v]
        raw = volume.read(s)
        if raw.mask is not None and not raw.mask.all():
            raise DataError(
                f"{volume.name} is undersampled already: there is no truth in it to train on or compare with. "
                "Reconstruct it with python -m zoo.predict."
            )
        flip = (False, False)
        if self.training:
            rng = sample_generator(self.seed, index)
            masks = volume.masks or self.masks
            function = masks[int(rng.integers(len(masks)))]
            seed: int | tuple[int, ...] = int(rng.integers(2**31))
            if self.flip:
                flip = (bool(rng.integers(2)), bool(rng.integers(2)))
        else:
            assert choice is not None
            function, seed = self.masks[choice], seed_of(volume.name)
        kspace, padding = self.preparation.clean(raw, flip)
        height, width = kspace.shape[-2:]
        try:
            mask = function((height, width), seed)
        except ValueError as error:
            raise ConfigError(f"No mask for the {height} x {width} samples of {volume.name}: {error}.") from None
        truth = None
        if raw.truth is not None:
            truth, _ = self.preparation.clean(replace(raw, kspace=raw.truth), flip)
        prepared = self.preparation(kspace, padding, mask, raw.crop or (height, width), truth)
        noise = float("nan") if raw.noise is None else raw.noise / float(prepared["scaling_factor"])
        return {
            **prepared,
            "volume": v,
            "volume_max": np.float32(float("nan") if self.training else volume.maximum()),
            "slice_no": s,
            "acceleration": np.float32(np.mean(function.accelerations)),
            "filename": volume.name,
            "noise": np.float32(noise),
        }


class ShapeSampler(EpochSampler):
    """Deals batches of slices of equal shape: shuffled within each shape, and the batches shuffled.

    Args:
        shapes: of every sample.
        batch_size: samples per batch over all processes.
        seed: of the order.
        rank, world_size: this process and their number.
    """

    def __init__(
        self, shapes: Sequence[tuple[int, ...]], batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, shape in enumerate(shapes):
            groups.setdefault(shape, []).append(index)
        # A shape that is too rare for a batch of its own fills one up with repetitions.
        self.groups = [np.resize(group, max(len(group), batch_size)) for group in groups.values()]
        self.batch_size = batch_size
        length = sum(len(group) // batch_size for group in self.groups) * batch_size
        super().__init__(length, True, seed, rank, world_size)

    def __iter__(self) -> Iterator[int]:
        """Indices of this epoch; each run of a batch has one shape."""
        rng = np.random.default_rng([self.seed, self.epoch])
        batches: list[Any] = []
        for group in self.groups:
            order = rng.permutation(group)
            batches += list(order[: len(order) // self.batch_size * self.batch_size].reshape(-1, self.batch_size))
        order = np.concatenate([batches[k] for k in rng.permutation(len(batches))])
        epoch, seen = self._seen
        for index in order[self.rank :: self.world_size][seen if self.epoch == epoch else 0 :]:
            yield EpochIndex(int(index), self.epoch)


def scan(paths: Sequence[Any], open_volume: Callable[[Any], Volume], on_corrupt: OnCorrupt, where: str) -> list[Volume]:
    """Opens volumes; what can't be read is reported by name and left out, or fatal.

    Args:
        paths: of the files.
        open_volume: makes a volume of a path and raises `DataError` if it can't.
        on_corrupt: what to do about those.
        where: what the files are, for messages.

    Raises:
        DataError: a file is damaged and `on_corrupt` is "fatal", or none is left.
    """
    from zoo.cli import console

    volumes: list[Volume] = []
    problems: list[str] = []
    for path in paths:
        try:
            volumes.append(open_volume(path))
        except DataError as error:
            if on_corrupt == "fatal":
                raise DataError(f"{error} (data.on_corrupt=skip leaves such files out)") from None
            problems.append(str(error))
    if problems:
        console(stderr=True).print(f"left out {len(problems)} of {len(paths)} files of {where}:")
        for problem in problems:
            console(stderr=True).print(f"  {problem}", markup=False)
    if not volumes:
        raise DataError(f"There is no readable file of {where}.")
    return volumes


def single_rates(family: Family, accelerations: Sequence[float], fractions: Sequence[float]) -> list[MaskFunction]:
    """One `MaskFunction` for each rate."""
    return [MaskFunction(family, (a,), (f,)) for a, f in zip(accelerations, fractions, strict=True)]


class KSpaceData(pl.LightningDataModule):
    """What the data modules of k-space share: masks, splits in whole volumes, loaders.

    Args:
        preparation: makes a sample of a slice.
        masks: families of masks to train with; each sample draws one of them and one of the rates.
        accelerations: the rates.
        center_fractions: of each rate; see `zoo.mri.masks.draw`.
        eval_mask: family to validate and test with; None for the first of `masks`.
        flip: mirror training images at random.
        batch_size: slices per optimiser step, over all processes.
        eval_batch_size: slices per step of validation and test.
        seed: of order, masks and mirrorings.
        num_workers: loader processes.

    Raises:
        ConfigError: the rates and centre fractions do not fit together, or a number is impossible.
    """

    def __init__(
        self,
        preparation: Preparation,
        masks: tuple[Family, ...],
        accelerations: tuple[float, ...],
        center_fractions: tuple[float, ...],
        eval_mask: Family | None,
        flip: bool,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        if len(accelerations) != len(center_fractions) or not accelerations or not masks:
            raise ConfigError(
                f"data.accelerations has {len(accelerations)} rates and data.center_fractions {len(center_fractions)} "
                "fractions: give one fraction for each rate, and at least one rate and one family of masks."
            )
        if eval_batch_size < 1 or num_workers < 0:
            raise ConfigError(
                f"data.eval_batch_size ({eval_batch_size}) should be 1 or more, "
                f"data.num_workers ({num_workers}) 0 or more."
            )
        if preparation.taper is not None and not preparation.taper > 0:
            raise ConfigError(f"data.taper should be positive, or null for none, not {preparation.taper}.")
        kept = 1 if preparation.coils is None else preparation.coils
        if min(kept, *(preparation.image_crop or (1,))) < 1:
            raise ConfigError(
                f"data.coils ({preparation.coils}) and data.image_crop ({preparation.image_crop}) should be 1 or more, "
                "or null for all."
            )
        self.preparation, self.flip, self.seed = preparation, flip, seed
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        try:
            self.train_masks: Sequence[MaskSource] = [
                MaskFunction(family, accelerations, center_fractions) for family in masks
            ]
            self.eval_masks: Sequence[MaskSource] = single_rates(eval_mask or masks[0], accelerations, center_fractions)
        except ValueError as error:
            raise ConfigError(f"data.accelerations or data.center_fractions: {error}.") from None
        self.volumes: dict[str, list[Volume]] = {}

    @abstractmethod
    def split(self, name: Literal["train", "val", "test"]) -> list[Volume]:
        """The volumes of a split."""

    def setup(self, stage: str) -> None:
        """Opens the splits that the stage needs and checks that they have no volume in common."""
        for name in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ()):
            if name not in self.volumes:
                self.volumes[name] = self.split(name)  # type: ignore[arg-type]
                if not self.volumes[name]:
                    raise ConfigError(f"data.{name}_volumes is 0: there is nothing to {PURPOSES[name]}.")
        splits = {name: {volume.name for volume in volumes} for name, volumes in self.volumes.items()}
        for name, others in splits.items():
            for other in splits:
                if name < other and (common := others & splits[other]):
                    raise DataError(
                        f"{len(common)} volumes are both in {other} and in {name}, such as {min(common)}: "
                        "every volume must belong to one split."
                    )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled slices with fresh masks, in batches of equal shape."""
        dataset = KSpaceSlices(
            self.volumes["train"], self.preparation, self.train_masks, training=True, seed=self.seed, flip=self.flip
        )
        shapes = [dataset.shape(index) for index in range(len(dataset))]
        if len(set(shapes)) == 1:
            return train_loader(dataset, self.batch_size, self.trainer, self.seed, self.num_workers)
        world_size, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        if self.batch_size % world_size:
            raise ConfigError(
                f"A batch of {self.batch_size} slices can't be shared by {world_size} processes: "
                f"make data.batch_size a multiple of {world_size}."
            )
        sampler = ShapeSampler(shapes, self.batch_size, self.seed, rank, world_size)
        return DataLoader(dataset, self.batch_size // world_size, sampler=sampler, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[KSpaceBatch]:
        """Every slice of the validation volumes at every rate."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[KSpaceBatch]:
        """Every slice of the test volumes at every rate."""
        return self._eval_loader("test")

    def _eval_loader(self, split: str) -> DataLoader[KSpaceBatch]:
        dataset = KSpaceSlices(self.volumes[split], self.preparation, self.eval_masks)
        shapes = {dataset.shape(index) for index in range(len(dataset))}
        batch_size = self.eval_batch_size if len(shapes) == 1 else 1
        return eval_loader(dataset, batch_size, self.trainer, self.num_workers, collate=default_collate)

    def transfer_batch_to_device(self, batch: KSpaceBatch, device: torch.device, dataloader_idx: int) -> KSpaceBatch:
        """Moves tensors; file names stay."""
        return cast(
            KSpaceBatch,
            {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()},
        )
