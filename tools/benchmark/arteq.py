"""ArtEq against PointNet of equal size, with and without SO(3) augmentation, under rotations and in wider poses."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tools.benchmark.report import Report
from zoo.config import compose
from zoo.data.body_clouds import CONDITIONS
from zoo.engine.run import train

QUIET = ("callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}")
_AUGMENTED = {"haar": "SO(3) augmentation", "none": "no augmentation"}


def run(seeds: int = 3, epochs: int | None = None, bodies: int | None = None, folder: str | None = None) -> Report:
    """Trains the config ``humans/arteq`` with its rival, augmented and not.

    Args:
        seeds: runs of each, with seeds 0, 1, ...
        epochs, bodies: of each training; None for the config's.
        folder: where the runs are kept, as ``model-<rotation>-<seed>`` and ``rival-...``; None to keep none.
    """
    changes = [
        *([f"trainer.max_epochs={epochs}"] if epochs is not None else []),
        *([f"data.bodies={bodies}"] if bodies is not None else []),
    ]
    report = Report(f"V2V in cm and part accuracy, mean over {seeds} seeds", f"PointNet, {_AUGMENTED['haar']}")
    for rotation, label in _AUGMENTED.items():
        for name, part in (("ArtEq", "model"), ("PointNet", "rival")):
            summaries = [
                _train([*changes, f"data.rotation={rotation}", f"seed={seed}"], part, folder) for seed in range(seeds)
            ]
            report.rows[f"{name}, {label}"] = _row(summaries)
            rotated = ", ".join(f"{summary['metrics']['test/v2v_rotated']:.3g}" for summary in summaries)
            report.notes.append(f"{name}, {label}: V2V under rotations of each seed {rotated} cm")
    report.notes.append("minutes of processor time, with the evaluation")
    return report


def _row(summaries: list[dict[str, Any]]) -> dict[str, float]:
    def mean(metric: str) -> float:
        return statistics.mean(summary["metrics"][f"test/{metric}"] for summary in summaries)

    row: dict[str, float] = {}
    for condition in CONDITIONS:
        label, suffix = condition.replace("_", ", ") or "upright", f"_{condition}" if condition else ""
        row[f"V2V {label}"] = mean(f"v2v{suffix}")
        row[f"parts {label}"] = mean(f"part_accuracy{suffix}")
    row["minutes"] = statistics.mean(summary["processor_s"] for summary in summaries) / 60
    row["parameters"] = summaries[0]["parameters"]
    return row


def _train(overrides: list[str], part: str, folder: str | None) -> dict[str, Any]:
    """Trains the config's model, or its rival, alone."""
    with tempfile.TemporaryDirectory() as temporary:
        name = "-".join([part, *(change.rpartition("=")[2] for change in overrides[-2:])])
        config = compose("humans/arteq", [*QUIET, *overrides, f"run_dir={Path(folder or temporary) / name}"])
        config.model, config.rival = config[part], None
        start = time.process_time()
        return {**train(config), "processor_s": time.process_time() - start}
