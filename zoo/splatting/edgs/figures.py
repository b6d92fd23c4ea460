"""The cloud of matches that EDGS begins with."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zoo.data.scene_views import Scene
from zoo.splatting.edgs.initialisation import Cloud


def cloud(found: Cloud, scene: Scene) -> Figure:
    """Points in two views coloured by their reprojection error; errors; coverage of each view by matches.

    Args:
        found: the points.
        scene: where they are from.
    """
    views = sorted(found.coverage)
    shown = [views[len(views) // 4], views[3 * len(views) // 4]]
    figure = Figure(figsize=(14, 3.4), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1.2, 1.2, 1, 1))
    error = found.error.numpy()
    for axis, view in zip(axes, shown, strict=False):
        own = (found.reference == view).numpy()
        local = found.points.numpy()[own] @ scene.viewmats[view, :3, :3].T + scene.viewmats[view, :3, 3]
        image = local @ scene.Ks[view].T
        axis.imshow(scene.images[view], alpha=0.55)
        dots = axis.scatter(
            image[:, 0] / image[:, 2] - 0.5, image[:, 1] / image[:, 2] - 0.5, c=error[own], s=3, cmap="turbo", vmin=0, vmax=1
        )
        axis.set(xticks=[], yticks=[], title=f"view {scene.names[view]}: {own.sum()} points")
    figure.colorbar(dots, ax=axes[1], label="error in pixels")
    axes[2].hist(error, bins=50, range=(0, float(np.quantile(error, 0.995)) + 1e-6) if len(error) else None)
    axes[2].set(xlabel="reprojection error in pixels", title=f"{len(error):,} points")
    axes[3].bar(range(len(views)), [100 * found.coverage[v] for v in views], width=1.0)
    axes[3].set(xlabel="reference view", ylabel="pixels matched, %", ylim=(0, 100), title="coverage")
    return figure
