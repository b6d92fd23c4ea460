"""Momentum-GS against its ablations on the procedural city: borders, staleness, memory, over several seeds."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tools.benchmark.report import Report
from zoo import cli
from zoo.config import compose
from zoo.data.blocks import BlockGrid
from zoo.data.procedural_city import procedural_city
from zoo.data.scene_views import view_batch
from zoo.engine.run import train
from zoo.errors import Interrupted
from zoo.pretrained import load_module
from zoo.splatting.momentum_gs import figures
from zoo.splatting.momentum_gs.metrics import masked_psnr, near_border
from zoo.splatting.momentum_gs.reconstruction import BlockReconstruction
from zoo.viz.save import save_figures

QUIET = ("callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}")
FOLDER = Path("runs", "benchmark", "momentum")
ROUNDS = 10
GRID = BlockGrid((-2.0, -2.0, -1.0), (2.0, 2.0, 2.0), (2, 2, 1))
NO_TEACHER = ("model.consistency=0", "model.weight_sigma=null")
NO_WEIGHTS = ("model.weight_sigma=null",)
EIGHT = ("data.dims=[4,2,1]",)
METRICS = {
    "PSNR": "test/psnr",
    "SSIM": "test/ssim",
    "staleness": "test/staleness",
    "forgetting": "test/forgetting",
    "anchors": "test/anchors",
}


@dataclass(frozen=True)
class Variant:
    """One training.

    Attributes:
        options: overrides of the config.
        frozen: name of a second end of the same training, whose last round leaves the decoder at rest; the first
            end's decoder never rests.
        config: the config.
    """

    options: tuple[str, ...]
    frozen: str | None = None
    config: str = "splatting/momentum-gs"


VARIANTS = {
    "1 block": Variant((), config="splatting/scaffold-gs"),
    "4 independent": Variant(("model.decoders=4", *NO_TEACHER, "data.freeze_rounds=0")),
    "4 in parallel": Variant(("data.group=4", "model.max_resident=4", *NO_TEACHER, "data.freeze_rounds=0")),
    "4 in turns": Variant(NO_TEACHER, "4 in turns, freeze"),
    "4 momentum": Variant(NO_WEIGHTS, "4 momentum, freeze"),
    "4 momentum, weights, freeze": Variant(()),
    "8 independent": Variant((*EIGHT, "model.decoders=8", *NO_TEACHER, "data.freeze_rounds=0")),
    "8 momentum, freeze": Variant((*EIGHT, *NO_WEIGHTS)),
    "8 momentum, weights, freeze": Variant(EIGHT),
}
SHOWN = ("1 block", "4 independent", "4 in turns", "4 momentum, freeze")


def run(seeds: int = 3, iterations: int = 800, size: int = 56, eight_seeds: int = 3, memory: bool = True) -> Report:
    """Trains every row of the ablation and says how far apart they are.

    On a single thread (OMP_NUM_THREADS=1) seconds are of processor time, which other processes do not disturb.

    Args:
        seeds: of decoder and order of views; the city is the same.
        iterations: of each block.
        size: of the images in pixels.
        eight_seeds: of the rows with eight blocks, which take twice as long; 0 leaves them out.
        memory: measure how memory grows from two to four to eight blocks.
    """
    results: dict[str, list[dict[str, float]]] = {}
    common = (f"data.iterations={iterations}", f"data.size={size}", "trainer.val_check_interval=null")
    with tempfile.TemporaryDirectory() as folder:
        jobs = [(seed, name) for seed in range(seeds) for name in VARIANTS if not name.startswith("8")]
        jobs += [(seed, name) for seed in range(min(seeds, eight_seeds)) for name in VARIANTS if name.startswith("8")]
        for seed, name in jobs:
            variant = VARIANTS[name]
            interval = iterations if variant.config.endswith("scaffold-gs") else iterations // ROUNDS
            options = (*QUIET, *common, f"data.interval={interval}", *variant.options, f"seed={seed}")
            if seed:
                options += ("callbacks.test_figures=null",)
            place = _place(Path(folder, str(seed)), name)
            for row, values in _train(name, variant, options, place, iterations).items():
                results.setdefault(row, []).append(values)
                told = ", ".join(f"{key} {value:.4g}" for key, value in values.items())
                cli.console().print(f"seed {seed}, {row}: {told}")
        pictures = _pictures(Path(folder, "0"), size)
    report = Report(f"procedural city, {size} px, {iterations} iterations per block, {seeds} seeds", "4 in turns")
    report.notes.append(f"rows of eight blocks: {min(seeds, eight_seeds)} seeds")
    for row, runs in results.items():
        report.rows[row] = {key: statistics.mean(values[key] for values in runs) for key in runs[0]}
        each = "; ".join(f"{values['PSNR']:.2f} / {values['border']:.2f}" for values in runs)
        report.notes.append(f"{row}: PSNR / border of each seed {each}")
    report.notes += _verdicts(report.rows)
    if memory:
        report.notes += _memory(size)
    report.figures = pictures
    return report


def _place(folder: Path, name: str) -> Path:
    """The run folder of a row."""
    return folder / name.replace(",", "").replace(" ", "_")


def _train(
    name: str, variant: Variant, options: tuple[str, ...], place: Path, iterations: int
) -> dict[str, dict[str, float]]:
    """Trains a variant, and its second end if it has one: name -> metrics."""
    if variant.frozen is None:
        return {name: _finish(variant, (*options, f"run_dir={place}"), resume=False)}
    start = time.process_time()
    shared = 4 * (iterations - iterations // ROUNDS)
    with _stopped_after(shared), suppress(Interrupted):
        train(compose(variant.config, [*options, "data.freeze_rounds=0", f"run_dir={place}"]))
    spent = time.process_time() - start
    rows = {}
    for row, rounds in ((name, 0), (variant.frozen, 1)):
        end = _place(place.parent, row + " end")
        shutil.copytree(place, end)
        last = (*options, f"data.freeze_rounds={rounds}", f"run_dir={end}")
        rows[row] = _finish(variant, last, resume=True)
        rows[row]["seconds"] += spent
    return rows


def _finish(variant: Variant, options: tuple[str, ...], resume: bool) -> dict[str, float]:
    start = time.process_time()
    metrics: dict[str, Any] = train(compose(variant.config, list(options)), resume=resume)["metrics"]
    seconds = time.process_time() - start
    values = {key: metrics[name] for key, name in METRICS.items() if name in metrics}
    # All are judged at the borders of the four blocks, whether they have such borders or others.
    run_dir = Path(options[-1].removeprefix("run_dir="))
    size = next(int(o.removeprefix("data.size=")) for o in options if o.startswith("data.size="))
    return {**values, **_at_borders(load_module(run_dir), size), "seconds": seconds}


def _at_borders(module: Any, size: int) -> dict[str, float]:
    """Mean PSNR over held-out views of the pixels near the cuts between four blocks, and of the others."""
    scene = procedural_city(size)
    found: dict[str, list[float]] = {"border": [], "interior": []}
    for index in scene.test_indices:
        batch = view_batch(scene, [index])
        image = module(batch["viewmat"], batch["K"], size, size)["image"][0]
        near = near_border(GRID, scene.surfaces[index])
        inside = np.isfinite(scene.surfaces[index]).all(-1) & ~near
        for name, mask in (("border", near), ("interior", inside)):
            quality = masked_psnr(image, batch["image"][0], mask)
            if quality is not None:
                found[name].append(quality)
    return {name: statistics.mean(values) for name, values in found.items()}


@contextmanager
def _stopped_after(steps: int) -> Iterator[None]:
    """Asks the training to stop and save after so many steps, as SIGTERM does."""
    whole = BlockReconstruction.training_step

    def until(self: Any, batch: Any, batch_idx: int) -> None:
        whole(self, batch, batch_idx)
        if batch_idx + 1 == steps:
            signal.raise_signal(signal.SIGTERM)

    BlockReconstruction.training_step = until  # type: ignore[method-assign]
    try:
        yield
    finally:
        BlockReconstruction.training_step = whole  # type: ignore[method-assign]


def _verdicts(rows: dict[str, dict[str, float]]) -> list[str]:
    best, alone, turns, taught = (
        rows[name] for name in ("4 momentum, weights, freeze", "4 independent", "4 in turns", "4 momentum")
    )
    frozen, taught_frozen = rows["4 in turns, freeze"], rows["4 momentum, freeze"]
    return [
        f"momentum over independent blocks: border {best['border'] - alone['border']:+.2f} dB, "
        f"overall {best['PSNR'] - alone['PSNR']:+.2f} dB",
        f"staleness with the teacher over without: {taught['staleness'] / turns['staleness']:.2f}",
        f"freeze over none: {frozen['PSNR'] - turns['PSNR']:+.2f} dB without, "
        f"{taught_frozen['PSNR'] - taught['PSNR']:+.2f} dB with the teacher",
    ]


def _memory(size: int) -> list[str]:
    """Peak memory of a process and of the blocks on the device, for two, four and eight blocks kept on disk."""
    notes = []
    for count, dims in ((2, "[2,1,1]"), (4, "[2,2,1]"), (8, "[4,2,1]")):
        options = ["data.iterations=10", "data.interval=5", f"data.size={size}", f"data.dims={dims}"]
        options += ["model.spill=true", "model.max_resident=1", "trainer.val_check_interval=null"]
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", _MEASURE, *QUIET, *options, f"run_dir={folder}/run"]
            out = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ.copy())
        resident, peak = out.stdout.split()[-2:]
        notes.append(f"{count} blocks: {int(resident) / 2**20:.2f} MiB of blocks on the device, process {peak} MiB")
    return notes


_MEASURE = """
import resource, sys
from zoo.config import compose
from zoo.engine.run import train
from zoo.splatting.momentum_gs.store import BlockStore
stores, make = [], BlockStore.__init__
def watched(self, *arguments):
    make(self, *arguments)
    stores.append(self)
BlockStore.__init__ = watched
train(compose("splatting/momentum-gs", sys.argv[1:]))
print(stores[0].peak_resident_bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def _pictures(folder: Path, size: int) -> list[Path]:
    """Views over the cuts as several variants render them, and the blocks of the best over time."""
    scene = procedural_city(size)
    modules: dict[str, Any] = {}
    for name in SHOWN:
        place, end = _place(folder, name), _place(folder, name + " end")
        modules[name] = load_module(end if end.is_dir() else place)
    chosen = figures.border_views(scene, GRID, scene.test_indices)
    paths = save_figures({"borders": figures.borders(modules, scene, GRID, chosen)}, FOLDER)
    for name in ("4 in turns", "4 momentum", "4 momentum, freeze"):
        target = FOLDER / f"blocks-{_place(Path(), name)}.png"
        shutil.copyfile(_place(folder, name + " end") / "figures" / "blocks.png", target)
        paths.append(target)
    return paths
