"""ArtEq against PointNet of equal size, with and without SO(3) augmentation, under rotations and in wider poses."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from tools.benchmark.report import Report
from zoo.config import compose
from zoo.data.body_clouds import CONDITIONS
from zoo.engine.run import train

QUIET = ("callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}")
_AUGMENTED = {"haar": "SO(3) augmentation", "none": "no augmentation"}


def run(seeds: int = 3, epochs: int | None = None, bodies: int | None = None) -> Report:
    """Trains the config ``humans/arteq`` with its rival, augmented and not.

    Args:
        seeds: runs of each, with seeds 0, 1, ...
        epochs, bodies: of each training; None for the config's.
    """
    changes = [
        *([f"trainer.max_epochs={epochs}"] if epochs is not None else []),
        *([f"data.bodies={bodies}"] if bodies is not None else []),
    ]
    report = Report(f"V2V in cm and part accuracy, mean over {seeds} seeds", f"PointNet, {_AUGMENTED['haar']}")
    for rotation, label in _AUGMENTED.items():
        summaries = [_train([*changes, f"data.rotation={rotation}", f"seed={seed}"]) for seed in range(seeds)]
        for name, group in (("ArtEq", summaries), ("PointNet", [summary["rival"] for summary in summaries])):
            report.rows[f"{name}, {label}"] = _row(group)
            rotated = ", ".join(f"{summary['metrics']['test/v2v_rotated']:.3g}" for summary in group)
            report.notes.append(f"{name}, {label}: V2V under rotations of each seed {rotated} cm")
    return report


def _row(summaries: list[dict[str, Any]]) -> dict[str, float]:
    def mean(metric: str) -> float:
        return statistics.mean(summary["metrics"][f"test/{metric}"] for summary in summaries)

    row: dict[str, float] = {}
    for condition in CONDITIONS:
        label, suffix = condition.replace("_", ", ") or "upright", f"_{condition}" if condition else ""
        row[f"V2V {label}"] = mean(f"v2v{suffix}")
        row[f"parts {label}"] = mean(f"part_accuracy{suffix}")
    row["train seconds"] = statistics.mean(summary["wall_time_s"] for summary in summaries)
    row["parameters"] = summaries[0]["parameters"]
    return row


def _train(overrides: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return train(compose("humans/arteq", [*QUIET, *overrides, f"run_dir={Path(folder) / 'run'}"]))
