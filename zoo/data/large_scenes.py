"""MatrixCity, Mill-19 and UrbanScene3D as data modules, cut into blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from zoo.data.cards import require_files
from zoo.data.city import Box, Dims, LargeScene
from zoo.data.city_layouts import (
    Photograph,
    assemble,
    read_cloud,
    read_colmap_split,
    read_matrixcity,
    read_meganerf,
)
from zoo.data.procedural_city import CityScene
from zoo.registry import register_data

# Official boxes, in the units of the COLMAP models, and blocks.
SETTINGS: dict[str, tuple[Box, Dims]] = {
    "building": ((-140, -100, 0, -10, 900, 250), (2, 1, 4)),
    "rubble": ((-50, -100, -135, 50, 300, -5), (2, 1, 4)),
    "residence": ((-25, -200, -270, 175, 200, 60), (2, 1, 4)),
    "sci-art": ((-110, -500, -205, 55, 100, 90), (2, 1, 4)),
    "aerial": ((-3.5, -4, -10, 4.5, 2, 10), (2, 4, 1)),
}


class Aerial(LargeScene):
    """A scene of a data set, as a COLMAP folder by split or as it was published.

    A subclass saves its hyper-parameters, among them those below, and calls `_locate`.

    Hyper-parameters:
        root: folder of the data set.
        scene: which of its scenes.
        factor: by which photographs are shrunk.
        points: a .ply to begin with, where the layout has none.
        dims, box: None for the official ones of the scene; the others as in `zoo.data.city.BlockData`.
    """

    folder: Path
    held_out = "val"

    def _locate(self, card: str, *needed: str) -> None:
        """Finds the scene's folder.

        Raises:
            DataError: with the card's instructions.
        """
        own = self.hparams
        root = None if own["root"] is None else Path(own["root"]).expanduser()
        colmap = root is not None and (root / own["scene"] / "train" / "sparse").is_dir()
        patterns = ["train/sparse/0/cameras.*", "train/images/*"] if colmap else list(needed)
        self.folder = require_files(card, root, [f"{own['scene']}/{p}" for p in patterns]) / own["scene"]
        box, dims = SETTINGS[own["scene"]]
        self.hparams["box"] = own["box"] or box
        self.hparams["dims"] = own["dims"] or dims

    def read_published(self) -> tuple[list[Photograph], list[Photograph]]:
        """Photographs to train on and held-out ones, in Mega-NeRF's layout."""
        return read_meganerf(self.folder, "train"), read_meganerf(self.folder, "val")

    def read_whole(self) -> CityScene:
        """Reads the COLMAP folders if there are any, else the published layout."""
        own = self.hparams
        if (self.folder / "train" / "sparse").is_dir():
            train, cloud = read_colmap_split(self.folder / "train")
            rest = self.folder / self.held_out
            held_out = read_colmap_split(rest)[0] if rest.is_dir() else []
        else:
            train, held_out = self.read_published()
            cloud = read_cloud(own["points"])
        return assemble(own["scene"], train, held_out, cloud, own["factor"])


@register_data("splatting/mill19")
class Mill19(Aerial):
    """Building or Rubble.

    Args:
        scene: ``"building"`` or ``"rubble"``.
        root, factor, points, dims, box, coverage, partition, iterations, interval, group, freeze_rounds: see `Aerial`
            and `zoo.data.city.BlockData`.
        seed: of the order of views.

    Raises:
        DataError: the data is not there; with instructions.
    """

    def __init__(
        self,
        root: str | None = None,
        scene: Literal["building", "rubble"] = "rubble",
        factor: float = 4.0,
        points: str | None = None,
        dims: Dims | None = None,
        box: Box | None = None,
        coverage: float = 0.08,
        partition: str | None = None,
        iterations: int = 60_000,
        interval: int = 500,
        group: int = 1,
        freeze_rounds: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(seed, 1)
        self.save_hyperparameters()
        self._locate("mill19", "train/rgbs/*", "train/metadata/*.pt", "coordinates.pt")


@register_data("splatting/urbanscene3d")
class UrbanScene3D(Aerial):
    """Residence or Sci-Art.

    Args:
        scene: ``"residence"`` or ``"sci-art"``.
        root, factor, points, dims, box, coverage, partition, iterations, interval, group, freeze_rounds: see `Aerial`
            and `zoo.data.city.BlockData`.
        seed: of the order of views.

    Raises:
        DataError: the data is not there; with instructions.
    """

    def __init__(
        self,
        root: str | None = None,
        scene: Literal["residence", "sci-art"] = "residence",
        factor: float = 4.0,
        points: str | None = None,
        dims: Dims | None = None,
        box: Box | None = None,
        coverage: float = 0.08,
        partition: str | None = None,
        iterations: int = 60_000,
        interval: int = 500,
        group: int = 1,
        freeze_rounds: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(seed, 1)
        self.save_hyperparameters()
        self._locate("urbanscene3d", "train/rgbs/*", "train/metadata/*.pt", "coordinates.pt")


@register_data("splatting/matrixcity")
class MatrixCity(Aerial):
    """The aerial views of the small city.

    Args:
        scene: ``"aerial"``.
        root, factor, points, dims, box, coverage, partition, iterations, interval, group, freeze_rounds: see `Aerial`
            and `zoo.data.city.BlockData`.
        seed: of the order of views.

    Raises:
        DataError: the data is not there; with instructions.
    """

    held_out = "test"

    def __init__(
        self,
        root: str | None = None,
        scene: Literal["aerial"] = "aerial",
        factor: float = 1.2,
        points: str | None = None,
        dims: Dims | None = None,
        box: Box | None = None,
        coverage: float = 0.08,
        partition: str | None = None,
        iterations: int = 60_000,
        interval: int = 500,
        group: int = 1,
        freeze_rounds: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(seed, 1)
        self.save_hyperparameters()
        self._locate("matrixcity", "train/block_*/*")

    def read_published(self) -> tuple[list[Photograph], list[Photograph]]:
        """Photographs to train on and held-out ones, from the poses of all blocks or those beside each block."""
        splits = []
        for split in ("train", "test"):
            whole = self.folder / "pose" / "block_all" / f"transforms_{split}.json"
            files = [whole] if whole.is_file() else sorted((self.folder / split).glob("block_*/transforms.json"))
            splits.append([p for file in files for p in read_matrixcity(file, self.folder / split)])
        return splits[0], splits[1]
