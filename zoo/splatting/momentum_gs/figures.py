"""Figures of a scene in blocks: the map, what the cuts look like, how blocks fare over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from zoo.data.blocks import BlockGrid
from zoo.data.scene_views import Scene, view_batch
from zoo.splatting.momentum_gs.metrics import AFTER, FINAL, Measured, masked_psnr, near_border
from zoo.splatting.scaffold_gs.network import AnchorModel

if TYPE_CHECKING:
    from zoo.splatting.momentum_gs.rendering import Rendered


def plan_axes(scene: Scene, grid: BlockGrid | None) -> tuple[int, int]:
    """The two axes of a map: those along which the scene is cut, or the cameras spread most."""
    spread = np.ptp(scene.centres, axis=0)
    cut = np.zeros(3) if grid is None else (np.array(grid.dims) > 1) * 2.0 * spread.max()
    first, second = sorted(int(i) for i in np.argsort(spread + cut)[-2:])
    return first, second


def block_map(network: AnchorModel, scene: Scene, grid: BlockGrid | None) -> Figure:
    """The anchors from above, in the colours of the scene's points and of their blocks, with cuts and cameras."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    first, second = plan_axes(scene, grid)
    up = 3 - first - second
    anchors, blocks = network.anchor.detach().cpu().numpy(), network.block.cpu().numpy()
    toward = np.sign(np.median(scene.centres[:, up] - np.median(anchors[:, up]))) or 1.0
    order = np.argsort(toward * anchors[:, up])
    order = order[:: max(1, len(order) // 60_000)]
    place = anchors[order]
    reach = np.quantile(place[:, [first, second]], [0.005, 0.995], axis=0)
    margin = 0.06 * (reach[1] - reach[0]).max()
    left, right = figure.subplots(1, 2)
    left.scatter(place[:, first], place[:, second], c=_nearest_colors(place, scene), s=6, lw=0)
    left.set_title(f"{len(anchors):,} anchors, in the colours of the nearest points")
    palette = np.array(colormaps["tab10" if blocks.max(initial=0) < 10 else "tab20"].colors)  # type: ignore[attr-defined]
    right.scatter(place[:, first], place[:, second], c=palette[blocks[order] % len(palette)], s=6, lw=0, alpha=0.55)
    seats = scene.centres[scene.train_indices]
    right.scatter(seats[:, first], seats[:, second], marker="^", s=22, c="k", lw=0, label="cameras of the training")
    held = scene.centres[scene.test_indices]
    right.scatter(held[:, first], held[:, second], marker="v", s=26, c="w", edgecolor="k", lw=0.8, label="held out")
    counts = np.bincount(blocks, minlength=1)
    for block in np.flatnonzero(counts):
        middle = np.median(anchors[blocks == block], axis=0)
        box = {"boxstyle": "round,pad=0.2", "fc": "w", "ec": palette[block % len(palette)], "alpha": 0.85}
        label = f"block {block}: {counts[block]:,}"
        right.text(middle[first], middle[second], label, ha="center", va="center", fontsize=8, bbox=box)
    right.set_title("blocks, after the merge")
    right.legend(fontsize=8, loc="upper right")
    for axis in (left, right):
        axis.set(
            xlim=(reach[0, 0] - margin, reach[1, 0] + margin),
            ylim=(reach[0, 1] - margin, reach[1, 1] + margin),
            aspect="equal",
            xlabel="xyz"[first],
            ylabel="xyz"[second],
        )
    return figure


def _nearest_colors(place: np.ndarray, scene: Scene) -> np.ndarray:
    from scipy.spatial import cKDTree

    if not len(scene.points):
        return np.full((len(place), 3), 0.5)
    _, index = cKDTree(scene.points).query(place)
    return scene.point_colors[index] / 255


def border_views(scene: Scene, grid: BlockGrid, indices: Sequence[int], count: int = 3) -> list[int]:
    """The views, among some, that show most of the cuts, no two from the same place."""
    surfaces = scene.surfaces  # type: ignore[attr-defined]
    shares = {i: float(near_border(grid, surfaces[i]).mean()) for i in indices}
    chosen: list[int] = []
    for view in sorted(shares, key=lambda i: -shares[i]):
        if all(np.linalg.norm(scene.centres[view] - scene.centres[other]) > 0.5 for other in chosen):
            chosen.append(view)
    return chosen[:count]


def borders(modules: Mapping[str, Rendered], scene: Scene, grid: BlockGrid, indices: Sequence[int]) -> Figure:
    """Views over the cuts as each of some models renders them, with errors; a row per view.

    Args:
        modules: name -> model.
        scene: with surfaces.
        grid: whose cuts are looked at.
        indices: of the views.
    """
    columns = 1 + 2 * len(modules)
    figure = Figure(figsize=(2.25 * columns, 2.4 * len(indices)), layout="constrained")
    axes = figure.subplots(len(indices), columns, squeeze=False)
    for line, (row, index) in enumerate(zip(axes, indices, strict=True)):
        batch = view_batch(scene, [index])
        truth = batch["image"][0]
        near = near_border(grid, scene.surfaces[index])  # type: ignore[attr-defined]
        row[0].imshow(truth.numpy(), interpolation="nearest")
        row[0].contour(near, levels=[0.5], colors="w", linewidths=1.0)
        row[0].set_ylabel(scene.names[index], fontsize=8)
        for place, (name, module) in enumerate(modules.items()):
            device = module.network.anchor.device
            size = (truth.shape[1], truth.shape[0])
            image = module(batch["viewmat"].to(device), batch["K"].to(device), *size)["image"][0].cpu()
            picture, error = row[1 + 2 * place], row[2 + 2 * place]
            picture.imshow(image.numpy(), interpolation="nearest")
            picture.set_xlabel(f"border {masked_psnr(image, truth, near) or float('nan'):.2f} dB", fontsize=8)
            error.imshow((image - truth).abs().mean(-1).numpy(), cmap="inferno", vmin=0, vmax=0.25)
            if line == 0:
                picture.set_title(name, fontsize=9)
                error.set_title("error, 0 to 0.25", fontsize=9)
    axes[0, 0].set_title("photograph, borders outlined", fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure


def block_quality(history: Sequence[Measured]) -> Figure:
    """PSNR of each block alone, before and after each of its turns: teeth are what other blocks' turns cost it."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axis = figure.subplots()
    for color, block in enumerate(sorted({one.block for one in history})):
        own = [one for one in history if one.block == block]
        axis.plot([o.step for o in own], [o.psnr for o in own], color=f"C{color}", lw=1.1, label=f"block {block}")
        for when, marker in ((AFTER, "o"), (FINAL, "s")):
            chosen = [o for o in own if o.when == when]
            axis.plot([o.step for o in chosen], [o.psnr for o in chosen], marker, color=f"C{color}", ms=4)
    axis.plot([], [], "ko", ms=4, label="after its turn")
    axis.plot([], [], "ks", ms=4, label="at the end")
    axis.set(xlabel="step", ylabel="PSNR of the block alone, in dB", title="quality of the blocks over the training")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, ncols=2)
    return figure
