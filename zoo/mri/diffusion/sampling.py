"""The reverse process with data consistency in every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo.mri.diffusion.consistency import Consistency, Measurement, noisy_space
from zoo.mri.diffusion.process import Level
from zoo.mri.diffusion.samplers import Sampler
from zoo.mri.operators import from_channels, to_channels

Denoiser = Callable[[Tensor, Level], Tensor]


class SeededNoise:
    """Standard normal noise of a stream per sample, so that a sample does not depend on its batch.

    Args:
        seeds: of each sample of the batch.
        shape: of one sample.
        device: of the noise; it is drawn on the CPU, so that all devices get the same.
        signs: of each sample's noise; by default all are 1.
    """

    def __init__(
        self,
        seeds: Sequence[tuple[int, ...]],
        shape: tuple[int, ...],
        device: torch.device,
        signs: Sequence[int] | None = None,
    ) -> None:
        words = (int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1)) for seed in seeds)
        self.generators = [torch.Generator().manual_seed(word) for word in words]
        self.shape, self.device = shape, device
        self.signs = [1] * len(seeds) if signs is None else signs

    def __call__(self) -> Tensor:
        """(B, *shape) float32."""
        drawn = [
            sign * torch.randn(self.shape, generator=g) for sign, g in zip(self.signs, self.generators, strict=True)
        ]
        return torch.stack(drawn).to(self.device)


@dataclass(frozen=True)
class Progress:
    """What a sampler tells of a finished step.

    Attributes:
        step, steps: how many are done, of how many.
        image: (B, H, W) complex, the corrected estimate of the image.
    """

    step: int
    steps: int
    image: Tensor


def sample(
    denoise: Denoiser,
    measurement: Measurement,
    levels: Sequence[Level],
    sampler: Sampler,
    consistency: Consistency,
    draw: Callable[[], Tensor],
    start: Tensor | None = None,
    rederive: bool = False,
    callback: Callable[[Progress], None] | None = None,
) -> Tensor:
    """Images from the posterior.

    Args:
        denoise: gives the image estimate (B, 2, H, W) of a state (B, 2, H, W).
        measurement: of each sample of the batch, in the units of the images.
        levels: the steps, see `zoo.mri.diffusion.process.NoiseSchedule.levels`.
        sampler: the rule of a step.
        consistency: what is done to the estimates.
        draw: gives standard normal noise (B, 2, H, W).
        start: (B, H, W) complex image to start from at the first level's noise; None for pure noise.
        rederive: let the corrected estimate change the predicted noise too (DiffPIR); otherwise that is kept
            (DDNM).
        callback: called after every step.

    Returns:
        (B, H, W) complex.
    """
    sampler.reset()
    state = draw()
    if start is not None:
        alpha = levels[0].alpha
        state = math.sqrt(alpha) * to_channels(start) + math.sqrt(1 - alpha) * state
    image = from_channels(state)
    for index, level in enumerate(levels):
        estimate, pull = _estimate(denoise, state, level, measurement, consistency)
        image = consistency.correct(from_channels(estimate), measurement, level.alpha)
        corrected = to_channels(image)
        if not rederive:
            # Moving the state along with the estimate leaves the noise between them as it was.
            state = state + math.sqrt(level.alpha) * (corrected - estimate)
        state = sampler.step(state, corrected, level, draw)
        if pull is not None:
            state = state - pull
        if consistency.name == "noisy":
            noise = from_channels(draw())
            state = to_channels(noisy_space(from_channels(state), noise, measurement, level.next_alpha))
        if callback is not None:
            callback(Progress(index + 1, len(levels), image))
    return from_channels(state)


def _estimate(
    denoise: Denoiser, state: Tensor, level: Level, measurement: Measurement, consistency: Consistency
) -> tuple[Tensor, Tensor | None]:
    """The estimate, and for DPS what the next state moves by."""
    if consistency.name != "dps":
        return denoise(state, level), None
    with torch.enable_grad():
        moved = state.detach().requires_grad_()
        estimate = denoise(moved, level)
        error = measurement.operator.forward(from_channels(estimate)) - measurement.kspace
        misfit = torch.linalg.vector_norm(error, dim=(1, 2, 3)).sum()
        (slope,) = torch.autograd.grad(misfit, moved)
    return estimate.detach(), consistency.rate * slope
