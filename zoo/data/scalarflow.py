"""ScalarFlow: rising smoke plumes, filmed (Eckert, Um and Thuerey, ACM TOG 2019)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from zoo.data.cards import require_files
from zoo.data.fields import Array, FieldBatch, FieldDataModule, FieldWindows
from zoo.errors import ConfigError, DataError
from zoo.files import parsing
from zoo.ranges import check_positive
from zoo.registry import register_data

_CAMERA_MAX = (4.3574872, 4.3590126, 4.4561429, 4.42352962, 4.29803944)
_CROP = (slice(0, 840), slice(120, 480))
_LAST_TRAIN, _LAST_VAL = 63, 83


class ScalarFlowFilms:
    """The films of one camera, a plume per run, read frame by frame.

    Args:
        folders: of the simulations, with ``imgsTarget_000000.npz`` and so on.
        camera: 0 to 4.
        crop: rows 0 to 840 and columns 120 to 480 only.
        stride: every how many pixels are used.

    Attributes:
        frames: per film.
    """

    def __init__(self, folders: list[Path], camera: int = 2, crop: bool = False, stride: int = 1) -> None:
        self.films = [sorted(folder.glob("imgsTarget_*.npz")) for folder in folders]
        self.camera, self.crop, self.stride = camera, crop, stride
        self.frames = min((len(film) for film in self.films), default=0)

    def __len__(self) -> int:
        """Number of films."""
        return len(self.films)

    def read(self, run: int, start: int, stop: int) -> Array:
        """Frames `start` to `stop` of a film in [0, 1], (stop - start, 1, H, W)."""
        return np.stack([self._frame(path) for path in self.films[run][start:stop]])[:, None]

    def _frame(self, path: Path) -> Array:
        with parsing(path, "a frame of ScalarFlow"), np.load(path, allow_pickle=False) as content:
            images = content["data"]
        if images.ndim == 4 and images.shape[-1] == 1:
            images = images[..., 0]
        if images.ndim != 3 or images.shape[0] <= self.camera:
            raise DataError(f"{path} holds an array {images.shape}, not (5, 1062, 600).")
        image = images[self.camera]
        if self.crop:
            image = image[_CROP]
        image = image[:: self.stride, :: self.stride]
        return np.asarray(image / _CAMERA_MAX[self.camera], dtype=np.float32)


@register_data("operators/scalarflow")
class ScalarFlow(FieldDataModule):
    """Two frames of a smoke plume -> the frames after them. 64 films for training, 20 for validation, 20 for test.

    Args:
        root: folder of sim_000000 and so on.
        camera: 0 to 4; 2 is the centre.
        context: frames given.
        train_steps, test_steps: frames to predict.
        crop, stride: see `ScalarFlowFilms`.
        batch_size, seed, num_workers: see `FieldDataModule`.
    """

    def __init__(
        self,
        root: Path | None = None,
        camera: int = 2,
        context: int = 2,
        train_steps: int = 3,
        test_steps: int = 10,
        crop: bool = False,
        stride: int = 1,
        batch_size: int = 1,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers, test_batch_size=batch_size)
        check_positive("data", context=context, train_steps=train_steps, test_steps=test_steps, stride=stride)
        if not 0 <= camera < len(_CAMERA_MAX):
            raise ConfigError(f"data.camera should be 0 to {len(_CAMERA_MAX) - 1}, not {camera}.")
        self.root = require_files("scalarflow", root, ["sim_*/imgsTarget_*.npz"])
        self.camera, self.context, self.crop, self.stride = camera, context, crop, stride
        self.train_steps, self.test_steps = train_steps, test_steps

    def datasets(self) -> tuple[Dataset[FieldBatch], Dataset[FieldBatch], Dataset[FieldBatch]]:
        """Split by the number of the simulation."""
        folders = {int(folder.name.removeprefix("sim_")): folder for folder in sorted(self.root.glob("sim_*"))}
        train = [folder for number, folder in folders.items() if number <= _LAST_TRAIN]
        val = [folder for number, folder in folders.items() if _LAST_TRAIN < number <= _LAST_VAL]
        test = [folder for number, folder in folders.items() if number > _LAST_VAL]
        for name, part in (("training (0 to 63)", train), ("validation (64 to 83)", val), ("test (84 on)", test)):
            if not part:
                raise DataError(f"{self.root} has no simulations for {name}.")
        return (
            self._windows(train, self.train_steps),
            self._windows(val, self.test_steps),
            self._windows(test, self.test_steps),
        )

    def _windows(self, folders: list[Path], steps: int) -> FieldWindows:
        films = ScalarFlowFilms(folders, self.camera, self.crop, self.stride)
        return FieldWindows(films, self.context, steps)
