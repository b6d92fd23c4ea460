"""Improving a network's reconstruction of a slice by what is known of that slice alone.

A network that was trained on other data than those it meets removes or misplaces detail, and its k-space disagrees
with the samples. Three remedies need no truth. The network is trained on for a while to predict a part of the slice's
own samples from the others (self-supervised: Yaman et al., MRM 84, 2020; zero-shot: Yaman et al., ICLR 2022, arXiv
2102.07737); its image is brought into agreement with the samples through ESPIRiT maps; and it sees the slice mirrored
along both axes, too, which averages some of its errors away. In the end the result is averaged with that of wavelets,
whose errors are others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.kspace import KSpaceBatch
from zoo.mri import schedule
from zoo.mri.baselines import L1Wavelet
from zoo.mri.fourier import fft2, ifft2
from zoo.mri.operators import SenseOperator, conjugate_gradient, expand, reduce
from zoo.mri.sensitivity import real_maps

if TYPE_CHECKING:
    from zoo.mri.reconstructor import Reconstructor

CLOSING_ITERATIONS = 6
WAVELETS = L1Wavelet(0.003, iterations=30)  # few, which keeps noise out
VIEWS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))  # axes along which the slice is mirrored


@dataclass(frozen=True)
class _View:
    """The slices mirrored along some axes, and their measurement."""

    axes: tuple[int, ...]
    batch: KSpaceBatch
    operator: SenseOperator


@dataclass(frozen=True)
class Refinement:
    """What is done.

    Attributes:
        steps: of training on the slice itself; 0 for none.
        lr: peak learning rate of Adam, which falls to 0 along a cosine.
        asked: part of the samples outside the centre that each step asks for, drawn anew each time.
        closing_weight: of the network's image against the samples.
        share: of the network in the average with wavelets.
        seed: of what is asked for.
    """

    steps: int = 200
    lr: float = 5e-3
    asked: float = 0.15
    closing_weight: float = 0.03
    share: float = 0.5
    seed: int = 0

    def __call__(self, module: Reconstructor, batch: KSpaceBatch) -> Tensor:
        """The refined k-space, (B, C, H, W) complex.

        Args:
            module: whose network reconstructs; it stays as it is.
            batch: slices that were not seen in training, in scaled units; only what was measured of them is used.
        """
        return self.average(self.learned(module, batch), batch, module.centered)

    def average(self, learned: Tensor, batch: KSpaceBatch, centered: bool = True) -> Tensor:
        """The mean, weighted by `share`, of the network's k-space and that of wavelets."""
        maps = real_maps(batch["masked_kspace"], batch["acs_mask"], centered)
        image = WAVELETS(batch["masked_kspace"], batch["sampling_mask"], maps, centered)
        return self.share * learned + (1 - self.share) * fft2(expand(image, maps), centered)

    def learned(self, module: Reconstructor, batch: KSpaceBatch) -> Tensor:
        """The k-space before it is averaged with that of wavelets; arguments and result as of a call."""
        maps = real_maps(batch["masked_kspace"], batch["acs_mask"], module.centered)
        views = [_view(batch, maps, axes, module.centered) for axes in VIEWS]
        weights = {name: tensor.clone() for name, tensor in module.network.state_dict().items()}
        try:
            self._adapt(module, views)
            with torch.no_grad():
                images = [reflect(self._image(module, view), view.axes, module.centered) for view in views]
        finally:
            module.network.load_state_dict(weights)
            module.network.zero_grad()
        return fft2(expand(torch.stack(images).mean(0), maps), module.centered)

    def _image(self, module: Reconstructor, view: _View) -> Tensor:
        """argmin ||A x - y||^2 + closing_weight ||x - x_net||^2, (B, H, W) complex, with the network's image."""
        operator = view.operator
        prior = reduce(ifft2(module.kspace(view.batch), module.centered), operator.maps)

        def normal(x: Tensor) -> Tensor:
            return operator.normal(x) + self.closing_weight * x

        right = operator.adjoint(view.batch["masked_kspace"]) + self.closing_weight * prior
        return conjugate_gradient(normal, right, prior, CLOSING_ITERATIONS)

    def _adapt(self, module: Reconstructor, views: list[_View]) -> None:
        """Trains the network to predict samples of each view in turn from its others."""
        rng = np.random.default_rng(self.seed)
        parameters = [p for p in module.network.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=self.lr)
        for step in range(self.steps):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * schedule.factor(step, "cosine", self.steps // 10, self.steps)
            optimizer.zero_grad()
            with torch.enable_grad():
                self._loss(module, views[step % len(views)], rng).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()

    def _loss(self, module: Reconstructor, view: _View, rng: np.random.Generator) -> Tensor:
        """Error of the samples that are asked for, relative to their norm."""
        batch = view.batch
        masks, centers = (batch[key][:, 0].cpu().numpy() for key in ("sampling_mask", "acs_mask"))
        parts = [
            hold_out(mask, center, self.asked, int(rng.integers(2**31)))
            for mask, center in zip(masks, centers, strict=True)
        ]
        kept, asked = (torch.from_numpy(np.stack(part)).unsqueeze(1) for part in zip(*parts, strict=True))
        kept, asked = kept.to(module.device), asked.to(module.device)
        given: KSpaceBatch = {
            **batch,
            "masked_kspace": torch.where(kept, batch["masked_kspace"], 0),
            "sampling_mask": kept,
        }
        image = self._image(module, _View(view.axes, given, replace(view.operator, mask=kept)))
        predicted = fft2(expand(image, view.operator.maps), module.centered)
        truth = torch.where(asked, batch["masked_kspace"], 0)
        wrong = torch.where(asked, predicted, 0) - truth
        return torch.linalg.vector_norm(wrong) / torch.linalg.vector_norm(truth)


def reflect(x: Tensor, axes: tuple[int, ...], centered: bool = True) -> Tensor:
    """Mirrors an image, or its k-space, at the origin of some axes; to do so twice changes nothing.

    Args:
        x: (..., H, W).
        axes: among -2 and -1.
        centered: the origin is at index n // 2, else at 0.
    """
    moved = tuple(axis for axis in axes if not centered or x.shape[axis] % 2 == 0)
    mirrored = x.flip(axes) if axes else x
    return mirrored.roll([1] * len(moved), moved) if moved else mirrored


def _view(batch: KSpaceBatch, maps: Tensor, axes: tuple[int, ...], centered: bool) -> _View:
    mirrored: KSpaceBatch = {
        **batch,
        "masked_kspace": reflect(batch["masked_kspace"], axes, centered),
        "sampling_mask": reflect(batch["sampling_mask"], axes, centered),
        "acs_mask": reflect(batch["acs_mask"], axes, centered),
        "padding": reflect(batch["padding"], axes, centered),
        "sensitivity_map": reflect(batch["sensitivity_map"], axes, centered),
    }
    return _View(axes, mirrored, SenseOperator(reflect(maps, axes, centered), mirrored["sampling_mask"], centered))


def hold_out(
    mask: NDArray[np.bool_], acs: NDArray[np.bool_], fraction: float = 0.2, seed: int = 0
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Parts the acquired samples outside the centre.

    Args:
        mask, acs: (H, W), what was acquired, and its fully sampled centre.
        fraction: of the samples outside the centre, to hold out.
        seed: of the choice.

    Returns:
        (kept, held).
    """
    outside = np.flatnonzero(mask & ~acs)
    chosen = np.random.default_rng(seed).choice(outside, round(fraction * len(outside)), replace=False)
    held = np.zeros_like(mask)
    held.flat[chosen] = True
    return mask & ~held, held
