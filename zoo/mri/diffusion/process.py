"""The diffusion process: noise schedules, what a network may predict, and the list of steps of a sampler.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) z with z ~ N(0, 1) in every real component. All constants are kept in
float64; tensors keep their own dtype.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Schedule = Literal["linear", "scaled-linear", "cosine", "sigmoid"]
Prediction = Literal["epsilon", "x0", "v"]
Spacing = Literal["linspace", "leading", "trailing", "quadratic", "log-snr", "karras"]

BETAS = {"linear": (1e-4, 2e-2), "scaled-linear": (8.5e-4, 1.2e-2), "sigmoid": (1e-4, 2e-2)}  # for T = 1000
LOG_SNR_START = -4.0
FEW_STEPS = 15  # below this number the last steps have lower orders, as in Lu et al.'s and diffusers' solvers


def _betas(schedule: Schedule, steps: int) -> NDArray[np.float64]:
    if schedule == "cosine":
        u = np.arange(steps + 1) / steps
        level = np.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        return np.minimum(1 - level[1:] / level[:-1], 0.999)
    start, end = (1000 / steps * beta for beta in BETAS[schedule])
    if schedule == "linear":
        return np.linspace(start, end, steps)
    if schedule == "scaled-linear":
        return np.linspace(math.sqrt(start), math.sqrt(end), steps) ** 2
    return (end - start) / (1 + np.exp(-np.linspace(-6, 6, steps))) + start


@dataclass(frozen=True)
class NoiseSchedule:
    """How much of the signal is left after each step of the forward process.

    Sources: Ho et al., arXiv 2006.11239 (linear); Rombach et al., arXiv 2112.10752 (scaled linear); Nichol and
    Dhariwal, arXiv 2102.09672 (cosine); Lin et al., arXiv 2305.08891 (zero terminal SNR).

    Attributes:
        alpha_bars: (T,) float64, falling.
    """

    alpha_bars: NDArray[np.float64]

    @classmethod
    def create(cls, schedule: Schedule = "cosine", steps: int = 1000, zero_terminal_snr: bool = False) -> NoiseSchedule:
        """A published schedule.

        Args:
            schedule: which.
            steps: T.
            zero_terminal_snr: shift and scale sqrt(abar) so that the last step is pure noise; a network that
                predicts epsilon has nothing to learn there.

        Raises:
            ValueError: so few steps that one would take more than the whole signal, or none before the last.
        """
        if steps < 1 + zero_terminal_snr:
            raise ValueError(f"a noise schedule needs {1 + zero_terminal_snr} steps or more, not {steps}")
        betas = _betas(schedule, steps)
        if betas.max() >= 1:
            raise ValueError(
                f"a {schedule} schedule of {steps} steps would take more than the whole signal in one: use 25 steps or "
                'more, or "cosine"'
            )
        alpha_bars: NDArray[np.float64] = np.cumprod(1 - betas, dtype=np.float64)
        if zero_terminal_snr:
            root = np.sqrt(alpha_bars)
            alpha_bars = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        return cls(alpha_bars)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.alpha_bars)

    @property
    def betas(self) -> NDArray[np.float64]:
        """(T,) variance that each step adds, 1 - abar_t / abar_{t-1}."""
        return 1 - self.alpha_bars / np.concatenate(([1.0], self.alpha_bars[:-1]))

    def at(self, timesteps: Tensor) -> Tensor:
        """abar at integer timesteps (B,), float64 of shape (B, 1, 1, 1) on their device."""
        table = torch.from_numpy(self.alpha_bars).to(timesteps.device)
        return table[timesteps].view(-1, 1, 1, 1)

    def timesteps(self, count: int, spacing: Spacing = "log-snr") -> list[int]:
        """Timesteps at which a sampler calls the network, falling, without repetitions.

        Args:
            count: wanted number; rounding to integers may leave fewer.
            spacing: "linspace" from T - 1 to 0; "leading" and "trailing" in strides of T // count from 0 and of
                T / count from T - 1; "quadratic" denser at low noise; "log-snr" uniform in
                lambda = 1/2 ln(abar / (1 - abar)) from -4 (the first at T - 1); "karras" with rho = 7 in
                sigma = sqrt((1 - abar) / abar) over the same range.

        Raises:
            ValueError: `count` is not between 1 and T.
        """
        last = self.steps - 1
        if not 1 <= count <= self.steps:
            raise ValueError(f"{count} sampling steps do not fit a schedule of {self.steps}: give 1 to {self.steps}")
        if spacing == "linspace":
            steps = np.linspace(0, last, count).round()[::-1] if count > 1 else np.zeros(1)
        elif spacing == "leading":
            steps = np.arange(count)[::-1] * (self.steps // count)
        elif spacing == "trailing":
            # Rounding errors may give arange an entry too many, at 0.
            steps = np.round(np.arange(self.steps, 0, -self.steps / count)[:count]) - 1
        elif spacing == "quadratic":
            steps = (np.linspace(1, 0, count) ** 2 * last).round() if count > 1 else np.full(1, last)
        else:
            steps = self._nearest(self._half_log_snrs(count, spacing))
            steps[0] = last
        return sorted({int(step) for step in steps}, reverse=True)

    def _half_log_snrs(self, count: int, spacing: Spacing) -> NDArray[np.float64]:
        low, high = max(LOG_SNR_START, float(self._half_log_snr[-1])), float(self._half_log_snr[0])
        if spacing == "log-snr":
            return np.linspace(low, high, count)
        rho = 7
        return -rho * np.log(np.linspace(math.exp(-low / rho), math.exp(-high / rho), count))

    @property
    def _half_log_snr(self) -> NDArray[np.float64]:
        with np.errstate(divide="ignore"):
            return 0.5 * np.log(self.alpha_bars / (1 - self.alpha_bars))

    def _nearest(self, wanted: NDArray[np.float64]) -> NDArray[np.int64]:
        known = self._half_log_snr
        return np.abs(known[None] - wanted[:, None]).argmin(1)

    def levels(self, timesteps: Sequence[int]) -> list[Level]:
        """The steps of a sampler: each leads to the next entry of the list, the last one to the clean image."""
        alphas = [float(self.alpha_bars[t]) for t in timesteps]
        pairs = zip(timesteps, alphas, [*alphas[1:], 1.0], strict=True)
        orders = [min(3, len(alphas) - index) if len(alphas) < FEW_STEPS else 3 for index in range(len(alphas))]
        return [Level(t, a, b, order) for (t, a, b), order in zip(pairs, orders, strict=True)]


@dataclass(frozen=True)
class Level:
    """One step of a sampler.

    Attributes:
        timestep: what the network is told.
        alpha: abar before the step.
        next_alpha: abar after it; 1 after the last.
        max_order: highest order that a multistep rule should have here: at the end of a chain of few steps it falls.
    """

    timestep: int
    alpha: float
    next_alpha: float
    max_order: int = 3

    @property
    def is_last(self) -> bool:
        """Whether the clean image follows."""
        return self.next_alpha == 1.0


def add_noise(x0: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """x_t of x_0 at abar (B, 1, 1, 1)."""
    return alpha.sqrt().to(x0) * x0 + (1 - alpha).sqrt().to(x0) * noise


def training_target(x0: Tensor, noise: Tensor, alpha: Tensor, prediction: Prediction) -> Tensor:
    """What the network should say: the noise, the image, or v = sqrt(abar) z - sqrt(1 - abar) x_0."""
    if prediction == "epsilon":
        return noise
    if prediction == "x0":
        return x0
    return alpha.sqrt().to(x0) * noise - (1 - alpha).sqrt().to(x0) * x0


def predicted_x0(output: Tensor, x: Tensor, alpha: float, prediction: Prediction) -> Tensor:
    """The image that a network's output amounts to, given x_t at abar."""
    if prediction == "x0":
        return output
    if prediction == "v":
        return math.sqrt(alpha) * x - math.sqrt(1 - alpha) * output
    return (x - math.sqrt(1 - alpha) * output) / math.sqrt(alpha)


def predicted_noise(x0: Tensor, x: Tensor, alpha: float) -> Tensor:
    """The noise in x_t if the image is x_0."""
    return (x - math.sqrt(alpha) * x0) / math.sqrt(1 - alpha)


def min_snr_weight(alpha: Tensor, prediction: Prediction, gamma: float) -> Tensor:
    """Weights that cap the signal-to-noise ratio in the loss on x_0 at gamma; Hang et al., arXiv 2303.09556.

    Args:
        alpha: abar.
        prediction: of the network, on whose squared error the weight goes.
        gamma: the cap; 5 in the paper.
    """
    snr = alpha / (1 - alpha)
    capped = snr.clamp(max=gamma)
    if prediction == "x0":
        return capped
    return capped / (snr if prediction == "epsilon" else snr + 1)
