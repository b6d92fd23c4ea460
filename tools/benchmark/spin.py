"""SPIN against static fits and keypoints alone over several seeds; SMPLify's iterations against the full body's."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tools.benchmark.report import Report
from tools.benchmark.timing import interleaved
from zoo.config import compose
from zoo.engine.loggers import read_metrics
from zoo.engine.run import train
from zoo.errors import ConfigError
from zoo.files import write_json

QUIET = ("callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}")
ARMS = {
    "spin": [],
    "static": ["model.signal=static"],
    "keypoints": ["model.signal=keypoints"],
    "supervised": ["model.signal=static", "data.labels=true"],
}


def run(
    part: Literal["training", "iteration", "solvers"] = "training",
    seeds: int = 3,
    arms: tuple[str, ...] = tuple(ARMS),
    options: tuple[str, ...] = (),
    folder: Path | None = None,
    repeats: int = 5,
) -> Report:
    """Trains the arms, or times SMPLify.

    Args:
        part: ``"training"``: test errors of the network for each training signal; ``"iteration"``: one Adam
            iteration of the body stage through smplx's full mesh and through our joints, one thread;
            ``"solvers"``: Gauss-Newton against the paper's 100 + 100 Adam steps, 64 people.
        seeds: of the training part: 0, 1, ...
        arms: ``"spin"``: fits in the loop; ``"static"``: the first fits; ``"keypoints"``: no fits; ``"supervised"``:
            the true bodies.
        options: overrides of the config ``humans/spin``.
        folder: keeps each run; those that are there already are not made again.
        repeats: of the timed parts; the shortest counts.
    """
    if part == "training":
        return _training(seeds, arms, options, folder)
    torch.set_num_threads(1)
    return _iteration(repeats) if part == "iteration" else _solvers(repeats)


def _training(seeds: int, arms: tuple[str, ...], options: tuple[str, ...], folder: Path | None) -> Report:
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        raise ConfigError(f"There is no arm '{unknown[0]}'. Known: {', '.join(ARMS)}.")
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return _training(seeds, arms, options, Path(temporary))
    # A seed is gone through before the next one begins, so that a benchmark that is broken off compares whole seeds.
    runs = [{arm: _train(arm, seed, options, folder) for arm in arms} for seed in range(seeds)]
    report = Report(f"SPIN on rendered people, mean over {seeds} seeds (mm)", reference=arms[0])
    for arm in arms:
        columns = {name: [run[arm][name] for run in runs] for name in runs[0][arm]}
        report.rows[arm] = {name: statistics.mean(values) for name, values in columns.items()}
        for name in ("mpjpe", "pa_mpjpe", "fits pa_mpjpe"):
            if name in columns:
                report.notes.append(f"{arm}: {name} by seed {', '.join(f'{v:.1f}' for v in columns[name])}")
    return report


def _train(arm: str, seed: int, options: tuple[str, ...], folder: Path) -> dict[str, float]:
    """Trains an arm, or reads what an earlier benchmark found."""
    run_dir = folder / f"{arm}-{seed}"
    result = run_dir / "benchmark.json"
    if not result.is_file():
        shutil.rmtree(run_dir, ignore_errors=True)
        start = time.process_time()
        summary = train(compose("humans/spin", [*QUIET, *ARMS[arm], f"seed={seed}", *options, f"run_dir={run_dir}"]))
        row = {name: summary["metrics"][f"test/{name}"] for name in ("mpjpe", "pa_mpjpe", "pve")}
        fits = [line["fits/pa_mpjpe"] for line in read_metrics(run_dir) if "fits/pa_mpjpe" in line]
        if fits:
            row["fits pa_mpjpe"] = fits[-1]
        row["processor minutes"] = (time.process_time() - start) / 60
        write_json(result, row)
    found: dict[str, float] = json.loads(result.read_text())
    return found


def _problem(count: int) -> tuple[Any, Tensor]:
    import zoo
    from zoo.data.bodies import draw_people
    from zoo.humans.smplify.module import to_pixels

    module = zoo.load_pretrained("humans/smplify-activities")
    return module, to_pixels(torch.from_numpy(draw_people(count, 99).keypoints))


def _iteration(repeats: int) -> Report:
    try:
        import smplx
    except ModuleNotFoundError:
        raise ConfigError("The rival is the smplx package: pip install 'zoo[humans]'.") from None
    from zoo.humans.joints import SPIN_49_SOURCES
    from zoo.humans.smplify.objective import body_energy, ignore_joints
    from zoo.humans.standin import extra_regressor, standin_folder

    report = Report("SMPLify, one body-stage iteration (forward, loss, backward, Adam), one thread", "smplx, full mesh")
    for count in (1, 64):
        module, keypoints = _problem(count)
        solver, rows = module.network, extra_regressor()
        body = smplx.SMPL(str(standin_folder()), batch_size=count)
        pose, betas, shift = solver.start(keypoints)
        centre, masked = torch.full((count, 2), 112.0), ignore_joints(keypoints)

        def through_mesh(orient: Tensor, rest: Tensor, shape: Tensor, body: Any = body, rows: Tensor = rows) -> Tensor:
            out = body(global_orient=orient, body_pose=rest, betas=shape)
            extra = torch.einsum("kv,bvc->bkc", rows, out.vertices)
            return torch.cat([out.joints, extra], 1)[:, list(SPIN_49_SOURCES)]

        def iterate(joints_of: Callable[..., Tensor]) -> Callable[[], None]:
            numbers = torch.cat([pose, betas], 1).clone().requires_grad_()  # noqa: B023 (used at once)
            optimizer = torch.optim.Adam([numbers], lr=1e-2)
            place = (shift, centre, masked, solver.prior)  # noqa: B023

            def step() -> None:
                orient, rest, shape = numbers.split((3, 69, 10), 1)
                energy = body_energy(rest, shape, joints_of(orient, rest, shape), *place)
                (numbers.grad,) = torch.autograd.grad(energy.sum(), numbers)
                optimizer.step()

            return step

        work = {"smplx, full mesh": iterate(through_mesh), "joints only": iterate(solver.joints)}
        for name, seconds in interleaved(work, 10 * repeats, 3, time.process_time).items():
            report.rows.setdefault(name, {})[f"ms, {count} bodies"] = 1000 * seconds
    return report


def _solvers(repeats: int) -> Report:
    module, keypoints = _problem(64)
    solvers = {
        "Adam 100 + 100": module.network.with_settings(100, "adam"),
        "Gauss-Newton, 4": module.network.with_settings(4, "gauss-newton"),
        "Gauss-Newton, 6": module.network.with_settings(6, "gauss-newton"),
        "Gauss-Newton, 10": module.network.with_settings(10, "gauss-newton"),
        "Gauss-Newton, 15": module.network.with_settings(15, "gauss-newton"),
        "L-BFGS 30 + 30": module.network.with_settings(30, "lbfgs"),
    }
    report = Report("SMPLify on 64 people from the mean pose, one thread", "Adam 100 + 100")
    fits = {name: solver.from_scratch(keypoints) for name, solver in solvers.items()}
    work = {name: partial(solver.from_scratch, keypoints) for name, solver in solvers.items()}
    times = interleaved(work, repeats, 0, time.process_time)
    for name, fit in fits.items():
        report.rows[name] = {
            "seconds": times[name],
            "median objective": float(fit.energy.median()),
            "mean objective": float(fit.energy.mean()),
            "median reprojection": float(fit.score.median()),
        }
    return report
