"""Writing figures to PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from zoo.files import atomic_path

DPI = 140


def save_figures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Writes each figure to ``<folder>/<name>.png``.

    Returns:
        The paths, in the order of the mapping.
    """
    paths = []
    for name, figure in figures.items():
        target = folder / f"{name}.png"
        with atomic_path(target) as path:
            figure.savefig(path, dpi=DPI, bbox_inches="tight")
        paths.append(target)
    return paths
