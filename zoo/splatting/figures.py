"""Figures of a reconstruction: what an expert looks at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure

from zoo.data.scene_views import Scene, view_batch
from zoo.ops.spherical_harmonics import sh0_to_rgb
from zoo.splatting.gaussians import GaussianModel
from zoo.splatting.metrics import psnr

if TYPE_CHECKING:
    from zoo.splatting.momentum_gs.rendering import Rendered
    from zoo.splatting.reconstruction import Reconstruction


def views(module: Reconstruction | Rendered, scene: Scene, indices: list[int]) -> Figure:
    """Photograph, render, error and depth of some views, a row each."""
    height, width = scene.images[indices[0]].shape[:2]
    scale = 2.4 * width / height
    figure = Figure(figsize=(4 * scale, 2.5 * len(indices)), layout="constrained")
    axes = figure.subplots(len(indices), 4, squeeze=False)
    for row, index in zip(axes, indices, strict=True):
        batch = view_batch(scene, [index])
        truth = batch["image"][0]
        device = module.network.means.device
        with torch.no_grad():
            viewmat, K = batch["viewmat"].to(device), batch["K"].to(device)
            rendering = module(viewmat, K, truth.shape[1], truth.shape[0])
        image = rendering["image"][0].cpu()
        depth = rendering["depth"][0, ..., 0].cpu().numpy()
        error = (image - truth).abs().mean(-1)
        quality = float(psnr(image.unsqueeze(0), truth.unsqueeze(0)))
        near, far = np.quantile(depth[depth > 0], [0.02, 0.98]) if (depth > 0).any() else (0.0, 1.0)
        for axis in row:
            axis.set(xticks=[], yticks=[])
        row[0].imshow(truth.numpy(), interpolation="nearest")
        row[0].set_ylabel(scene.names[index], fontsize=8)
        row[1].imshow(image.numpy(), interpolation="nearest")
        row[1].set_xlabel(f"{quality:.2f} dB", fontsize=8)
        shown = row[2].imshow(error.numpy(), cmap="inferno", vmin=0, vmax=0.25, interpolation="nearest")
        figure.colorbar(shown, ax=row[2], fraction=0.046)
        shown = row[3].imshow(depth, cmap="viridis_r", vmin=near, vmax=far, interpolation="nearest")
        figure.colorbar(shown, ax=row[3], fraction=0.046)
    for axis, title in zip(axes[0], ("photograph", "render", "mean absolute error", "depth"), strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def gaussians(network: GaussianModel, scene: Scene) -> Figure:
    """The centres seen from above with the cameras, and histograms of opacities and sizes."""
    means = network.means.detach().cpu().numpy()
    figure = Figure(figsize=(13, 4), layout="constrained")
    plan, opacity, size = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    centres = scene.centres
    # The plane that the cameras' centres spread over most is the plan.
    _, _, basis = np.linalg.svd(centres - centres.mean(0))
    middle = centres.mean(0)
    flat, seats = (means - middle) @ basis[:2].T, (centres - middle) @ basis[:2].T
    order = np.argsort((means - middle) @ basis[2])
    shown = order[:: max(1, len(order) // 40_000)]
    colors = sh0_to_rgb(network.sh0.detach().cpu()[:, 0]).clamp(0, 1).numpy()
    plan.scatter(flat[shown, 0], flat[shown, 1], c=colors[shown], s=1.5, lw=0)
    plan.scatter(seats[:, 0], seats[:, 1], marker="^", s=14, facecolor="none", edgecolor="C3", lw=0.7, label="cameras")
    reach = 1.5 * np.abs(seats).max()
    plan.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=f"{len(means):,} centres, plan")
    plan.legend(fontsize=8, loc="upper right")
    opacity.hist(network.opacities.detach().cpu().sigmoid().numpy(), bins=50, color="C0")
    opacity.set(xlabel="opacity", title="opacities")
    largest = network.scales.detach().cpu().amax(-1).exp().numpy()
    bins = np.geomspace(max(largest.min(), 1e-6), largest.max() * 1.01, 50)
    size.hist(largest, bins=list(bins), color="C2")
    size.set(xscale="log", xlabel="largest standard deviation", title="sizes")
    return figure
