"""Samples from the posterior of a `Problem`: which steps, from which start, with which seeds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.mri.diffusion.consistency import Consistency, ConsistencyName
from zoo.mri.diffusion.posterior import Posterior
from zoo.mri.diffusion.problem import Frame, Problem
from zoo.mri.diffusion.process import NoiseSchedule, Spacing
from zoo.mri.diffusion.samplers import SamplerName, create_sampler
from zoo.mri.diffusion.sampling import Denoiser, Progress, SeededNoise, sample
from zoo.signature import check_choices


@dataclass(frozen=True)
class Sampling:
    """How to sample. Attributes as the arguments of `zoo.mri.diffusion.module.DiffusionReconstructor.reconstruct`,
    but for `start`, which is in the sampler's units.
    """

    sampler: SamplerName = "dpm++"
    steps: int = 10
    spacing: Spacing = "log-snr"
    consistency: ConsistencyName = "auto"
    eta: float = 0.0
    start: Tensor | None = None
    start_timestep: int | None = None
    rederive: bool = False
    rate: float = 1.0
    seed: int = 0
    antithetic: bool = True
    progress: bool = False

    def __post_init__(self) -> None:
        check_choices(Sampling, vars(self), "sampling")
        if self.eta < 0 or not self.rate > 0:
            raise ConfigError(f"eta should not be negative and rate positive, not {self.eta:g} and {self.rate:g}.")


@torch.no_grad()
def sample_posterior(
    denoiser: Callable[[Problem, int], Denoiser],
    process: NoiseSchedule,
    problem: Problem,
    frame: Frame,
    n_samples: int,
    keys: Sequence[tuple[int, ...]],
    how: Sampling,
    data_std: float,
) -> Posterior:
    """Samples in the units of the data.

    Args:
        denoiser: gives the estimate's function for a problem, each of its slices so many times in a row.
        process: that the denoiser was trained for.
        problem: B slices.
        frame: what of their images is diffused.
        n_samples: K, of each slice.
        keys: one of each slice, which with the seed makes its samples independent of the batch.
        how: to sample.
        data_std: standard deviation of real and imaginary part of images in the sampler's units.

    Raises:
        ConfigError: numbers with which nothing can be sampled.
        ValueError: there are not as many keys, or start images of the same size, as slices.
    """
    if n_samples < 1:
        raise ConfigError(f"n_samples should be 1 or more, not {n_samples}.")
    if not 1 <= how.steps <= process.steps:
        raise ConfigError(f"steps should be from 1 to {process.steps}, those of the schedule, not {how.steps}.")
    if len(keys) != len(problem.scale):
        raise ValueError(f"{len(problem.scale)} slices need as many keys, not {len(keys)}")
    if how.start is not None and how.start.shape != problem.zero_filled.shape:
        raise ValueError(
            f"A start {tuple(how.start.shape)} does not fit images {tuple(problem.zero_filled.shape)}: give (B, H, W)"
        )
    sampler = create_sampler(how.sampler, how.eta)
    levels = sampler.plan(process, how.steps, how.spacing)
    start = how.start
    if how.start_timestep is not None:
        if not 0 <= how.start_timestep < process.steps:
            raise ConfigError(
                f"start_timestep should be from 0 to {process.steps - 1}, the timestep of most noise, "
                f"not {how.start_timestep}."
            )
        first = process.levels([how.start_timestep])
        levels = [level for level in levels if level.timestep <= how.start_timestep] or first
        if start is None and levels[0].timestep < process.steps - 1:  # the step from pure noise leads there
            levels = process.levels([process.steps - 1, *(level.timestep for level in levels)])
    numbers = [k for _ in keys for k in range(n_samples)]
    signs = [-1 if how.antithetic and k % 2 else 1 for k in numbers]
    streams = [k - 1 if sign < 0 else k for k, sign in zip(numbers, signs, strict=True)]
    seeds = [(how.seed, k, *keys[index // n_samples]) for index, k in enumerate(streams)]
    shape = (2, *problem.zero_filled.shape[-2:])
    measurement = problem.measurement.repeat(n_samples)
    guide = problem.measurement.about(frame.origin, frame.unit).repeat(n_samples)
    if how.consistency == "auto":
        draw = SeededNoise([(*seed, 1) for seed in seeds], (measurement.coils, *shape), measurement.noise.device, signs)
        guide = guide.redrawn(draw())
    with _bar(how.progress) as callback:
        diffused = sample(
            denoiser(problem, n_samples),
            guide,
            levels,
            sampler,
            Consistency(how.consistency, data_std=data_std / frame.unit, rate=how.rate),
            SeededNoise(seeds, shape, problem.zero_filled.device, signs),
            start=None if start is None else frame.diffused(start).repeat_interleave(n_samples, dim=0),
            rederive=how.rederive,
            callback=callback,
        )
    images = frame.images(diffused.unflatten(0, (-1, n_samples)))
    return Posterior(
        problem.to_data(images),
        measurement.residual(images.flatten(0, 1)).unflatten(0, (-1, n_samples)),
        problem.measurement.noise * problem.scale,
        how.antithetic,
    )


@contextlib.contextmanager
def _bar(wanted: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Shows the steps of a sampler and the time left."""
    if not wanted:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True)) as bar:
        task = bar.add_task("sampling", total=None)
        yield lambda state: bar.update(task, completed=state.step, total=state.steps)
