"""Figures of bodies found in point clouds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from zoo.humans.arteq.network import NUM_PARTS
from zoo.humans.render import side_view, upright
from zoo.humans.space import FOUND, TRUE

Array = NDArray[Any]
_SIZE = (260, 260)


def part_colours(labels: Array) -> Array:
    """Colours (N, 3) in [0, 1] of body parts (N,), neighbours along the body unlike each other."""
    maps = [matplotlib.colormaps[name](np.arange(20)) for name in ("tab20", "tab20b")]
    palette = np.concatenate(maps)[:NUM_PARTS, :3]
    order = np.arange(NUM_PARTS) * 7 % NUM_PARTS
    colours: Array = palette[order][labels]
    return colours


def clouds(
    points: Array,
    labels: Array,
    found_labels: Array,
    vertices: Array,
    found_vertices: Array,
    faces: Array,
    titles: Sequence[str],
) -> Figure:
    """True parts, found parts, the true body, the found one, and both from the side.

    Args:
        points: (B, N, 3) metres.
        labels, found_labels: (B, N).
        vertices, found_vertices: (B, V, 3).
        faces: (F, 3).
        titles: one per row.
    """
    count = len(titles)
    figure = Figure(figsize=(11.5, 2.5 * count), layout="constrained")
    axes = figure.subplots(count, 5, squeeze=False)
    heads = ("true parts", "found parts", "true body", "found body", "both, side")
    for row in range(count):
        for column, parts in enumerate((labels[row], found_labels[row])):
            _scatter(axes[row, column], points[row], parts)
        true, found = upright(vertices[row]), upright(found_vertices[row])
        axes[row, 2].imshow(side_view(true, faces, _SIZE, 0.0, colours=TRUE))
        axes[row, 3].imshow(side_view(found, faces, _SIZE, 0.0, colours=FOUND))
        both = np.concatenate([true, found])
        colours = np.concatenate([np.tile(TRUE, (len(true), 1)), np.tile(FOUND, (len(found), 1))])
        axes[row, 4].imshow(side_view(both, np.concatenate([faces, faces + len(true)]), _SIZE, colours=colours))
        for column in range(5):
            axes[row, column].set(xticks=[], yticks=[])
            axes[row, column].set_title(heads[column] if row == 0 else "", fontsize=9)
        axes[row, 0].set_ylabel(titles[row], fontsize=9)
    return figure


def _scatter(axis: Axes, points: Array, parts: Array) -> None:
    order = points[:, 2].argsort()  # the nearest last
    axis.scatter(points[order, 0], points[order, 1], s=8, c=part_colours(parts[order]), linewidths=0)
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    middle, reach = (low + high) / 2, 0.53 * (high - low).max()
    axis.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach), aspect="equal")
