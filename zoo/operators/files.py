"""Fields in .npy files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DataError
from zoo.files import atomic_path, parsing


def read_fields(path: Path, channels: int, dims: int) -> Tensor:
    """The array of a .npy file as (N, channels, *space) float32.

    Args:
        path: the file; the axis of one channel may be absent, and then the first as well.
        channels: that the fields should have.
        dims: spatial axes.

    Raises:
        DataError: the file can't be read, or holds something else.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    with parsing(path, "a .npy file"):
        array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise DataError(f"{path} should hold one array of real numbers.")
    if array.ndim == dims and channels == 1:
        array = array[None]
    if array.ndim == dims + 1:
        array = array[:, None] if channels == 1 else array[None]
    if array.ndim != dims + 2 or array.shape[1] != channels or 0 in array.shape:
        raise DataError(f"{path} holds an array {array.shape}; the model takes (N, {channels}{', points' * dims}).")
    if not np.isfinite(array).all():
        raise DataError(f"{path} holds NaN or infinity.")
    return torch.from_numpy(array.astype(np.float32))


def write_fields(path: Path, fields: Tensor) -> None:
    """Writes fields as a .npy array.

    Raises:
        DataError: the name does not end in .npy.
    """
    if path.suffix != ".npy":
        raise DataError(f"The output {path} should end in .npy.")
    with atomic_path(path) as temporary:
        np.save(temporary, fields.numpy())
