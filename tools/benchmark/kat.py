"""KAT against its equal-size ViT on digits, and GR-KAN against a GELU MLP on a function, over several seeds."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from tools.benchmark.report import Report
from zoo.config import compose
from zoo.engine.run import train

QUIET = ("callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}")


def run(seeds: int = 3) -> Report:
    """Trains both shipped configs with their rivals.

    Args:
        seeds: runs per config, with seeds 0, 1, ...
    """
    names = {"kat/digits": ("KAT", "ViT"), "kat/function-fit": ("GR-KAN", "GELU MLP")}
    metrics = {"kat/digits": "test/accuracy", "kat/function-fit": "test/rmse"}
    report = Report(f"KAT family, mean over {seeds} seeds", reference="ViT")
    for config, (ours, rival) in names.items():
        summaries = [_train(config, seed) for seed in range(seeds)]
        for name, group in ((ours, summaries), (rival, [s["rival"] for s in summaries])):
            values = [s["metrics"][metrics[config]] for s in group]
            report.rows[name] = {
                metrics[config]: statistics.mean(values),
                f"{metrics[config]} std": statistics.stdev(values) if seeds > 1 else 0.0,
                "train seconds": statistics.mean(s["wall_time_s"] for s in group),
                "parameters": group[0]["parameters"],
            }
            report.notes.append(f"{name}: {metrics[config]} of each seed {', '.join(f'{v:.4g}' for v in values)}")
        report.notes.append(
            f"{ours} / {rival} in {metrics[config]}: {_ratio(report, ours, rival, metrics[config]):.3f}"
        )
    return report


def _ratio(report: Report, ours: str, rival: str, metric: str) -> float:
    return report.rows[ours][metric] / report.rows[rival][metric]


def _train(config: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return train(compose(config, [*QUIET, f"seed={seed}", f"run_dir={Path(folder) / 'run'}"]))
