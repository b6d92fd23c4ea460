"""EDGS against densifying 3DGS on the procedural scene over several seeds: quality over time, matching included."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from tools.benchmark.report import Report
from zoo.config import compose
from zoo.engine.loggers import read_metrics
from zoo.engine.run import train
from zoo.splatting.reconstruction import Reconstruction
from zoo.viz.save import save_figures

QUIET = ("callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}")
CONFIGS = {"EDGS": "splatting/edgs", "3DGS": "splatting/3dgs", "3DGS-MCMC": "splatting/3dgs-mcmc"}
FOLDER = Path("runs", "benchmark", "splatting")
Curve = tuple[np.ndarray, np.ndarray]


def run(seeds: int = 3, steps: int = 2000, mcmc: bool = True, size: int = 128) -> Report:
    """Trains the shipped configs and compares their curves of held-out PSNR over seconds of training.

    Seconds are those of initialisation and training steps, without evaluation; on a single thread (OMP_NUM_THREADS=1)
    of processor time, which other processes do not disturb. Reaching a quality is read off the
    curve between two evaluations.

    Args:
        seeds: of the training; the scene is the same.
        steps: of each training.
        mcmc: train the MCMC baseline, too.
        size: of the images in pixels.
    """
    single = torch.get_num_threads() == 1
    if single:
        Reconstruction.clock = staticmethod(time.process_time)  # type: ignore[method-assign]
    names = [name for name in CONFIGS if mcmc or name != "3DGS-MCMC"]
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    curves: dict[str, list[Curve]] = {name: [] for name in names}
    for seed in range(seeds):
        for name in names:
            summary, curve = _train(CONFIGS[name], seed, steps, size)
            results[name].append(summary)
            curves[name].append(curve)
    report = Report(f"procedural scene, {size} px, {steps} steps, mean over {seeds} seeds", "3DGS")
    for name in names:
        rows = results[name]
        report.rows[name] = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
        each = ", ".join(f"{row['PSNR']:.2f}" for row in rows)
        report.notes.append(f"{name}: PSNR of each seed {each}")
    for seed in range(seeds):
        report.notes.append(f"seed {seed}: {_race(curves['EDGS'][seed], curves['3DGS'][seed])}")
    report.notes.append("seconds of processor time on one thread" if single else "seconds of wall time")
    report.figures = save_figures({"psnr_over_time": _figure(curves)}, FOLDER)
    return report


def _train(config: str, seed: int, steps: int, size: int) -> tuple[dict[str, float], Curve]:
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        options = [f"seed={seed}", f"run_dir={run_dir}", f"trainer.max_steps={steps}", f"data.size={size}"]
        summary = train(compose(config, [*QUIET, *options, "trainer.val_check_interval=100"]))
        rows: list[dict[str, Any]] = [row for row in read_metrics(run_dir) if "val/psnr" in row]
    metrics = summary["metrics"]
    values = {
        "PSNR": metrics["test/psnr"],
        "SSIM": metrics["test/ssim"],
        "Gaussians": metrics["test/gaussians"],
        "seconds": metrics["test/train_seconds"] + metrics["test/init_seconds"],
        "of that before the first step": metrics["test/init_seconds"],
    }
    seconds, psnr = ([row[key] for row in rows] for key in ("seconds", "val/psnr"))
    return values, (np.array([*seconds, values["seconds"]]), np.array([*psnr, values["PSNR"]]))


def _race(ours: Curve, baseline: Curve) -> str:
    """When the first curve reaches the second's last value, and how far ahead it is at the second's end."""
    (seconds, psnr), (their_seconds, their_psnr) = ours, baseline
    end, goal = float(their_seconds[-1]), float(their_psnr[-1])
    reached = np.flatnonzero(psnr >= goal)
    ahead = float(np.interp(end, seconds, psnr)) - goal
    if len(reached) == 0:
        return f"EDGS does not reach the final PSNR of 3DGS; at equal time it is {ahead:+.2f} dB ahead"
    first = reached[0]
    at = float(seconds[first])
    if first > 0:
        at = float(np.interp(goal, psnr[first - 1 : first + 1], seconds[first - 1 : first + 1]))
    return (
        f"EDGS reaches the final PSNR of 3DGS, {goal:.2f} dB, after {at:.1f} s, {100 * at / end:.0f} % of its time of "
        f"{end:.1f} s; at equal time it is {ahead:+.2f} dB ahead"
    )


def _figure(curves: dict[str, list[Curve]]) -> Figure:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    for color, (name, runs) in enumerate(curves.items()):
        for seed, (seconds, psnr) in enumerate(runs):
            axis.plot(seconds, psnr, color=f"C{color}", lw=1.4, alpha=0.85, label=name if seed == 0 else None)
    axis.set(xlabel="seconds of initialisation and training, without evaluation", ylabel="held-out PSNR in dB")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure
