"""Where blocks live while they are not trained: in host memory or on disk, with a few at a time on the device."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from zoo.errors import WeightsError
from zoo.files import atomic_path
from zoo.splatting.scaffold_gs.anchors import AnchorState


class BlockStore:
    """The blocks of one process.

    What is on the device is a copy of its own, never a view of what is on the host: a block comes back exactly as it
    went. The least recently used one goes when room is needed.

    Args:
        device: where blocks are trained.
        max_resident: blocks on the device at once; the next one is brought in the background if there is room.
        folder: where the others are kept; None for host memory.

    Attributes:
        peak_resident_bytes: the most that has been on the device.
    """

    def __init__(self, device: torch.device | str, max_resident: int = 2, folder: Path | None = None) -> None:
        self.device, self.max_resident, self.folder = torch.device(device), max(max_resident, 1), folder
        self.peak_resident_bytes = 0
        self._host: dict[int, AnchorState] = {}
        self._known: set[int] = set()
        self._resident: OrderedDict[int, AnchorState] = OrderedDict()
        self._coming: dict[int, Future[AnchorState]] = {}
        self._worker: ThreadPoolExecutor | None = None

    def __contains__(self, block: int) -> bool:
        """Whether the block is here."""
        return block in self._known

    def blocks(self) -> list[int]:
        """The blocks that are here."""
        return sorted(self._known)

    def add(self, block: int, state: AnchorState) -> None:
        """Takes in a block, or replaces it."""
        self._resident.pop(block, None)
        self._coming.pop(block, None)
        self._known.add(block)
        self._keep(block, state)

    def checkout(self, block: int) -> AnchorState:
        """The block on the device, to be changed in place; it stays until others need its room.

        Raises:
            WeightsError: its file is gone or damaged.
        """
        if block not in self._resident:
            coming = self._coming.pop(block, None)
            state = coming.result() if coming is not None else None
            self._make_room(1)
            self._resident[block] = self._fetch(block) if state is None else state
            self._measure()
        self._resident.move_to_end(block)
        return self._resident[block]

    def prefetch(self, block: int) -> None:
        """Begins to bring a block to the device if there is room beside what is there."""
        if self.max_resident < 2 or block in self._resident or block in self._coming:
            return
        self._make_room(1)
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, "blocks")
        self._coming[block] = self._worker.submit(self._fetch, block)

    def peek(self, block: int) -> AnchorState:
        """A copy of the block on the host, as it is now."""
        resident = self._resident.get(block)
        return resident.copied("cpu") if resident is not None else self._fetch(block, "cpu")

    def flush(self) -> None:
        """Brings everything home."""
        for future in self._coming.values():
            future.result()
        self._coming.clear()
        self._make_room(self.max_resident + 1)

    def close(self) -> None:
        """Forgets all blocks, on disk, too."""
        self.flush()
        if self._worker is not None:
            self._worker.shutdown()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._host.clear()
        self._known.clear()

    @property
    def resident_bytes(self) -> int:
        """Bytes of the blocks on the device."""
        return sum(state.nbytes for state in self._resident.values())

    def _measure(self) -> None:
        self.peak_resident_bytes = max(self.peak_resident_bytes, self.resident_bytes)

    def _make_room(self, wanted: int) -> None:
        """Lets the least recently used blocks go until `wanted` more have room."""
        while self._resident and len(self._resident) + len(self._coming) + wanted > self.max_resident:
            self._measure()  # blocks grow while they are there
            block, state = self._resident.popitem(last=False)
            self._keep(block, state)

    def _keep(self, block: int, state: AnchorState) -> None:
        if self.folder is None:
            self._host[block] = state.copied("cpu")
        else:
            save_state(block_file(self.folder, block), state)

    def _fetch(self, block: int, device: torch.device | str | None = None) -> AnchorState:
        device = device or self.device
        if self.folder is None:
            return self._host[block].copied(device)
        return load_state(block_file(self.folder, block), device)


def block_file(folder: Path, block: int) -> Path:
    """A block's file."""
    return folder / f"block_{block:03d}.safetensors"


def save_state(path: Path, state: AnchorState) -> None:
    """Writes a block atomically."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.tensors().items()}
    with atomic_path(path) as target:
        save_file(tensors, target)


def load_state(path: Path, device: torch.device | str = "cpu") -> AnchorState:
    """Reads a block.

    Raises:
        WeightsError: the file is gone, damaged or no block.
    """
    if not path.is_file():
        raise WeightsError(
            f"The block file {path} is gone. Put it back, or start the run again: without it the scene has a hole."
        )
    try:
        tensors = load_file(path)
        return AnchorState.from_tensors({n: v if n == "counters" else v.to(device) for n, v in tensors.items()})
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise WeightsError(f"The block file {path} is damaged ({error}). Put back a copy or start again.") from None
