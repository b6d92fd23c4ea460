"""Figures of image classifiers built on rationals: what an expert looks at first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from zoo.kat.layers import Rational


def confusion_matrix(predicted: Tensor, label: Tensor) -> Figure:
    """Counts of (true, predicted) class pairs; both (N,) integers."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    classes = int(torch.maximum(predicted.max(), label.max())) + 1
    counts = multiclass_confusion_matrix(predicted, label, classes).cpu().numpy()
    figure = Figure(figsize=(6, 5.4), layout="constrained")
    axes = figure.subplots()
    # The diagonal would swamp the errors, which are what one wants to see.
    errors = counts.astype(float)
    np.fill_diagonal(errors, np.nan)
    image = axes.imshow(errors, cmap="Reds", vmin=0, vmax=max(3.0, float(np.nanmax(errors, initial=0))))
    figure.colorbar(image, ax=axes, label="wrong predictions", shrink=0.8)
    if classes <= 20:
        axes.set(xticks=range(classes), yticks=range(classes))
        for row, column in np.argwhere(counts > 0):
            axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=8)
    accuracy = np.trace(counts) / counts.sum()
    axes.set(xlabel="predicted class", ylabel="true class", title=f"accuracy {accuracy:.2%} of {counts.sum()} images")
    return figure


def attention(image: Tensor, maps: Tensor, label: Tensor) -> Figure:
    """What the class token looks at, per block, averaged over heads.

    Args:
        image: (B, C, H, W) in [0, 1]; the first ones are drawn.
        maps: attention weights (b, depth, heads, 1 + patches, 1 + patches).
        label: (B,).
    """
    count, depth = maps.shape[:2]
    to_patches = maps[:, :, :, 0, 1:].mean(2).cpu().numpy()
    side = round(to_patches.shape[-1] ** 0.5)
    to_patches = to_patches.reshape(*to_patches.shape[:2], side, side)
    shown = min(depth, 4)
    blocks = np.linspace(0, depth - 1, shown).round().astype(int)
    figure = Figure(figsize=(1.5 * count, 1.6 * (shown + 1)), layout="constrained")
    axes = figure.subplots(1 + shown, count, squeeze=False)
    height, width = image.shape[-2:]
    for column in range(count):
        picture = image[column].cpu().permute(1, 2, 0).squeeze(-1).numpy()
        axes[0, column].imshow(picture, cmap="gray", vmin=0, vmax=1)
        axes[0, column].set_title(f"class {int(label[column])}", fontsize=9)
        for row, block in enumerate(blocks, start=1):
            axes[row, column].imshow(picture, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
            axes[row, column].imshow(
                to_patches[column, block], cmap="magma", alpha=0.65, extent=(0, width, height, 0), vmin=0
            )
    for row, block in enumerate(blocks, start=1):
        axes[row, 0].set_ylabel(f"block {block}", fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.suptitle("attention of the class token, mean over heads", fontsize=10)
    return figure


def rationals(network: nn.Module, image: Tensor) -> Figure:
    """Every learned rational, one curve per group, against where it started and what it is fed.

    Args:
        network: a network with `Rational` layers; put in eval mode by the caller.
        image: a batch of its input.
    """
    named = {name: module for name, module in network.named_modules() if isinstance(module, Rational)}
    inputs = _inputs_of(named, lambda: network(image))
    columns = 2 if len(named) % 2 == 0 else 1
    rows = len(named) // columns
    figure = Figure(figsize=(4.6 * columns, 2.4 * rows), layout="constrained")
    for axis, (name, module) in zip(figure.subplots(rows, columns, squeeze=False).flat, named.items(), strict=True):
        low, high = np.quantile(inputs[name], [0.001, 0.999])
        x = torch.linspace(float(low), float(high), 400, dtype=torch.float64)
        with torch.no_grad():
            groups = x.unsqueeze(1).expand(-1, module.num_groups)
            learned = module.double()(groups).cpu()
            module.to(image.dtype)
            start = Rational(module.mode, 1).double()(x.unsqueeze(1)).squeeze(1)
        histogram = axis.twinx()
        histogram.hist(inputs[name], bins=80, range=(float(low), float(high)), color="0.85", density=True)
        histogram.set(yticks=[])
        axis.set_zorder(histogram.get_zorder() + 1)
        axis.patch.set_visible(False)
        axis.plot(x.numpy(), learned.numpy(), lw=1, alpha=0.9)
        axis.plot(
            x.numpy(),
            start.numpy(),
            "k--",
            lw=1.2,
            label=f"start: {module.mode}" if isinstance(module.mode, str) else "start",
        )
        axis.set_title(name, fontsize=9)
        axis.legend(fontsize=7, loc="upper left")
    figure.suptitle("learned rationals, one curve per channel group; grey: distribution of the input", fontsize=10)
    return figure


def _inputs_of(modules: dict[str, Rational], run: Callable[[], object]) -> dict[str, np.ndarray]:
    """What each module is fed while `run` runs, as a flat sample."""
    captured: dict[str, np.ndarray] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def capture(module: nn.Module, arguments: tuple[Tensor]) -> None:
            flat = arguments[0].detach().float().flatten()
            captured[name] = flat[:: max(1, flat.numel() // 50_000)].cpu().numpy()

        return capture

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in modules.items()]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return captured


def function_fit(x: Tensor, truth: Tensor, fitted: Tensor) -> Figure:
    """A function of one or two variables, its approximation, and the error.

    Args:
        x: (N, 1) or (N, 2) points.
        truth, fitted: (N, 1) values.
    """
    points, true, fit = (t.detach().double().cpu().numpy() for t in (x, truth[:, 0], fitted[:, 0]))
    error = fit - true
    if points.shape[1] == 1:
        order = np.argsort(points[:, 0])
        figure = Figure(figsize=(7, 5), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        top.plot(points[order, 0], true[order], "k", lw=2, label="function")
        top.plot(points[order, 0], fit[order], "C1--", label="approximation")
        top.legend()
        bottom.plot(points[order, 0], error[order], "C3", lw=1)
        bottom.set(xlabel="x", ylabel="error")
        return figure
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    low, high, largest = true.min(), true.max(), np.abs(error).max()
    panels = (
        ("function", true, {"vmin": low, "vmax": high}),
        ("approximation", fit, {"vmin": low, "vmax": high}),
        (f"error, RMSE {np.sqrt((error**2).mean()):.3g}", error, {"vmin": -largest, "vmax": largest, "cmap": "RdBu_r"}),
    )
    for axis, (title, values, style) in zip(figure.subplots(1, 3), panels, strict=True):
        mesh = axis.tripcolor(points[:, 0], points[:, 1], values, shading="gouraud", **style)
        figure.colorbar(mesh, ax=axis)
        axis.set(title=title, xlabel="x", ylabel="y", aspect="equal")
    return figure
