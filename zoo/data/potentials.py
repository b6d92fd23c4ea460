"""Quadrature for equations on an interval, wells to be asked for, and tables of V(x).

The points at which a network is trained belong to the data, the interval and the potential on it to the model
(so that ``model.V0=35`` is all it takes to change the problem). They meet in reference coordinates: a batch holds
a Gauss-Legendre rule on [-1, 1], and the model maps it onto each of the sub-intervals into which the jumps of
its potential cut the box.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from scipy.stats.qmc import Sobol
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.data.loading import full_batch_loader
from zoo.errors import ConfigError, DataError
from zoo.files import parsing
from zoo.registry import register_data


class QuadratureBatch(TypedDict):
    """A quadrature rule, to be mapped onto every sub-interval of a box, and points to draw a function at.

    Keys:
        node: (n,) float64, Gauss-Legendre nodes in (-1, 1), ascending.
        weight: (n,) float64, their weights, with sum 2.
        point: (P,) float64 in [0, 1], evenly spaced fractions of the box.
    """

    node: Tensor
    weight: Tensor
    point: Tensor


class WellBatch(TypedDict):
    """Finite square wells, by the two numbers that are left of (V0, L, D) once lengths are measured in L.

    Keys:
        strength: (B,) float64, V0 L^2 / (hbar^2/2m).
        box: (B,) float64, D / L.
        node, weight: as in `QuadratureBatch`.
    """

    strength: Tensor
    box: Tensor
    node: Tensor
    weight: Tensor


def gauss_legendre(nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [-1, 1], float64."""
    node, weight = np.polynomial.legendre.leggauss(nodes)
    return torch.from_numpy(node), torch.from_numpy(weight)


