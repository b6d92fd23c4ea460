"""Curves of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure


def training_curves(rows: Sequence[dict[str, Any]]) -> Figure:
    """Every logged metric over optimiser steps, one panel per quantity.

    ``train/loss`` and ``val/loss`` share a panel; a positive quantity that falls by more than a factor of 20
    gets a logarithmic axis.

    Args:
        rows: of ``metrics.csv``, as `zoo.engine.loggers.read_metrics` gives them.
    """
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        for name, value in row.items():
            if name in ("step", "epoch") or name.startswith("test/"):
                continue
            stage, _, quantity = name.rpartition("/")
            panel = "learning rate" if name.startswith("lr-") else quantity
            curves.setdefault(panel, {}).setdefault(stage or name, []).append((row["step"], value))
    columns = min(3, max(1, len(curves)))
    lines = -(-len(curves) // columns) or 1
    figure = Figure(figsize=(4.4 * columns, 3.0 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flat
    for axis, (panel, by_stage) in zip(axes, curves.items(), strict=False):
        values = [value for points in by_stage.values() for _, value in points]
        for stage, points in by_stage.items():
            axis.plot(*zip(*points, strict=True), label=stage, marker="." if len(points) < 30 else None, lw=1.3)
        if min(values) > 0 and max(values) > 20 * min(values):
            axis.set_yscale("log")
        axis.set(title=panel, xlabel="step")
        axis.grid(alpha=0.3)
        if len(by_stage) > 1:
            axis.legend()
    for axis in list(axes)[len(curves) :]:
        axis.set_axis_off()
    return figure
