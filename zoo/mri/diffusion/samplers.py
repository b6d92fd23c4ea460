"""Steps of the reverse process in terms of the image estimate x0, so that data consistency can act on it.

A sampler takes x at a `Level` and the estimate x0 made there and gives x at the next level. States are real
tensors of any shape.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from torch import Tensor

from zoo.mri.diffusion.process import Level, NoiseSchedule, Spacing, predicted_noise

SamplerName = Literal["ddpm", "ddim", "dpm++", "sde-dpm++", "heun"]
Draw = Callable[[], Tensor]


class Sampler(ABC):
    """A rule for the next state. It may remember earlier estimates: one sampler serves one chain at a time."""

    def reset(self) -> None:
        """Forgets the chain."""
        return

    def plan(self, process: NoiseSchedule, steps: int, spacing: Spacing) -> list[Level]:
        """The levels of a chain of `steps` network evaluations."""
        return process.levels(process.timesteps(steps, spacing))

    @abstractmethod
    def step(self, x: Tensor, x0: Tensor, level: Level, draw: Draw) -> Tensor:
        """The state at the next level.

        Args:
            x: the state.
            x0: the image estimate made from it.
            level: where it is and where it goes.
            draw: gives standard normal noise of the state's shape; called only if the rule needs it.
        """


class DDPM(Sampler):
    """Ancestral sampling from the Gaussian posterior; Ho et al., arXiv 2006.11239, eq. 6 and 7.

    Args:
        large_variance: beta instead of beta (1 - abar_prev) / (1 - abar). Only a step from timestep 0 then adds no
            noise (algorithm 2): a chain that ends at a later one, as with "trailing" spacing, ends with noise.
    """

    def __init__(self, large_variance: bool = False) -> None:
        self.large_variance = large_variance

    def step(self, x: Tensor, x0: Tensor, level: Level, draw: Draw) -> Tensor:
        """See `Sampler.step`."""
        mean, variance = posterior(x, x0, level)
        if self.large_variance and level.timestep > 0:
            variance = 1 - level.alpha / level.next_alpha
        return mean + math.sqrt(variance) * draw() if variance > 0 else mean


def posterior(x: Tensor, x0: Tensor, level: Level) -> tuple[Tensor, float]:
    """Mean and variance of the next state given this one and the image."""
    alpha = level.alpha / level.next_alpha
    rest, next_rest = 1 - level.alpha, 1 - level.next_alpha
    mean = math.sqrt(level.next_alpha) * (1 - alpha) / rest * x0 + math.sqrt(alpha) * next_rest / rest * x
    return mean, (1 - alpha) * next_rest / rest


class DDIM(Sampler):
    """Song et al., arXiv 2010.02502, eq. 12 and 16.

    Args:
        eta: share of the noise drawn anew: 0 is deterministic, 1 has the variance of `DDPM`.
    """

    def __init__(self, eta: float = 0.0) -> None:
        self.eta = eta

    def step(self, x: Tensor, x0: Tensor, level: Level, draw: Draw) -> Tensor:
        """See `Sampler.step`."""
        if level.is_last:
            return x0
        rest = 1 - level.next_alpha
        variance = self.eta**2 * rest / (1 - level.alpha) * (1 - level.alpha / level.next_alpha)
        noise = predicted_noise(x0, x, level.alpha)
        state = math.sqrt(level.next_alpha) * x0 + math.sqrt(max(rest - variance, 0.0)) * noise
        return state + math.sqrt(variance) * draw() if variance > 0 else state


class DPMSolver(Sampler):
    """DPM-Solver++ in multistep form; Lu et al., arXiv 2211.01095, algorithm 2.

    Args:
        order: 1 to 3. The first steps of a chain have lower order, and so have the last ones, see `Level.max_order`.
    """

    def __init__(self, order: int = 2) -> None:
        self.order = order
        self.history: list[tuple[float, Tensor]] = []  # (lambda, x0), latest first

    def reset(self) -> None:
        """Forgets the chain."""
        self.history = []

    def step(self, x: Tensor, x0: Tensor, level: Level, draw: Draw) -> Tensor:
        """See `Sampler.step`; draws nothing."""
        if level.is_last:
            return x0
        if level.alpha == 0:
            # Pure noise has no finite log-SNR to extrapolate from; DDIM is the first-order rule.
            return DDIM().step(x, x0, level, draw)
        here, there = half_log_snr(level.alpha), half_log_snr(level.next_alpha)
        h = there - here
        decay = math.expm1(-h)
        root = math.sqrt(level.next_alpha)
        state = math.sqrt((1 - level.next_alpha) / (1 - level.alpha)) * x - root * decay * x0
        past = self.history[: min(self.order, level.max_order) - 1]
        if past:
            r0 = (here - past[0][0]) / h
            first = (x0 - past[0][1]) / r0
            if len(past) == 1:
                state = state - 0.5 * root * decay * first
            else:
                r1 = (past[0][0] - past[1][0]) / h
                second = (first - (past[0][1] - past[1][1]) / r1) / (r0 + r1)
                state = state + root * (decay / h + 1) * (first + r0 * second)
                state = state - root * ((decay + h) / h**2 - 0.5) * second
        self.history = [(here, x0), *self.history[:1]]
        return state


class SDEDPMSolver(Sampler):
    """The second-order multistep solver of the reverse SDE; Lu et al., arXiv 2211.01095, appendix B (SDE-DPM-Solver++).

    It draws new noise in every step, which forgets the errors of earlier ones.
    """

    def __init__(self) -> None:
        self.previous: tuple[float, Tensor] | None = None  # (lambda, x0)

    def reset(self) -> None:
        """Forgets the chain."""
        self.previous = None

    def step(self, x: Tensor, x0: Tensor, level: Level, draw: Draw) -> Tensor:
        """See `Sampler.step`."""
        if level.is_last:
            return x0
        if level.alpha == 0:
            return DDIM(1.0).step(x, x0, level, draw)
        here, there = half_log_snr(level.alpha), half_log_snr(level.next_alpha)
        h = there - here
        estimate = x0
        if self.previous is not None:
            before, image = self.previous
            estimate = x0 + 0.5 * h / (here - before) * (x0 - image)
        self.previous = (here, x0)
        renewed = -math.expm1(-2 * h)
        rest = 1 - level.next_alpha
        kept = math.sqrt(rest / (1 - level.alpha)) * math.exp(-h) * x
        return kept + math.sqrt(level.next_alpha) * renewed * estimate + math.sqrt(rest * renewed) * draw()


class Heun(Sampler):
    """Heun's rule for the deterministic flow: a step of DDIM, made again with the mean of the estimates at both ends.

    As DDIM does, it solves the part that is linear in x exactly. Karras et al., arXiv 2206.00364, use the rule over
    sigma, which does not reach as far as the first levels of these schedules. Every level but the first and the last
    costs two evaluations: one to correct the step that led to it, one to leave.
    """

    def __init__(self) -> None:
        self.left: tuple[Level, Tensor, Tensor] | None = None  # where the step began, x and x0 there

    def reset(self) -> None:
        """Forgets the chain."""
        self.left = None

    def plan(self, process: NoiseSchedule, steps: int, spacing: Spacing) -> list[Level]:
        """See `Sampler.plan`; an even number of steps leaves one unused."""
        first, *rest = super().plan(process, (steps + 1) // 2, spacing)
        return [first, *(visit for level in rest for visit in (replace(level, next_alpha=level.alpha), level))]

    def step(self, x: Tensor, x0: Tensor, level: Level, draw: Draw) -> Tensor:
        """See `Sampler.step`; draws nothing. A level that leads to itself corrects the step before."""
        if level.next_alpha > level.alpha:
            self.left = (level, x, x0)
            return DDIM().step(x, x0, level, draw)
        if self.left is None:  # the chain starts here: there is nothing to correct
            return x
        begin, state, estimate = self.left
        return DDIM().step(state, (estimate + x0) / 2, begin, draw)


def half_log_snr(alpha: float) -> float:
    """lambda = 1/2 ln(abar / (1 - abar))."""
    return 0.5 * (math.log(alpha) - math.log1p(-alpha))


def create_sampler(name: SamplerName, eta: float = 0.0) -> Sampler:
    """A sampler by name.

    Args:
        name: "ddpm", "ddim", "dpm++" or "sde-dpm++" (second order), or "heun".
        eta: of DDIM.
    """
    if name == "ddim":
        return DDIM(eta)
    return {"ddpm": DDPM, "dpm++": DPMSolver, "sde-dpm++": SDEDPMSolver, "heun": Heun}[name]()
