"""Fitting bodies to joints with the trained network: single frames, other estimators' results, whole motions."""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from torch import Tensor

from zoo.errors import DataError
from zoo.humans.body import Body
from zoo.humans.learnable_smplify.bones import Bones
from zoo.humans.learnable_smplify.descent import Descent
from zoo.humans.learnable_smplify.keypoints import named_joints
from zoo.humans.learnable_smplify.network import BoneNetwork
from zoo.humans.learnable_smplify.sequence import FIRST_ANCHORED, follow
from zoo.humans.learnable_smplify.shape import estimate_shape
from zoo.humans.rotations import rotmat_to_rotvec, rotvec_to_rotmat

_TORSO = (1, 8, 2, 5, 9, 12)
# Poses to begin with where none is known: SMPL's own, and one with hanging arms; degrees about z.
_ARMS_DOWN = {16: -65.0, 17: 65.0}
_FIRST_ROUNDS = 4
FEWEST = 6  # joints of a first frame whose pose is not given


@dataclass(frozen=True)
class FittedMotion:
    """Bodies fitted to joints, frame by frame.

    Attributes:
        pose: (T, 72) rotation vectors.
        betas: (1, S), the same body in all frames; (T, S) where each frame has its own.
        transl: (T, 3) metres; in a frame without any joints that of the nearest frame that has some.
        residual: (T,) mean distance of the joints that were seen, weighted by confidence, metres; 0 where none were.
    """

    pose: Tensor
    betas: Tensor
    transl: Tensor
    residual: Tensor


