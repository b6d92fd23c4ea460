"""SPIN's losses and their weights. Source: Kolotouros et al., ICCV 2019."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses.

    Attributes:
        keypoints, keypoints_3d, pose, betas, vertices: of the losses.
        openpose, superset: of the two halves of the 49 joints in the 2-D loss.
        overall: of the sum.
    """

    keypoints: float = 5.0
    keypoints_3d: float = 5.0
    pose: float = 1.0
    betas: float = 0.001
    vertices: float = 0.0
    openpose: float = 0.0
    superset: float = 1.0
    overall: float = 60.0


def keypoint_loss(prediction: Tensor, target: Tensor, weights: LossWeights) -> Tensor:
    """Mean of conf (p - t)^2 over all 49 joints, those of weight 0 included.

    Args:
        prediction: (B, 49, 2) in [-1, 1] across the crop.
        target: (B, 49, 3) likewise with confidence.
    """
    confidence = target[..., 2:].clone()
    confidence[:, :25] *= weights.openpose
    confidence[:, 25:] *= weights.superset
    return (confidence * (prediction - target[..., :2]).square()).mean()


def keypoint_3d_loss(prediction: Tensor, target: Tensor, has_pose_3d: Tensor) -> Tensor:
    """Mean of conf (p - t)^2 over the superset's joints about the middle of the hips, where there is a truth.

    Args:
        prediction: (B, 49, 3) metres.
        target: (B, 24, 4) with confidence.
        has_pose_3d: (B,) which rows count.
    """
    rows = has_pose_3d.bool()
    if not bool(rows.any()):
        return prediction.sum() * 0.0
    found, truth, confidence = prediction[rows, 25:], target[rows, :, :3], target[rows, :, 3:]
    found = found - found[:, 2:4].mean(1, keepdim=True)
    truth = truth - truth[:, 2:4].mean(1, keepdim=True)
    return (confidence * (found - truth).square()).mean()


def smpl_losses(
    rotmats: Tensor, betas: Tensor, target_rotmats: Tensor, target_betas: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Squared errors of rotation matrices and of betas, over the rows where `valid` (B,) holds."""
    rows = valid.bool()
    if not bool(rows.any()):
        return rotmats.sum() * 0.0, betas.sum() * 0.0
    return F.mse_loss(rotmats[rows], target_rotmats[rows]), F.mse_loss(betas[rows], target_betas[rows])


def vertex_loss(vertices: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute error of vertices (B, V, 3) over the valid rows."""
    rows = valid.bool()
    return F.l1_loss(vertices[rows], target[rows]) if bool(rows.any()) else vertices.sum() * 0.0


def camera_loss(camera: Tensor) -> Tensor:
    """Keeps the scale positive: mean exp(-10 s)^2 of cameras (B, 3)."""
    return torch.exp(-10 * camera[:, 0]).square().mean()
