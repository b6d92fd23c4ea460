"""ArtEq against PointNet of equal size, with and without SO(3) augmentation, under rotations and in wider poses."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from tools.benchmark.report import Report
from zoo.config import compose, compose_run
from zoo.data.body_clouds import CONDITIONS
from zoo.engine.run import evaluate, train
from zoo.engine.run_folder import RunFolder
from zoo.errors import ConfigError, UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from omegaconf import DictConfig

QUIET = ("callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}")
# Name of the row -> which network of the config it is, and how its training data are turned.
ROWS = {
    "PointNet, SO(3) augmentation": ("rival", "haar"),
    "ArtEq, SO(3) augmentation": ("model", "haar"),
    "PointNet, no augmentation": ("rival", "none"),
    "ArtEq, no augmentation": ("model", "none"),
}


def run(
    seeds: int = 3,
    rows: tuple[str, ...] = tuple(ROWS),
    epochs: int | None = None,
    bodies: int | None = None,
    rounds: int = 10,
    folder: str | None = None,
) -> Report:
    """Trains the config ``humans/arteq`` and its rival, augmented and not.

    Args:
        seeds: runs of each, with seeds 0, 1, ...
        rows: some of `ROWS`; the first one is the one that the others are compared with.
        epochs: of each training; None for the config's.
        bodies: of each epoch; None for the config's.
        rounds: of registration behind either network, for further rows; 0 for none.
        folder: where the runs are kept, as ``model-<rotation>-<seed>`` and ``rival-...``; those that it has are
            not trained again, and one that was interrupted goes on. None to keep none.

    Raises:
        UnknownNameError: there is no such row.
    """
    for name in rows:
        if name not in ROWS:
            raise UnknownNameError(f"There is no row '{name}'. {did_you_mean(name, ROWS)}")
    report = Report(f"V2V in cm and part accuracy, mean over {seeds} seeds", rows[0])
    with tempfile.TemporaryDirectory() as temporary:
        results: dict[str, list[dict[str, Any]]] = {}
        for seed in range(seeds):
            for name in rows:
                part, rotation = ROWS[name]
                changes = [
                    *([f"trainer.max_epochs={epochs}"] if epochs is not None else []),
                    *([f"data.bodies={bodies}"] if bodies is not None else []),
                    *(f"data.rotation={rotation}", f"seed={seed}"),
                ]
                path = Path(folder or temporary, f"{part}-{rotation}-{seed}")
                results.setdefault(name, []).append(_result(changes, part, path, rounds))
    for name, summaries in results.items():
        report.rows[name] = {
            **_errors([summary["metrics"] for summary in summaries]),
            "minutes": statistics.mean(summary["processor_s"] for summary in summaries) / 60,
            "parameters": summaries[0]["parameters"],
        }
        if rounds:
            report.rows[f"{name}, registered"] = _errors([summary["refined"] for summary in summaries])
        for condition in ("rotated", "wide", "rotated_wide"):
            each = ", ".join(f"{summary['metrics'][f'test/v2v_{condition}']:.3g}" for summary in summaries)
            report.notes.append(f"{name}: V2V {condition} of each seed {each} cm")
    report.notes.append("minutes of processor time, with the evaluation; of an interrupted run, of its last part")
    return report


def _errors(metrics: list[dict[str, float]]) -> dict[str, float]:
    """V2V, then part accuracy, under each condition, mean over the seeds."""
    row: dict[str, float] = {}
    for label, name in (("", "v2v"), ("parts ", "part_accuracy")):
        for condition in CONDITIONS:
            key = f"test/{name}_{condition}" if condition else f"test/{name}"
            short = condition.replace("_", ", ") or "upright"
            row[f"{label}{short}"] = statistics.mean(of_seed[key] for of_seed in metrics)
    return row


def _result(changes: list[str], part: str, path: Path, rounds: int) -> dict[str, Any]:
    """The summary of a training in `path`, and the test with registration under ``"refined"``."""
    config = _of_part(compose("humans/arteq", [*QUIET, *changes, f"run_dir={path}"]), part)
    summary = _trained(config, RunFolder(path))
    if rounds:
        again = RunFolder(path / f"refined-{rounds}")
        if not again.summary.is_file():
            changes = [*QUIET, *changes, f"run_dir={again.path}", "callbacks.test_figures=null"]
            config = compose("humans/arteq", [*changes, f"model.refine={rounds}", f"rival.refine={rounds}"])
            evaluate(_of_part(config, part), str(path))
        summary["refined"] = again.read_summary()["metrics"]
    return summary


def _of_part(config: DictConfig, part: str) -> DictConfig:
    config.model, config.rival = config[part], None
    return config


def _trained(config: DictConfig, run: RunFolder) -> dict[str, Any]:
    """The summary of the config's run, trained now unless it was before."""
    begun = run.config.exists()
    if begun:
        before = compose_run(run.path, [])
        for key in ("seed", "model", "data", "trainer"):
            if OmegaConf.to_container(before, resolve=True)[key] != OmegaConf.to_container(config, resolve=True)[key]:  # type: ignore[index,call-overload]
                raise ConfigError(f"{run.path} holds a run of another {key}: give another folder, or delete it.")
    if not run.summary.is_file():
        start = time.process_time()
        summary = train(config, resume=begun)
        run.write_summary({**summary, "processor_s": time.process_time() - start})
    return run.read_summary()
