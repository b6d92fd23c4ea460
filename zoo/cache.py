"""What is made once and kept in the user's cache folder: by one process at a time, and whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from zoo.download import cache_dir
from zoo.errors import ZooError
from zoo.files import atomic_path, parsing


def kept_file(place: str, write: Callable[[Path], None]) -> Path:
    """The file ``<cache>/<place>``, written by `write` if it is not there.

    What is there is taken without a lock, so that a cache which can't be written to serves what it holds.

    Args:
        place: relative path of the file.
        write: writes it to the path that it is given, in the same folder.

    Raises:
        ZooError: the file is not there and the cache can't be written to.
    """
    file = cache_dir() / place
    if file.is_file():
        return file
    lock = FileLock(f"{file}.lock")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        held = lock.acquire()
    except OSError as error:
        raise ZooError(
            f"{file} is not in the cache, which can't be written to ({error}). Set ZOO_CACHE to a folder that can."
        ) from error
    with held:
        if not file.is_file():  # another process may have made it while this one waited
            with atomic_path(file) as path:
                write(path)
    return file


def kept_arrays(place: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The arrays of ``<cache>/<place>``, an .npz file, made by `make` if it is not there.

    Raises:
        DataError: the file is damaged.
        ZooError: as `kept_file`.
    """
    file = kept_file(place, lambda path: np.savez(path, **make()))  # type: ignore[arg-type]
    with parsing(file, "arrays; delete it to have them made again"), np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}
