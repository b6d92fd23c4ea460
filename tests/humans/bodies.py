"""The tiny body and mixture of the reference numbers."""

from __future__ import annotations

from functools import cache

import torch

from tests.goldens import load, load_json
from zoo.humans.body import Body
from zoo.humans.joint_body import spin_joints
from zoo.humans.smpl_file import SMPLArrays, from_dict
from zoo.humans.smplify.objective import CameraJoints
from zoo.humans.smplify.prior import MaxMixturePrior
from zoo.humans.smplify.solver import Optimizer, SMPLify

SYSTEM = "humans-spin"


@cache
def tiny_arrays() -> SMPLArrays:
    golden = load(SYSTEM, "smpl_tiny")
    return from_dict({name[6:]: value.numpy() for name, value in golden.items() if name.startswith("model_")})


def tiny_body() -> Body:
    return Body(tiny_arrays(), load_json(SYSTEM, "vertex_ids"))


def golden_prior() -> MaxMixturePrior:
    golden = load(SYSTEM, "smplify_losses")
    prior = MaxMixturePrior()
    state = {name: golden[f"gmm_{name}"] for name in ("means", "covars", "weights")}
    prior.load_state_dict({**state, "em_steps": torch.tensor(1)})
    return prior


def tiny_solver(steps: int = 12, optimizer: Optimizer = "adam", camera: CameraJoints = "auto") -> SMPLify:
    joints = spin_joints(tiny_body(), load(SYSTEM, "smpl_tiny")["J_regressor_extra"])
    return SMPLify(joints, golden_prior(), steps, optimizer, camera)


def error(actual: torch.Tensor | None, expected: torch.Tensor) -> float:
    """Largest |a - b| / (1 + |b|), as the reference numbers' tolerances are meant."""
    assert actual is not None
    expected = expected.detach()
    return float(((actual.detach() - expected).abs() / (1 + expected.abs())).max())
