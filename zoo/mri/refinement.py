"""Improving a network's reconstruction of a slice by what is known of that slice alone.

A network that was trained on other data than those it meets removes or misplaces detail, and its k-space disagrees
with the samples. Two remedies need no truth. The network is trained on for a few steps to predict a part of the
slice's own samples from the others (self-supervised: Yaman et al., MRM 84, 2020; zero-shot: Yaman et al., ICLR
2022, arXiv 2102.07737), and its image is brought into agreement with the samples through ESPIRiT maps. And the result
is averaged with that of wavelets, whose errors are others.
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


@dataclass(frozen=True)
class Refinement:
    """What is done.

    The defaults were chosen on the shipped brain slice, by samples that were held out of those that its test keeps.

    Attributes:
        steps: of training on the slice itself; 0 for none.
        lr: peak learning rate of Adam, which falls to 0 along a cosine.
        asked: part of the samples outside the centre that each step asks for, drawn anew each time.
        closing_weight: of the network's image against the samples.
        share: of the network in the average.
        wavelet_weight, wavelet_iterations: see `zoo.mri.baselines.L1Wavelet`; the steps are few, which keeps noise out.
        seed: of what is asked for.
    """

    steps: int = 60
    lr: float = 2e-3
    asked: float = 0.3
    closing_weight: float = 0.03
    share: float = 0.3
    wavelet_weight: float = 0.003
    wavelet_iterations: int = 30
    seed: int = 0

    def __call__(self, module: Reconstructor, batch: KSpaceBatch) -> Tensor:
        """The refined k-space, (B, C, H, W) complex.

        Args:
            module: whose network reconstructs; it stays as it is.
            batch: slices that were not seen in training, in scaled units; only what was measured of them is used.
        """
        maps = real_maps(batch["masked_kspace"], batch["acs_mask"], module.centered)
        operator = SenseOperator(maps, batch["sampling_mask"], module.centered)
        weights = {name: tensor.clone() for name, tensor in module.network.state_dict().items()}
        try:
            self._adapt(module, batch, operator)
            with torch.no_grad():
                learned = self._close(module, batch, operator)
        finally:
            module.network.load_state_dict(weights)
            module.network.zero_grad()
        wavelets = L1Wavelet(self.wavelet_weight, self.wavelet_iterations)
        classical = wavelets(batch["masked_kspace"], operator.mask, maps, module.centered)
        image = self.share * learned + (1 - self.share) * classical
        return fft2(expand(image, maps), module.centered)

    def _close(self, module: Reconstructor, batch: KSpaceBatch, operator: SenseOperator) -> Tensor:
        """argmin ||A x - y||^2 + closing_weight ||x - x_net||^2, (B, H, W) complex, with the network's image."""
        prior = reduce(ifft2(module.kspace(batch), module.centered), operator.maps)

        def normal(x: Tensor) -> Tensor:
            return operator.normal(x) + self.closing_weight * x

        right = operator.adjoint(batch["masked_kspace"]) + self.closing_weight * prior
        return conjugate_gradient(normal, right, prior, CLOSING_ITERATIONS)

    def _adapt(self, module: Reconstructor, batch: KSpaceBatch, operator: SenseOperator) -> None:
        """Trains the network to predict samples of the batch from its others."""
        masks, centers = (batch[key][:, 0].cpu().numpy() for key in ("sampling_mask", "acs_mask"))
        rng = np.random.default_rng(self.seed)
        parameters = [p for p in module.network.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=self.lr)
        for step in range(self.steps):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * schedule.factor(step, "cosine", self.steps // 10, self.steps)
            parts = [
                hold_out(mask, center, self.asked, int(rng.integers(2**31)))
                for mask, center in zip(masks, centers, strict=True)
            ]
            kept, asked = (torch.from_numpy(np.stack(part)).unsqueeze(1) for part in zip(*parts, strict=True))
            optimizer.zero_grad()
            with torch.enable_grad():
                self._loss(module, batch, operator, kept.to(module.device), asked.to(module.device)).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()

    def _loss(
        self, module: Reconstructor, batch: KSpaceBatch, operator: SenseOperator, kept: Tensor, asked: Tensor
    ) -> Tensor:
        """Error of the samples that are asked for, relative to their norm."""
        given: KSpaceBatch = {
            **batch,
            "masked_kspace": torch.where(kept, batch["masked_kspace"], 0),
            "sampling_mask": kept,
        }
        image = self._close(module, given, replace(operator, mask=kept))
        predicted = fft2(expand(image, operator.maps), module.centered)
        truth = torch.where(asked, batch["masked_kspace"], 0)
        wrong = torch.where(asked, predicted, 0) - truth
        return torch.linalg.vector_norm(wrong) / torch.linalg.vector_norm(truth)


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
