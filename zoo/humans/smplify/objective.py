"""The terms of SMPLify's objective, as used within SPIN.

Sources: Bogo et al., ECCV 2016; Kolotouros et al., ICCV 2019. Pixels are those of a 224 crop; sigma, thresholds and
weights have their published values in these units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zoo.humans.cameras import FOCAL_LENGTH, perspective_projection
from zoo.humans.smplify.prior import MaxMixturePrior, angle_terms

CameraJoints = Literal["auto", "superset", "openpose", "visible"]

# Neck and hips of OpenPose and the superset's hips: annotators put them elsewhere than the body model.
IGNORED_JOINTS = (1, 9, 12, 27, 28)
OPENPOSE_TORSO = (9, 12, 2, 5)  # right hip, left hip, right shoulder, left shoulder
SUPERSET_TORSO = (27, 28, 33, 34)


@dataclass(frozen=True)
class Weights:
    """Weights of the objective.

    Attributes:
        pose: of the mixture prior (squared where it is used, as are all below).
        shape: of the squared shape coefficients.
        angle: of the bent-backwards terms.
        depth: of the camera's distance from its first guess.
        sigma: of the robust error, pixels.
    """

    pose: float = 4.78
    shape: float = 5.0
    angle: float = 15.2
    depth: float = 100.0
    sigma: float = 100.0


DEFAULT_WEIGHTS = Weights()


def gmof(x: Tensor, sigma: float) -> Tensor:
    """Geman-McClure's robust square: x^2 for small x, sigma^2 for large."""
    squared = x.square()
    return sigma**2 * squared / (sigma**2 + squared)


def ignore_joints(keypoints: Tensor) -> Tensor:
    """The keypoints with confidence 0 where body model and annotators mean different points."""
    out = keypoints.clone()
    out[:, list(IGNORED_JOINTS), 2] = 0.0
    return out


def camera_weights(keypoints: Tensor, which: CameraJoints) -> Tensor:
    """Weights (B, 49) of the squared pixel errors in the camera stage.

    Args:
        keypoints: (B, 49, 3).
        which: ``"auto"``: OpenPose's hips and shoulders if all four are seen, else the superset's, unweighted (the
            original); ``"superset"``, ``"openpose"``: always those; ``"visible"``: all of these weighted by
            confidence, or every joint where fewer than three of them are seen.
    """
    out = torch.zeros_like(keypoints[..., 2])
    if which == "visible":
        torso = [*OPENPOSE_TORSO, *SUPERSET_TORSO]
        confidence = keypoints[..., 2]
        out[:, torso] = confidence[:, torso]
        enough = (out > 0).sum(1, keepdim=True) >= 3
        return torch.where(enough, out, confidence).square()
    out[:, list(SUPERSET_TORSO if which != "openpose" else OPENPOSE_TORSO)] = 1.0
    if which == "auto":
        seen = (keypoints[:, list(OPENPOSE_TORSO), 2] > 0).all(1, keepdim=True)
        openpose = torch.zeros_like(out)
        openpose[:, list(OPENPOSE_TORSO)] = 1.0
        out = torch.where(seen, openpose, out)
    return out


def camera_energy(
    joints: Tensor,
    translation: Tensor,
    first_guess: Tensor,
    centre: Tensor,
    keypoints: Tensor,
    which: CameraJoints = "auto",
    focal_length: float = FOCAL_LENGTH,
    weights: Weights = DEFAULT_WEIGHTS,
) -> Tensor:
    """Objective of the camera stage per example, (B,).

    Args:
        joints: (B, 49, 3) metres.
        translation, first_guess: (B, 3) the camera's and where it started.
        centre: (B, 2) principal point, pixels.
        keypoints: (B, 49, 3) x, y, confidence; pixels.
        which: see `camera_weights`.
    """
    projected = perspective_projection(joints, None, translation, focal_length, centre)
    error = (projected - keypoints[..., :2]).square().sum(-1)
    depth = weights.depth**2 * (translation[:, 2] - first_guess[:, 2]).square()
    return (camera_weights(keypoints, which) * error).sum(1) + depth


def reprojection(
    joints: Tensor,
    translation: Tensor,
    centre: Tensor,
    keypoints: Tensor,
    focal_length: float = FOCAL_LENGTH,
    sigma: float = 100.0,
) -> Tensor:
    """conf^2 (gmof dx + gmof dy) of each joint, (B, 49); its mean over the joints compares fits."""
    projected = perspective_projection(joints, None, translation, focal_length, centre)
    return keypoints[..., 2].square() * gmof(projected - keypoints[..., :2], sigma).sum(-1)


def prior_energy(
    body_pose: Tensor,
    betas: Tensor,
    prior: MaxMixturePrior,
    weights: Weights = DEFAULT_WEIGHTS,
) -> Tensor:
    """What the objective knows without the image: pose, joint angles, shape; (B,)."""
    pose = weights.pose**2 * prior(body_pose)
    angle = weights.angle**2 * angle_terms(body_pose).sum(1)
    return pose + angle + weights.shape**2 * betas.square().sum(1)


def body_energy(
    body_pose: Tensor,
    betas: Tensor,
    joints: Tensor,
    translation: Tensor,
    centre: Tensor,
    keypoints: Tensor,
    prior: MaxMixturePrior,
    focal_length: float = FOCAL_LENGTH,
    weights: Weights = DEFAULT_WEIGHTS,
) -> Tensor:
    """Objective of the body stage per example, (B,); arguments as above."""
    data = reprojection(joints, translation, centre, keypoints, focal_length, weights.sigma).sum(1)
    return data + prior_energy(body_pose, betas, prior, weights)
