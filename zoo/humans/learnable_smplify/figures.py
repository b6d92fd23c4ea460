"""Figures of poses found from joints: strips of skeletons and meshes, errors over time, time against error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from zoo.humans.joints import BODY_25, skeleton
from zoo.humans.render import side_view, upright

Array = NDArray[Any]
_SIZE = (240, 240)
_TRUE, _START = (0.62, 0.71, 0.86), (0.78, 0.78, 0.78)
_WORST = 30.0  # millimetres at the end of the colour scale
_SPINE = (("neck", "nose"), ("neck", "mid_hip"), ("neck", "left_shoulder"), ("neck", "right_shoulder"))
_TORSO = ("shoulder", "hip")
_BONES = [
    *((a, b) for a, b in skeleton(BODY_25) if not all(BODY_25[k].endswith(_TORSO) for k in (a, b))),
    *((BODY_25.index(a), BODY_25.index(b)) for a, b in (*_SPINE, ("mid_hip", "left_hip"), ("mid_hip", "right_hip"))),
]
_MAP = matplotlib.colormaps["magma_r"]


def _error_colours(errors: Array) -> Array:
    colours: Array = _MAP(np.clip(0.05 + 0.9 * errors / _WORST, 0, 1))[:, :3]
    return colours


def _turn(points: Array, degrees: float) -> Array:
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    return np.asarray((points - points.mean(0)) @ matrix.T)


def _sticks(axis: Axes, points: Array, colour: str, width: float, label: str | None = None) -> None:
    for a, b in _BONES:
        axis.plot(points[[a, b], 0], points[[a, b], 1], color=colour, lw=width, solid_capstyle="round")
    axis.scatter(points[:, 0], points[:, 1], s=3 * width, color=colour, label=label, zorder=3)


def facing(joints: Array) -> float:
    """Degrees about the vertical by which a body (25, 3) of BODY_25, y up, has to be turned to face the viewer."""
    left, right = joints[BODY_25.index("left_hip")], joints[BODY_25.index("right_hip")]
    across = left - right
    return float(np.rad2deg(np.arctan2(across[2], across[0])))


def strips(
    columns: Sequence[str],
    joints: Array,
    meshes: Mapping[str, Array],
    truth: Array,
    found: Array,
    found_joints: Array,
    faces: Array,
    turns: Array,
) -> Figure:
    """Skeletons above meshes, a column for each frame or pair; found meshes are coloured by their error.

    Args:
        columns: titles.
        joints, found_joints: (N, 25, 3) of BODY_25, given and of the pose found.
        meshes: further rows above the truth: title -> (N, V, 3).
        truth, found: (N, V, 3), pelvis at the same place.
        faces: (F, 3).
        turns: (N,) degrees about the vertical.
    """
    count, rows = len(columns), 3 + len(meshes)
    figure = Figure(figsize=(1.3 * count + 1.0, 1.55 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, count, squeeze=False)
    heads = ["joints given (black)\nand found (orange)", *meshes, "truth", "found, coloured\nby error"]
    for column, title in enumerate(columns):
        turn = float(turns[column])
        both = _turn(np.concatenate([joints[column], found_joints[column]]), turn)
        _sticks(axes[0, column], both[:25], "k", 2.6, "given")
        _sticks(axes[0, column], both[25:], "C1", 1.2, "found")
        axes[0, column].set(xlim=(-0.75, 0.75), ylim=(-1.1, 1.0), aspect="equal")
        axes[0, column].set_title(title, fontsize=8)
        shown = [(mesh[column], _START) for mesh in meshes.values()] + [(truth[column], _TRUE)]
        errors = 1000 * np.linalg.norm(truth[column] - found[column], axis=1)
        for row, (vertices, colours) in enumerate([*shown, (found[column], _error_colours(errors))], 1):
            picture = side_view(upright(vertices), faces, _SIZE, -turn, colours=colours)
            axes[row, column].imshow(picture)
        axes[-1, column].set_xlabel(f"{errors.mean():.1f} mm", fontsize=8)
    for row in range(rows):
        axes[row, 0].set_ylabel(heads[row], fontsize=8)
        for axis in axes[row]:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    bar = figure.colorbar(ScalarMappable(Normalize(0, _WORST), _MAP), ax=axes[-1, :], shrink=0.85, pad=0.01)
    bar.set_label("vertex error, mm", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def error_curves(curves: Mapping[str, Array], fps: float, title: str) -> Figure:
    """Errors of every frame of a motion over time.

    Args:
        curves: label -> (T,) millimetres; their means are written beside the labels.
        fps: frames per second.
        title: of the figure.
    """
    figure = Figure(figsize=(8.0, 3.0), layout="constrained")
    axis = figure.subplots()
    for label, values in curves.items():
        axis.plot(np.arange(len(values)) / fps, values, lw=1.3, label=f"{label}: mean {values.mean():.1f} mm")
    axis.set(xlabel="time, s", ylabel="vertex error, mm", title=title, ylim=(0, None))
    axis.margins(x=0)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, ncols=2)
    return figure


def time_against_error(points: Mapping[str, tuple[float, float]], title: str) -> Figure:
    """Contenders by their time per frame (ms), on a logarithmic axis, and their error (mm)."""
    figure = Figure(figsize=(7.6, 3.8), layout="constrained")
    axis = figure.subplots()
    marks = "osD^vP*X"
    for k, (label, (time, error)) in enumerate(sorted(points.items(), key=lambda item: item[1])):
        axis.scatter(time, error, s=60, color=f"C{k % 10}", marker=marks[k % len(marks)], label=label, zorder=3)
    times, errors = zip(*points.values(), strict=True)
    axis.set(xscale="log", xlabel="processor time per frame, ms", ylabel="vertex error, mm", title=title)
    axis.set(xlim=(min(times) / 2, max(times) * 2), ylim=(0, 1.15 * max(errors)))
    axis.grid(which="both", alpha=0.2)
    figure.legend(loc="outside right center", fontsize=8)
    return figure
