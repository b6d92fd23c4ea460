"""MC-DDPM: diffusion of the k-space that was not measured (Xie and Li, MICCAI 2022, arXiv 2203.03623).

Its Fourier transform has the image's origin in the corner and that of k-space at index n // 2, and its noise is
smaller than unity: x_t = abar_t x_0 + bbar_t z with bbar_t^2 = beta_scale^2 (1 - abar_t^2). Here k-space is real,
(B, 2, H, W), as the checkpoints have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.mri.diffusion.network import DiffusionUNet
from zoo.mri.diffusion.process import Level, NoiseSchedule
from zoo.mri.diffusion.samplers import posterior
from zoo.mri.fourier import ifft2, shift, unshift
from zoo.mri.operators import from_channels, to_channels

Network = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def to_kspace(image: Tensor) -> Tensor:
    """Complex image with its origin in the corner -> centred k-space, (..., H, W)."""
    return shift(torch.fft.fft2(image, norm="ortho"))


def to_image(kspace: Tensor) -> Tensor:
    """The inverse of `to_kspace`."""
    return torch.fft.ifft2(unshift(kspace), norm="ortho")


class KSpaceUNet(DiffusionUNet):
    """The network of MC-DDPM: it works on images and answers in k-space.

    Args:
        in_channels: of a complex image, 2; the network sees two such images.
        arguments: of `DiffusionUNet`.
    """

    def __init__(self, in_channels: int = 2, **arguments: Any) -> None:
        super().__init__(2 * in_channels, **arguments)

    def forward(  # type: ignore[override]
        self, x_t: Tensor, timesteps: Tensor, kspace_zf: Tensor, image_zf: Tensor, mask_c: Tensor
    ) -> Tensor:
        """The noise in the k-space that was not measured, (B, 2, H, W).

        Args:
            x_t: (B, 2, H, W) noisy k-space, 0 where measured.
            timesteps: (B,).
            kspace_zf: (B, 2, H, W) measured k-space, 0 elsewhere.
            image_zf: (B, 2, H, W) its image.
            mask_c: broadcastable to (B, 2, H, W), 1 where not measured.
        """
        image = to_channels(to_image(from_channels(x_t + kspace_zf)))
        output = super().forward(torch.cat((image, image_zf), dim=1), timesteps)
        return mask_c * to_channels(to_kspace(from_channels(output)))


@dataclass(frozen=True)
class KSpaceProcess:
    """The process of MC-DDPM, possibly over some of the schedule's steps only.

    Attributes:
        schedule: abar^2 of the steps that are taken, in the paper's notation.
        beta_scale: standard deviation of the noise.
        timestep_map: (N,) what the network is told at each step.
    """

    schedule: NoiseSchedule
    beta_scale: float
    timestep_map: NDArray[np.int64]

    @classmethod
    def create(cls, schedule: NoiseSchedule, beta_scale: float = 0.5, steps: int | None = None) -> KSpaceProcess:
        """Over all of a schedule, or over `steps` of its steps, evenly spread from the first to the last."""
        count = schedule.steps if steps is None else steps
        chosen = np.linspace(0, schedule.steps - 1, count).round().astype(np.int64)
        return cls(NoiseSchedule(schedule.alpha_bars[chosen]), beta_scale, chosen)

    @property
    def bar_alphas(self) -> NDArray[np.float64]:
        """(N,) factor of the image."""
        return np.sqrt(self.schedule.alpha_bars)

    @property
    def bar_betas(self) -> NDArray[np.float64]:
        """(N,) factor of the noise."""
        return self.beta_scale * np.sqrt(1 - self.schedule.alpha_bars)

    def _level(self, index: int) -> Level:
        before = float(self.schedule.alpha_bars[index - 1]) if index else 1.0
        return Level(int(self.timestep_map[index]), float(self.schedule.alpha_bars[index]), before)

    def noisy(self, kspace: Tensor, noise: Tensor, index: int, mask_c: Tensor) -> Tensor:
        """x_t of k-space where it was not measured."""
        return mask_c * (float(self.bar_alphas[index]) * kspace + float(self.bar_betas[index]) * noise)

    def x0(self, x_t: Tensor, noise: Tensor, index: int) -> Tensor:
        """The k-space that a prediction of the noise amounts to."""
        return (x_t - float(self.bar_betas[index]) * noise) / float(self.bar_alphas[index])

    def ddpm(
        self, x_t: Tensor, predicted: Tensor, index: int, mask_c: Tensor, draw: Tensor, tilde_beta: bool = False
    ) -> Tensor:
        """The state before step `index`, by ancestral sampling.

        Args:
            x_t: the state.
            predicted: the network's answer.
            index: of the step, from N - 1 down to 0.
            mask_c: 1 where not measured.
            draw: standard normal noise of the state's shape.
            tilde_beta: the noise has the variance of the posterior instead of beta.
        """
        level = self._level(index)
        mean, variance = posterior(x_t, self.x0(x_t, predicted, index), level)
        if index and not tilde_beta:
            variance = 1 - level.alpha / level.next_alpha
        return mask_c * (mean + self.beta_scale * math.sqrt(variance) * draw)

    def ddim(self, x_t: Tensor, predicted: Tensor, index: int, mask_c: Tensor, published_scale: bool = False) -> Tensor:
        """The state before step `index`, without noise.

        Args:
            x_t, predicted, index, mask_c: see `ddpm`.
            published_scale: give the noise a factor sqrt(1 - abar^2) without beta_scale, as the published code
                does; the process has no such states unless beta_scale is 1.
        """
        rest = math.sqrt(1 - self._level(index).next_alpha) * (1.0 if published_scale else self.beta_scale)
        root = math.sqrt(self._level(index).next_alpha)
        return mask_c * (root * self.x0(x_t, predicted, index) + rest * predicted)


@torch.no_grad()
def sample_kspace(
    network: Network,
    kspace: Tensor,
    mask: Tensor,
    process: KSpaceProcess,
    draw: Callable[[], Tensor],
    deterministic: bool = False,
) -> Tensor:
    """Images of one coil, with the k-space that was not measured sampled.

    Args:
        network: a `KSpaceUNet` or what is called like one.
        kspace: (B, H, W) complex, 0 where not sampled, with the origins of k-space and image at index n // 2.
        mask: boolean, broadcastable to (B, H, W).
        process: the steps.
        draw: gives standard normal noise (B, 2, H, W).
        deterministic: DDIM instead of ancestral sampling.

    Returns:
        (B, H, W) complex.
    """
    scale = ifft2(kspace).abs().amax((-2, -1)).clamp_min(torch.finfo(kspace.real.dtype).tiny).view(-1, 1, 1)
    image_zf = ifft2(kspace) / scale
    # Moving the image's origin to the corner changes the phase of k-space only, so the mask stays as it is.
    kspace_zf = to_channels(to_kspace(image_zf))
    mask_c = (~mask).expand(kspace.shape).unsqueeze(1).to(kspace_zf.dtype)
    state = process.beta_scale * mask_c * draw()
    for index in reversed(range(process.schedule.steps)):
        timesteps = torch.full((len(state),), int(process.timestep_map[index]), device=state.device)
        noise = network(state, timesteps, kspace_zf, to_channels(image_zf), mask_c)
        if deterministic:
            state = process.ddim(state, noise, index, mask_c)
        else:
            state = process.ddpm(state, noise, index, mask_c, draw())
    return to_image(from_channels(state + kspace_zf)) * scale
