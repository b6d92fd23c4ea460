"""Solutions of partial differential equations made on the spot and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from zoo.cache import kept_arrays
from zoo.cli import console
from zoo.data.fields import FieldBatch, FieldDataModule, FieldPairs, FieldWindows, TrajectoryArray
from zoo.errors import ConfigError
from zoo.operators import burgers, darcy, navier_stokes, random_fields
from zoo.operators.symmetry import FlowSymmetries
from zoo.operators.transforms import resample
from zoo.ranges import check_positive
from zoo.registry import register_data

# Part of every cache key: raise it when a solver's output changes.
_VERSION = 1
_SPLITS = ("train", "val", "test")
_SOLVED_AT_ONCE = 128

Arrays = dict[str, NDArray[np.float32]]


def cached(kind: str, settings: dict[str, Any], make: Callable[[], Arrays]) -> Arrays:
    """The arrays that `make` gives for these settings, from the cache if they were made before.

    They are kept as ``<cache>/fields/<kind>-<hash of the settings>.npz`` with the keys of the public files, so
    that the same readers take them.
    """
    key = hashlib.sha256(json.dumps([_VERSION, kind, settings], sort_keys=True).encode()).hexdigest()[:16]
    return kept_arrays(f"fields/{kind}-{key}.npz", make)


def _generator(seed: int, split: str) -> torch.Generator:
    """Each split has its own stream, so that the test set stays the same when the training set grows."""
    words = np.random.SeedSequence([seed, _SPLITS.index(split)]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))


def _in_portions(what: str, initial: Tensor, solve: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
    from rich.progress import track

    portions = initial.split(_SOLVED_AT_ONCE)
    return torch.cat(
        [solve(part) for part in track(portions, what, console=console(stderr=True), transient=True)]
    ).numpy()


@register_data("operators/navier-stokes")
class NavierStokes(FieldDataModule):
    """Forced 2-D turbulence on the unit torus, from random initial vorticity: no download.

    By default the map is direct, w(0) -> w(final_time). With several `frames` the data are trajectories:
    training windows have `context` frames and `train_steps` to predict, test windows begin at t = 0 and go on
    to the end.

    Args:
        resolution: points per side.
        viscosity: nu.
        forcing: ``"fno"``, ``"kolmogorov"`` or ``"none"``, see `zoo.operators.navier_stokes.forcing_field`.
        final_time: T.
        frames: recorded states after t = 0, at equal intervals.
        context: frames given to the model.
        train_steps: states to predict in training.
        train_size, val_size, test_size: numbers of flows.
        symmetries: training flows are turned, mirrored and shifted as the forcing allows.
        test_resolution: points per side of the test set: the same test flows on another grid.
        data_seed: of the flows.
        batch_size, seed, num_workers: see `FieldDataModule`.
    """

    def __init__(
        self,
        resolution: int = 64,
        viscosity: float = 1e-3,
        forcing: navier_stokes.Forcing = "fno",
        final_time: float = 30.0,
        frames: int = 1,
        context: int = 1,
        train_steps: int = 1,
        train_size: int = 500,
        val_size: int = 40,
        test_size: int = 100,
        symmetries: bool = True,
        test_resolution: int | None = None,
        data_seed: int = 0,
        batch_size: int = 20,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.save_hyperparameters()
        check_positive(
            "data",
            resolution=resolution,
            final_time=final_time,
            frames=frames,
            context=context,
            train_steps=train_steps,
            train_size=train_size,
            val_size=val_size,
            test_size=test_size,
            test_resolution=test_resolution,
        )
        if not 0 <= viscosity < math.inf:
            raise ConfigError(f"data.viscosity should be finite and not negative, not {viscosity}.")
        if context + train_steps > frames + 1:
            raise ConfigError(
                f"data.context={context} and data.train_steps={train_steps} need more than the {frames + 1} states "
                "there are: raise data.frames."
            )
        self.resolution, self.viscosity, self.forcing, self.final_time = resolution, viscosity, forcing, final_time
        self.frames, self.context, self.train_steps = frames, context, train_steps
        self.sizes = dict(zip(_SPLITS, (train_size, val_size, test_size), strict=True))
        self.symmetries, self.test_resolution, self.data_seed = symmetries, test_resolution, data_seed

    def states(self, split: str, resolution: int | None = None) -> NDArray[np.float32]:
        """The states of a split, (N, frames + 1, 1, H, W), made or read from the cache.

        Args:
            split: train, val or test.
            resolution: of the grid; the same flows whatever it is.
        """
        resolution = resolution or self.resolution
        settings = {
            "seed": self.data_seed,
            "split": split,
            "count": self.sizes[split],
            "drawn at": self.resolution,
            "resolution": resolution,
            "viscosity": self.viscosity,
            "forcing": self.forcing,
            "final_time": self.final_time,
            "frames": self.frames,
        }
        times = [self.final_time * (k + 1) / self.frames for k in range(self.frames)]

        def make() -> Arrays:
            initial = random_fields.periodic_field(
                self.sizes[split], self.resolution, generator=_generator(self.data_seed, split)
            )
            initial = resample(initial, (resolution, resolution))
            u = _in_portions(
                f"Navier-Stokes, {len(initial)} flows for {split}",
                initial,
                lambda w0: navier_stokes.solve(w0, times, self.viscosity, self.forcing),
            )
            return {"a": initial.numpy(), "u": u, "t": np.array([times], dtype=np.float32)}

        arrays = cached("navier-stokes", settings, make)
        return np.moveaxis(np.concatenate((arrays["a"][..., None], arrays["u"]), -1), -1, 1)[:, :, None]

    def datasets(self) -> tuple[Dataset[FieldBatch], Dataset[FieldBatch], Dataset[FieldBatch]]:
        """Windows of the flows."""
        group = None
        if self.symmetries:
            source = navier_stokes.forcing_field(self.forcing, self.resolution, torch.float64)
            group = FlowSymmetries.of_forcing(source.numpy())
        train, val = (TrajectoryArray(self.states(split)) for split in ("train", "val"))
        test = TrajectoryArray(self.states("test", self.test_resolution))
        return (
            FieldWindows(train, self.context, self.train_steps, symmetries=group, seed=self.seed),
            FieldWindows(val, self.context, every_start=False),
            FieldWindows(test, self.context, every_start=False),
        )


@register_data("operators/burgers")
class Burgers(FieldDataModule):
    """The viscous Burgers equation on the unit circle, u(0) -> u(final_time), from random initial values.

    Args:
        resolution: points; the equation is solved on twice as many, at least 512.
        viscosity: nu.
        final_time: T.
        train_size, val_size, test_size: numbers of solutions.
        data_seed: of the initial values.
        batch_size, seed, num_workers: see `FieldDataModule`.
    """

    def __init__(
        self,
        resolution: int = 256,
        viscosity: float = 0.01,
        final_time: float = 1.0,
        train_size: int = 1000,
        val_size: int = 50,
        test_size: int = 200,
        data_seed: int = 0,
        batch_size: int = 20,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.save_hyperparameters()
        check_positive(
            "data",
            resolution=resolution,
            viscosity=viscosity,
            final_time=final_time,
            train_size=train_size,
            val_size=val_size,
            test_size=test_size,
        )
        self.resolution, self.viscosity, self.final_time = resolution, viscosity, final_time
        self.sizes = dict(zip(_SPLITS, (train_size, val_size, test_size), strict=True))
        self.data_seed = data_seed

    def datasets(self) -> tuple[Dataset[FieldBatch], Dataset[FieldBatch], Dataset[FieldBatch]]:
        """Pairs of u(0) and u(final_time)."""
        train, val, test = (self._pairs(split) for split in _SPLITS)
        return train, val, test

    def _pairs(self, split: str) -> FieldPairs:
        settings = {
            "seed": self.data_seed,
            "split": split,
            "count": self.sizes[split],
            "resolution": self.resolution,
            "viscosity": self.viscosity,
            "final_time": self.final_time,
        }

        def make() -> Arrays:
            # N(0, 625 (-lap + 25)^-2), as in the data of the Fourier neural operator.
            points = max(512, 2 * self.resolution)
            generator = _generator(self.data_seed, split)
            count = self.sizes[split]
            u0 = random_fields.periodic_field(count, points, 2.0, 5.0, 25 / 2**0.5, dims=1, generator=generator)
            u = _in_portions(
                f"Burgers, {count} solutions for {split}",
                u0,
                lambda part: burgers.solve(part, [self.final_time], self.viscosity)[..., 0],
            )
            coarse = resample(torch.stack((u0, torch.from_numpy(u))), (self.resolution,)).numpy()
            return {"a": coarse[0], "u": coarse[1]}

        arrays = cached("burgers", settings, make)
        return FieldPairs(arrays["a"][:, None], arrays["u"][:, None])


@register_data("operators/darcy")
class Darcy(FieldDataModule):
    """Darcy flow through two materials in random patches, permeability -> pressure, on the unit square.

    Args:
        resolution: nodes per side, border included.
        train_size, val_size, test_size: numbers of media.
        data_seed: of the media.
        batch_size, seed, num_workers: see `FieldDataModule`.
    """

    def __init__(
        self,
        resolution: int = 65,
        train_size: int = 500,
        val_size: int = 40,
        test_size: int = 100,
        data_seed: int = 0,
        batch_size: int = 20,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.save_hyperparameters()
        check_positive("data", train_size=train_size, val_size=val_size, test_size=test_size)
        if resolution < 4:
            raise ConfigError(f"data.resolution should be 4 nodes per side or more, not {resolution}.")
        self.resolution, self.data_seed = resolution, data_seed
        self.sizes = dict(zip(_SPLITS, (train_size, val_size, test_size), strict=True))

    def datasets(self) -> tuple[Dataset[FieldBatch], Dataset[FieldBatch], Dataset[FieldBatch]]:
        """Pairs of permeability and pressure."""
        train, val, test = (self._pairs(split) for split in _SPLITS)
        return train, val, test

    def _pairs(self, split: str) -> FieldPairs:
        count = self.sizes[split]
        settings = {"seed": self.data_seed, "split": split, "count": count, "resolution": self.resolution}

        def make() -> Arrays:
            field = random_fields.neumann_field(count, self.resolution, generator=_generator(self.data_seed, split))
            coefficient = darcy.binary_coefficient(field)
            solution = _in_portions(f"Darcy, {count} solutions for {split}", coefficient, darcy.solve)
            return {"coeff": coefficient.numpy(), "sol": solution}

        arrays = cached("darcy", settings, make)
        return FieldPairs(arrays["coeff"][:, None], arrays["sol"][:, None])