@register_data("pinn/quadrature")
class Quadrature(pl.LightningDataModule):
    """A Gauss-Legendre rule for each sub-interval of a box; the test uses one of half as many nodes again.

    Args:
        nodes: per sub-interval.
        points: evenly spaced points over the box at which states are compared and drawn.
        steps: training steps that make an epoch.
    """

    def __init__(self, nodes: int = 64, points: int = 401, steps: int = 10) -> None:
        super().__init__()
        self.save_hyperparameters()
        if nodes < 2 or points < 2 or steps < 1:
            raise ConfigError(f"data.nodes ({nodes}) and data.points ({points}) should be 2 or more, data.steps 1.")
        self.nodes, self.points, self.steps = nodes, points, steps

    def batch(self, nodes: int) -> QuadratureBatch:
        """The rule of so many nodes, and the points."""
        node, weight = gauss_legendre(nodes)
        return {"node": node, "weight": weight, "point": torch.linspace(0, 1, self.points, dtype=torch.float64)}

    def train_dataloader(self) -> DataLoader[QuadratureBatch]:
        """The rule, once per training step."""
        return full_batch_loader(self.batch(self.nodes), self.steps)

    def val_dataloader(self) -> DataLoader[QuadratureBatch]:
        """The rule of the training."""
        return full_batch_loader(self.batch(self.nodes))

    def test_dataloader(self) -> DataLoader[QuadratureBatch]:
        """A finer rule, which shows whether the states are good between the nodes of the training."""
        return full_batch_loader(self.batch(self.nodes * 3 // 2))


@register_data("pinn/wells")
class Wells(pl.LightningDataModule):
    """Finite square wells of a range: a grid of them to train on, others drawn at random to test with.

    Args:
        strength: range of V0 L^2 / (hbar^2/2m).
        box: range of D / L.
        strengths, boxes: Chebyshev points of their logarithms that make the training grid.
        nodes: of the Gauss-Legendre rule, per sub-interval.
        test_wells: wells drawn for the test (a power of two, from Sobol's sequence).
        steps: training steps that make an epoch.
        seed: of the draw.
    """

    def __init__(
        self,
        strength: tuple[float, float] = (2.0, 200.0),
        box: tuple[float, float] = (3.0, 12.0),
        strengths: int = 20,
        boxes: int = 8,
        nodes: int = 24,
        test_wells: int = 256,
        steps: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)  # strength and box are the model's as well
        if not 0 < strength[0] < strength[1] or not 1 < box[0] < box[1] or min(strengths, boxes, nodes) < 2:
            raise ConfigError("strength and box should be ascending ranges, box above 1; strengths, boxes, nodes > 1.")
        if steps < 1 or test_wells < 1:
            raise ConfigError(f"data.steps ({steps}) and data.test_wells ({test_wells}) should be 1 or more.")
        self.strength, self.box, self.strengths, self.boxes = strength, box, strengths, boxes
        self.nodes, self.test_wells, self.steps, self.seed = nodes, test_wells, steps, seed

    def _batch(self, u: NDArray[np.float64]) -> WellBatch:
        """Wells at fractions u (B, 2) of the logarithmic ranges."""
        node, weight = gauss_legendre(self.nodes)
        g, d = (low * (high / low) ** v for (low, high), v in zip((self.strength, self.box), u.T, strict=True))
        return {"strength": torch.from_numpy(g), "box": torch.from_numpy(d), "node": node, "weight": weight}

    def train_dataloader(self) -> DataLoader[WellBatch]:
        """The grid, once per training step."""
        axes = [(1 - np.cos(np.pi * np.arange(n) / (n - 1))) / 2 for n in (self.strengths, self.boxes)]
        return full_batch_loader(self._batch(np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)), self.steps)

    def test_dataloader(self) -> DataLoader[WellBatch]:
        """Wells from all over the range."""
        return full_batch_loader(self._batch(Sobol(2, seed=self.seed).random(self.test_wells)))


def read_potential_table(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reads a sampled potential.

    Args:
        path: a CSV file whose header is ``x,V`` (in any order, among other columns), or an NPZ file with arrays
            ``x`` and ``V``.

    Returns:
        x (N,) ascending, an x standing twice where V jumps, and V (N,).

    Raises:
        DataError: the file is absent, damaged, has not these columns, holds NaN or infinity, is not sorted, or
            has too few samples.
    """
    if not path.is_file():
        raise DataError(f"There is no table of a potential at {path}.")
    if path.suffix == ".npz":
        x, V = _read_npz(path)
    elif path.suffix == ".csv":
        x, V = _read_csv(path)
    else:
        raise DataError(f"The table {path} should be a .csv or an .npz file.")
    if x.ndim != 1 or x.shape != V.shape:
        raise DataError(f"{path}: x {x.shape} and V {V.shape} should be lists of equal length.")
    for name, values in (("x", x), ("V", V)):
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise DataError(f"{path}: {name} is {values[bad[0]]} in sample {bad[0] + 1}; remove or mend it.")
    step = np.diff(x)
    if (step < 0).any():
        raise DataError(f"{path}: x is not sorted: sample {int(np.argmax(step < 0)) + 2} lies left of the one before.")
    # PCHIP needs two samples in each piece between jumps.
    if len(x) < 2 or ((step[1:] == 0) & (step[:-1] == 0)).any() or (len(step) and 0.0 in (step[0], step[-1])):
        raise DataError(f"{path}: two samples at least are needed, and no x thrice, nor twice at an end.")
    return x, V


def _read_npz(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    with parsing(path, "an .npz file of numbers"), np.load(path, allow_pickle=False) as file:
        missing = [name for name in ("x", "V") if name not in file]
        if missing:
            raise DataError(f"{path} has no array {' and no '.join(missing)}; it has {', '.join(file) or 'none'}.")
        return np.asarray(file["x"], dtype=np.float64), np.asarray(file["V"], dtype=np.float64)


def _read_csv(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text file.") from None
    header = [cell.strip() for cell in lines[0].split(",")] if lines else []
    missing = [name for name in ("x", "V") if name not in header]
    if missing:
        raise DataError(f"{path} has no column {' and no '.join(missing)}: its first line should read x,V.")
    columns: tuple[list[float], list[float]] = ([], [])
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split(",")
        try:
            for column, name in zip(columns, ("x", "V"), strict=True):
                column.append(float(cells[header.index(name)]))
        except (ValueError, IndexError):
            raise DataError(f"{path}, line {number}: '{line.strip()}' holds no number for x and V.") from None
    return np.array(columns[0]), np.array(columns[1])
