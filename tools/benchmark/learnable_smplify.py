"""Learnable SMPLify against SMPLify on joints by Adam and L-BFGS, and against the published network."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import zoo
from tools.benchmark.report import Report
from tools.benchmark.timing import interleaved
from zoo.config import compose
from zoo.data.motion_pairs import TEST_STRIDES, MotionPairs, TestPairs, pairs_at_strides
from zoo.engine.run import train
from zoo.humans.body import Body
from zoo.humans.learnable_smplify.bones import batch_first, batch_last
from zoo.humans.learnable_smplify.descent import Descent
from zoo.humans.learnable_smplify.export import script
from zoo.humans.learnable_smplify.figures import time_against_error
from zoo.humans.learnable_smplify.geometry import aligned_error
from zoo.humans.learnable_smplify.module import LearnableSMPLify, default_regressor
from zoo.humans.learnable_smplify.network import BoneNetwork, exponential
from zoo.humans.learnable_smplify.noise import confidence_of
from zoo.humans.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from zoo.viz.save import save_figures

QUIET = ("callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}")
WEIGHTS = "humans/learnable-smplify"
REFERENCE = "L-BFGS, 20 iterations"
_LARGE = 128
Part = Literal["pairs", "architecture", "robustness", "motions"]
Batch = dict[str, Tensor]
Solve = Callable[[Batch], Tensor]


def run(
    part: Part = "pairs",
    weights: str = WEIGHTS,
    pairs: int = 60,
    repeats: int = 8,
    train_steps: int = 500,
) -> Report:
    """Measures on recordings that were held out from training.

    Args:
        part: ``"pairs"``: errors and times at strides 1, 5 and 9; ``"architecture"``: the published network and ours,
            trained alike; ``"robustness"``: noisy and missing joints; ``"motions"``: whole recordings, each pose found
            from the one before.
        weights: pretrained name, weights file or run folder.
        pairs: about so many at each stride.
        repeats: of the timings, of which the shortest counts.
        train_steps: of 64 pairs, for ``"architecture"``.
    """
    torch.set_num_threads(1)  # processor time of one thread is what is compared
    if part == "architecture":
        return _architecture(train_steps)
    from zoo.pretrained import load_module

    module = load_module(weights)
    assert isinstance(module, LearnableSMPLify)
    data = zoo.create_data("humans/motion-pairs")
    assert isinstance(data, MotionPairs)
    bench = _Bench(module, data)
    if part == "motions":
        return bench.motions()
    return bench.pairs(pairs, repeats) if part == "pairs" else bench.robustness(pairs)


def _stack(pairs: TestPairs, repeat_to: int | None = None) -> Batch:
    items: list[Any] = [pairs[k] for k in range(len(pairs))]
    if repeat_to is not None:
        items = [items[k % len(items)] for k in range(repeat_to)]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def _matrices(pose: Tensor) -> Tensor:
    return rotvec_to_rotmat(pose.unflatten(1, (-1, 3)))


class _Bench:
    def __init__(self, module: LearnableSMPLify, data: MotionPairs) -> None:
        assert isinstance(module.network, BoneNetwork)
        self.module, self.data = module, data
        self.network, self.bones = module.network, module.bones
        self.body: Body = module.body

    def _with_target(self, batch: Batch) -> Batch:
        end = _matrices(batch["end_pose"])
        posed = self.module.joints.state(end, batch["betas"]).joints
        return {**batch, "target": posed + batch["end_trans"].unsqueeze(1)}

    def _errors(self, rotmats: Tensor, batch: Batch) -> Tensor:
        """Vertex errors in mm, pelvis brought together, (B,)."""
        meshes = []
        for pose in (rotmats, _matrices(batch["end_pose"])):
            parts = [
                self.body(pose[k : k + 64, :1], pose[k : k + 64, 1:], batch["betas"][k : k + 64]).vertices
                for k in range(0, len(pose), 64)
            ]
            meshes.append(torch.cat(parts))
        return 1000 * aligned_error(meshes[0], meshes[1], self.body.J_regressor)

    def _network(self, passes: int, batch: Batch, confidence: Tensor | None = None) -> Tensor:
        trained, self.network.passes = self.network.passes, passes
        try:
            start = batch_first(exponential(batch_last(batch["start_pose"].unflatten(1, (-1, 3)))))
            found: Tensor = self.network(self.bones, start, batch["betas"], batch["target"], confidence)
            return found
        finally:
            self.network.passes = trained

    def _descend(self, descent: Descent, batch: Batch, pose: Tensor | None = None) -> Tensor:
        start = batch["start_pose"] if pose is None else rotmat_to_rotvec(pose).flatten(1)
        found = descent(self.module.joints, start, batch["betas"], batch["end_trans"], batch["target"])
        return _matrices(found)

    def _hybrid(self, steps: int, batch: Batch) -> Tensor:
        return self._descend(Descent("lbfgs", steps), batch, self._network(2, batch))

    def _through_mesh(self, batch: Batch) -> Tensor:
        """One step of Adam with the joints read from the mesh, as the original SMPLify has them."""
        with torch.inference_mode(False), torch.enable_grad():
            given = {name: value.clone() for name, value in batch.items()}
            regressor = default_regressor(self.body)
            numbers = given["start_pose"].requires_grad_()
            optimizer = torch.optim.Adam([numbers], 0.02)
            vertices = self.body(numbers[:, :3], numbers[:, 3:], given["betas"], given["end_trans"]).vertices
            error = (torch.einsum("kv,bvc->bkc", regressor, vertices) - given["target"]).square().sum()
            (numbers.grad,) = torch.autograd.grad(error, numbers)
            optimizer.step()
        return numbers.detach()

    @torch.inference_mode()
    def pairs(self, count: int, repeats: int) -> Report:
        report = Report(
            "Held-out recordings: vertex error in mm (pelvis aligned), processor ms per frame, one thread", REFERENCE
        )
        batch = self._with_target(_stack(pairs_at_strides(self.data.test_motions(), count)))
        scripted = script(self.network, self.bones)
        solvers: dict[str, Solve] = {
            "start pose kept": lambda b: _matrices(b["start_pose"]),
            "Adam, 100 steps": lambda b: self._descend(Descent("adam", 100), b),
            REFERENCE: lambda b: self._descend(Descent("lbfgs", 20), b),
            "network, scripted": lambda b: scripted(b["start_pose"], b["betas"], b["target"]),
            "network, 1 pass": lambda b: self._network(1, b),
            "network": lambda b: self._network(2, b),
            "network, 3 passes": lambda b: self._network(3, b),
            "network + 3 L-BFGS": lambda b: self._hybrid(3, b),
            "network + 5 L-BFGS": lambda b: self._hybrid(5, b),
        }
        for name, solve in solvers.items():
            # L-BFGS has one line search for a batch: each pair is given its own, which is better for it.
            size = 1 if "L-BFGS" in name else len(batch["group"])
            found = torch.cat([solve(part) for part in _parts(batch, size)])
            report.rows[name] = self._row(self._errors(found, batch), batch, found)
        timed = {name: solve for name, solve in solvers.items() if name != "start pose kept"}
        for size, label in ((1, "ms, single"), (_LARGE, f"ms, of {_LARGE}")):
            sample = self._with_target(_stack(pairs_at_strides(self.data.test_motions(), 43), size))
            work = {name: partial(solve, sample) for name, solve in timed.items()}
            for name, seconds in interleaved(work, repeats, 1, time.process_time).items():
                report.rows[name][label] = 1000 * seconds / size
        one = self._with_target(_stack(pairs_at_strides(self.data.test_motions(), 1), 1))
        through_mesh = interleaved({"mesh": lambda: self._through_mesh(one)}, 3, 1, time.process_time)["mesh"]
        report.notes += [
            f"{len(batch['group'])} pairs; L-BFGS fits each pair alone for its errors, and all {_LARGE} at once for "
            "its time in batches, where it is less exact",
            "Adam and L-BFGS read the joints without making the mesh; through the mesh, as the original does, 100 "
            f"steps of Adam take {100_000 * through_mesh:.0f} ms a frame",
        ]
        report.notes += [_ratio_note(report, label) for label in ("ms, single", f"ms, of {_LARGE}")]
        points = {
            name: (row["ms, single"], row["s9"])
            for name, row in report.rows.items()
            if "ms, single" in row and name != "network, scripted"
        }
        drawn = {"time_error": time_against_error(points, "9 frames apart, one frame at a time")}
        report.figures = save_figures(drawn, Path("runs", "benchmark", "learnable-smplify"))
        return report

    def _row(self, errors: Tensor, batch: Batch, found: Tensor) -> dict[str, float]:
        row = {f"s{s}": float(errors[batch["group"] == k].mean()) for k, s in enumerate(TEST_STRIDES)}
        placed = self.module.joints.state(found, batch["betas"]).joints
        goal = batch["target"] - batch["end_trans"].unsqueeze(1)
        row["joints s9"] = float(1000 * (placed - goal).norm(dim=-1).mean(1)[batch["group"] == 2].mean())
        return row

    @torch.no_grad()
    def robustness(self, count: int) -> Report:
        title = "Vertex error in mm (pelvis aligned), 5 frames apart, joints with noise or missing"
        report = Report(title, REFERENCE)
        stacked = _stack(pairs_at_strides(self.data.test_motions(), count))
        rows = stacked["group"] == 1
        batch = self._with_target({name: value[rows] for name, value in stacked.items()})
        generator = torch.Generator().manual_seed(5)
        lacking = {"no face, feet": [0, *range(15, 25)], "no neck, mid-hip": [1, 8]}
        for millimetres in (0, 5, 10, 20, 40):
            noise = torch.randn(batch["target"].shape, generator=generator) * millimetres / 1000
            sure = confidence_of(torch.full(noise.shape[:2], millimetres / 1000))
            self._disturbed(report, f"{millimetres} mm", {**batch, "target": batch["target"] + noise}, sure)
        for share in (0.1, 0.3):
            sure = (torch.rand(batch["target"].shape[:2], generator=generator) >= share).float()
            self._disturbed(report, f"{share:.0%} missing", batch, sure)
        for label, gone in lacking.items():
            sure = torch.ones(batch["target"].shape[:2])
            sure[:, gone] = 0
            self._disturbed(report, label, batch, sure)
        return report

    @torch.no_grad()
    def motions(self) -> Report:
        title = "Vertex error in mm (pelvis aligned) over whole recordings"
        report = Report(title, "shape and first pose given")
        for motion in self.data.test_motions():
            self._motion(report, motion)
        return report

    def _disturbed(self, report: Report, label: str, batch: Batch, sure: Tensor) -> None:
        network = self._network(2, batch, sure)
        alone = _parts({**batch, "sure": sure, "found": rotmat_to_rotvec(network).flatten(1)}, 1)

        def descended(steps: int, start: str) -> Tensor:
            fit, joints = Descent("lbfgs", steps), self.module.joints
            poses = [fit(joints, b[start], b["betas"], b["end_trans"], b["target"], b["sure"]) for b in alone]
            return _matrices(torch.cat(poses))

        found = {
            REFERENCE: descended(20, "start_pose"),
            "network": network,
            "network + 3 L-BFGS": descended(3, "found"),
        }
        for name, rotmats in found.items():
            report.rows.setdefault(name, {})[label] = float(self._errors(rotmats, batch).mean())

    def _motion(self, report: Report, motion: Any) -> None:
        pose, trans = torch.from_numpy(motion.poses), torch.from_numpy(motion.trans)
        betas = torch.from_numpy(motion.betas)[None]
        each, rotmats = betas.expand(len(pose), -1), _matrices(pose)
        joints = self.module.joints.state(rotmats, each).joints + trans.unsqueeze(1)
        truth = torch.cat([self.body(p[:, :1], p[:, 1:], betas.expand(len(p), -1)).vertices for p in rotmats.split(64)])
        fitter = self.module.fitter()
        fits = {
            "shape and first pose given": fitter.sequence(joints, pose[0], betas, anchor=False),
            "the same, anchored": fitter.sequence(joints, pose[0], betas),
            "only joints given": fitter.sequence(joints),
            "only joints, 3 + 3 L-BFGS": fitter.sequence(joints, refine=3),
        }
        for name, fit in fits.items():
            moved = _matrices(fit.pose)
            shape = fit.betas.expand(len(pose), -1)
            meshes = [
                self.body(m[:, :1], m[:, 1:], s).vertices for m, s in zip(moved.split(64), shape.split(64), strict=True)
            ]
            errors = 1000 * aligned_error(torch.cat(meshes), truth, self.body.J_regressor)
            row = report.rows.setdefault(name, {})
            row[motion.name] = float(errors.mean())
            row[f"{motion.name} end"] = float(errors[-len(pose) // 5 :].mean())
            row[f"{motion.name} place"] = float(1000 * (fit.transl - trans).norm(dim=-1).mean())
        report.notes.append(
            f"{motion.name}: {len(pose)} frames; 'end' is the last fifth, 'place' the translation's error"
        )


def _parts(batch: Batch, size: int) -> list[Batch]:
    count = len(next(iter(batch.values())))
    return [{name: value[k : k + size] for name, value in batch.items()} for k in range(0, count, size)]


def _ratio_note(report: Report, label: str) -> str:
    rivals, ours = ("Adam, 100 steps", REFERENCE), ("network, scripted", "network", "network, 1 pass")
    ratios = [
        f"{name} " + " and ".join(f"{report.rows[rival][label] / report.rows[name][label]:.0f}" for rival in rivals)
        for name in ours
    ]
    return f"{label}: how many times as fast as {' and '.join(rivals)}: {'; '.join(ratios)}"


def _architecture(steps: int) -> Report:
    report = Report(f"Test error in mm after {steps} steps of 64 pairs, one seed", "published architecture")
    published = ["architecture=official", "identity_init=true", "dropout=0.0", "lr=0.001"]
    for name, changes in (("published architecture", published), ("bone-local network", [])):
        overrides = [f"model.{change}" for change in changes]
        overrides += [f"data.pairs={64 * steps}", "data.batch_size=64", "trainer.max_epochs=1"]
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            summary = train(compose("humans/learnable-smplify", [*QUIET, *overrides, f"run_dir={folder}/run"]))
        row = {group: summary["metrics"][f"test/pve_{group}"] for group in ("s1", "s5", "s9", "wide_s5")}
        report.rows[name] = {**row, "parameters": summary["parameters"], "cpu seconds": time.process_time() - start}
    return report
