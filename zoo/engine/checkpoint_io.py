"""Checkpoint files that are whole or absent, and never run code when read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from zoo.errors import WeightsError
from zoo.files import atomic_path


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint format, written beside the target and moved into place when complete."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes the checkpoint.

        Raises:
            ZooError: the disk is full; an earlier checkpoint at `path` is intact.
        """
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Reads a checkpoint of tensors and plain values.

        Raises:
            WeightsError: the file is absent, truncated, or holds something other than a checkpoint.
        """
        if not Path(path).is_file():
            raise WeightsError(f"There is no checkpoint {path}.")
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
            others = sorted(str(p) for p in Path(path).parent.glob("*.ckpt") if p != Path(path))
            remedy = f"Others in that folder: {', '.join(others)}." if others else "Start the run again."
            raise WeightsError(f"The checkpoint {path} is damaged or truncated ({error}). {remedy}") from error
        return checkpoint
