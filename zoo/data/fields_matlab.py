"""The data files of the Fourier neural operator (MATLAB) and of the neuraloperator library (PyTorch)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from zoo.data.cards import require_files
from zoo.data.fields import (
    Array,
    FieldBatch,
    FieldDataModule,
    FieldPairs,
    FieldWindows,
    TrajectoryArray,
    import_h5py,
)
from zoo.data.matlab_tags import numeric_variables
from zoo.errors import ConfigError, DataError
from zoo.files import parsing
from zoo.ranges import check_positive
from zoo.registry import register_data

# Names of input and target: Navier-Stokes and Burgers; Darcy; the library's own files.
_PAIRS = (("a", "u"), ("coeff", "sol"), ("x", "y"))


def read_arrays(path: Path, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of a MATLAB file of any version, or of a PyTorch file of tensors, with MATLAB's order of axes.

    Version 7.3 is HDF5 with all axes reversed, which is undone; older versions are read by scipy. Which one a
    file is, its content says.

    Args:
        path: .mat or .pt file.
        names: which variables to read; None for all.

    Raises:
        DataError: the file can't be read, or lacks one of the names.
    """
    h5py = import_h5py()
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    with parsing(path, "a MATLAB or a PyTorch file"):
        if path.suffix == ".pt":
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            arrays = {name: value.numpy() for name, value in content.items() if isinstance(value, torch.Tensor)}
        elif h5py.is_hdf5(path):
            with h5py.File(path) as file:
                found = [name for name in file if isinstance(file[name], h5py.Dataset)]
                arrays = {name: file[name][()].T for name in found if names is None or name in names}
        else:
            from scipy.io import loadmat

            found = [name for name in numeric_variables(path) if names is None or name in names]
            arrays = {k: v for k, v in loadmat(path, variable_names=found).items() if k in found}
    absent = [name for name in names or () if name not in arrays]
    if absent:
        raise DataError(f"{path} has no variable {', '.join(absent)}; it holds {', '.join(sorted(arrays)) or 'none'}.")
    return arrays


@register_data("operators/fno-files")
class FNOFiles(FieldDataModule):
    """The public data of the Fourier neural operator: Navier-Stokes, Burgers and Darcy.

    Training takes the first rows of the file, validation the rows after them, test the last rows (of `test_file`
    if given), so that none overlap.

    Args:
        root: folder of the files.
        file: MATLAB file of any version or .pt file, with variables a and u, coeff and sol, or x and y.
        test_file: where the test rows are; None for the same file.
        final_time: the recorded time to predict or to roll out to; None for the last.
        context: 1: the map from the initial field to `final_time`. More: that many recorded frames are given, and
            the frames after them predicted one by one (FNO's own protocol has 10).
        train_steps: frames to predict in training, with a context of more than 1; None for all.
        train_size, val_size, test_size: numbers of rows.
        stride: every how many points of each axis are used.
        batch_size, seed, num_workers: see `FieldDataModule`.
    """

    def __init__(
        self,
        root: Path | None = None,
        file: str = "ns_V1e-3_N5000_T50.mat",
        test_file: str | None = None,
        final_time: float | None = None,
        context: int = 1,
        train_steps: int | None = None,
        train_size: int = 1000,
        val_size: int = 100,
        test_size: int = 200,
        stride: int = 1,
        batch_size: int = 64,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        check_positive(
            "data", context=context, train_steps=train_steps, train_size=train_size, test_size=test_size, stride=stride
        )
        if val_size < 0:
            raise ConfigError(f"data.val_size should not be negative, not {val_size}.")
        self.root = require_files("fno-files", root, [file, *([test_file] if test_file else [])])
        self.file, self.test_file = self.root / file, self.root / (test_file or file)
        self.final_time, self.context, self.train_steps, self.stride = final_time, context, train_steps, stride
        self.sizes = (train_size, val_size, test_size)

    def datasets(self) -> tuple[Dataset[FieldBatch], Dataset[FieldBatch], Dataset[FieldBatch]]:
        """First rows, the rows after them, last rows."""
        train_size, val_size, test_size = self.sizes
        own = self._read(self.file)
        other = own if self.test_file == self.file else self._read(self.test_file)
        rows = len(own[0])
        needed = train_size + val_size + (test_size if other is own else 0)
        if needed > rows or test_size > len(other[0]):
            raise ConfigError(
                f"{self.file} has {rows} rows, fewer than the {needed} of data.train_size, val_size and test_size."
            )
        return (
            self._select(own, slice(0, train_size), self.train_steps),
            self._select(own, slice(train_size, train_size + val_size), None),
            self._select(other, slice(len(other[0]) - test_size, None), None),
        )

    def _read(self, path: Path) -> tuple[Array, Array, list[float] | None]:
        """Inputs (N, *space), targets (N, *space[, T]) and the recorded times."""
        arrays = read_arrays(path)
        pair = next((p for p in _PAIRS if p[0] in arrays and p[1] in arrays), None)
        if pair is None:
            raise DataError(f"{path} holds {', '.join(sorted(arrays))}, but none of the pairs {_PAIRS}.")
        given, wanted = (np.asarray(arrays[name], dtype=np.float32) for name in pair)
        dims = given.ndim - 1
        thin = (slice(None), *[slice(None, None, self.stride)] * dims)
        if wanted.ndim == given.ndim:
            return given[thin], wanted[thin], None
        if wanted.ndim != given.ndim + 1 or wanted.shape[: dims + 1] != given.shape:
            raise DataError(f"{path}: {pair[0]} {given.shape} and {pair[1]} {wanted.shape} do not belong together.")
        times = arrays["t"].ravel().tolist() if "t" in arrays else list(range(1, wanted.shape[-1] + 1))
        return given[thin], wanted[thin], [float(t) for t in times]

    def _select(self, data: tuple[Array, Array, list[float] | None], rows: slice, steps: int | None) -> Dataset[Any]:
        given, wanted, times = data
        if times is None:
            return FieldPairs(given[rows, None], wanted[rows, None])
        last = len(times) - 1
        if self.final_time is not None:
            last = int(np.argmin(np.abs(np.array(times) - self.final_time)))
            if abs(times[last] - self.final_time) > 1e-3:
                raise ConfigError(f"{self.file} has no record at data.final_time={self.final_time}: {times[:60]}.")
        if self.context == 1:
            return FieldPairs(given[rows, None], wanted[rows, ..., last][:, None])
        states = np.moveaxis(wanted[rows, ..., : last + 1], -1, 1)[:, :, None]
        return FieldWindows(TrajectoryArray(states), self.context, steps, every_start=steps is not None)
