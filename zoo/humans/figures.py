"""Figures of fitted and regressed bodies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from zoo.humans.joints import SUPERSET_24, skeleton
from zoo.humans.render import render, side_view

Array = NDArray[Any]
_BONES = skeleton(SUPERSET_24)


def draw_skeleton(axis: Axes, points: Array, colour: str, label: str | None = None) -> None:
    """The superset's 24 joints (24, 2) of 49 or 24 as sticks."""
    points = points[-24:]
    for a, b in _BONES:
        axis.plot(points[[a, b], 0], points[[a, b], 1], color=colour, lw=1.4, alpha=0.9)
    axis.scatter(points[:, 0], points[:, 1], s=9, color=colour, label=label, zorder=3)


def _frame(axis: Axes, size: float, title: str = "") -> None:
    axis.set(xlim=(0, size), ylim=(size, 0), xticks=[], yticks=[], aspect="equal")
    axis.set_title(title, fontsize=9)


def fits(
    keypoints: Array,
    before: Array,
    after: Array,
    vertices: Array,
    truth: Array,
    faces: Array,
    titles: Sequence[str],
    size: int = 224,
    focal: float = 5000.0,
) -> Figure:
    """Fits before and after, the fitted mesh from the front and the side, the true one from the side.

    Args:
        keypoints, before, after: (N, 49, 2) pixels of the crop.
        vertices: (N, V, 3) fitted, in the crop camera's frame; truth: (N, V, 3) in the same orientation.
        faces: (F, 3).
        titles: one per row.
        size: side of the crop, pixels.
        focal: pixels.
    """
    count = len(titles)
    figure = Figure(figsize=(11.5, 2.5 * count), layout="constrained")
    axes = figure.subplots(count, 5, squeeze=False)
    heads = ("start (blue), keypoints (black)", "fitted", "mesh", "mesh, side", "truth, side")
    for row in range(count):
        for column, points in enumerate((before, after)):
            draw_skeleton(axes[row, column], keypoints[row], "k")
            draw_skeleton(axes[row, column], points[row], "C0")
        front, _ = render(vertices[row], faces, focal, (size, size))
        axes[row, 2].imshow(front)
        draw_skeleton(axes[row, 2], keypoints[row], "k")
        axes[row, 3].imshow(side_view(vertices[row], faces, (size, size)))
        axes[row, 4].imshow(side_view(truth[row], faces, (size, size)))
        for column in range(5):
            _frame(axes[row, column], size, heads[column] if row == 0 else "")
        axes[row, 0].set_ylabel(titles[row], fontsize=9)
    return figure


def people(
    images: Array,
    columns: dict[str, Array],
    faces: Array,
    translations: dict[str, Array],
    titles: Sequence[str],
    focal: float = 5000.0,
) -> Figure:
    """Pictures with meshes over them and from the side.

    Args:
        images: (N, H, W, 3) in [0, 1].
        columns: title -> vertices (N, V, 3) without translation.
        faces: (F, 3).
        translations: title -> (N, 3) of a crop camera of 224 pixels.
        titles: one per row.
        focal: pixels, for a crop of 224.
    """
    count, size = len(titles), 224
    figure = Figure(figsize=(2.3 * (1 + 2 * len(columns)), 2.4 * count), layout="constrained")
    axes = figure.subplots(count, 1 + 2 * len(columns), squeeze=False)
    for row in range(count):
        picture = _enlarge(images[row], size)
        axes[row, 0].imshow(picture)
        _frame(axes[row, 0], size, "image" if row == 0 else "")
        axes[row, 0].set_ylabel(titles[row], fontsize=9)
        for k, (name, vertices) in enumerate(columns.items()):
            placed = vertices[row] + translations[name][row]
            over, _ = render(placed, faces, focal, (size, size), background=picture)
            axes[row, 1 + 2 * k].imshow(over)
            axes[row, 2 + 2 * k].imshow(side_view(vertices[row], faces, (size, size)))
            _frame(axes[row, 1 + 2 * k], size, name if row == 0 else "")
            _frame(axes[row, 2 + 2 * k], size, f"{name}, side" if row == 0 else "")
    return figure


def _enlarge(image: Array, size: int) -> Array:
    from PIL import Image

    small = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255
