"""Scenes cut into blocks as data modules, and the procedural city."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from zoo.data.blocks import (
    BlockGrid,
    BlockSchedule,
    BlockSteps,
    BlockView,
    Partition,
    automatic_box,
    central_box,
    point_coverage,
    surface_coverage,
)
from zoo.data.loading import EpochSampler
from zoo.data.procedural_city import CityScene, procedural_city
from zoo.data.scene_views import Scene
from zoo.data.scenes import SceneData
from zoo.errors import ConfigError, DataError
from zoo.ranges import check_ranges
from zoo.registry import register_data

Dims = tuple[int, int, int]
Box = tuple[float, float, float, float, float, float]


class BlockData(SceneData):
    """Deals the steps of a `BlockSchedule`: in turns, views of one block or a group of blocks.

    A subclass calls `save_hyperparameters` and says in `read` where the scene comes from. Its hyper-parameters:

        dims: blocks along x, y and z.
        box: xmin, ymin, zmin, xmax, ymax, zmax of the central part of the scene; None for the central half of its
            points, or where it has none, the official rule.
        coverage: a photograph belongs to a block if at least this part of what it shows lies there (or its camera).
        partition: a file that says which photographs belong to which block (.npz of ours, .npy of the official
            code), in place of `coverage`.
        iterations, interval, group, freeze_rounds: see `BlockSchedule`.
    """

    @cached_property
    def grid(self) -> BlockGrid:
        """The blocks."""
        own = self.hparams
        if len(own["dims"]) != 3 or min(own["dims"]) < 1:
            raise ConfigError(f"data.dims should be three numbers of 1 or more, not {list(own['dims'])}.")
        nx, ny, nz = own["dims"]
        if own["box"] is not None:
            low, high = np.array(own["box"][:3]), np.array(own["box"][3:])
            if len(own["box"]) != 6 or not (low < high).all():
                raise ConfigError(f"data.box should be xmin, ymin, zmin, xmax, ymax, zmax, not {list(own['box'])}.")
        elif len(self.scene.points):
            low, high = central_box(self.scene.points)
        else:
            low, high = automatic_box(self.scene.viewmats, self.scene.centres)
        corners = [(float(c[0]), float(c[1]), float(c[2])) for c in (low, high)]
        return BlockGrid(corners[0], corners[1], (nx, ny, nz))

    @cached_property
    def partition(self) -> Partition:
        """Which photographs belong to which block.

        Raises:
            DataError: a block has none, or the file does not fit.
        """
        train = self.scene.train_indices
        names = [self.scene.names[i] for i in train]
        file = self.hparams["partition"]
        if file is not None:
            return Partition.load(Path(file).expanduser(), names, self.grid)
        if len(self.grid) == 1:
            return Partition(self.grid, names, np.ones((len(train), 1), dtype=bool))
        surfaces = getattr(self.scene, "surfaces", [])
        if surfaces:
            shares = surface_coverage(self.grid, [surfaces[i] for i in train])
        elif len(self.scene.points):
            shares = point_coverage(self.grid, self.scene, train)
        else:
            raise DataError(f"{self.scene.name} has no points to tell what a photograph shows: give data.partition.")
        mask = (shares >= self.hparams["coverage"]) | self.grid.centres_inside(self.scene.centres[train])
        return Partition(self.grid, names, mask).checked()

    @cached_property
    def schedule(self) -> BlockSchedule:
        """Which blocks take a step when."""
        own = self.hparams
        return BlockSchedule(
            len(self.partition.grid), own["iterations"], own["interval"], own["group"], own["freeze_rounds"]
        )

    def train_dataloader(self) -> DataLoader[list[BlockView]]:  # type: ignore[override]
        """The steps, once through."""
        processes, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        steps = BlockSteps(self.scene, self.partition, self.schedule, self.seed, rank, processes)
        return DataLoader(steps, batch_size=None, sampler=EpochSampler(len(steps), shuffle=False), collate_fn=_as_is)


def _as_is(views: Any) -> Any:
    return views


@register_data("splatting/city")
class City(BlockData):
    """The procedural city, cut into blocks; its held-out cameras hover where no other does, most over the cuts.

    Args:
        size: width and height of the images in pixels.
        points: of the sparse cloud.
        positions: the cameras to train on hover over this many places squared, and look five ways from each.
        scene_seed: of the city.
        dims, box, coverage, partition, iterations, interval, group, freeze_rounds: see `BlockData`.
        seed: of the order of views.
    """

    def __init__(
        self,
        size: int = 56,
        points: int = 7000,
        positions: int = 5,
        scene_seed: int = 0,
        dims: Dims = (2, 2, 1),
        box: Box | None = (-2.0, -2.0, -1.0, 2.0, 2.0, 2.0),
        coverage: float = 0.08,
        partition: str | None = None,
        iterations: int = 800,
        interval: int = 80,
        group: int = 1,
        freeze_rounds: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(seed, 1)
        self.save_hyperparameters()
        check_ranges(self.hparams, "data", {"1 or more": ("size", "points", "positions")})

    def read(self) -> CityScene:
        """Makes the city, or takes it from the cache."""
        own = self.hparams
        return procedural_city(own["size"], own["points"], own["scene_seed"], own["positions"])


class LargeScene(BlockData):
    """A downloaded scene; a subclass says in `read_whole` how to read it."""

    @abstractmethod
    def read_whole(self) -> Scene:
        """Reads the scene."""

    def read(self) -> Scene:
        """The scene, with points to begin with.

        Raises:
            DataError: it has none.
        """
        scene = self.read_whole()
        if not len(scene.points):
            raise DataError(f"{scene.name} comes without points to begin with: give data.points=cloud.ply.")
        return scene
