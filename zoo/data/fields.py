"""Fields on regular grids: pairs and trajectories, for learning the operators between them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol, TypedDict

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo.data.loading import eval_loader, sample_generator, train_loader
from zoo.errors import DataError
from zoo.operators.symmetry import FlowSymmetries
from zoo.ranges import check_positive

Array = NDArray[np.float32]


class FieldBatch(TypedDict):
    """Fields and the fields that an operator should make of them.

    The first spatial axis is x (index i, x = i / N on a periodic grid), the second y.

    Keys:
        input: (B, C_in, *space) float32; of a trajectory the context frames stacked as channels, oldest first.
        target: (B, S, C_out, *space) float32: S successive states, one where the map is direct.
    """

    input: Tensor
    target: Tensor


class FieldPairs(Dataset[FieldBatch]):
    """Inputs and outputs of a map, in memory.

    Args:
        inputs: (N, C_in, *space).
        targets: (N, C_out, *space).
        symmetries: images of input and target under a random element of this group are dealt.
        seed: of the elements.
    """

    def __init__(self, inputs: Array, targets: Array, symmetries: FlowSymmetries | None = None, seed: int = 0) -> None:
        self.inputs, self.targets, self.symmetries, self.seed = inputs, targets, symmetries, seed

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.inputs)

    def __getitem__(self, index: int) -> FieldBatch:
        """One pair: input (C_in, *space), target (1, C_out, *space)."""
        return _sample(self.inputs[index], self.targets[index][None], self.symmetries, self.seed, index)


class Trajectories(Protocol):
    """States of several runs at equal time steps, wherever they lie.

    Attributes:
        frames: states per run.
    """

    frames: int

    def __len__(self) -> int:
        """Number of runs."""

    def read(self, run: int, start: int, stop: int) -> Array:
        """The states `start` to `stop` (exclusive) of a run, (stop - start, C, *space) float32."""


class TrajectoryArray:
    """Trajectories in memory.

    Args:
        states: (N, T, C, *space).
    """

    def __init__(self, states: Array) -> None:
        self.states, self.frames = states, states.shape[1]

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.states)

    def read(self, run: int, start: int, stop: int) -> Array:
        """States of a run."""
        return self.states[run, start:stop]


class FieldWindows(Dataset[FieldBatch]):
    """Windows of trajectories: some context frames and the states after them.

    Args:
        trajectories: where the states are.
        context: frames given.
        steps: frames to predict; None for all that follow the context.
        runs: which runs to use; None for all.
        every_start: windows from each frame on; False for those from the first frame only.
        symmetries, seed: see `FieldPairs`.

    Raises:
        DataError: the runs are too short.
    """

    def __init__(
        self,
        trajectories: Trajectories,
        context: int,
        steps: int | None = None,
        runs: range | None = None,
        every_start: bool = True,
        symmetries: FlowSymmetries | None = None,
        seed: int = 0,
    ) -> None:
        self.trajectories, self.context = trajectories, context
        self.steps = trajectories.frames - context if steps is None else steps
        self.runs = range(len(trajectories)) if runs is None else runs
        self.symmetries, self.seed = symmetries, seed
        possible = trajectories.frames - context - self.steps + 1
        if possible < 1 or self.steps < 1:
            raise DataError(
                f"Runs of {trajectories.frames} frames are too short for {context} frames of context and "
                f"{self.steps} to predict: lower data.context or the number of steps."
            )
        self.starts = possible if every_start else 1

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.runs) * self.starts

    def __getitem__(self, index: int) -> FieldBatch:
        """One window: input (context C, *space), target (steps, C, *space)."""
        run, start = divmod(int(index), self.starts)
        frames = self.trajectories.read(self.runs[run], start, start + self.context + self.steps)
        given = frames[: self.context].reshape(-1, *frames.shape[2:])
        return _sample(given, frames[self.context :], self.symmetries, self.seed, index)


def import_h5py() -> Any:
    """The h5py module, which only readers of HDF5 files need.

    Raises:
        DataError: it is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError:
        raise DataError("Reading HDF5 files needs h5py: pip install zoo[operators], or pip install h5py.") from None
    return h5py


def _sample(given: Array, wanted: Array, symmetries: FlowSymmetries | None, seed: int, index: int) -> FieldBatch:
    if symmetries is not None:
        element = symmetries.draw(sample_generator(seed, index))
        given, wanted = symmetries.apply(given, element), symmetries.apply(wanted, element)
    return {"input": torch.from_numpy(_own(given)), "target": torch.from_numpy(_own(wanted))}


def _own(array: NDArray[Any]) -> Array:
    return np.ascontiguousarray(array, dtype=np.float32)


class FieldDataModule(pl.LightningDataModule):
    """What the data modules of this kind share: three data sets, made once, and their loaders.

    Args:
        batch_size: training samples per optimiser step, over all processes.
        seed: of order and augmentation.
        num_workers: loader processes.
        test_batch_size: samples per batch of validation and test.

    Raises:
        ConfigError: a batch size below 1.
    """

    train: Dataset[FieldBatch]
    val: Dataset[FieldBatch]
    test: Dataset[FieldBatch]

    def __init__(self, batch_size: int, seed: int, num_workers: int, test_batch_size: int = 50) -> None:
        super().__init__()
        check_positive("data", batch_size=batch_size, test_batch_size=test_batch_size)
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        self.test_batch_size = test_batch_size
        self._ready = False

    @abstractmethod
    def datasets(self) -> tuple[Dataset[FieldBatch], Dataset[FieldBatch], Dataset[FieldBatch]]:
        """The sets for training, validation and test."""

    def setup(self, stage: str) -> None:
        """Reads or makes the data."""
        if not self._ready:
            self.train, self.val, self.test = self.datasets()
            self._ready = True

    def train_dataloader(self) -> DataLoader[FieldBatch]:
        """Shuffled training samples."""
        return train_loader(self.train, self.batch_size, self.trainer, self.seed, self.num_workers)

    def val_dataloader(self) -> DataLoader[FieldBatch]:
        """Validation samples."""
        return eval_loader(self.val, self.test_batch_size, self.trainer, self.num_workers)

    def test_dataloader(self) -> DataLoader[FieldBatch]:
        """Test samples."""
        return eval_loader(self.test, self.test_batch_size, self.trainer, self.num_workers)
