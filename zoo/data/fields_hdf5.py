"""PDEBench and The Well: trajectories in HDF5 files, read from disk as they are needed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from zoo.data.cards import require_files
from zoo.data.fields import (
    Array,
    FieldBatch,
    FieldDataModule,
    FieldPairs,
    FieldWindows,
    Trajectories,
    import_h5py,
)
from zoo.errors import DataError
from zoo.files import parsing
from zoo.ranges import check_positive
from zoo.registry import register_data

_FLOW_VARIABLES = ("density", "pressure", "Vx", "Vy", "Vz")


class HDF5File:
    """An HDF5 file that every process opens for itself when it first reads: handles do not survive a fork.

    Args:
        path: the file.

    Raises:
        DataError: the file is damaged or no HDF5 file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: tuple[int, Any] | None = None
        _ = self.root

    @property
    def root(self) -> Any:
        """The open file."""
        h5py = import_h5py()
        if self._open is None or self._open[0] != os.getpid():
            with parsing(self.path, "an HDF5 file"):
                self._open = (os.getpid(), h5py.File(self.path, "r"))
        return self._open[1]

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes, which open it anew."""
        return {"path": self.path, "_open": None}


class PDEBenchFile:
    """Trajectories of a PDEBench file, whatever its layout: the keys say which one it is.

    A stack ``tensor`` (N, T, *space); the flow variables density, pressure, Vx, ... each (N, T, *space); one group
    per sample with ``data`` (T, *space, C); or ``velocity`` and ``particles`` (N, T, *space, C).

    Args:
        path: the file.
        time_stride, space_stride: every how many frames and points are used.

    Attributes:
        frames: states per run.
        first_are_test: the benchmark's split: of stacks the first tenth is for test, of grouped files the last.

    Raises:
        DataError: the layout is none of these.
    """

    def __init__(self, path: Path, time_stride: int = 1, space_stride: int = 1) -> None:
        self.file, self.time_stride, self.space_stride = HDF5File(path), time_stride, space_stride
        self.first_are_test = True
        self.groups: list[str] = []
        with parsing(path, "a file of PDEBench"):
            self._examine(self.file.root)

    def _examine(self, root: Any) -> None:
        if "tensor" in root:
            self.names, self.channels_last = ["tensor"], False
        elif "density" in root:
            self.names, self.channels_last = [name for name in _FLOW_VARIABLES if name in root], False
        elif "velocity" in root:
            self.names, self.channels_last = [n for n in ("velocity", "particles") if n in root], True
        else:
            self.groups = sorted(name for name in root if "data" in getattr(root[name], "keys", list)())
            self.names, self.channels_last, self.first_are_test = ["data"], True, False
            if not self.groups:
                raise DataError(
                    f"{self.file.path} has none of PDEBench's layouts; it holds {', '.join(list(root)[:8])}."
                )
        source = root[self.groups[0]] if self.groups else root
        shape = source[self.names[0]].shape
        self.count = len(self.groups) or shape[0]
        self.frames = len(range(0, shape[0 if self.groups else 1], self.time_stride))

    def __len__(self) -> int:
        """Number of runs."""
        return self.count

    def read(self, run: int, start: int, stop: int) -> Array:
        """The states `start` to `stop` of a run, (stop - start, C, *space)."""
        times = slice(start * self.time_stride, (stop - 1) * self.time_stride + 1, self.time_stride)
        root = self.file.root
        with parsing(self.file.path, "a file of PDEBench"):
            if self.groups:
                parts = [root[self.groups[run]]["data"][times]]
            else:
                parts = [root[name][run, times] for name in self.names]
            states = np.moveaxis(np.concatenate(parts, -1), -1, 1) if self.channels_last else np.stack(parts, 1)
            thin = (slice(None), slice(None), *[slice(None, None, self.space_stride)] * (states.ndim - 2))
            return np.asarray(states[thin], dtype=np.float32)

    def coefficients(self) -> Array | None:
        """The permeability (N, *space) of a Darcy file, which has no time; None in other files."""
        root = self.file.root
        return root["nu"][()].astype(np.float32) if "nu" in root and not self.groups else None


@register_data("operators/pdebench")
class PDEBench(FieldDataModule):
    """A file of PDEBench (Takamoto et al., NeurIPS 2022), split as there: a tenth for test.

    Files of trajectories are dealt in windows, and evaluated by a roll-out from their first frames to their end;
    Darcy files are the map from permeability to pressure. Validation takes a tenth of the training runs.

    Args:
        root: folder of the files.
        file: name of the .hdf5 or .h5 file.
        context: frames given (10 in the benchmark).
        train_steps: frames to predict in training.
        time_stride, space_stride: every how many frames and points are used.
        batch_size, seed, num_workers: see `FieldDataModule`.
    """

    def __init__(
        self,
        root: Path | None = None,
        file: str = "1D_Burgers_Sols_Nu0.01.hdf5",
        context: int = 10,
        train_steps: int = 1,
        time_stride: int = 1,
        space_stride: int = 1,
        batch_size: int = 50,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        check_positive(
            "data", context=context, train_steps=train_steps, time_stride=time_stride, space_stride=space_stride
        )
        self.file = require_files("pdebench", root, [file]) / file
        self.context, self.train_steps = context, train_steps
        self.time_stride, self.space_stride = time_stride, space_stride

    def datasets(self) -> tuple[Dataset[FieldBatch], Dataset[FieldBatch], Dataset[FieldBatch]]:
        """Windows for training, whole roll-outs for validation and test."""
        source = PDEBenchFile(self.file, self.time_stride, self.space_stride)
        test = len(source) // 10 or 1
        rest = len(source) - test
        val = rest // 10 or 1
        first = test if source.first_are_test else 0
        parts = (range(first, first + rest - val), range(first + rest - val, first + rest))
        tests = range(test) if source.first_are_test else range(rest, len(source))
        if len(parts[0]) == 0:
            raise DataError(f"{self.file} has only {len(source)} runs: too few for training, validation and test.")
        coefficient = source.coefficients()
        if coefficient is not None:
            thin = (slice(None), None, *[slice(None, None, self.space_stride)] * (coefficient.ndim - 1))
            given = coefficient[thin]
            wanted = np.stack([source.read(run, 0, 1)[0] for run in range(len(source))])
            train, val_set, test_set = (
                FieldPairs(given[runs.start : runs.stop], wanted[runs.start : runs.stop]) for runs in (*parts, tests)
            )
            return train, val_set, test_set
        return (
            FieldWindows(source, self.context, self.train_steps, parts[0]),
            FieldWindows(source, self.context, runs=parts[1], every_start=False),
            FieldWindows(source, self.context, runs=tests, every_start=False),
        )


class WellFiles:
    """Trajectories of the HDF5 files of a split of The Well, scalars, vectors and tensors stacked as channels.

    Fields that do not vary along the samples, the time or an axis of space lack that axis in the file and are
    repeated along it.

    Args:
        paths: files of equal shape.

    Attributes:
        frames: states per run.
        channels: name of each channel.

    Raises:
        DataError: a file has another layout.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.files = [HDF5File(path) for path in paths]
        self.runs: list[tuple[int, int]] = []
        self.channels: list[str] = []
        self.frames, self.dims = 0, 0
        self.space: tuple[int, ...] = ()
        for index, file in enumerate(self.files):
            root = file.root
            with parsing(file.path, "a file of The Well"):
                dims, runs = int(root.attrs["n_spatial_dims"]), int(root.attrs["n_trajectories"])
                axes = [str(name) for name in root["dimensions"].attrs["spatial_dims"]]
                space = tuple(root["dimensions"][name].shape[-1] for name in axes)
                frames = root["dimensions"]["time"].shape[-1]
            if index and (space, frames) != (self.space, self.frames):
                raise DataError(f"{file.path} has {frames} frames of {space} points, unlike the first file.")
            self.dims, self.space, self.frames = dims, space, frames
            self.runs += [(index, run) for run in range(runs)]
        if self.files:
            with parsing(self.files[0].path, "a file of The Well"):
                self.channels = [name for name, _ in self._fields(self.files[0].root)]

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.runs)

    def read(self, run: int, start: int, stop: int) -> Array:
        """The states `start` to `stop` of a run, (stop - start, C, *space)."""
        index, row = self.runs[run]
        root = self.files[index].root
        parts = []
        with parsing(self.files[index].path, "a file of The Well"):
            for order in range(3):
                group = root.get(f"t{order}_fields", {})
                for name in _field_names(group):
                    parts.append(self._states(group[name], row, slice(start, stop), order))
            return np.concatenate(parts, 1)

    def _fields(self, root: Any) -> Iterable[tuple[str, int]]:
        for order in range(3):
            group = root.get(f"t{order}_fields", {})
            for name in _field_names(group):
                for component in range(self.dims**order):
                    yield (f"{name}_{component}" if order else name), order

    def _states(self, field: Any, row: int, times: slice, order: int) -> Array:
        """One field, (T, components, *space)."""
        by_sample, by_time = bool(field.attrs["sample_varying"]), bool(field.attrs["time_varying"])
        lead = (*((row,) if by_sample else ()), *((times,) if by_time else ()))
        values = np.asarray(field[lead], dtype=np.float32)
        if not by_time:
            values = values[None]
        for axis, varies in enumerate(field.attrs["dim_varying"], start=1):
            if not varies:
                values = np.expand_dims(values, axis)
        components = self.dims**order
        values = values.reshape(*values.shape[: 1 + self.dims], components)
        full = (times.stop - times.start, *self.space, components)
        return np.moveaxis(np.broadcast_to(values, full), -1, 1)


