"""SMPLify: batches of bodies fitted to keypoints in crops or to joints in space.

Two stages: the camera with the body's orientation, then pose, shape and orientation with the camera fixed. Each
example is a problem of its own; a batch only shares the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.humans.cameras import FOCAL_LENGTH, IMG_RES, estimate_translation
from zoo.humans.joint_body import JointBody, JointJacobian
from zoo.humans.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from zoo.humans.smplify.gauss_newton import ImageTerm, PointTerm, Priors, minimise
from zoo.humans.smplify.objective import (
    DEFAULT_WEIGHTS,
    CameraJoints,
    Weights,
    body_energy,
    camera_energy,
    ignore_joints,
    prior_energy,
    reprojection,
)
from zoo.humans.smplify.prior import MaxMixturePrior
from zoo.ops.precision import in_full_precision

Optimizer = Literal["adam", "lbfgs", "gauss-newton"]


@dataclass(frozen=True)
class Fit:
    """Fitted bodies.

    Attributes:
        pose: (B, 72) rotation vectors.
        betas: (B, 10).
        translation: (B, 3) of the camera (or of the body, for joints in space), metres.
        reprojection: (B, 49) robust squared pixel errors weighted by confidence (joints in space: their squared
            distances in square metres).
        energy: (B,) the body stage's whole objective, priors included.
    """

    pose: Tensor
    betas: Tensor
    translation: Tensor
    reprojection: Tensor
    energy: Tensor

    @property
    def score(self) -> Tensor:
        """The mean reprojection term, (B,): by which SPIN compares fits."""
        return self.reprojection.mean(1)

    def select(self, other: Fit, better: Tensor) -> Fit:
        """This fit with the rows of `other` where `better` (B,) holds."""

        def pick(a: Tensor, b: Tensor) -> Tensor:
            return torch.where(better.view(-1, *[1] * (a.ndim - 1)), b, a)

        names = ("pose", "betas", "translation", "reprojection", "energy")
        return Fit(**{name: pick(getattr(self, name), getattr(other, name)) for name in names})


class SMPLify(nn.Module):
    """Fits bodies to joints.

    Args:
        joints: gives the 49 joints of a pose and shape.
        prior: of poses; its parameters are the state dict's only entries.
        steps: of each stage.
        optimizer: ``"adam"`` (the original, 0.01), ``"lbfgs"`` (whole batch, strong Wolfe) or ``"gauss-newton"``
            (damped, per example; some 10 steps do what Adam's 100 do).
        camera_joints: see `zoo.humans.smplify.objective.camera_weights`.
        focal_length: pixels.
        weights: of the objective.

    Raises:
        ConfigError: the prior is of another number of joint angles than the body has.
    """

    def __init__(
        self,
        joints: JointBody,
        prior: MaxMixturePrior | None = None,
        steps: int = 100,
        optimizer: Optimizer = "adam",
        camera_joints: CameraJoints = "auto",
        focal_length: float = FOCAL_LENGTH,
        weights: Weights = DEFAULT_WEIGHTS,
    ) -> None:
        super().__init__()
        self.joints = joints
        self.jacobian = JointJacobian(joints)
        self.prior = MaxMixturePrior() if prior is None else prior
        found, needed = self.prior.means.shape[1], 3 * (len(joints.parents) - 1)
        if found != needed:
            raise ConfigError(f"The pose prior is of {found} numbers, expected the {needed} of the body's pose.")
        self.steps, self.optimizer, self.camera_joints = steps, optimizer, camera_joints
        self.focal_length, self.weights = focal_length, weights

    def with_settings(self, steps: int, optimizer: Optimizer, camera_joints: CameraJoints = "superset") -> SMPLify:
        """The same body and prior with other settings."""
        return SMPLify(self.joints, self.prior, steps, optimizer, camera_joints, self.focal_length, self.weights)

    def posed(self, pose: Tensor, betas: Tensor) -> Tensor:
        """Joints of a pose (B, 72) and shape (B, 10): (B, 49, 3)."""
        joints: Tensor = self.joints(pose[:, :3], pose[:, 3:], betas)
        return joints

    @torch.no_grad()
    @in_full_precision
    def fitting_loss(
        self, pose: Tensor, betas: Tensor, translation: Tensor, keypoints: Tensor, centre: Tensor | None = None
    ) -> Tensor:
        """The reprojection terms of given bodies, (B, 49), without any fitting; arguments as of `forward`."""
        centre = self._centre(keypoints) if centre is None else centre
        joints = self.posed(pose, betas)
        return reprojection(
            joints, translation, centre, ignore_joints(keypoints), self.focal_length, self.weights.sigma
        )

    def _centre(self, keypoints: Tensor) -> Tensor:
        return keypoints.new_full((len(keypoints), 2), IMG_RES / 2)

    @in_full_precision
    def forward(
        self,
        pose: Tensor,
        betas: Tensor,
        translation: Tensor,
        keypoints: Tensor,
        centre: Tensor | None = None,
    ) -> Fit:
        """Fits to keypoints of a 224 crop.

        Args:
            pose: (B, 72) rotation vectors to start from.
            betas: (B, 10).
            translation: (B, 3) camera, see `zoo.humans.cameras.crop_translation`.
            keypoints: (B, 49, 3) x, y, confidence, pixels.
            centre: (B, 2) principal point, pixels; the crop's middle by default.
        """
        centre = self._centre(keypoints) if centre is None else centre
        problem = _Problem(self, keypoints, centre)
        stages = {"adam": problem.adam, "lbfgs": problem.lbfgs, "gauss-newton": problem.gauss_newton}
        return stages[self.optimizer](pose.detach(), betas.detach(), translation.detach())

    @in_full_precision
    def start(self, keypoints: Tensor, yaw: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """The prior's mean pose, turned by `yaw` degrees from facing the camera, with the camera that suits it.

        Returns:
            Pose (B, 72), betas (B, 10) and translation (B, 3).
        """
        count = len(keypoints)
        flip = rotvec_to_rotmat(keypoints.new_tensor([torch.pi, 0.0, 0.0]))
        turn = rotvec_to_rotmat(keypoints.new_tensor([0.0, yaw * torch.pi / 180, 0.0]))
        orient = rotmat_to_rotvec(flip @ turn).expand(count, 3)
        pose = torch.cat([orient, self.prior.mean_pose().to(keypoints).expand(count, -1)], 1)
        betas = keypoints.new_zeros(count, 10)
        translation, _ = estimate_translation(
            self.posed(pose, betas)[:, 25:], keypoints[:, 25:], self.focal_length, float(IMG_RES)
        )
        # A body seen at a slant can make the depth negative or far too small: keep it in front of the camera.
        nearest = 2 * self.focal_length / (IMG_RES * 2.5)
        translation = torch.cat([translation[:, :2], translation[:, 2:].clamp(nearest, 6 * nearest)], 1)
        return pose, betas, translation

    def from_scratch(self, keypoints: Tensor, yaws: tuple[float, ...] = (0.0,)) -> Fit:
        """Fits from the mean pose, started at each of the yaws (degrees); the lowest objective wins.

        The reprojection alone can't tell a body from its turned double; the priors often can.

        Args:
            keypoints: (B, 49, 3) x, y, confidence, pixels of a 224 crop.
            yaws: starts.
        """
        best: Fit | None = None
        for yaw in yaws:
            fit: Fit = self(*self.start(keypoints, yaw), keypoints)
            best = fit if best is None else best.select(fit, fit.energy < best.energy)
        assert best is not None
        return best

    @in_full_precision
    def fit_points(
        self, points: Tensor, confidence: Tensor | None = None, pose: Tensor | None = None, betas: Tensor | None = None
    ) -> Fit:
        """Fits to the 49 joints in space by Gauss-Newton.

        Args:
            points: (B, 49, 3) metres, in any frame.
            confidence: (B, 49); 1 by default, 0 for a joint that is not there.
            pose, betas: where to start; the prior's mean pose, upright, by default.
        """
        count = len(points)
        confidence = points.new_ones(count, 49) if confidence is None else confidence
        if betas is None:
            betas = points.new_zeros(count, 10)
        if pose is None:
            pose = torch.cat([points.new_zeros(count, 3), self.prior.mean_pose().to(points).expand(count, -1)], 1)
            pose = torch.cat([self._align(pose, betas, points, confidence), pose[:, 3:]], 1)
        here = self.posed(pose, betas)
        share = confidence.unsqueeze(-1) / confidence.sum(1).clamp_min(1e-6)[:, None, None]
        translation = ((points - here) * share).sum(1)
        term = PointTerm(points, confidence)
        pose, betas, translation, energy = minimise(
            self.joints, self.jacobian, term, Priors(self.prior, self.weights), pose, betas, translation, self.steps
        )
        moved = self.posed(pose, betas) + translation.unsqueeze(1)
        return Fit(pose, betas, translation, confidence * (moved - points).square().sum(-1), energy)

    def _align(self, pose: Tensor, betas: Tensor, points: Tensor, confidence: Tensor) -> Tensor:
        """Global orientation (B, 3) that turns the body's torso to the points'."""
        import roma

        torso = [9, 12, 2, 5, 27, 28, 33, 34, 37, 39]
        here = self.posed(pose, betas)[:, torso]
        weight = confidence[:, torso] + 1e-6
        rotation, _ = roma.rigid_points_registration(here, points[:, torso], weights=weight)
        return rotmat_to_rotvec(rotation)


class _Problem:
    """One batch to fit."""

    def __init__(self, solver: SMPLify, keypoints: Tensor, centre: Tensor) -> None:
        self.solver, self.centre = solver, centre
        self.all_keypoints, self.keypoints = keypoints, ignore_joints(keypoints)
        # With the superset chosen, ignored OpenPose hips do not matter; with "auto" they are looked at beforehand.
        self.focal, self.weights = solver.focal_length, solver.weights

    def _camera_loss(self, first_guess: Tensor, body_pose: Tensor, betas: Tensor) -> Callable[[Tensor], Tensor]:
        solver = self.solver

        def loss(numbers: Tensor) -> Tensor:
            joints = solver.joints(numbers[:, :3], body_pose, betas)
            which = solver.camera_joints
            return camera_energy(
                joints, numbers[:, 3:], first_guess, self.centre, self.all_keypoints, which, self.focal, self.weights
            )

        return loss

    def _body_loss(self, translation: Tensor) -> Callable[[Tensor], Tensor]:
        solver = self.solver

        def loss(numbers: Tensor) -> Tensor:
            orient, body_pose, betas = numbers.split((3, 69, numbers.shape[1] - 72), 1)
            joints = solver.joints(orient, body_pose, betas)
            return body_energy(
                body_pose,
                betas,
                joints,
                translation,
                self.centre,
                self.keypoints,
                solver.prior,
                self.focal,
                self.weights,
            )

        return loss

    def _two_stages(self, pose: Tensor, betas: Tensor, translation: Tensor, descend: Callable[..., Tensor]) -> Fit:
        camera = descend(self._camera_loss(translation, pose[:, 3:], betas), torch.cat([pose[:, :3], translation], 1))
        orient, translation = camera[:, :3], camera[:, 3:]
        numbers = descend(self._body_loss(translation), torch.cat([orient, pose[:, 3:], betas], 1))
        return self._result(numbers[:, :72], numbers[:, 72:], translation)

    @torch.no_grad()
    def _result(self, pose: Tensor, betas: Tensor, translation: Tensor) -> Fit:
        joints = self.solver.posed(pose, betas)
        terms = reprojection(joints, translation, self.centre, self.keypoints, self.focal, self.weights.sigma)
        energy = terms.sum(1) + prior_energy(pose[:, 3:], betas, self.solver.prior, self.weights)
        return Fit(pose, betas, translation, terms, energy)

    def adam(self, pose: Tensor, betas: Tensor, translation: Tensor) -> Fit:
        def descend(loss: Callable[[Tensor], Tensor], numbers: Tensor) -> Tensor:
            with torch.enable_grad():
                numbers = numbers.clone().requires_grad_()
                optimizer = torch.optim.Adam([numbers], lr=1e-2, betas=(0.9, 0.999))
                for _ in range(self.solver.steps):
                    (numbers.grad,) = torch.autograd.grad(loss(numbers).sum(), numbers)
                    optimizer.step()
            return numbers.detach()

        return self._two_stages(pose, betas, translation, descend)

    def lbfgs(self, pose: Tensor, betas: Tensor, translation: Tensor) -> Fit:
        def descend(loss: Callable[[Tensor], Tensor], numbers: Tensor) -> Tensor:
            numbers = numbers.clone().requires_grad_()
            steps = self.solver.steps
            optimizer = torch.optim.LBFGS([numbers], 1.0, steps, 2 * steps, line_search_fn="strong_wolfe")

            def closure() -> Tensor:
                with torch.enable_grad():
                    value = loss(numbers).sum()
                    (numbers.grad,) = torch.autograd.grad(value, numbers)
                return value.detach()

            optimizer.step(closure)
            return numbers.detach()

        return self._two_stages(pose, betas, translation, descend)

    @torch.no_grad()
    def gauss_newton(self, pose: Tensor, betas: Tensor, translation: Tensor) -> Fit:
        solver = self.solver
        camera = ImageTerm(self.all_keypoints, self.centre, self.focal, None, solver.camera_joints)
        pose, betas, translation, _ = minimise(
            solver.joints,
            solver.jacobian,
            replace(camera, depth_guess=translation[:, 2], depth_weight=self.weights.depth),
            None,
            pose,
            betas,
            translation,
            min(solver.steps, 10),
        )
        body = ImageTerm(self.keypoints, self.centre, self.focal, self.weights.sigma, None)
        priors = Priors(solver.prior, self.weights)
        pose, betas, translation, _ = minimise(
            solver.joints, solver.jacobian, body, priors, pose, betas, translation, solver.steps
        )
        return self._result(pose, betas, translation)
