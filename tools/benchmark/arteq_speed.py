"""ArtEq's paper-size backbone on one thread: our kernels against the official mathematics in plain torch."""

from __future__ import annotations

import time

import torch

from tools.benchmark.report import Report
from tools.benchmark.rivals import arteq_plain
from tools.benchmark.timing import interleaved
from zoo.humans.arteq.network import ArtEqNetwork


def run(points: int = 1000, repeats: int = 3, warmup: int = 1) -> Report:
    """Times forward passes of the backbone, where nearly all of the work is.

    Args:
        points: of the cloud, an ellipsoid as large as a person.
        repeats: rounds that count; the shortest time of each contender is reported.
        warmup: rounds before them.
    """
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(1, points, 3, generator=random), dim=-1)
    cloud = direction * torch.tensor([0.35, 0.85, 0.25])
    official, orbit = ArtEqNetwork(kernel="epn"), ArtEqNetwork(kernel="orbit")
    with torch.no_grad():
        ours = official.encoder(cloud)[1]
        error = float((ours - arteq_plain.encode(official, cloud)[1]).abs().max() / ours.abs().max())
        work = {
            "official convolutions, our kernels": lambda: official.encoder(cloud),
            "orbit convolutions, our kernels": lambda: orbit.encoder(cloud),
            "official convolutions, plain torch": lambda: arteq_plain.encode(official, cloud),
        }
        seconds = interleaved(work, repeats, warmup, time.process_time)
    report = Report(f"ArtEq's backbone, {points} points, one cloud, forward", "official convolutions, plain torch")
    report.rows = {name: {"seconds": value} for name, value in seconds.items()}
    report.notes = [
        "processor time of one thread, the shortest of the rounds; all contenders in turns",
        f"plain torch and our kernels differ by {error:.1e} of the largest feature",
    ]
    return report
