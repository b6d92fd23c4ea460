"""The cloud of matches that EDGS begins with."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from zoo.data.scene_views import Scene
from zoo.splatting.edgs.initialisation import Cloud

Array = NDArray[np.float64]


def cloud(found: Cloud, scene: Scene) -> Figure:
    """Points in two views coloured by depth; their errors; the part of each view that was matched.

    Errors are those of depth where the scene's true depth is known, else of the reprojection.

    Args:
        found: the points.
        scene: where they are from.
    """
    views = sorted(found.coverage)
    shown = {views[len(views) // 4], views[3 * len(views) // 4]}
    figure = Figure(figsize=(14, 3.4), layout="constrained")
    first, second, errors, coverage = figure.subplots(1, 4, width_ratios=(1.2, 1.2, 1, 1))
    points, reference = found.points.numpy(), found.reference.numpy()
    for axis, view in zip((first, second), sorted(shown), strict=False):
        x, y, z = _images(points[reference == view], scene, view)
        axis.imshow(scene.images[view], alpha=0.55)
        dots = axis.scatter(x - 0.5, y - 0.5, c=z, s=4, cmap="turbo_r", lw=0)
        figure.colorbar(dots, ax=axis, label="depth")
        axis.set(xticks=[], yticks=[], title=f"view {scene.names[view]}: {len(x)} points")
    if scene.depths:
        error = np.concatenate([_depth_error(points[reference == view], scene, view) for view in views])
        errors.hist(100 * error, bins=50, range=(0, 10))
        good = 100 * float((error < 0.01).mean())
        errors.set(xlabel="error of depth, %", title=f"{len(error):,} points, {good:.0f} % within 1 %")
    else:
        errors.hist(found.error.numpy(), bins=50)
        errors.set(xlabel="reprojection error in pixels", title=f"{len(points):,} points")
    coverage.bar(range(len(views)), [100 * found.coverage[v] for v in views], width=1.0)
    coverage.set(xlabel="reference view", ylabel="pixels matched, %", ylim=(0, 100), title="coverage")
    return figure


def _images(points: Array, scene: Scene, view: int) -> tuple[Array, Array, Array]:
    """Pixel coordinates and depths of points in a view."""
    local = points @ scene.viewmats[view, :3, :3].T + scene.viewmats[view, :3, 3]
    image = local @ scene.Ks[view].T
    return image[:, 0] / image[:, 2], image[:, 1] / image[:, 2], local[:, 2]


def _depth_error(points: Array, scene: Scene, view: int) -> Array:
    """Relative difference to the true depth."""
    x, y, z = _images(points, scene, view)
    height, width = scene.depths[view].shape
    true = scene.depths[view][y.astype(int).clip(0, height - 1), x.astype(int).clip(0, width - 1)]
    return np.abs(z - true) / true
