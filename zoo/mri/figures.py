"""Figures of reconstructions: what an expert looks at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from zoo.mri.metrics import psnr, ssim

ERROR_GAIN = 5
TIGHT = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, hspace=0.01, wspace=0.01)
MAX_ROWS = 2


def show(axis: Axes, image: Tensor, **style: Any) -> None:
    """An image (H, W) without ticks or frame; `style` goes to ``imshow``."""
    axis.imshow(image.detach().float().cpu().numpy(), interpolation="nearest", **style)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


def side_by_side(target: Tensor, images: Mapping[str, Tensor], masks: Tensor, labels: Sequence[str]) -> Figure:
    """True image and reconstructions of some slices with their errors, five times as bright.

    Args:
        target: (B, H, W) magnitudes.
        images: method -> (B, H, W).
        masks: (B, H, W) boolean, what was sampled.
        labels: of the slices.
    """
    count = min(len(target), MAX_ROWS)
    columns = 1 + len(images)
    height = target.shape[-2] / target.shape[-1]
    figure = Figure(figsize=(2.1 * columns, count * 2 * 2.1 * height + 0.7), layout=TIGHT)
    axes = figure.subplots(2 * count, columns, squeeze=False)
    for row in range(count):
        truth = target[row]
        peak = float(truth.max())
        top, bottom = axes[2 * row], axes[2 * row + 1]
        show(top[0], truth, cmap="gray", vmin=0, vmax=0.9 * peak)
        show(bottom[0], masks[row], cmap="gray", vmin=0, vmax=1)
        top[0].set_ylabel(labels[row], fontsize=7)
        bottom[0].set_ylabel("sampled", fontsize=7)
        for axis, below, (name, image) in zip(top[1:], bottom[1:], images.items(), strict=True):
            quality = psnr(image[row], truth, truth.max()), ssim(image[row : row + 1], truth[None], truth.max())
            show(axis, image[row], cmap="gray", vmin=0, vmax=0.9 * peak)
            show(below, (image[row] - truth).abs() * ERROR_GAIN, cmap="inferno", vmin=0, vmax=peak)
            title = f"{float(quality[0]):.1f} dB, {float(quality[1]):.3f}"
            axis.set_title(f"{name}\n{title}" if row == 0 else title, fontsize=8)
        if row == 0:
            top[0].set_title("fully sampled", fontsize=8)
    figure.suptitle(f"PSNR and SSIM of the slice; below: error x {ERROR_GAIN}", fontsize=9)
    return figure
