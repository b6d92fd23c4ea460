"""T1 and its kin against neuraloperator's FNO on 2-D turbulence: time of a training step, error at equal work.

Single-threaded; times are the shortest of several in turns, or CPU seconds of a whole training. The peer is the
library's own network (``pip install zoo[benchmark]``), in the same training loop, on the same data, with its
learning rate swept.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import default_collate

from tools.benchmark.report import Report
from tools.benchmark.timing import interleaved
from zoo.data.fields import FieldBatch
from zoo.data.fields_generated import NavierStokes
from zoo.data.loading import EpochSampler
from zoo.errors import ConfigError
from zoo.operators.metrics import relative_l2
from zoo.operators.operator import FieldOperator
from zoo.operators.t1.network import T1, T1Layer, unit_grid
from zoo.operators.t1u.module import T1UPlusOperator
from zoo.operators.transforms import dct2
from zoo.registry import create_model

PEER = "neuraloperator FNO"
_BATCH = {64: 20, 128: 8, 256: 2}
_FNO = {"n_modes": (24, 24), "hidden_channels": 20}
_T1 = {"modes": 24, "width": 20, "nlayers": 4, "act": "gelu", "head_init": "scaled", "first_layer_init_only": True}


@dataclass(frozen=True)
class Recipe:
    """A contender and how it is trained.

    Attributes:
        make: resolution -> module.
        lr: learning rates; the best of the first seed is used for the others.
        epochs: passes over the data.
        symmetries: exact symmetries of the flow as augmentation.
    """

    make: Callable[[int], FieldOperator]
    lr: tuple[float, ...]
    epochs: int = 20
    symmetries: bool = True


def _peer(resolution: int) -> FieldOperator:
    from neuralop.models import FNO

    module = _model("fno", **_FNO)
    module.network = FNO(n_modes=(24, 24), in_channels=1, out_channels=1, hidden_channels=20, n_layers=4)
    return module


def _model(name: str, **arguments: Any) -> FieldOperator:
    module = create_model(f"operators/{name}", **arguments)
    assert isinstance(module, FieldOperator)
    return module


def _t1(resolution: int, **arguments: Any) -> FieldOperator:
    return _model("t1", signal_resolution=(resolution, resolution), **{**_T1, **arguments})


def _points(resolution: int) -> FieldOperator:
    size = (resolution, resolution)
    return _model("t1u-plus", signal_resolution=size, domain="points", scaling=0.25)


RECIPES = {
    PEER: Recipe(_peer, (1e-3, 3e-3, 8e-3), symmetries=False),
    f"{PEER}, symmetries": Recipe(_peer, (8e-3,)),
    "FNO, 32 x 32": Recipe(lambda n: _model("fno", **_FNO, grid=32), (8e-3,), symmetries=False),
    "FNO, 32 x 32, symmetries": Recipe(lambda n: _model("fno", **_FNO, grid=32), (3e-3, 8e-3)),
    "FNO, 32 x 32, symmetries, 60 epochs": Recipe(lambda n: _model("fno", **_FNO, grid=32), (8e-3,), 60),
    "T1 (DCT)": Recipe(lambda n: _t1(n), (3e-3,)),
    "T1 (Fourier)": Recipe(lambda n: _t1(n, basis="fourier"), (3e-3,)),
    "T1U": Recipe(lambda n: _model("t1u", modes=24, channel_exponent=5, signal_resolution=(n, n)), (8e-3,)),
    "T1U+": Recipe(lambda n: _model("t1u-plus", signal_resolution=(n, n)), (3e-3,)),
    "T1U+, points": Recipe(lambda n: _points(n), (1.5e-3, 3e-3)),
    "T1U+, points, 60 epochs": Recipe(lambda n: _points(n), (2e-3,), 60),
}


class ReleasedT1(nn.Module):
    """T1 in the order of work of the released code: all lifted channels are transformed, layers see whole spectra.

    Args:
        t1: whose weights to use.
    """

    def __init__(self, t1: nn.Module) -> None:
        super().__init__()
        assert isinstance(t1, T1)
        self.t1 = t1

    def forward(self, x: Tensor) -> Tensor:
        """Fields (B, 1, H, W) -> spectra (B, 1, H, W)."""
        t1 = self.t1
        grid = unit_grid(x.shape[2:], x.dtype, x.device).expand(len(x), -1, -1, -1)
        z = dct2(t1.fc0(torch.cat((x.movedim(1, -1), grid), -1)).movedim(-1, 1))
        for layer in t1.layers:
            assert isinstance(layer, T1Layer)
            m = layer.modes[0]
            h = F.gelu(torch.einsum("bixy,ioxy->boxy", z[..., :m, :m], layer.ch_mixing_1))
            h = torch.einsum("bcix,ioc->bcox", h, layer.spatial_mixing_1)
            h = torch.einsum("bcxi,ioc->bcxo", h, layer.spatial_mixing_2)
            z = F.pad(h + z[..., :m, :m], (0, z.shape[-1] - m, 0, z.shape[-2] - m))
        return (torch.sin(z.movedim(1, -1) @ t1.fc1) @ t1.fc2).movedim(-1, 1)


def run(
    part: Literal["steps", "errors"] = "steps",
    resolutions: tuple[int, ...] = (64, 128),
    repeats: int = 7,
    seeds: int = 1,
    recipes: tuple[str, ...] = tuple(RECIPES),
    train_size: int = 500,
) -> Report:
    """Measures.

    Args:
        part: ``"steps"``: time of a training step; ``"errors"``: relative L2 error after whole trainings.
        resolutions: of the steps: 64, 128 or 256.
        repeats: steps of each that count.
        seeds: trainings per recipe.
        recipes: names of the trainings.
        train_size: flows to train on.
    """
    torch.set_num_threads(1)
    if part == "steps":
        return _steps(resolutions, repeats)
    unknown = [name for name in recipes if name not in RECIPES]
    if unknown:
        raise ConfigError(f"There is no recipe '{unknown[0]}'. Known: {'; '.join(RECIPES)}.")
    return _errors(recipes, seeds, train_size)


def _steps(resolutions: tuple[int, ...], repeats: int) -> Report:
    report = Report("milliseconds per training step (forward, backward, AdamW), one thread", PEER)
    for n in resolutions:
        if n not in _BATCH:
            raise ConfigError(f"Steps are measured at {', '.join(map(str, _BATCH))} points a side, not {n}.")
        modules = {
            PEER: _peer(n),
            "zoo FNO": _model("fno", **_FNO),
            "zoo FNO, 32 x 32": _model("fno", **_FNO, grid=32),
            "T1 (block form)": _t1(n),
            "T1U": _model("t1u", modes=24, channel_exponent=5, signal_resolution=(n, n)),
            "T1U+": _model("t1u-plus", signal_resolution=(n, n)),
            "T1U+, points": _points(n),
        }
        batch: FieldBatch = {
            "input": torch.randn(_BATCH[n], 1, n, n),
            "target": torch.randn(_BATCH[n], 1, 1, n, n),
        }
        work = {name: _step(module, partial(module.objective, batch)) for name, module in modules.items()}
        released = ReleasedT1(_t1(n).network)
        work["T1 (released form)"] = _step(released, partial(_released_objective, released, batch))
        for name, seconds in interleaved(work, repeats, warmup=2).items():
            report.rows.setdefault(name, {})[f"{n} x {n}, batch {_BATCH[n]}"] = 1e3 * seconds
        for name, module in modules.items():
            report.rows[name]["parameters"] = _count(module)
        difference = _difference(_t1(n).network, batch["input"][:2])
        report.notes.append(
            f"{n} x {n}: block and released form of T1 differ by {difference:.1e} of the largest output"
        )
    return report


@torch.no_grad()
def _difference(t1: nn.Module, x: Tensor) -> float:
    block, released = t1(x), ReleasedT1(t1)(x)
    return float((block - released).abs().max() / released.abs().max())


def _released_objective(released: nn.Module, batch: FieldBatch) -> Tensor:
    return relative_l2(released(batch["input"]), dct2(batch["target"][:, 0])).mean()


def _count(module: FieldOperator) -> int:
    """Real parameters: a complex one counts as two."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in module.network.parameters())