class Fitter:
    """Fits poses to joints of a named set.

    Args:
        network: trained.
        bones, body: of the body.
        keypoints: a set of `zoo.humans.joints.JOINT_SETS`, or the joints' names.

    Raises:
        ConfigError: no such set or names.
    """

    def __init__(
        self, network: BoneNetwork, bones: Bones, body: Body, keypoints: str | tuple[str, ...] = "body-25"
    ) -> None:
        self.network, self.bones, self.body = network, bones, body
        with torch.inference_mode(False):  # they are differentiated, and a test loop may have it on
            self.joints = named_joints(body, keypoints)

    def _given(self, joints: Tensor, confidence: Tensor | None) -> tuple[Tensor, Tensor]:
        """The joints that the body has, with NaN and confidence 0 made alike."""
        rows = self.joints.rows
        expected = int(rows.max()) + 1
        if joints.ndim != 3 or joints.shape[0] == 0 or joints.shape[1] < expected or joints.shape[2] != 3:
            raise DataError(
                f"The joints have the shape {tuple(joints.shape)}; expected (frames, at least {expected}, 3)."
            )
        if confidence is not None and confidence.shape != joints.shape[:2]:
            raise DataError(
                f"The confidence has the shape {tuple(confidence.shape)}; expected {tuple(joints.shape[:2])}."
            )
        chosen = joints[:, rows].float()
        sure = torch.ones_like(chosen[..., 0]) if confidence is None else confidence[:, rows].to(chosen)
        finite = chosen.isfinite().all(-1)
        sure = torch.where(finite, sure.clamp(0, 1), torch.zeros_like(sure)) * self.joints.sure.to(sure)
        return torch.where(finite.unsqueeze(-1), chosen, torch.zeros_like(chosen)), sure

    def step(self, rotmats: Tensor, betas: Tensor, joints: Tensor, sure: Tensor, doubt: float) -> Tensor:
        """The network's answer (B, 24, 3, 3) to joints as `_given` gives them."""
        target, confidence = self.joints.observe(joints, sure)
        exact = None if bool((confidence == 1).all()) else confidence
        doubts = joints.new_full((len(joints),), doubt)
        found: Tensor = self.network(self.bones, rotmats, betas, target, exact, doubts)
        return found

    def place(self, rotmats: Tensor, betas: Tensor, joints: Tensor, sure: Tensor) -> tuple[Tensor, Tensor]:
        """Translation (B, 3) in closed form, and the mean distance of the joints then, (B,)."""
        posed = self.joints.points.state(rotmats, betas).joints
        share = (sure / sure.sum(1, keepdim=True).clamp_min(1e-9)).unsqueeze(-1)
        transl = ((joints - posed) * share).sum(1)
        return transl, ((posed + transl.unsqueeze(1) - joints).norm(dim=-1) * share[..., 0]).sum(1)

    def first_pose(self, joints: Tensor, betas: Tensor, sure: Tensor) -> Tensor:
        """Poses (B, 24, 3, 3) of frames of which nothing is known: the best of several starts."""
        count = len(joints)
        target, confidence = self.joints.observe(joints, sure)
        starts = []
        for arms in ({}, _ARMS_DOWN):
            turns = joints.new_zeros(count, 24, 3)
            for joint, degrees in arms.items():
                turns[:, joint, 2] = degrees * torch.pi / 180
            starts.append(rotvec_to_rotmat(turns))
        found, energies = [], []
        points = self.joints.points
        for rotmats in starts:
            here, _ = self.joints.observe(points.state(rotmats, betas).joints, sure)
            weight = confidence[:, _TORSO] + 1e-6
            turn, _ = roma.rigid_points_registration(here[:, _TORSO], target[:, _TORSO], weights=weight)
            rotmats = torch.cat([(turn @ rotmats[:, 0]).unsqueeze(1), rotmats[:, 1:]], 1)
            for number in range(_FIRST_ROUNDS):
                rotmats = self.step(rotmats, betas, joints, sure, 0.0 if number else 0.2)
            found.append(rotmats)
            bend = rotmat_to_rotvec(rotmats[:, 1:]).square().sum((1, 2))
            energies.append(self.place(rotmats, betas, joints, sure)[1] + 0.001 * bend)
        best = torch.stack(energies).argmin(0)
        return torch.stack(found)[best, torch.arange(count, device=best.device)]

    def _refined(self, rotmats: Tensor, betas: Tensor, joints: Tensor, sure: Tensor, steps: int) -> Tensor:
        if steps == 0:
            return rotmats
        pose = rotmat_to_rotvec(rotmats).flatten(1)
        descent = Descent("lbfgs", steps, stay=1.0)
        for _ in range(2):  # the translation that suits the pose, then the pose, again
            transl, _ = self.place(rotvec_to_rotmat(pose.unflatten(1, (-1, 3))), betas, joints, sure)
            pose = descent(self.joints.points, pose, betas, transl, joints, sure)
        return rotvec_to_rotmat(pose.unflatten(1, (-1, 3)))

    def _shape(self, betas: Tensor | None, joints: Tensor, sure: Tensor, bodies: int) -> Tensor:
        """The betas (1, S) or (`bodies`, S) that are given, or those of one body in all frames."""
        if betas is None:
            return estimate_shape(self.joints.points, self.joints.names, joints, sure)
        allowed = {(count, self.body.num_betas) for count in (1, bodies)}
        if betas.shape not in allowed:
            expected = " or ".join(map(str, sorted(allowed)))
            raise DataError(f"The betas have the shape {tuple(betas.shape)}; expected {expected}.")
        return betas.to(joints)

    def _result(self, rotmats: Tensor, betas: Tensor, joints: Tensor, sure: Tensor) -> FittedMotion:
        transl, residual = self.place(rotmats, betas.expand(len(rotmats), -1), joints, sure)
        frame = torch.arange(len(joints), device=joints.device)
        seen = frame[(sure > 0).any(1)]
        if 0 < len(seen) < len(joints):
            transl = transl[seen[(frame.unsqueeze(1) - seen).abs().argmin(1)]]
        return FittedMotion(rotmat_to_rotvec(rotmats).flatten(1), betas, transl, residual)

    @torch.no_grad()
    def frames(
        self,
        joints: Tensor,
        init: Tensor | None = None,
        betas: Tensor | None = None,
        confidence: Tensor | None = None,
        refine: int = 0,
        rounds: int = 2,
        doubt: float = 0.1,
    ) -> FittedMotion:
        """Fits frames that have nothing to do with one another, each from an estimate of its own, such as SPIN's.

        Args:
            joints: (B, K, 3) metres, in the frame of the estimates (a camera's, say); NaN where there are none.
            init: (B, 72) rotation vectors or (B, 24, 3, 3) matrices; None to find them.
            betas: (B, S) or (1, S); None to estimate one body from all frames.
            confidence: (B, K), see `BoneNetwork.forward`; 1 by default.
            refine: L-BFGS iterations after the network, twice so many.
            rounds: applications of the network.
            doubt: of the estimates, see `BoneNetwork.forward`.

        Raises:
            DataError: shapes that do not fit.
        """
        joints, sure = self._given(joints, confidence)
        betas = self._shape(betas, joints, sure, len(joints))
        each = betas.expand(len(joints), -1)
        rotmats = self.first_pose(joints, each, sure) if init is None else _matrices(init, len(joints))
        for number in range(rounds):  # after the first, what the joints do not show has been set right
            rotmats = self.step(rotmats, each, joints, sure, 0.0 if number else doubt)
        return self._result(self._refined(rotmats, each, joints, sure, refine), betas, joints, sure)

    @torch.no_grad()
    def sequence(
        self,
        joints: Tensor,
        init: Tensor | None = None,
        betas: Tensor | None = None,
        confidence: Tensor | None = None,
        refine: int = 0,
        doubt: float = 0.0,
        anchor: bool = True,
    ) -> FittedMotion:
        """Fits a motion, each frame from the one before.

        Args:
            joints: (T, K, 3) metres; NaN where there are none.
            init: (72,) rotation vectors or (24, 3, 3) matrices of the first frame; None to find it.
            betas: (1, S); None to estimate it from all frames.
            confidence, refine: see `frames`.
            doubt: of the pose before.
            anchor: let the pose found straight from the first frame compete, see
                `zoo.humans.learnable_smplify.sequence.follow`.

        Raises:
            DataError: shapes that do not fit.
        """
        joints, sure = self._given(joints, confidence)
        betas = self._shape(betas, joints, sure, 1)
        if init is None and int((sure[0] > 0).sum()) < FEWEST:
            raise DataError(f"The first frame has fewer than {FEWEST} joints to find its pose from: give init.")
        first = self.first_pose(joints[:1], betas, sure[:1]) if init is None else _matrices(init.unsqueeze(0), 1)
        if init is None:
            first = self._refined(first, betas, joints[:1], sure[:1], 20)

        def step(pose: Tensor, frame: int) -> Tensor:
            now = slice(frame, frame + 1)
            return self.step(pose, betas, joints[now], sure[now], doubt)

        def distance(pose: Tensor, frame: int) -> Tensor:
            now = slice(frame, frame + 1)
            return self.place(pose, betas, joints[now], sure[now])[1]

        if len(joints) > 1:
            later = follow(step, first, len(joints), distance, step if anchor else None, FIRST_ANCHORED)
            first = torch.cat([first, later[:, 0]])
        each = betas.expand(len(joints), -1)
        return self._result(self._refined(first, each, joints, sure, refine), betas, joints, sure)


def _matrices(pose: Tensor, count: int) -> Tensor:
    rotmats = rotvec_to_rotmat(pose.unflatten(-1, (24, 3))) if pose.shape[-1] == 72 else pose
    if rotmats.shape != (count, 24, 3, 3):
        raise DataError(
            f"The initial pose has the shape {tuple(pose.shape)}; expected 72 numbers or (24, 3, 3) a frame."
        )
    return rotmats.float()
