"""What processes tell each other, and the files they leave."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from zoo.errors import ZooError


class LostProcessError(ZooError):
    """A process of the run is gone, and with it the blocks it held since the last checkpoint."""


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(
            f"Another process of this run is gone ({str(error).splitlines()[0]}). Its blocks are in the last "
            "checkpoint: go on from there with resume=<run folder>, on as many processes as you like."
        ) from error


def summed(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes.

    Raises:
        LostProcessError: one of them does not answer.
    """
    with _together():
        dist.all_reduce(values)
    return values


def shared(value: Any, source: int) -> Any:
    """The object that process `source` has.

    Raises:
        LostProcessError: one of them does not answer.
    """
    box = [value]
    with _together():
        dist.broadcast_object_list(box, src=source)
    return box[0]


def remove_old(folder: Path, keep: int) -> None:
    """Removes all but the newest of the folders ``step_*``; the one before belongs to the checkpoint still in place."""
    generations = sorted(folder.glob("step_*"))
    for old in generations[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
