"""Figures of samples from a posterior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from zoo.data.kspace import KSpaceBatch
from zoo.mri.diffusion.posterior import Posterior, sparsification
from zoo.mri.diffusion.samplers import SamplerName
from zoo.mri.figures import ERROR_GAIN, MAX_ROWS, TIGHT, show
from zoo.mri.metrics import psnr
from zoo.mri.reconstructor import _cropped

if TYPE_CHECKING:
    from zoo.mri.diffusion.module import DiffusionReconstructor

STEPS = (2, 5, 10, 20, 50)
SHOWN = 3  # samples
BINS = 12


def of_test_batch(module: DiffusionReconstructor, batch: KSpaceBatch, posterior: Posterior) -> dict[str, Figure]:
    """Pictures of a batch and of its samples, which are in the units of the data, by name."""
    scale = batch["scaling_factor"].view(-1, 1, 1)
    target = _cropped(batch["target"] * scale, batch)
    problem = module.problem(batch)
    zero_filled = _cropped(problem.to_data(problem.zero_filled).abs() * scale, batch)
    inside = replace(posterior, samples=_cropped(posterior.samples, batch))
    drawn = {"posterior": posterior_panel(target, zero_filled, inside)}
    if posterior.samples.shape[1] > 1:
        drawn["calibration"] = calibration(inside.std, (inside.image - target).abs())
    drawn["steps"] = quality_by_steps(_measured_by_steps(module, batch))
    return drawn


def _measured_by_steps(module: DiffusionReconstructor, batch: KSpaceBatch) -> dict[str, list[tuple[int, float, float]]]:
    """Sampler -> (steps, PSNR of the mean of the samples, of a single one), mean over slices."""
    curves: dict[str, list[tuple[int, float, float]]] = {}
    target = _cropped(batch["target"], batch)
    samplers: tuple[SamplerName, ...] = ("dpm++", "ddim")
    for name in samplers:
        for steps in STEPS:
            posterior = module.sample_batch(batch, min(module.n_samples, 4), sampler=name, steps=steps)
            values = [
                torch.stack([psnr(x, y, y.max()) for x, y in zip(_cropped(images, batch), target, strict=True)])
                for images in (posterior.image, posterior.samples[:, 0].abs())
            ]
            curves.setdefault(name, []).append((steps, float(values[0].mean()), float(values[1].mean())))
    return curves


def posterior_panel(target: Tensor, zero_filled: Tensor, posterior: Posterior) -> Figure:
    """Truth, zero-filled image, some samples, their mean, its error and the spread.

    Args:
        target, zero_filled: (B, H, W) magnitudes.
        posterior: of the same slices.
    """
    rows, shown = min(len(target), MAX_ROWS), min(SHOWN, posterior.samples.shape[1])
    columns = 5 + shown
    figure = Figure(figsize=(1.6 * columns, 1.75 * rows * target.shape[-2] / target.shape[-1] + 0.4), layout=TIGHT)
    axes = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        truth, image = target[row], posterior.image[row]
        peak = float(truth.max())
        samples = {f"sample {k + 1}": posterior.samples[row, k].abs() for k in range(shown)}
        images = {"fully sampled": truth, "zero-filled": zero_filled[row], **samples, "mean of samples": image}
        for axis, (name, picture) in zip(axes[row], images.items(), strict=False):
            show(axis, picture, cmap="gray", vmin=0, vmax=0.9 * peak)
            quality = "" if name == "fully sampled" else f"{float(psnr(picture, truth, truth.max())):.1f} dB"
            axis.set_title(f"{name}\n{quality}" if row == 0 else quality, fontsize=8)
        for axis, name, picture in (
            (axes[row, -2], "error of the mean", (image - truth).abs()),
            (axes[row, -1], "standard deviation", posterior.std[row]),
        ):
            show(axis, picture * ERROR_GAIN, cmap="inferno", vmin=0, vmax=peak)
            axis.set_title(f"{name}\nx {ERROR_GAIN}" if row == 0 else "", fontsize=8)
    return figure


def calibration(std: Tensor, error: Tensor) -> Figure:
    """Error by predicted spread, and what is left when the most uncertain pixels are taken away.

    Args:
        std: (B, H, W).
        error: (B, H, W) absolute.
    """
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    order = std.flatten().argsort()
    predicted, found = (
        np.array([float(part.square().mean().sqrt()) for part in x.flatten()[order].chunk(BINS)]) for x in (std, error)
    )
    limit = 1.05 * max(predicted.max(), found.max())
    left.plot([0, limit], [0, limit], color="0.6", lw=1, ls="--", label="calibrated")
    left.plot(predicted, found, marker="o", ms=4, lw=1.3, label="pixels in groups of equal number")
    left.set(xlabel="predicted standard deviation", ylabel="root mean squared error", xlim=(0, limit), ylim=(0, limit))
    left.legend(fontsize=8)
    by_std, by_error = (curve.mean(0) for curve in sparsification(std, error))
    fraction = torch.linspace(0, 1, len(by_std) + 1)[:-1]
    right.plot(fraction, by_std, lw=1.3, label="most uncertain first")
    right.plot(fraction, by_error, lw=1.3, ls="--", color="0.4", label="largest error first")
    right.axhline(1, color="0.8", lw=1)
    right.set(xlabel="fraction of pixels taken away", ylabel="root mean squared error of the rest", xlim=(0, 1))
    right.set_ylim(bottom=0)
    right.legend(fontsize=8)
    return figure


def quality_by_steps(curves: Mapping[str, Sequence[tuple[int, float, float]]]) -> Figure:
    """PSNR over the number of network evaluations.

    Args:
        curves: sampler -> (steps, PSNR of the mean of the samples, PSNR of one sample).
    """
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axis = figure.subplots()
    for index, (name, points) in enumerate(curves.items()):
        steps, mean, single = zip(*points, strict=True)
        axis.plot(steps, mean, marker="o", ms=4, lw=1.3, color=f"C{index}", label=f"{name}, mean of samples")
        axis.plot(steps, single, marker="o", ms=4, lw=1.3, ls="--", color=f"C{index}", label=f"{name}, one sample")
    axis.set_xscale("log")
    axis.set_xticks(STEPS, [str(step) for step in STEPS])
    axis.minorticks_off()
    axis.set(xlabel="network evaluations per sample", ylabel="PSNR of the slice in dB")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure
