"""A real brain slice without a fully sampled truth: predicting some acquired samples from the others.

The scan is accelerated, so there is nothing to compare an image with. But a fifth of the acquired samples
outside the centre can be kept back, and every method asked what they were. A method that invents structure, or
removes it, predicts them badly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from zoo import assets
from zoo.data.kspace import KSpaceBatch
from zoo.mri.baselines import L1Wavelet, Reconstruction, SenseCG, TotalVariation
from zoo.mri.figures import TIGHT, show
from zoo.mri.fourier import fft2, ifft2
from zoo.mri.masks import SamplingMask, find_acs
from zoo.mri.operators import expand, rss
from zoo.mri.pipeline import Preparation, RawSlice, as_batch
from zoo.mri.refinement import hold_out
from zoo.mri.sensitivity import calibration_maps

if TYPE_CHECKING:
    from zoo.mri.reconstructor import Reconstructor

FRACTION = 0.2
# Each at about the weight and the number of iterations at which it predicts these very samples best.
METHODS: dict[str, Reconstruction] = {
    "sense-cg": SenseCG(0.005, iterations=15),
    "l1-wavelet": L1Wavelet(0.003, iterations=30),
    "tv": TotalVariation(0.003),
}


@dataclass(frozen=True)
class HeldOut:
    """What came out.

    Attributes:
        images: method -> (H, W) magnitude from all samples that were not held out.
        errors: method -> squared error over squared norm of the held-out samples, over all coils.
        kept, held: (H, W) boolean.
    """

    images: dict[str, Tensor]
    errors: dict[str, float]
    kept: NDArray[np.bool_]
    held: NDArray[np.bool_]


def read() -> NDArray[np.complex64]:
    """The shipped slice, (C, H, W); see ``data/brain-slice.yaml``."""
    return np.load(assets.path("data", "samples", "mri", "brain8_poisson_kspace.npy"), allow_pickle=False)


@torch.no_grad()
def evaluate(
    module: Reconstructor,
    methods: dict[str, Reconstruction] = METHODS,
    refinements: Mapping[str, Callable[[Reconstructor, KSpaceBatch], Tensor]] | None = None,
    seed: int = 0,
) -> HeldOut:
    """Asks the classical methods and the network.

    Args:
        module: whose network.
        methods: classical ones.
        refinements: ways to improve the network's reconstruction, such as `zoo.mri.refinement.Refinement`, by the name
            of what comes out: functions of module and batch that give k-space.
        seed: of the choice of what is held out.
    """
    raw = read()
    mask = (raw != 0).any(0)
    acs = find_acs(mask)
    kept, held = hold_out(mask, acs, FRACTION, seed)
    preparation = Preparation()
    kspace, padding = preparation.clean(RawSlice(np.where(kept, raw, 0), kept))
    sample = preparation(kspace, padding, SamplingMask(kept, acs), mask.shape)
    batch: Any = as_batch(sample, module.device)
    truth = torch.from_numpy(raw).to(module.device) / batch["scaling_factor"]
    where = torch.from_numpy(held).to(module.device)

    def error(predicted: Tensor) -> float:
        wrong, right = (predicted - truth)[:, where], truth[:, where]
        return float(wrong.abs().square().sum() / right.abs().square().sum())

    maps = calibration_maps(batch["masked_kspace"], batch["acs_mask"])
    images, errors = {"zero-filled": rss(ifft2(batch["masked_kspace"]))[0]}, {"zero-filled": 1.0}
    for name, method in methods.items():
        image = method(batch["masked_kspace"], batch["sampling_mask"], maps)
        images[name] = image[0].abs()
        errors[name] = error(fft2(expand(image, maps))[0])
    predicted = module.kspace(batch)
    images["network"] = module.magnitude(predicted, batch)[0]
    errors["network"] = error(predicted[0])
    for name, refinement in (refinements or {}).items():
        refined = refinement(module, batch)
        images[name] = module.magnitude(refined, batch)[0]
        errors[name] = error(refined[0])
    return HeldOut(images, errors, kept, held)


def draw(result: HeldOut) -> Figure:
    """The reconstructions, a detail of each, and the samples."""
    columns = 1 + len(result.images)
    height, width = result.kept.shape
    figure = Figure(figsize=(2.2 * columns, 2 * 2.2 * height / width + 0.8), layout=TIGHT)
    axes = figure.subplots(2, columns)
    samples = torch.from_numpy(result.kept * 1.0 + result.held * 0.5)
    show(axes[0, 0], samples, cmap="gray", vmin=0, vmax=1)
    acquired = (result.kept | result.held).mean()
    axes[0, 0].set_title(f"acquired ({acquired:.1%})\nheld out: grey", fontsize=8)
    axes[1, 0].set_axis_off()
    peak = float(result.images["network"].quantile(0.999))
    detail = (slice(height // 5, height // 5 + height // 2), slice(width // 4, width // 4 + width // 2))
    for axis, below, (name, image) in zip(axes[0, 1:], axes[1, 1:], result.images.items(), strict=True):
        show(axis, image, cmap="gray", vmin=0, vmax=peak)
        show(below, image[detail], cmap="gray", vmin=0, vmax=peak)
        axis.set_title(f"{name}\nheld-out error {result.errors[name]:.3f}", fontsize=8)
    figure.suptitle("a real brain slice, 8 coils, Poisson-disc undersampling; below: a detail", fontsize=9)
    return figure