def _step(module: nn.Module, objective: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        objective().backward()
        optimizer.step()

    return step


def _errors(recipes: tuple[str, ...], seeds: int, train_size: int) -> Report:
    report = Report(f"w(0) -> w(30), viscosity 1e-3, 64 x 64, {train_size} flows, mean over {seeds} seeds", PEER)
    for name in recipes:
        recipe = RECIPES[name]
        tried = {lr: _train(recipe, lr, 0, train_size) for lr in recipe.lr}
        best = min(tried, key=lambda lr: tried[lr]["relative L2"])
        results = [tried[best], *(_train(recipe, best, seed, train_size) for seed in range(1, seeds))]
        report.rows[name] = {key: statistics.mean(r[key] for r in results) for key in results[0]}
        each = ", ".join(f"{r['relative L2']:.4f}" for r in results)
        report.notes.append(f"{name}: lr {best:g}, {recipe.epochs} epochs, each seed {each}")
        if len(tried) > 1:
            sweep = ", ".join(f"{lr:g}: {r['relative L2']:.4f}" for lr, r in tried.items())
            report.notes.append(f"{name}: by learning rate {sweep}")
    if PEER not in report.rows:
        report.reference = recipes[0]
    return report


def _train(recipe: Recipe, lr: float, seed: int, train_size: int) -> dict[str, float]:
    """One training; error on 64 x 64 test flows, and on the same flows at 128 x 128 without training anew."""
    data = NavierStokes(train_size=train_size, symmetries=recipe.symmetries, seed=seed)
    data.setup("fit")
    fine = NavierStokes(train_size=1, test_resolution=128)
    fine.setup("test")
    torch.manual_seed(seed)
    module = recipe.make(64)
    start = time.process_time()
    if isinstance(module, T1UPlusOperator):
        module.measure(data.train)
    sampler = EpochSampler(train_size, shuffle=True, seed=seed, drop=train_size % data.batch_size)
    steps = recipe.epochs * (len(sampler) // data.batch_size)
    optimizer = torch.optim.AdamW(module.network.parameters(), lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    for epoch in range(recipe.epochs):
        sampler.set_epoch(epoch)
        order = list(sampler)
        for first in range(0, len(order), data.batch_size):
            batch = default_collate([data.train[index] for index in order[first : first + data.batch_size]])
            optimizer.zero_grad()
            module.objective(batch).backward()
            optimizer.step()
            schedule.step()
    seconds = time.process_time() - start
    module.eval()
    return {
        "relative L2": _evaluate(module, data),
        "at 128 x 128": _evaluate(module, fine),
        "CPU seconds": seconds,
        "parameters": _count(module),
    }


def _evaluate(module: FieldOperator, data: NavierStokes) -> float:
    batch = default_collate([data.test[k] for k in range(len(data.test))])  # type: ignore[arg-type]
    with torch.no_grad():
        predicted = torch.cat([module(part) for part in batch["input"].split(20)])
    return float(relative_l2(predicted, batch["target"]).mean())
