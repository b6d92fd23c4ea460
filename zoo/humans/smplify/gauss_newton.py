"""Damped Gauss-Newton (Levenberg-Marquardt) on SMPLify's objective, each example with its own damping.

The joints' Jacobian is written out (`zoo.humans.joint_body.JointJacobian`); robust errors enter by their
reweighted squares, the priors by their exact second derivatives within the best mixture component.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.humans.body import pose_matrices
from zoo.humans.joint_body import JointBody, JointJacobian, JointState
from zoo.humans.smplify.objective import CameraJoints, Weights, camera_weights, gmof, prior_energy
from zoo.humans.smplify.prior import ANGLE_INDICES, ANGLE_SIGNS, MaxMixturePrior, angle_terms

_MAX_DAMPING = 1e7


@dataclass(frozen=True)
class ImageTerm:
    """Squared pixel errors of projected joints.

    Attributes:
        keypoints: (B, 49, 3) x, y, confidence.
        centre: (B, 2) principal point.
        focal: pixels.
        sigma: of the robust error; None for plain squares (the camera stage).
        camera_joints: the camera stage's joints; then only orientation and camera move.
        depth_guess, depth_weight: the camera stage's pull on the depth.
    """

    keypoints: Tensor
    centre: Tensor
    focal: float
    sigma: float | None
    camera_joints: CameraJoints | None
    depth_guess: Tensor | None = None
    depth_weight: float = 0.0

    def free(self, shapes: int) -> list[int]:
        """Columns of (pose, betas, translation) that move."""
        if self.camera_joints is None:
            return list(range(72 + shapes))
        return [0, 1, 2, *range(72 + shapes, 75 + shapes)]

    def _weight(self) -> Tensor:
        if self.camera_joints is not None:
            return camera_weights(self.keypoints, self.camera_joints)
        return self.keypoints[..., 2].square()

    def energy(self, joints: Tensor, translation: Tensor) -> Tensor:
        """The term's value, (B,)."""
        error, _ = self._error(joints, translation)
        cost = error.square() if self.sigma is None else gmof(error, self.sigma)
        value = (self._weight().unsqueeze(-1) * cost).sum((1, 2))
        if self.depth_guess is not None:
            value = value + self.depth_weight**2 * (translation[:, 2] - self.depth_guess).square()
        return value

    def _error(self, joints: Tensor, translation: Tensor) -> tuple[Tensor, Tensor]:
        point = joints + translation.unsqueeze(1)
        return self.focal * point[..., :2] / point[..., 2:] + self.centre.unsqueeze(1) - self.keypoints[..., :2], point

    def normal_equations(self, joints: Tensor, translation: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
        """Half the gradient (B, N) and half the Hessian (B, N, N) for columns (pose, betas, translation)."""
        error, point = self._error(joints, translation)
        weight = self._weight().unsqueeze(-1).expand_as(error)
        if self.sigma is not None:
            weight = weight * (self.sigma**2 / (self.sigma**2 + error.square())).square()
        scale = (self.focal / point[..., 2]).unsqueeze(-1)
        slope = point[..., :2] / point[..., 2:]
        rows = scale.unsqueeze(-1) * (jacobian[:, :, :2] - slope.unsqueeze(-1) * jacobian[:, :, 2:])
        gradient, hessian = _accumulate(rows.flatten(1, 2), weight.flatten(1), error.flatten(1))
        if self.depth_guess is not None:
            gradient[:, -1] += self.depth_weight**2 * (translation[:, 2] - self.depth_guess)
            hessian[:, -1, -1] += self.depth_weight**2
        return gradient, hessian


@dataclass(frozen=True)
class PointTerm:
    """Squared distances to joints in space, in units of `unit`.

    Attributes:
        points: (B, 49, 3) metres.
        confidence: (B, 49).
        unit: metres that cost as much as one pixel does in an image.
    """

    points: Tensor
    confidence: Tensor
    unit: float = 0.005

    def free(self, shapes: int) -> list[int]:
        """Columns of (pose, betas, translation) that move: all."""
        return list(range(75 + shapes))

    def energy(self, joints: Tensor, translation: Tensor) -> Tensor:
        """The term's value, (B,)."""
        error = (joints + translation.unsqueeze(1) - self.points) / self.unit
        return (self.confidence * error.square().sum(-1)).sum(1)

    def normal_equations(self, joints: Tensor, translation: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
        """Half the gradient (B, N) and half the Hessian (B, N, N)."""
        error = (joints + translation.unsqueeze(1) - self.points) / self.unit
        weight = self.confidence.unsqueeze(-1).expand_as(error)
        return _accumulate(jacobian.flatten(1, 2) / self.unit, weight.flatten(1), error.flatten(1))


@dataclass(frozen=True)
class Priors:
    """Pose, angle and shape priors with their weights."""

    pose: MaxMixturePrior
    weights: Weights

    def energy(self, pose: Tensor, betas: Tensor) -> Tensor:
        """(B,)."""
        return prior_energy(pose[:, 3:], betas, self.pose, self.weights)

    def add(self, pose: Tensor, betas: Tensor, gradient: Tensor, hessian: Tensor) -> None:
        """Adds half the derivatives, in place."""
        own = self.weights
        _, slope, curve = self.pose.quadratic(pose[:, 3:])
        gradient[:, 3:72] += 0.5 * own.pose**2 * slope
        hessian[:, 3:72, 3:72] += 0.5 * own.pose**2 * curve
        terms = own.angle**2 * angle_terms(pose[:, 3:])
        places = [3 + k for k in ANGLE_INDICES]
        gradient[:, places] += terms * terms.new_tensor(ANGLE_SIGNS)
        hessian[:, places, places] += 2 * terms
        shapes = slice(72, 72 + betas.shape[1])
        gradient[:, shapes] += own.shape**2 * betas
        hessian.diagonal(dim1=1, dim2=2)[:, shapes] += own.shape**2


def _accumulate(rows: Tensor, weight: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    weighted = rows * weight.unsqueeze(-1)
    return (weighted.transpose(1, 2) @ error.unsqueeze(-1)).squeeze(-1), weighted.transpose(1, 2) @ rows


@torch.no_grad()
def minimise(
    joints: JointBody,
    jacobian: JointJacobian,
    term: ImageTerm | PointTerm,
    priors: Priors | None,
    pose: Tensor,
    betas: Tensor,
    translation: Tensor,
    steps: int,
    damping: float = 1e-2,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Minimises a data term and the priors.

    Args:
        joints, jacobian: the body's joints and their derivatives.
        term: the data.
        priors: None for the data alone.
        pose: (B, 72) to start from.
        betas: (B, S).
        translation: (B, 3).
        steps: at most; an example stops when its damping has grown without finding a lower point.
        damping: at first, relative to the Hessian's diagonal.

    Returns:
        Pose, betas, translation and the objective (B,).
    """
    free = term.free(betas.shape[1])
    count, places = len(pose), torch.tensor(free, device=pose.device)
    split = (72, betas.shape[1], 3)
    numbers = torch.cat([pose, betas, translation], 1)

    def evaluate(at: Tensor) -> tuple[Tensor, JointState]:
        new_pose, new_betas, new_translation = at.split(split, 1)
        state = joints.state(pose_matrices(new_pose[:, :3], new_pose[:, 3:]), new_betas)
        value = term.energy(state.joints, new_translation)
        if priors is not None:
            value = value + priors.energy(new_pose, new_betas)
        return value, state

    strength = numbers.new_full((count,), damping)
    energy, state = evaluate(numbers)
    for _ in range(steps):
        new_pose, new_betas, new_translation = numbers.split(split, 1)
        if len(free) == 6:  # the camera stage
            by_body = jacobian.of_root(state, new_pose[:, :3])
        else:
            by_body = jacobian(state, new_pose.unflatten(1, (-1, 3)))
        by_shift = torch.eye(3, dtype=pose.dtype, device=pose.device).expand(*by_body.shape[:3], 3)
        full = torch.cat([by_body, by_shift], -1)
        gradient, hessian = term.normal_equations(state.joints, new_translation, full)
        if priors is not None:
            priors.add(new_pose, new_betas, gradient, hessian)
        if len(free) != gradient.shape[1]:
            gradient, hessian = gradient[:, : len(free)], hessian[:, : len(free), : len(free)]
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        damped = hessian + torch.diag_embed(strength.unsqueeze(1) * diagonal + 1e-6 * diagonal.amax(1, keepdim=True))
        factor, failed = torch.linalg.cholesky_ex(damped)
        step = -torch.cholesky_solve(gradient.unsqueeze(-1), factor).squeeze(-1)
        step = torch.where(failed.unsqueeze(1) > 0, torch.zeros_like(step), step.nan_to_num(0.0))
        trial = numbers.index_add(1, places, step)
        trial_energy, trial_state = evaluate(trial)
        better = trial_energy < energy
        energy = torch.where(better, trial_energy, energy)
        numbers = torch.where(better.unsqueeze(1), trial, numbers)
        state = state.select(trial_state, better)
        strength = torch.where(better, strength / 4, strength * 6).clamp(1e-7, _MAX_DAMPING)
        if bool((strength >= _MAX_DAMPING).all()):
            break
    new_pose, new_betas, new_translation = numbers.split(split, 1)
    return new_pose, new_betas, new_translation, energy
