"""One step of the published network: from a start pose and target joints to the target pose, and its losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.humans.body import Body
from zoo.humans.joint_body import JointBody
from zoo.humans.learnable_smplify.geometry import angle, normalise, published_angle
from zoo.humans.learnable_smplify.graph import POINTS
from zoo.humans.learnable_smplify.stgcn import OfficialNetwork
from zoo.humans.rotations import rotmat_to_rotvec

JOINTS = 22  # the root and the body without its hands


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses.

    Attributes:
        joints: of the mean distance of the joints, metres.
        pose: of the mean angle between rotations, times 2 / pi.
        vertices: of the mean distance of the vertices, metres.
    """

    joints: float = 5.0
    pose: float = 1.0
    vertices: float = 1.0


def regressed_joints(body: Body, regressor: Tensor) -> JointBody:
    """BODY_25 as the rows of a regressor (25, V) read it from the posed mesh, without making the mesh."""
    return JointBody(body, regressor, tuple(range(24, 24 + POINTS)))


def network_input(start: Tensor, target: Tensor) -> Tensor:
    """Joints (B, 25, 3) of start and target, with translations -> the network's (B, 3, 2, 25)."""
    return torch.stack(normalise(start, target), 1).permute(0, 3, 1, 2)


def step(network: OfficialNetwork, rotmats: Tensor, betas: Tensor, start: Tensor, target: Tensor) -> Tensor:
    """The pose that the network finds.

    Args:
        network: the published one.
        rotmats: (B, 24, 3, 3) of the start pose, of whose hands the network, as published, sees nothing.
        betas: (B, S), of which the first ten count.
        start: (B, 25, 3) joints of the start pose, with its translation.
        target: (B, 25, 3) joints to reach.

    Returns:
        (B, 24, 3, 3); the hands are the start's.
    """
    moving = rotmat_to_rotvec(rotmats[:, 1:JOINTS]).flatten(1)
    body_pose = torch.cat([moving, moving.new_zeros(len(moving), 6)], 1)
    residual = network(network_input(start, target), body_pose, betas[:, :10])
    return torch.cat([rotmats[:, :JOINTS] @ residual, rotmats[:, JOINTS:]], 1)


def losses(
    prediction: tuple[Tensor, Tensor, Tensor],
    truth: tuple[Tensor, Tensor, Tensor],
    weights: LossWeights | None = None,
    published: bool = True,
) -> dict[str, Tensor]:
    """The weighted terms: ``joints``, ``pose``, ``vertices``.

    Args:
        prediction, truth: rotations (B, >= 22, 3, 3), joints (B, 25, 3), vertices (B, V, 3); the last two in frames
            that differ by no translation.
        weights: of the terms.
        published: the angle with the published clamp, whose derivative vanishes near zero.
    """
    weights = LossWeights() if weights is None else weights
    between = published_angle if published else angle
    return {
        "joints": weights.joints * (prediction[1] - truth[1]).norm(dim=-1).mean(),
        "pose": weights.pose * between(prediction[0][:, :JOINTS], truth[0][:, :JOINTS]).mean(),
        "vertices": weights.vertices * (prediction[2] - truth[2]).norm(dim=-1).mean(),
    }
