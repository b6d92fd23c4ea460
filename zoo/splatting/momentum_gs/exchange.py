"""What processes tell each other, and the files they leave."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor


def summed(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    dist.all_reduce(values)
    return values


def shared(value: Any, source: int) -> Any:
    """The object that process `source` has."""
    box = [value]
    dist.broadcast_object_list(box, src=source)
    return box[0]


def remove_old(folder: Path, keep: int) -> None:
    """Removes all but the newest of the folders ``step_*``; the one before belongs to the checkpoint still in place."""
    generations = sorted(folder.glob("step_*"))
    for old in generations[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
