"""A training step of Gaussian splatting on a CPU against the plain-torch reference, and how it grows with the scene."""

from __future__ import annotations

import gc
import resource
import time
from functools import partial

import torch
from torch import Tensor

from tools.benchmark.report import Report
from tools.benchmark.timing import interleaved
from zoo.ops.rasterize import rasterize
from zoo.ops.ssim import ssim

# Gaussians, width, height
COMPARED = (20_000, 216, 140)
GROWTH = (
    *((10_000, 128, 128), (107_000, 648, 420), (1_000_000, 1080, 1080)),
    *((100_000, 128, 128), (100_000, 256, 256), (100_000, 512, 512), (100_000, 1080, 1080)),
)


def run(repeats: int = 5, compare: bool = True) -> Report:
    """Times projection, compositing, 0.8 L1 + 0.2 (1 - SSIM) and the backward pass, shortest of several rounds.

    The scenes are random clouds of textured blobs between 2 and 8 units in front of a camera, their sizes such that
    about five of them cover a pixel's place. On a single thread (OMP_NUM_THREADS=1) processor time is measured.

    Args:
        repeats: rounds that count.
        compare: time the reference, too.
    """
    count, width, height = COMPARED
    first = _Step(count, width, height)
    work = {"kernels": partial(first, "compiled")}
    if compare:
        work["reference"] = partial(first, "reference")
    label = f"{count // 1000}k, {width} x {height}"
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times = interleaved(work, repeats, warmup=1, clock=clock)
    report = Report("training step in ms", "kernels")
    for name, seconds in times.items():
        report.rows[name] = {label: 1e3 * seconds}
    for count, width, height in GROWTH:
        step = _Step(count, width, height)
        (seconds,) = interleaved({"": partial(step, "compiled")}, repeats, 1, clock).values()
        with torch.no_grad():
            (render,) = interleaved({"": partial(step.render, "compiled")}, repeats, 1, clock).values()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        report.notes.append(
            f"{count:,} Gaussians ({step.visible:,} visible), {width} x {height}: step {1e3 * seconds:.0f} ms, render "
            f"{1e3 * render:.0f} ms, peak memory of the process so far {peak:.2f} GiB"
        )
        del step
        gc.collect()
    return report


class _Step:
    def __init__(self, count: int, width: int, height: int) -> None:
        generator = torch.Generator().manual_seed(0)
        focal = 0.9 * width
        depth = 2 + 6 * torch.rand(count, generator=generator)
        place = (torch.rand(count, 2, generator=generator) - 0.5) * 1.2 * torch.tensor([width, height]) / focal
        self.means = torch.cat([place * depth.unsqueeze(1), depth.unsqueeze(1)], dim=1).requires_grad_()
        self.quats = torch.randn(count, 4, generator=generator).requires_grad_()
        pixels = (5 * width * height / count / 9) ** 0.5
        spread = torch.exp(0.4 * torch.randn(count, 3, generator=generator))
        self.scales = (pixels * depth.unsqueeze(1) / focal * spread).detach().requires_grad_()
        self.opacities = torch.rand(count, generator=generator).requires_grad_()
        self.sh = (0.3 * torch.randn(count, 16, 3, generator=generator)).requires_grad_()
        self.viewmats = torch.eye(4).unsqueeze(0)
        self.Ks = torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]])
        self.size = (width, height)
        self.target = torch.rand(1, height, width, 3, generator=generator)
        self.visible = 0
        with torch.no_grad():
            self.render("compiled")

    def render(self, implementation: str) -> Tensor:
        image, _, meta = rasterize(
            *(self.means, self.quats, self.scales, self.opacities, self.sh, self.viewmats, self.Ks, *self.size),
            sh_degree=3,
            implementation=implementation,  # type: ignore[arg-type]
        )
        self.visible = int((meta["radii"] > 0).all(-1).sum())
        return image

    def __call__(self, implementation: str) -> None:
        image = self.render(implementation)
        similarity = ssim(image, self.target, implementation=implementation)  # type: ignore[arg-type]
        (0.8 * (image - self.target).abs().mean() + 0.2 * (1 - similarity)).backward()
        for leaf in (self.means, self.quats, self.scales, self.opacities, self.sh):
            leaf.grad = None
