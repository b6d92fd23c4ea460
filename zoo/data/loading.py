"""Dealing samples so that the batches do not depend on how a run is executed.

The order of samples is a function of (seed, epoch) alone, and a batch size is that of the whole run: two
processes with half a batch each see what one process with the whole batch sees, and a run resumed in the
middle of an epoch goes on with the batch it would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset, Sampler

from zoo.errors import ConfigError


class EpochIndex(int):
    """A sample's index that also knows the epoch it is drawn for, so that augmentation can depend on both."""

    epoch: int

    def __new__(cls, index: int, epoch: int) -> EpochIndex:
        """The index `index` in epoch `epoch`."""
        self = super().__new__(cls, index)
        self.epoch = epoch
        return self

    def __reduce__(self) -> tuple[type, tuple[int, int]]:
        """For worker processes."""
        return (EpochIndex, (int(self), self.epoch))


def sample_generator(seed: int, index: int) -> np.random.Generator:
    """The generator for a sample's augmentation: the same whichever process or worker draws it.

    Args:
        seed: the data module's seed.
        index: what the sampler gave to the data set; a plain int counts as epoch 0.
    """
    return np.random.default_rng([seed, getattr(index, "epoch", 0), int(index)])


class EpochSampler(Sampler[int]):
    """Deals this process its share of a data set.

    Args:
        length: number of samples.
        shuffle: permute anew in each epoch.
        seed: of the permutations.
        rank, world_size: this process and their number.
        drop: samples at the end to leave out of each epoch (an incomplete last batch).
    """

    def __init__(
        self,
        length: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop: int = 0,
    ) -> None:
        self.length, self.shuffle, self.seed, self.drop = length, shuffle, seed, drop
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self._seen = (0, 0)

    def resume(self, epoch: int, seen: int) -> None:
        """Begins with `epoch`, leaving out the first `seen` samples of this process's share in it."""
        self.epoch = epoch
        self._seen = (epoch, seen)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Samples of this process in a whole epoch."""
        return len(range(self.rank, self.length - self.drop, self.world_size))

    def __iter__(self) -> Iterator[int]:
        """Indices of this epoch."""
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        share = order[: self.length - self.drop][self.rank :: self.world_size]
        epoch, seen = self._seen
        for index in share[seen if self.epoch == epoch else 0 :]:
            yield EpochIndex(int(index), self.epoch)


def train_loader(
    dataset: Dataset[Any],
    batch_size: int,
    trainer: pl.Trainer | None,
    seed: int = 0,
    num_workers: int = 0,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Loader of shuffled whole batches for training.

    Args:
        dataset: map-style data set.
        batch_size: samples per optimiser step over all processes; a smaller data set makes one batch.
        trainer: the data module's trainer; None outside a run.
        seed: of the order.
        num_workers: worker processes.
        collate: makes a batch of a list of samples.

    Raises:
        ConfigError: the batch size can't be shared evenly by the processes, or the data set is empty.
    """
    length = len(dataset)  # type: ignore[arg-type]
    if length == 0:
        raise ConfigError("The training set is empty.")
    world_size, rank = (trainer.world_size, trainer.global_rank) if trainer is not None else (1, 0)
    batch_size = min(batch_size, length - length % world_size)
    if batch_size % world_size or batch_size == 0:
        raise ConfigError(
            f"A batch of {batch_size} samples can't be shared by {world_size} processes: "
            f"make data.batch_size a multiple of {world_size}."
        )
    share = batch_size // world_size
    sampler = EpochSampler(length, True, seed, rank, world_size, drop=length % batch_size)
    return DataLoader(dataset, share, sampler=sampler, num_workers=num_workers, collate_fn=collate)


def eval_loader(
    dataset: Dataset[Any],
    batch_size: int,
    trainer: pl.Trainer | None,
    num_workers: int = 0,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Loader of every sample exactly once over all processes, in order, for validation and test.

    Args:
        dataset: map-style data set.
        batch_size: samples per batch over all processes.
        trainer: the data module's trainer; None outside a run.
        num_workers: worker processes.
        collate: makes a batch of a list of samples.
    """
    world_size, rank = (trainer.world_size, trainer.global_rank) if trainer is not None else (1, 0)
    sampler = EpochSampler(len(dataset), False, rank=rank, world_size=world_size)  # type: ignore[arg-type]
    share = max(1, batch_size // world_size)
    return DataLoader(dataset, share, sampler=sampler, num_workers=num_workers, collate_fn=collate)


def full_batch_loader(batch: Any, steps: int = 1) -> DataLoader[Any]:
    """Loader of one and the same batch, `steps` times an epoch, for training on all data at once.

    Args:
        batch: what each step gets.
        steps: steps per epoch.
    """
    return DataLoader(_Repeated(batch, steps), batch_size=None, sampler=EpochSampler(steps, shuffle=False))


class _Repeated(Dataset[Any]):
    def __init__(self, batch: Any, times: int) -> None:
        self.batch, self.times = batch, times

    def __len__(self) -> int:
        return self.times

    def __getitem__(self, index: int) -> Any:
        return self.batch
