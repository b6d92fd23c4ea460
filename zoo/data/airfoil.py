"""Steady flows around airfoils (Thuerey et al., AIAA Journal 2020, arXiv 1810.08217)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from torch.utils.data import Dataset

from zoo.data.cards import require_files
from zoo.data.fields import Array, FieldBatch, FieldDataModule, FieldPairs
from zoo.errors import ConfigError, DataError
from zoo.files import parsing
from zoo.ranges import check_positive
from zoo.registry import register_data

Preparation = Literal["t1", "authors"]

# Channels: free-stream velocity x, y, mask; pressure, velocity x, y. Ranges over the whole data set.
_LOW = np.array([9.28791839, -38.115759, 0.0, -40493.8, -163.852, -215.777], dtype=np.float32)
_HIGH = np.array([99.9706317, 37.8558354, 1.0, 29147.3, 198.526, 220.345], dtype=np.float32)
_INPUT_SCALE = np.array([100.0, 38.12, 1.0], dtype=np.float32)
_TARGET_SCALE = np.array([4.65, 2.04, 2.37], dtype=np.float32)


def read_case(path: Path) -> Array:
    """One case (6, 128, 128): free-stream velocity x, y; mask; pressure; velocity x, y. Axes (channel, x, y).

    Raises:
        DataError: the file is damaged or has another shape.
    """
    with parsing(path, "a case of the airfoil data"), np.load(path, allow_pickle=False) as content:
        case = content["a"]
    if case.ndim != 3 or case.shape[0] != 6:
        raise DataError(f"{path} holds an array {case.shape}, not (6, 128, 128).")
    return case.astype(np.float32)


def prepare_t1(cases: Array) -> Array:
    """The free stream everywhere, then every channel to [0, 1] by its range in the whole data set.

    Args:
        cases: (N, 6, H, W).
    """
    cases = cases.copy()
    cases[:, :2] = cases[:, :2, :1, :1]
    return (cases - _LOW[:, None, None]) / (_HIGH - _LOW)[:, None, None]


def prepare_authors(cases: Array) -> Array:
    """Dimensionless as in the data's own paper: pressure without its mean by |v|^2, velocities by |v|; then scaled.

    Args:
        cases: (N, 6, H, W).
    """
    cases = cases.copy()
    speed = np.sqrt((np.abs(cases[:, :2]).max((2, 3)) ** 2).sum(1))[:, None, None]
    pressure = cases[:, 3] - cases[:, 3].mean((1, 2), keepdims=True)
    cases[:, 3] = pressure * (1 - cases[:, 2]) / speed**2
    cases[:, 4:] /= speed[:, None]
    cases[:, :3] /= _INPUT_SCALE[:, None, None]
    cases[:, 3:] /= _TARGET_SCALE[:, None, None]
    return cases


@register_data("operators/airfoil")
class Airfoil(FieldDataModule):
    """Free stream and airfoil shape -> pressure and velocity of the steady flow, on 128 x 128 points.

    Args:
        root: folder with data/train and data/test, whose .npz cases may lie in folders reg, sup and shear.
        preparation: ``"t1"``: see `prepare_t1`; ``"authors"``: see `prepare_authors`.
        dataset_size: training and validation cases to use at most.
        val_fraction: of them for validation (at least 256 where there are many).
        batch_size, seed, num_workers: see `FieldDataModule`.
    """

    def __init__(
        self,
        root: Path | None = None,
        preparation: Preparation = "t1",
        dataset_size: int = 10_000,
        val_fraction: float = 0.2,
        batch_size: int = 64,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        check_positive("data", dataset_size=dataset_size)
        if not 0 < val_fraction < 1:
            raise ConfigError(f"data.val_fraction should lie between 0 and 1, not {val_fraction}.")
        self.root = require_files("airfoil", root, ["data/train/**/*.npz", "data/test/*.npz"])
        self.preparation, self.dataset_size, self.val_fraction = preparation, dataset_size, val_fraction

    def datasets(self) -> tuple[Dataset[FieldBatch], Dataset[FieldBatch], Dataset[FieldBatch]]:
        """The training folder in two, and the test folder."""
        folder = self.root / "data" / "train"
        parts = [folder / name for name in ("reg", "shear", "sup")]
        files = [file for part in (folder, *parts) for file in sorted(part.glob("*.npz"))][: self.dataset_size]
        count = max(1, min(max(round(self.val_fraction * len(files)), 256), len(files) // 2))
        train, val = self._pairs(files[:-count]), self._pairs(files[-count:])
        return train, val, self._pairs(sorted((self.root / "data" / "test").glob("*.npz")))

    def _pairs(self, files: list[Path]) -> FieldPairs:
        if not files:
            raise DataError(f"{self.root} has too few cases for training and validation.")
        cases = np.stack([read_case(file) for file in files])
        prepared = prepare_t1(cases) if self.preparation == "t1" else prepare_authors(cases)
        return FieldPairs(prepared[:, :3], prepared[:, 3:])
