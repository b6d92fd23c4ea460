"""Where ArtEq's error comes from: the shipped weights with parts of the truth given, and the truth with errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import roma
import torch
import torch.nn.functional as F
from torch import Tensor

import zoo
from tools.benchmark.report import Report
from zoo.data.body_clouds import CONDITIONS, BodyClouds, CloudBatch, draw_bodies
from zoo.humans.arteq.losses import BodyState
from zoo.humans.arteq.network import NUM_PARTS
from zoo.humans.arteq.parts import global_rotations
from zoo.humans.arteq.regression import CloudRegression
from zoo.humans.joints import SMPL_24
from zoo.humans.rotations import rotvec_to_rotmat

# From the points, the true parts' labels and the truth to rotations (B, 22, 3, 3) and betas (B, 10).
Estimate = Callable[[CloudBatch, BodyState], tuple[Tensor, Tensor]]

_SHOULDERS = [SMPL_24.index(f"{side}_shoulder") for side in ("left", "right")]
# Degrees, mean of both, by which wide poses are told apart.
_TURNED = (0, 90, 125, 180)


@torch.no_grad()
def run(people: int = 96, points: int = 256) -> Report:
    """V2V on the test people under each condition.

    Args:
        people: of the test.
        points: per cloud.
    """
    module = zoo.load_pretrained("humans/arteq-standin").eval()
    assert isinstance(module, CloudRegression)
    errors: dict[str, list[Tensor]] = {}
    conditions, shoulders = [], []
    for batch in BodyClouds(points=points, test_size=people).test_dataloader():
        truth = module._truth(module.body, batch)
        conditions.append(batch["condition"])
        angles = batch["pose"].unflatten(1, (24, 3))[:, _SHOULDERS].norm(dim=-1).mean(1)
        shoulders.append(torch.rad2deg(angles))
        for name, estimate in _estimates(module):
            rotations, betas = estimate(batch, truth)
            found = module._state(module.body, rotations, betas)
            error = 100 * (found.vertices - truth.vertices).norm(dim=-1).mean(1)
            errors.setdefault(name, []).append(error)
    which = torch.cat(conditions)
    report = Report(f"V2V in cm, {people} people", "the weights")
    for name, parts in errors.items():
        values = torch.cat(parts)
        report.rows[name] = {
            condition.replace("_", ", ") or "upright": float(values[which == number].mean())
            for number, condition in enumerate(CONDITIONS)
        }
    raised, of_weights = torch.cat(shoulders), torch.cat(errors["the weights"])
    wide = which == CONDITIONS.index("wide")
    usual = raised[which == 0].quantile(0.95)
    report.notes.append(f"95 % of the people upright turn their shoulders by less than {usual:.0f} degrees from the T")
    for low, high in pairwise(_TURNED):
        rows = wide & (raised >= low) & (raised < high)
        if not bool(rows.any()):
            continue
        report.notes.append(
            f"the weights, wide poses, shoulders turned by {low} to {high} degrees: "
            f"{float(of_weights[rows].mean()):.2f} cm, {int(rows.sum())} people"
        )
    return report


def _estimates(module: CloudRegression) -> Iterator[tuple[str, Estimate]]:
    def found(batch: CloudBatch, truth: BodyState) -> tuple[Tensor, Tensor]:
        output = module(batch["points"])
        return output.pose, output.betas

    def of_true_parts(batch: CloudBatch, truth: BodyState) -> tuple[Tensor, Tensor]:
        output = module.network(batch["points"], F.one_hot(batch["labels"], NUM_PARTS).float())
        return output.pose, output.betas

    def oriented(batch: CloudBatch, truth: BodyState) -> tuple[Tensor, Tensor]:
        rotations, betas = found(batch, truth)
        return truth.rotations[:, :1] @ rotations[:, :1].mT @ rotations, betas

    def shaped(batch: CloudBatch, truth: BodyState) -> tuple[Tensor, Tensor]:
        return found(batch, truth)[0], truth.betas

    def posed(batch: CloudBatch, truth: BodyState) -> tuple[Tensor, Tensor]:
        return truth.rotations, found(batch, truth)[1]

    def registered(batch: CloudBatch, truth: BodyState) -> tuple[Tensor, Tensor]:
        bodies, _ = module.fit(batch["points"], rounds=10, views=1)
        return bodies.rotations, bodies.betas

    def shaped_by_registration(batch: CloudBatch, truth: BodyState) -> tuple[Tensor, Tensor]:
        return truth.rotations, registered(batch, truth)[1]

    def mean_pose(batch: CloudBatch, truth: BodyState) -> tuple[Tensor, Tensor]:
        pose, _ = draw_bodies(4000, np.random.default_rng([11, 0]), 0.25)
        mean = roma.special_procrustes(rotvec_to_rotmat(pose.unflatten(1, (-1, 3))).mean(0))
        local = mean.expand(len(truth.rotations), -1, -1, -1).clone()
        local[:, 0] = truth.rotations[:, 0]
        return global_rotations(local), truth.betas

    def turned(degrees: float) -> Estimate:
        def estimate(batch: CloudBatch, truth: BodyState) -> tuple[Tensor, Tensor]:
            random = torch.Generator().manual_seed(0)
            axis = F.normalize(torch.randn(*truth.rotations.shape[:2], 3, generator=random), dim=-1)
            return rotvec_to_rotmat(axis * np.deg2rad(degrees)) @ truth.rotations, truth.betas

        return estimate

    def shapeless(batch: CloudBatch, truth: BodyState) -> tuple[Tensor, Tensor]:
        return truth.rotations, torch.zeros_like(truth.betas)

    yield "the weights", found
    yield "... with true parts", of_true_parts
    yield "... with true orientation", oriented
    yield "... with true betas", shaped
    yield "... with true rotations", posed
    yield "... registered", registered
    yield "... registered, with true rotations", shaped_by_registration
    yield "training's mean pose, true orientation and betas", mean_pose
    yield "truth, but betas of zero", shapeless
    yield "truth, each part turned by 10 degrees", turned(10.0)
    yield "truth, each part turned by 20 degrees", turned(20.0)
