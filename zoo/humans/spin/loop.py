"""SPIN's step: the network starts the fit, the better fit teaches the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zoo.humans.cameras import FOCAL_LENGTH, IMG_RES, crop_translation, estimate_translation, perspective_projection
from zoo.humans.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from zoo.humans.smplify.solver import SMPLify
from zoo.humans.spin.losses import (
    LossWeights,
    camera_loss,
    keypoint_3d_loss,
    keypoint_loss,
    smpl_losses,
    vertex_loss,
)
from zoo.humans.spin.network import Regression

Signal = Literal["spin", "static", "keypoints"]


@dataclass(frozen=True)
class Teaching:
    """What the network is taught.

    Attributes:
        pose, betas: (B, 72) and (B, 10), the better of stored and new fit.
        translation: (B, 3) its camera, or that of the truth where it is known.
        loss: (B,) its reprojection.
        update: (B,) where the new fit is better than the stored one.
        target_pose, target_betas: with the truth where it is known, and betas beyond 3 put to zero.
        mesh_betas: like `target_betas`, but of the fit as it is: the original does not put the mesh right.
        valid: (B,) where the target is good enough to teach.
    """

    pose: Tensor
    betas: Tensor
    translation: Tensor
    loss: Tensor
    update: Tensor
    target_pose: Tensor
    target_betas: Tensor
    mesh_betas: Tensor
    valid: Tensor


@torch.no_grad()
def teach(
    solver: SMPLify,
    regression: Regression | None,
    stored: tuple[Tensor, Tensor],
    keypoints: Tensor,
    truth: tuple[Tensor, Tensor, Tensor],
    threshold: float = 100.0,
) -> Teaching:
    """Chooses between the stored fits and new ones that start at the network's prediction.

    Args:
        solver: of the fits.
        regression: the network's bodies; None to keep the stored fits.
        stored: pose (B, 72) and betas (B, 10), as the augmented images show them.
        keypoints: (B, 49, 3) pixels of a 224 crop.
        truth: pose (B, 72), betas (B, 10), and (B,) where they are known.
        threshold: of the mean reprojection above which a fit does not teach.
    """
    pose, betas = stored
    joints = solver.posed(pose, betas)
    translation, _ = estimate_translation(joints[:, 25:], keypoints[:, 25:], solver.focal_length, IMG_RES)
    loss = solver.fitting_loss(pose, betas, translation, keypoints).mean(1)
    update = torch.zeros_like(loss, dtype=torch.bool)
    if regression is not None:
        start = rotmat_to_rotvec(regression.rotmats.detach().float()).flatten(1).nan_to_num(0.0)
        camera = crop_translation(regression.camera.detach().float(), solver.focal_length)
        fit = solver(start, regression.betas.detach().float(), camera, keypoints)
        finite = fit.pose.isfinite().all(1) & fit.betas.isfinite().all(1)
        update = (fit.score < loss) & finite
        rows = update.unsqueeze(1)
        pose, betas = torch.where(rows, fit.pose, pose), torch.where(rows, fit.betas, betas)
        translation, loss = torch.where(rows, fit.translation, translation), torch.where(update, fit.score, loss)
    known = truth[2].bool()
    if bool(known.any()):
        joints = solver.posed(truth[0], truth[1])
        true_camera, _ = estimate_translation(joints[:, 25:], keypoints[:, 25:], solver.focal_length, IMG_RES)
        translation = torch.where(known.unsqueeze(1), true_camera, translation)
    extreme = (betas.abs() > 3).any(1, keepdim=True)
    target_betas = torch.where(extreme, torch.zeros_like(betas), betas)
    return Teaching(
        pose,
        betas,
        translation,
        loss,
        update,
        torch.where(known.unsqueeze(1), truth[0], pose),
        torch.where(known.unsqueeze(1), truth[1], target_betas),
        torch.where(known.unsqueeze(1), truth[1], betas),
        (loss < threshold) | known,
    )


def training_losses(
    regression: Regression,
    joints: Tensor,
    teaching: Teaching | None,
    keypoints: Tensor,
    pose_3d: tuple[Tensor, Tensor] | None,
    weights: LossWeights,
    vertices: tuple[Tensor, Tensor] | None = None,
) -> dict[str, Tensor]:
    """SPIN's losses, and their weighted sum under ``"total"``.

    Args:
        regression: the network's bodies.
        joints: (B, 49, 3) of them.
        teaching: None to learn from the keypoints alone.
        keypoints: (B, 49, 3) in [-1, 1].
        pose_3d: joints (B, 24, 4) with confidence, and (B,) where they are known.
        weights: of the losses.
        vertices: (B, V, 3) of the regressed bodies and of those that teach, metres; None for no loss on them.
    """
    translation = crop_translation(regression.camera)
    half = IMG_RES / 2
    projected = perspective_projection(joints, None, translation, FOCAL_LENGTH, joints.new_zeros(2)) / half
    losses = {"keypoints": keypoint_loss(projected, keypoints, weights)}
    total = weights.keypoints * losses["keypoints"] + camera_loss(regression.camera)
    if pose_3d is not None:
        losses["keypoints_3d"] = keypoint_3d_loss(joints, *pose_3d)
        total = total + weights.keypoints_3d * losses["keypoints_3d"]
    if teaching is not None:
        target = rotvec_to_rotmat(teaching.target_pose.unflatten(1, (-1, 3)))
        losses["pose"], losses["betas"] = smpl_losses(
            regression.rotmats, regression.betas, target, teaching.target_betas, teaching.valid
        )
        total = total + weights.pose * losses["pose"] + weights.betas * losses["betas"]
        if vertices is not None:
            losses["vertices"] = vertex_loss(*vertices, teaching.valid)
            total = total + weights.vertices * losses["vertices"]
    losses["total"] = weights.overall * total
    return losses
