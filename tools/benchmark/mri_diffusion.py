"""MRI diffusion: what sampling costs beside the network, and the same weights in diffusers' network and schedulers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import zoo
from tools.benchmark.report import Report
from tools.benchmark.timing import interleaved
from zoo.mri.diffusion.consistency import Consistency
from zoo.mri.diffusion.convert import to_diffusers
from zoo.mri.diffusion.network import DiffusionUNet
from zoo.mri.diffusion.problem import Problem
from zoo.mri.diffusion.process import Level, predicted_x0
from zoo.mri.diffusion.samplers import SamplerName, create_sampler
from zoo.mri.diffusion.sampling import SeededNoise, sample
from zoo.mri.masks import MaskFunction
from zoo.mri.phantom import generate

SAMPLERS: tuple[SamplerName, ...] = ("dpm++", "ddim", "ddpm")


def run(size: int = 64, samples: int = 4, steps: int = 10, repeats: int = 5) -> Report:
    """Times the samplers of a tiny network on one thread.

    Args:
        size: of the image.
        samples: of one slice, as one batch.
        steps: network evaluations per sample.
        repeats: timed rounds; the shortest counts.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _run(size, samples, steps, repeats)
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def _run(size: int, samples: int, steps: int, repeats: int) -> Report:
    report = Report(f"{samples} samples of {size} x {size} in {steps} steps, one thread", reference="network alone")
    torch.manual_seed(0)
    module: Any = zoo.create_model("mri/diffusion", use_new_attention_order=True).eval()
    for parameter in module.network.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    kspace = torch.from_numpy(generate(0, "T2", (size, size), 1, 1).kspace)
    mask = torch.from_numpy(MaskFunction("random", (4.0,), (0.08,))((size, size), 0).mask)[None, None]
    kspace = torch.where(mask, kspace, 0)
    x, timesteps = torch.randn(samples, 5, size, size), torch.full((samples,), 500)

    def network() -> None:
        for _ in range(steps):
            module.network(x, timesteps)

    def ours(sampler: SamplerName, consistency: str) -> Callable[[], Tensor]:
        return lambda: (
            module.reconstruct(
                kspace, mask, n_samples=samples, sampler=sampler, steps=steps, consistency=consistency, noise=0.01
            ).samples
        )

    work: dict[str, Callable[[], object]] = {"network alone": network}
    for sampler in SAMPLERS:
        for consistency in ("auto", "soft"):
            work[f"{sampler}, {consistency} consistency"] = ours(sampler, consistency)
    work["dpm++, no consistency"] = ours("dpm++", "none")
    for name, function in _diffusers(report, module.network, samples, size, steps).items():
        work[name] = function
    for name, seconds in interleaved(work, repeats, warmup=1, clock=time.process_time).items():
        report.rows[name] = {"s": seconds, "ms per step": 1000 * seconds / steps}
    return report


def _diffusers(
    report: Report, network: DiffusionUNet, samples: int, size: int, steps: int
) -> dict[str, Callable[[], object]]:
    """diffusers' loops with our weights and the same noise; what differs in the results goes to the notes."""
    try:
        from diffusers import DDIMScheduler, UNet2DModel
    except ModuleNotFoundError:
        report.notes.append("diffusers is not installed: no comparison with it (pip install diffusers)")
        return {}
    theirs = UNet2DModel(
        in_channels=5,
        out_channels=2,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        norm_num_groups=32,
        attention_head_dim=16,
    ).eval()
    theirs.load_state_dict(to_diffusers(network.state_dict()))
    module: Any = zoo.create_model("mri/diffusion", use_new_attention_order=True)
    module.network = network
    condition = torch.randn(samples, 3, size, size)
    start = SeededNoise([(k,) for k in range(samples)], (2, size, size), torch.device("cpu"))()
    levels = module.process.levels(module.process.timesteps(steps, "leading"))

    def ours() -> Tensor:
        nothing = torch.zeros(samples, 1, size, size, dtype=torch.complex64)
        problem = Problem.create(nothing, torch.zeros(1, 1, size, size), None, 2.0, 1.0)

        def denoise(state: Tensor, level: Level) -> Tensor:
            timesteps = torch.full((samples,), level.timestep)
            return predicted_x0(network(torch.cat((state, condition), 1), timesteps), state, level.alpha, "v")

        rule = Consistency("none")
        return sample(denoise, problem.measurement, levels, create_sampler("ddim"), rule, lambda: start)

    def peer() -> Tensor:
        scheduler = DDIMScheduler(
            1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False
        )
        scheduler.set_timesteps(steps)
        state = start
        for timestep in scheduler.timesteps:
            output = theirs(torch.cat((state, condition), 1), timestep).sample
            state = scheduler.step(output, timestep, state).prev_sample
        return torch.complex(state[:, 0], state[:, 1])

    difference = float((ours() - peer()).abs().max() / peer().abs().max())
    report.notes.append(f"DDIM with diffusers' network and scheduler, leading steps: results {difference:.1e} apart")
    return {"ddim, ours, no consistency, leading": ours, "ddim, diffusers, leading": peer}
