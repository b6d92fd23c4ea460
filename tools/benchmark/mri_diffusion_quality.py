"""MRI diffusion: the mean and one of its samples against the regression of equal size, by start and number of steps.

All rows are of the same slices: the test set of the config `mri/diffusion`, by the weights that ship.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

import zoo
from tools.benchmark.report import Report
from zoo.config import compose, resolve
from zoo.data.kspace import KSpaceBatch
from zoo.mri.metrics import PROTOCOLS, VolumeMetric
from zoo.mri.regression_unet.module import RegressionUNet

REGRESSION = "regression"
# Name of the row -> whether samples start from the regression's image, and how they are drawn.
ROWS: dict[str, tuple[bool, dict[str, Any]]] = {
    "noise, 10 steps": (False, {"steps": 10, "spacing": "linspace"}),
    "noise, 50 steps": (False, {"steps": 50, "spacing": "linspace"}),
    "regression, start_timestep=300": (True, {"steps": 10, "spacing": "log-snr", "start_timestep": 300}),
    "regression, start_timestep=150": (True, {"steps": 10, "spacing": "log-snr", "start_timestep": 150}),
}


def run(samples: int = 8, volumes: int | None = None, rows: tuple[str, ...] = tuple(ROWS), seed: int = 0) -> Report:
    """Samples and compares, on one thread.

    Args:
        samples: of each slice.
        volumes: of the test set; None for all of it.
        rows: some of `ROWS`.
        seed: of the samples.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _run(samples, volumes, rows, seed)
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def _run(samples: int, volumes: int | None, rows: tuple[str, ...], seed: int) -> Report:
    report = Report(f"means of {samples} samples, and the first of them", reference=REGRESSION)
    module: Any = zoo.load_pretrained("mri/diffusion-phantom")
    regression: Any = zoo.load_pretrained("mri/diffusion-regression")
    entry = resolve(compose("mri/diffusion", [] if volumes is None else [f"data.test_volumes={volumes}"])).data
    data: Any = zoo.create_data(entry.name, **entry.arguments)
    data.setup("test")
    scores: dict[str, _Scores] = {name: _Scores() for name in (REGRESSION, *rows)}
    singles: dict[str, _Scores] = {name: _Scores() for name in rows}
    residuals: dict[str, list[Tensor]] = {name: [] for name in rows}
    seconds = dict.fromkeys(rows, 0.0)
    for batch in data.test_dataloader():
        image, start = _regressed(regression, batch)
        scores[REGRESSION].update(image, batch)
        for name in rows:
            from_regression, how = ROWS[name]
            begun = time.process_time()
            posterior = module.sample_batch(batch, samples, start=start if from_regression else None, seed=seed, **how)
            seconds[name] += time.process_time() - begun
            scores[name].update(posterior.image, batch)
            singles[name].update(posterior.samples[:, 0].abs(), batch)
            residuals[name].append(posterior.residual.flatten())
    report.rows[REGRESSION] = scores[REGRESSION].compute()
    for name in rows:
        spent = {"residual": float(torch.cat(residuals[name]).mean()), "s": seconds[name]}
        report.rows[f"mean of {samples}, from {name}"] = scores[name].compute() | spent
        report.rows[f"one, from {name}"] = singles[name].compute()
    return report


def _regressed(regression: RegressionUNet, batch: KSpaceBatch) -> tuple[Tensor, Tensor]:
    """The regression's magnitude in the batch's units, and its complex image in the sampler's, to start from."""
    image, problem = regression.complex_image(batch)
    return image.abs(), image / problem.scale.view(-1, 1, 1)


class _Scores:
    """fastMRI's metrics at each rate."""

    def __init__(self) -> None:
        self.metrics: dict[str, VolumeMetric] = {name: metric() for name, metric in PROTOCOLS["fastmri"].items()}

    def update(self, image: Tensor, batch: KSpaceBatch) -> None:
        scale = batch["scaling_factor"].view(-1, 1, 1)
        for metric in self.metrics.values():
            metric.update(
                image * scale, batch["target"] * scale, batch["volume"], batch["volume_max"], batch["acceleration"]
            )

    def compute(self) -> dict[str, float]:
        values: dict[float, dict[str, float]] = {}
        for name, metric in self.metrics.items():
            metric.compute()
            for rate, value in metric.groups.items():
                values.setdefault(rate, {})[f"{rate:g}x {name}"] = value
        return {key: value for rate in sorted(values) for key, value in values[rate].items()}
