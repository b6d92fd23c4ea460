"""Scenes to reconstruct from photographs, as data modules."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from zoo import assets
from zoo.data.cards import require_files
from zoo.data.loading import eval_loader, train_loader
from zoo.data.procedural_scene import procedural_scene
from zoo.data.scene_readers import read_scene
from zoo.data.scene_views import Scene, ViewBatch, Views, collate_views
from zoo.errors import ConfigError, DataError
from zoo.ranges import check_ranges
from zoo.registry import register_data


class SceneData(pl.LightningDataModule):
    """Deals one view per step, shuffled anew in each epoch; held-out views one by one for validation and test.

    A subclass calls `save_hyperparameters` and says in `read` where the scene comes from.

    Args:
        seed: of the order.
        batch_size: views per step, over all processes; their images must have one size.
    """

    def __init__(self, seed: int, batch_size: int) -> None:
        super().__init__()
        self.seed, self.batch_size = seed, batch_size

    @abstractmethod
    def read(self) -> Scene:
        """Reads or makes the scene."""

    @cached_property
    def scene(self) -> Scene:
        """The scene, read when first needed."""
        scene = self.read()
        if not scene.train_indices:
            raise DataError(f"The scene {scene.name} has no views to train on.")
        return scene

    def prepare_data(self) -> None:
        """Reads the scene, so that whatever is wrong with it is said before training."""
        self.scene  # noqa: B018

    def train_dataloader(self) -> DataLoader[ViewBatch]:
        """Training views in random order."""
        views = Views(self.scene, self.scene.train_indices)
        return train_loader(views, self.batch_size, self.trainer, self.seed, collate=collate_views)

    def _held_out(self) -> DataLoader[ViewBatch]:
        indices = self.scene.test_indices or self.scene.train_indices
        return eval_loader(Views(self.scene, indices), 1, self.trainer, collate=collate_views)

    def val_dataloader(self) -> DataLoader[ViewBatch]:
        """Held-out views; the training views if none are held out."""
        return self._held_out()

    def test_dataloader(self) -> DataLoader[ViewBatch]:
        """Held-out views; the training views if none are held out."""
        return self._held_out()


@register_data("splatting/scene")
class SceneFolder(SceneData):
    """Photographs of your own, or without a path the procedural scene.

    Args:
        path: a COLMAP scene (``sparse/0`` and ``images``), a folder with NeRF's or nerfstudio's transforms.json, or a
            folder of photographs, whose cameras are then found by structure from motion. None for the procedural
            scene, which is made on the spot.
        images: sub-folder of a COLMAP scene with the photographs; ``images_4`` for shrunk ones.
        max_side: photographs with a longer side are shrunk to this many pixels.
        test_every: every view whose index is a multiple of it is held out; 0 for none.
        white_background: composite transparent pictures on white.
        size: width and height of the procedural scene's images in pixels.
        views: number of its cameras.
        points: of its sparse cloud.
        scene_seed: of its textures and points.
        batch_size: views per step, over all processes.
        seed: of the order.

    Raises:
        DataError: the path is no scene.
    """

    def __init__(
        self,
        path: str | None = None,
        images: str = "images",
        max_side: int = 1600,
        test_every: int = 8,
        white_background: bool = False,
        size: int = 128,
        views: int = 56,
        points: int = 600,
        scene_seed: int = 0,
        batch_size: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(seed, batch_size)
        self.save_hyperparameters()
        ranges = {"0 or more": ("test_every", "points"), "1 or more": ("max_side", "size", "batch_size")}
        check_ranges(self.hparams, "data", ranges)
        if views < 2 or test_every == 1:
            raise ConfigError("data.views should be 2 or more, and data.test_every not 1: some views are trained on.")
        if path is not None and not Path(path).expanduser().is_dir():
            raise DataError(f"There is no scene folder {path} (data.path).")

    def read(self) -> Scene:
        """Reads the folder, or makes the procedural scene."""
        own = self.hparams
        if own["path"] is None:
            return procedural_scene(own["size"], own["views"], own["points"], own["scene_seed"], own["test_every"])
        folder = Path(own["path"]).expanduser()
        return read_scene(folder, own["images"], own["max_side"], own["test_every"], own["white_background"])


@register_data("splatting/buddha")
class Buddha(SceneData):
    """Thirteen photographs of a stone Buddha head with a small COLMAP model: a real scene that ships.

    Args:
        path: folder of the scene; None for the shipped one.
        test_every: every view whose index is a multiple of it is held out.
        batch_size: views per step, over all processes.
        seed: of the order.
    """

    def __init__(self, path: str | None = None, test_every: int = 8, batch_size: int = 1, seed: int = 0) -> None:
        super().__init__(seed, batch_size)
        self.save_hyperparameters()
        folder = path or str(assets.path("data", "samples", "buddha13"))
        self.folder = require_files("buddha13", folder, ["images/*.jpg", "sparse/0/cameras.bin"], key="data.path")

    def read(self) -> Scene:
        """Reads the COLMAP model and the photographs."""
        return read_scene(self.folder, test_every=self.hparams["test_every"])


@register_data("splatting/mipnerf360")
class MipNeRF360(SceneData):
    """One scene of Mip-NeRF 360 at its customary size.

    Args:
        root: folder of the scenes.
        scene: which of them.
        factor: by which the photographs were shrunk, 1, 2, 4 or 8; None for 2 indoors and 4 outdoors.
        batch_size: views per step, over all processes.
        seed: of the order.

    Raises:
        DataError: the data is not there; with instructions.
    """

    INDOORS = ("room", "counter", "kitchen", "bonsai")

    def __init__(
        self,
        root: str | None = None,
        scene: str = "garden",
        factor: Literal[1, 2, 4, 8] | None = None,
        batch_size: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(seed, batch_size)
        self.save_hyperparameters()
        shrunk = factor or (2 if scene in self.INDOORS else 4)
        self.images = "images" if shrunk == 1 else f"images_{shrunk}"
        needed = [f"{scene}/{self.images}/*", f"{scene}/sparse/0/cameras.bin"]
        self.folder = require_files("mipnerf360", root, needed) / scene

    def read(self) -> Scene:
        """Reads the COLMAP model and the photographs."""
        return read_scene(self.folder, self.images)
