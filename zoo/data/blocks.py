"""A large scene cut into blocks: the grid, which photographs a block needs, and the order in which blocks train.

Sources: Liu et al., "CityGaussian", 2024, section 3.2 (contraction and assignment); Fan et al., "Momentum-GS", 2024
(arXiv 2412.04887), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from zoo.data.scene_views import Scene, ViewBatch, camera_centres, view_batch
from zoo.errors import ConfigError, DataError
from zoo.files import atomic_path, parsing

Array = NDArray[np.float64]


class BlockView(ViewBatch):
    """One photograph for one block.

    Keys:
        image, viewmat, K, index: see `ViewBatch`, with B = 1.
        block: whose turn it is.
        iteration: of that block, from 1.
        iterations: of a block in all.
        frozen: whether the decoder rests.
    """

    block: int
    iteration: int
    iterations: int
    frozen: bool


@dataclass(frozen=True)
class BlockGrid:
    """A box cut into blocks; the outermost blocks reach to infinity.

    Space is contracted to the unit cube, the box to its middle half along each axis, and the cube is cut evenly. With
    two blocks along an axis the cut is at the box's centre; with four, the outer two lie outside the box.

    Attributes:
        low, high: corners of the box, which should hold the central part of the scene.
        dims: blocks along x, y and z.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    dims: tuple[int, int, int]

    def __len__(self) -> int:
        """Number of blocks."""
        return int(np.prod(self.dims))

    def contract(self, points: Array) -> Array:
        """Points (N, 3) in the unit cube."""
        low, high = np.array(self.low), np.array(self.high)
        x = 2 * (np.asarray(points, dtype=np.float64) - low) / (high - low) - 1
        largest = np.abs(x).max(-1, keepdims=True).clip(1.0)
        return (2 - 1 / largest) * x / largest / 4 + 0.5

    def block_of(self, points: Array) -> NDArray[np.int64]:
        """The block (N,) that each point (N, 3) lies in: x fastest, then y, then z."""
        dims = np.array(self.dims)
        cell = np.floor(self.contract(points) * dims).astype(np.int64).clip(0, dims - 1)
        return (cell[:, 2] * dims[1] + cell[:, 1]) * dims[0] + cell[:, 0]

    def inside(self, points: Array, block: int, scale: float = 1.0) -> NDArray[np.bool_]:
        """Whether points (N, 3) lie in a block that is enlarged about its middle by `scale` in the unit cube."""
        nx, ny, _ = self.dims
        cell = np.array([block % nx, block // nx % ny, block // (nx * ny)])
        middle, half = (cell + 0.5) / self.dims, 0.5 * scale / np.array(self.dims)
        contracted = self.contract(points)
        return np.asarray(((contracted >= middle - half) & (contracted < middle + half)).all(-1))

    def centres_inside(self, centres: Array) -> NDArray[np.bool_]:
        """(N, B) whether camera centres (N, 3) lie strictly inside the blocks."""
        scaled = self.contract(centres) * np.array(self.dims)
        within = (scaled != np.floor(scaled)).all(-1)
        return (self.block_of(centres)[:, None] == np.arange(len(self))) & within[:, None]


def automatic_box(viewmats: Array, points: Array) -> tuple[Array, Array]:
    """The official box: about the point the cameras look at, as far as the median camera is from it on each axis.

    Args:
        viewmats: (V, 4, 4) world to camera.
        points: (P, 3); along an axis on which cameras hardly differ, half their extent is taken.
    """
    centres, axes = camera_centres(viewmats), viewmats[:, 2, :3]
    projectors = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    focus = np.linalg.lstsq(projectors.sum(0), (projectors @ centres[..., None]).sum(0)[:, 0], rcond=None)[0]
    half = np.median(np.abs(centres - focus), axis=0)
    if half.min() < 0.02 * half.max():
        axis = int(half.argmin())
        half[axis] = 0.5 * np.ptp(points[:, axis])
    return focus - half, focus + half


def central_box(points: Array) -> tuple[Array, Array]:
    """The box (low, high) that holds the central half of points (P, 3) along each axis."""
    low, high = np.quantile(points, [0.25, 0.75], axis=0)
    return low, np.maximum(high, low + 1e-6 * max(float(np.ptp(points)), 1e-6))


@dataclass(frozen=True)
class Partition:
    """Which photographs each block trains on.

    Attributes:
        grid: the blocks.
        names: of the training views, n of them.
        mask: (n, B) bool.
    """

    grid: BlockGrid
    names: list[str]
    mask: NDArray[np.bool_]

    def views(self, block: int) -> NDArray[np.int64]:
        """Places in `names` of a block's views."""
        return np.flatnonzero(self.mask[:, block])

    def save(self, path: Path) -> None:
        """Writes .npz with all that belongs together: mask, names and grid."""
        with atomic_path(path) as target, target.open("wb") as stream:
            np.savez(
                stream,
                mask=self.mask,
                names=np.array(self.names),
                box=np.array([self.grid.low, self.grid.high]),
                dims=np.array(self.grid.dims),
            )

    @classmethod
    def load(cls, path: Path, names: Sequence[str], grid: BlockGrid | None = None) -> Partition:
        """Reads .npz, or the official .npy, whose rows are the views in the order of their names without suffix.

        Args:
            path: the file.
            names: of the training views of the scene.
            grid: of the official kind, which does not say it.

        Raises:
            DataError: the file is absent, damaged, or made for other views.
        """
        if not path.is_file():
            raise DataError(f"There is no partition file {path} (data.partition).")
        with parsing(path, "a partition file"), path.open("rb") as stream:
            content = np.load(stream, allow_pickle=False)
            if isinstance(content, np.ndarray):
                mask, known = np.asarray(content, dtype=bool), sorted(names, key=lambda n: Path(n).stem)
            else:
                mask, known = np.asarray(content["mask"], dtype=bool), [str(n) for n in content["names"]]
                low, high = (tuple(float(x) for x in row) for row in content["box"])
                nx, ny, nz = (int(n) for n in content["dims"])
                grid = BlockGrid(low, high, (nx, ny, nz))  # type: ignore[arg-type]
        if grid is None:
            raise DataError(f"{path} does not say how the scene was cut: give data.box and data.dims, too.")
        if mask.ndim != 2 or mask.shape[1] != len(grid) or len(mask) != len(known):
            raise DataError(f"{path} holds a table of {mask.shape} for {len(known)} views and {len(grid)} blocks.")
        places = {name: i for i, name in enumerate(known)}
        lost = [name for name in names if name not in places]
        if lost:
            raise DataError(f"{path} was made for other photographs: it does not know {', '.join(lost[:3])}.")
        return cls(grid, list(names), mask[[places[name] for name in names]]).checked()

    def checked(self) -> Partition:
        """Itself.

        Raises:
            DataError: a block has no views.
        """
        empty = [str(b) for b in np.flatnonzero(~self.mask.any(0))]
        if empty:
            raise DataError(
                f"No photograph shows block {', '.join(empty)} of {len(self.grid)}: choose another data.box, fewer "
                "data.dims or a lower data.coverage."
            )
        return self


def surface_coverage(grid: BlockGrid, surfaces: Sequence[Array]) -> Array:
    """(n, B) part of each view's surface points (H, W, 3) that lies in each block; NaN points are sky."""
    rows = []
    for surface in surfaces:
        points = surface.reshape(-1, 3)
        points = points[np.isfinite(points).all(-1)]
        rows.append(np.bincount(grid.block_of(points), minlength=len(grid)) / max(len(points), 1))
    return np.stack(rows)


def point_coverage(grid: BlockGrid, scene: Scene, views: Sequence[int]) -> Array:
    """(n, B) part of the sparse points within each view's frame that lies in each block."""
    blocks = grid.block_of(scene.points)
    rows = []
    for view in views:
        local = scene.points @ scene.viewmats[view, :3, :3].T + scene.viewmats[view, :3, 3]
        front = local[:, 2] > 1e-3
        projected = local @ scene.Ks[view].T
        at = projected[:, :2] / np.where(front, projected[:, 2], 1.0)[:, None]
        # Photographs read on demand know their sizes without being read.
        sizes = getattr(scene.images, "sizes", None)
        width, height = sizes[view] if sizes is not None else scene.images[view].shape[1::-1]
        seen = front & (at >= 0).all(-1) & (at < [width, height]).all(-1)
        rows.append(np.bincount(blocks[seen], minlength=len(grid)) / max(int(seen.sum()), 1))
    return np.stack(rows)


@dataclass(frozen=True)
class BlockSchedule:
    """Which blocks take a step when.

    In every round each block has its turn of `interval` iterations; blocks of a group take theirs together, one view
    each per step. In the last rounds the decoder rests, but for the first group's turn in the first of them, so that
    all blocks end up adapted to the same decoder.

    Attributes:
        blocks: their number.
        iterations: of each block in all.
        interval: iterations of a turn.
        group: blocks that step together.
        freeze_rounds: rounds with the decoder at rest.
    """

    blocks: int
    iterations: int
    interval: int
    group: int = 1
    freeze_rounds: int = 1

    def __post_init__(self) -> None:
        if self.group < 1 or self.blocks % self.group:
            raise ConfigError(f"{self.blocks} blocks can't step in groups of {self.group} (data.group).")
        if self.interval < 1 or self.iterations < 1:
            raise ConfigError("data.interval and data.iterations must be 1 or more.")

    @property
    def slots(self) -> int:
        """Turns in a round."""
        return self.blocks // self.group

    @property
    def rounds(self) -> int:
        """Number of rounds; the last may be shorter."""
        return -(-self.iterations // self.interval)

    def __len__(self) -> int:
        """Steps in all."""
        return self.slots * self.iterations

    def place(self, step: int) -> tuple[int, int, int]:
        """Round, slot and iteration (from 1) of a step (from 0)."""
        round_ = step // (self.slots * self.interval)
        rest = step - round_ * self.slots * self.interval
        length = min(self.interval, self.iterations - round_ * self.interval)
        return round_, rest // length, round_ * self.interval + rest % length + 1

    def group_of(self, step: int) -> list[int]:
        """The blocks that take a step, in order."""
        slot = self.place(step)[1]
        return [slot + member * self.slots for member in range(self.group)]

    def owner(self, block: int, processes: int) -> int:
        """The process that holds a block.

        Raises:
            ConfigError: the group can't be shared evenly.
        """
        if self.group % processes:
            raise ConfigError(
                f"A group of {self.group} blocks can't be shared by {processes} processes: make data.group a multiple "
                f"of {processes}."
            )
        return block // self.slots * processes // self.group

    def frozen(self, step: int) -> bool:
        """Whether the decoder rests at a step."""
        round_, slot, _ = self.place(step)
        first = self.rounds - self.freeze_rounds
        return self.slots > 1 and round_ >= first and (round_ > first or slot > 0)

    def ends_turn(self, step: int) -> bool:
        """Whether a step is the last of its turn."""
        return step + 1 >= len(self) or self.place(step)[:2] != self.place(step + 1)[:2]


@lru_cache(maxsize=64)
def _order(length: int, seed: int, block: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, block, epoch]).permutation(length)


def view_of(length: int, seed: int, block: int, iteration: int) -> int:
    """The place among a block's views of the one it sees at an iteration (from 1); each comes once per epoch."""
    epoch, place = divmod(iteration - 1, length)
    return int(_order(length, seed, block, epoch)[place])


class BlockSteps(Dataset[list[BlockView]]):
    """The steps of a schedule: for each, the views of the blocks that this process holds.

    Args:
        scene: the scene.
        partition: of its training views.
        schedule: the order.
        seed: of the views' order.
        rank, processes: this process and their number.
    """

    def __init__(
        self, scene: Scene, partition: Partition, schedule: BlockSchedule, seed: int, rank: int = 0, processes: int = 1
    ) -> None:
        self.scene, self.partition, self.schedule = scene, partition, schedule
        self.seed, self.rank, self.processes = seed, rank, processes
        self.owners = [schedule.owner(block, processes) for block in range(schedule.blocks)]

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.schedule)

    def __getitem__(self, step: int) -> list[BlockView]:
        """The views of a step."""
        _, _, iteration = self.schedule.place(step)
        train = self.scene.train_indices
        views: list[BlockView] = []
        for block in self.schedule.group_of(step):
            if self.owners[block] == self.rank:
                own = self.partition.views(block)
                view = train[own[view_of(len(own), self.seed, block, iteration)]]
                views.append(
                    {
                        **view_batch(self.scene, [view]),
                        "block": block,
                        "iteration": iteration,
                        "iterations": self.schedule.iterations,
                        "frozen": self.schedule.frozen(step),
                    }
                )
        return views