def _field_names(group: Any) -> list[str]:
    return [str(name) for name in group.attrs["field_names"]] if hasattr(group, "attrs") else []


@register_data("operators/the-well")
class TheWell(FieldDataModule):
    """A data set of The Well (Ohana et al., NeurIPS 2024): windows for training, roll-outs for validation and test.

    Args:
        root: the data set's folder, with data/train, data/valid and data/test of HDF5 files.
        context: frames given.
        train_steps: frames to predict in training.
        test_steps: frames to predict in validation and test, from the first ones on; None for all.
        batch_size, seed, num_workers: see `FieldDataModule`.
    """

    def __init__(
        self,
        root: Path | None = None,
        context: int = 4,
        train_steps: int = 1,
        test_steps: int | None = None,
        batch_size: int = 8,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers, test_batch_size=batch_size)
        check_positive("data", context=context, train_steps=train_steps, test_steps=test_steps)
        self.root = require_files("the-well", root, [f"data/{s}/*.h*5" for s in ("train", "valid", "test")])
        self.context, self.train_steps, self.test_steps = context, train_steps, test_steps

    def datasets(self) -> tuple[Dataset[FieldBatch], Dataset[FieldBatch], Dataset[FieldBatch]]:
        """One per folder."""
        train, val, test = (
            WellFiles(sorted((self.root / "data" / split).glob("*.h*5"))) for split in ("train", "valid", "test")
        )
        return self._windows(train, self.train_steps, True), self._windows(val), self._windows(test)

    def _windows(self, source: Trajectories, steps: int | None = None, every_start: bool = False) -> FieldWindows:
        return FieldWindows(source, self.context, steps or self.test_steps, every_start=every_start)
