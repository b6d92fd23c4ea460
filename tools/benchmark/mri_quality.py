"""MRI: RecurrentVarNet, without conjugate gradients and as published, VarNet and RIM at equal processor time.

The contenders are the shipped configs, all of them on the same procedural brains, and are tested on the same ones
and on the real slice. A step's cost is measured beforehand, in turns, and decides how many steps each of them gets.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import zoo
from tools.benchmark.report import Report
from tools.benchmark.timing import interleaved
from zoo.config import compose, resolve
from zoo.engine.run import train
from zoo.engine.run_folder import RunFolder
from zoo.errors import UnknownNameError, did_you_mean
from zoo.files import write_json

CONTENDERS: dict[str, tuple[str, list[str]]] = {  # config and options of each
    "mri/recurrentvarnet": ("mri/recurrentvarnet", []),
    "mri/recurrentvarnet, no conjugate gradients": (
        "mri/recurrentvarnet",
        ["model.opening_iterations=0", "model.closing_iterations=0"],
    ),
    "mri/recurrentvarnet as published": (
        "mri/recurrentvarnet",
        [
            "model.data_gradient=false",
            "model.rms_scaling=false",
            "model.initializer_domain=kspace",
            "model.opening_iterations=0",
            "model.closing_iterations=0",
            "model.espirit=false",
            "+model.sensitivity_filters=4",
            "+model.sensitivity_pools=3",
        ],
    ),
    "mri/varnet": ("mri/varnet", []),
    "mri/rim": ("mri/rim", []),
}
QUIET = ["callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "callbacks.test_figures=null"]
METRICS = ("4x/psnr", "4x/ssim", "8x/psnr", "8x/ssim", "real-slice/network/held-out-nmse")


def run(
    minutes: float = 15.0,
    seeds: int = 1,
    folder: Path | None = None,
    contenders: tuple[str, ...] = tuple(CONTENDERS),
) -> Report:
    """Trains and tests.

    Args:
        minutes: of processor time on one thread for each training.
        seeds: trainings per contender.
        folder: keeps the trainings: a second call takes up what is finished or begun there.
        contenders: some of them; the first one is the one that the others are compared with.

    Raises:
        UnknownNameError: there is no such contender.
    """
    for name in contenders:
        if name not in CONTENDERS:
            raise UnknownNameError(f"There is no contender '{name}'. {did_you_mean(name, CONTENDERS)}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _run(minutes, seeds, folder, contenders)
    finally:
        torch.set_num_threads(threads)


def _run(minutes: float, seeds: int, folder: Path | None, contenders: tuple[str, ...]) -> Report:
    report = Report(
        f"procedural brains at 4x and 8x, {minutes:g} minutes of processor time each, mean over {seeds} seeds",
        reference=contenders[0],
    )
    with tempfile.TemporaryDirectory() as temporary:
        runs = Path(temporary) if folder is None else folder
        steps = _steps(minutes, contenders, runs / "steps.json")
        for name in contenders:
            (config, options), summaries = CONTENDERS[name], []
            for seed in range(seeds):
                length = ["trainer.max_epochs=-1", f"trainer.max_steps={steps[name]}", f"seed={seed}"]
                path = runs / f"{re.sub('[^a-z]+', '-', name)}-{seed}"
                summaries.append(_finished(config, [*QUIET, *options, "model.baselines=[]", *length], path))
            row = {key: statistics.mean(s["metrics"][f"test/{key}"] for s in summaries) for key in METRICS}
            report.rows[name] = row | {"steps": steps[name], "parameters": summaries[0]["parameters"]}
            values = ", ".join(f"{s['metrics']['test/psnr']:.2f}" for s in summaries)
            report.notes.append(f"{name}: PSNR over both rates of each seed {values}")
    return report


def _steps(minutes: float, contenders: tuple[str, ...], path: Path) -> dict[str, int]:
    """Contender -> optimiser steps that fit, as counted before and kept in `path`, or else counted now."""
    steps: dict[str, int] = json.loads(path.read_text()) if path.is_file() else {}
    epochs = {name: _epoch(*CONTENDERS[name]) for name in contenders if name not in steps}
    if epochs:
        work = {name: epoch for name, (epoch, _) in epochs.items()}
        seconds = interleaved(work, repeats=2, warmup=1, clock=time.process_time)
        steps |= {name: round(60 * minutes * batches / seconds[name]) for name, (_, batches) in epochs.items()}
        write_json(path, steps)
    return steps


def _epoch(config: str, options: list[str]) -> tuple[Callable[[], object], int]:
    """Drawing the batches of a small epoch, their losses forward and backward; and how many batches those are.

    It has batches of each kind in about the config's proportion.
    """
    full = resolve(compose(config, options)).data.arguments
    small = [f"++data.{key}={math.ceil(full.get(key, 0) / 16)}" for key in ("train_volumes", "train_volumes_3d")]
    checked = resolve(compose(config, [*options, *small, "+data.slices=2", "+data.val_volumes=1"]))
    module: Any = zoo.create_model(checked.model.name, **checked.model.arguments)
    data: Any = zoo.create_data(checked.data.name, **checked.data.arguments)
    data.setup("fit")
    loader = data.train_dataloader()

    def epoch() -> None:
        for batch in loader:
            module.zero_grad()
            module.objective(batch).backward()

    return epoch, len(loader)


def _finished(config: str, options: list[str], folder: Path) -> dict[str, Any]:
    """The summary of a run, which is trained unless it has been, or goes on from where it was stopped."""
    run = RunFolder(folder)
    if run.summary.is_file():
        return run.read_summary()
    return train(compose(config, [*options, f"run_dir={folder}"]), resume=run.config.is_file())
