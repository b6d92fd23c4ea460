"""Figures of learned operators: film strips, energy spectra, errors over time, films."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.animation import Animation, FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from zoo.operators.metrics import energy_spectrum, relative_l2

_COLUMNS = 5
_FIELD_MAP, _ERROR_MAP = "RdBu_r", "PuOr_r"


def film_strip(given: Tensor, target: Tensor, prediction: Tensor) -> Figure:
    """Truth, prediction and error side by side.

    Of a roll-out the first sample over time is shown, of a direct map with one channel several samples with
    their inputs, and with more channels one sample's channels.

    Args:
        given: (B, C_in, *space).
        target, prediction: (B, S, C_out, *space).
    """
    samples, steps, channels = target.shape[:3]
    columns: list[tuple[str, Tensor | None, Tensor, Tensor]]
    if steps > 1:
        shown = sorted({round(x) for x in np.linspace(0, steps - 1, _COLUMNS)})
        columns = [(f"step {s + 1}", None, target[0, s, 0], prediction[0, s, 0]) for s in shown]
    elif channels > 1:
        columns = [(f"channel {c}", None, target[0, 0, c], prediction[0, 0, c]) for c in range(channels)]
    else:
        count = min(samples, _COLUMNS - 1)
        columns = [(f"sample {b + 1}", given[b, 0], target[b, 0, 0], prediction[b, 0, 0]) for b in range(count)]
    return _lines(columns) if target.ndim == 4 else _images(columns, share=steps > 1 or channels == 1)


def _images(columns: Sequence[tuple[str, Tensor | None, Tensor, Tensor]], share: bool) -> Figure:
    with_input = columns[0][1] is not None
    names = [*(["input"] if with_input else []), "truth", "prediction", "error"]
    figure = Figure(figsize=(1.9 * len(columns) + 0.9, 1.9 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), len(columns), squeeze=False)
    largest_error = max(float((p - t).abs().max()) for _, _, t, p in columns)
    ranges = [_range([t]) for _, _, t, _ in columns]
    inputs = [first for _, first, _, _ in columns if first is not None]
    if share:
        ranges = [_range([t for _, _, t, _ in columns])] * len(columns)
    for column, ((title, first, truth, predicted), (low, high)) in enumerate(zip(columns, ranges, strict=True)):
        fields = [*([first] if first is not None else []), truth, predicted, predicted - truth]
        error = float(relative_l2(predicted[None], truth[None]))
        axes[0, column].set_title(f"{title}\nrelative L2 {error:.3f}", fontsize=9)
        for row, (name, field) in enumerate(zip(names, fields, strict=True)):
            if name == "error":
                limit = largest_error if share else float(field.abs().max())
                style = {"vmin": -limit, "vmax": limit, "cmap": _ERROR_MAP}
            elif name == "input":
                style = dict(zip(("vmin", "vmax"), _range(inputs), strict=True), cmap=_FIELD_MAP)
            else:
                style = {"vmin": low, "vmax": high, "cmap": _FIELD_MAP}
            # x runs to the right, y upwards
            image = axes[row, column].imshow(field.numpy().T, origin="lower", interpolation="nearest", **style)
            axes[row, column].set(xticks=[], yticks=[])
            if column == 0:
                axes[row, 0].set_ylabel(name, fontsize=10)
            if not share and name != "input":
                figure.colorbar(image, ax=axes[row, column], shrink=0.85, aspect=16).ax.tick_params(labelsize=7)
            elif share and column == len(columns) - 1:
                bar = figure.colorbar(image, ax=axes[row].tolist(), shrink=0.85, aspect=16, pad=0.01)
                bar.ax.tick_params(labelsize=7)
    return figure


def _lines(columns: Sequence[tuple[str, Tensor | None, Tensor, Tensor]]) -> Figure:
    figure = Figure(figsize=(2.9 * len(columns), 4.2), layout="constrained")
    axes = figure.subplots(2, len(columns), squeeze=False, sharex=True, height_ratios=(2, 1))
    for column, (title, first, truth, predicted) in enumerate(columns):
        x = np.arange(len(truth)) / len(truth)
        upper, lower = axes[:, column]
        if first is not None:
            upper.plot(x, first.numpy(), color="0.7", lw=1, label="input")
        upper.plot(x, truth.numpy(), "k", lw=1.6, label="truth")
        upper.plot(x, predicted.numpy(), "C1--", lw=1.2, label="prediction")
        error = float(relative_l2(predicted[None], truth[None]))
        upper.set_title(f"{title}\nrelative L2 {error:.3f}", fontsize=9)
        lower.plot(x, (predicted - truth).numpy(), "C3", lw=1)
        lower.axhline(0, color="0.6", lw=0.6)
        lower.set(xlabel="x", xlim=(0, 1))
    axes[0, 0].legend(fontsize=7)
    axes[1, 0].set_ylabel("error")
    return figure


def _range(fields: Sequence[Tensor]) -> tuple[float, float]:
    """Colour limits; symmetric for fields that change sign."""
    low, high = min(float(f.min()) for f in fields), max(float(f.max()) for f in fields)
    if low < 0 < high:
        limit = max(-low, high)
        return -limit, limit
    return low, max(high, low + 1e-12)


def spectra(target: Tensor, prediction: Tensor, dims: int) -> Figure:
    """Energy spectra of the last step: truth, prediction and error, mean over samples and channels.

    Args:
        target, prediction: (B, S, C_out, *space).
        dims: spatial axes.
    """
    curves: dict[str, tuple[Tensor, dict[str, Any]]] = {
        "truth": (target[:, -1], {"color": "k", "lw": 2}),
        "prediction": (prediction[:, -1], {"color": "C1", "ls": "--"}),
        "error": (prediction[:, -1] - target[:, -1], {"color": "C3", "lw": 1}),
    }
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axis = figure.subplots()
    for name, (field, style) in curves.items():
        energy = energy_spectrum(field, dims).flatten(0, -2).mean(0).numpy()
        wavenumbers = np.arange(1, len(energy))
        axis.loglog(wavenumbers, np.maximum(energy[1:], 1e-20), label=name, **style)
    axis.set(xlabel="wavenumber |k|", ylabel="energy per shell", title="energy spectra at the last step")
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    return figure


def errors(target: Tensor, prediction: Tensor) -> Figure:
    """Relative L2 error over the steps of a roll-out, or its distribution over samples for a direct map.

    Args:
        target, prediction: (B, S, C_out, *space).
    """
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axis = figure.subplots()
    each = relative_l2(prediction.flatten(0, 1), target.flatten(0, 1)).view(target.shape[:2]).numpy()
    if each.shape[1] == 1:
        bins = np.linspace(0, 1.05 * each.max() + 1e-6, 31).tolist()
        axis.hist(each[:, 0], bins=bins, color="C0", alpha=0.8)
        axis.axvline(each.mean(), color="k", ls="--", lw=1, label=f"mean {each.mean():.3f}")
        axis.set(xlabel="relative L2 error", ylabel="samples", title=f"error of {len(each)} samples")
        axis.legend()
        return figure
    steps = np.arange(1, each.shape[1] + 1)
    low, high = np.quantile(each, [0.1, 0.9], axis=0)
    axis.fill_between(steps, low, high, alpha=0.25, label="80 % of samples")
    axis.plot(steps, each.mean(0), marker="." if len(steps) < 30 else None, label="mean")
    axis.set(xlabel="step", ylabel="relative L2 error", title="error along the roll-out", ylim=(0, None))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def animation(target: Tensor, prediction: Tensor) -> Animation:
    """The first sample's roll-out as a film: truth, prediction, error.

    Args:
        target, prediction: (B, S, C_out, H, W); the first channel is shown.
    """
    truth, predicted = target[0, :, 0], prediction[0, :, 0]
    frames = {"truth": truth, "prediction": predicted, "error": predicted - truth}
    low, high = _range([truth])
    limit = float(frames["error"].abs().max()) + 1e-12
    figure = Figure(figsize=(8.2, 2.9), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, 3)
    images = []
    for axis, (name, field) in zip(axes, frames.items(), strict=True):
        style = (-limit, limit, _ERROR_MAP) if name == "error" else (low, high, _FIELD_MAP)
        image = axis.imshow(field[0].numpy().T, origin="lower", vmin=style[0], vmax=style[1], cmap=style[2])
        figure.colorbar(image, ax=axis, shrink=0.8)
        axis.set(xticks=[], yticks=[], title=name)
        images.append((image, field))
    title = figure.suptitle("step 1")

    def draw(step: int) -> list[object]:
        for image, field in images:
            image.set_data(field[step].numpy().T)
        title.set_text(f"step {step + 1}")
        return [image for image, _ in images]

    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    return FuncAnimation(figure, draw, frames=len(truth), interval=200)  # type: ignore[arg-type]
