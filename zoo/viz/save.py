"""Writing figures to PNG files and films to GIF files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.animation import Animation, PillowWriter
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


def save_animations(animations: Mapping[str, Animation], folder: Path, frames_per_second: int = 8) -> list[Path]:
    """Writes each film to ``<folder>/<name>.gif``.

    Returns:
        The paths, in the order of the mapping.
    """
    paths = []
    for name, animation in animations.items():
        target = folder / f"{name}.gif"
        with atomic_path(target) as path:
            animation.save(path, writer=PillowWriter(fps=frames_per_second), dpi=DPI // 2)
        paths.append(target)
    return paths
