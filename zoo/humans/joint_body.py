"""The joints of a body without its mesh: what fitting needs, exactly, at a small part of the cost.

A joint that is regressed from posed vertices is sum_v r_v sum_j w_vj (R_j p_v + a_j), where p_v is linear in
(1, shape, pose feature). Summed over v beforehand, it is sum_j (R_j m_j + c_j a_j) with m_j again linear in those:
a few dozen (joint, bone) pairs replace thousands of vertices.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from zoo.humans.body import Body, pose_matrices
from zoo.humans.joints import SPIN_49_SOURCES
from zoo.humans.rotations import right_jacobian, skew
from zoo.ops.precision import in_full_precision


@dataclass(frozen=True)
class JointState:
    """What the joints were computed from; Gauss-Newton differentiates it by hand.

    Attributes:
        joints: (B, K, 3) the wanted joints.
        rotmats: (B, J, 3, 3) rotations relative to the parents.
        world: (B, J, 4, 4) world transforms.
        rest: (B, J, 3) rest joints.
        moments: (B, P, 3) of the pairs, before rotation.
    """

    joints: Tensor
    rotmats: Tensor
    world: Tensor
    rest: Tensor
    moments: Tensor

    def select(self, other: JointState, chosen: Tensor) -> JointState:
        """This state with the rows of `other` where `chosen` (B,) holds."""
        if bool(chosen.all()):
            return other
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return JointState(*(torch.where(chosen.view(-1, *[1] * (a.ndim - 1)), b, a) for a, b in pairs))


class JointBody(nn.Module):
    """Selected joints of a body: posed joints, and points regressed from the posed mesh.

    Args:
        body: the full body.
        rows: (K', V) regressors of points from posed vertices.
        sources: which of the J posed joints followed by the K' points to give, in order; None for all.
    """

    basis: Tensor
    pair_mass: Tensor
    pair_bone: Tensor
    gather: Tensor
    joint_template: Tensor
    joint_shapedirs: Tensor
    identity: Tensor

    def __init__(self, body: Body, rows: Tensor, sources: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.parents, self.num_betas = body.parents, body.num_betas
        self.tree = body.tree
        count = len(body.parents)
        if sources is None:
            sources = tuple(range(count + len(rows)))
        support = rows.abs().sum(0).nonzero().squeeze(1)
        r, w = rows[:, support].double(), body.lbs_weights[support].double()
        mass = r @ w  # (K', J)
        # By magnitudes: where signs cancel there is no mass, but there is a moment.
        point, bone = (r.abs() @ w).gt(1e-9).nonzero(as_tuple=True)
        share = r[point] * w[:, bone].T  # (P, support)
        linear = torch.cat(
            [
                body.v_template[support].unsqueeze(-1),
                body.shapedirs[support],
                body.posedirs.unflatten(1, (-1, 3))[:, support].permute(1, 2, 0),
            ],
            -1,
        ).double()  # (support, 3, 1 + S + 9 (J - 1))
        gather = torch.zeros(len(sources), count + len(point))
        for row, source in enumerate(sources):
            if source < count:
                gather[row, source] = 1.0
            else:
                gather[row, count:][point == source - count] = 1.0
        constants = {
            "basis": torch.einsum("ps,scf->fpc", share, linear).flatten(1).float(),
            "pair_mass": mass[point, bone].float().unsqueeze(-1),
            "pair_bone": bone,
            "gather": gather,
            "joint_template": body.joint_template,
            "joint_shapedirs": body.joint_shapedirs.flatten(0, 1).T.contiguous(),
            "identity": torch.eye(3),
        }
        for name, value in constants.items():
            self.register_buffer(name, value.to(body.v_template.device), persistent=False)

    @in_full_precision
    def forward(self, global_orient: Tensor, body_pose: Tensor, betas: Tensor) -> Tensor:
        """Joints (B, K, 3) in metres; arguments as of `Body`."""
        return self.state(pose_matrices(global_orient, body_pose), betas).joints

    @in_full_precision
    def state(self, rotmats: Tensor, betas: Tensor) -> JointState:
        """Joints and intermediate results, from rotation matrices (B, J, 3, 3) and betas (B, S)."""
        rest = self.joint_template + (betas @ self.joint_shapedirs).unflatten(1, (-1, 3))
        world = self.tree(rotmats, rest)
        feature = (rotmats[:, 1:] - self.identity).flatten(1)
        moments = torch.addmm(self.basis[0], torch.cat([betas, feature], 1), self.basis[1:]).unflatten(1, (-1, 3))
        # R m + c (T - R J) = R (m - c J) + c T
        bone = world.index_select(1, self.pair_bone)
        lever = moments - self.pair_mass * rest.index_select(1, self.pair_bone)
        turned = (bone[..., :3, :3] @ lever.unsqueeze(-1)).squeeze(-1)
        parts = torch.cat([world[..., :3, 3], turned + self.pair_mass * bone[..., :3, 3]], 1)
        return JointState(self.gather @ parts, rotmats, world, rest, moments)


def spin_joints(body: Body, extra_regressor: Tensor) -> JointBody:
    """SPIN's 49 joints of a body.

    Args:
        body: the full body.
        extra_regressor: (9, V), ``J_regressor_extra``.
    """
    picked = torch.zeros(len(body.extra_joints_idxs), body.v_template.shape[0])
    picked[torch.arange(len(picked)), body.extra_joints_idxs] = 1.0
    return JointBody(body, torch.cat([picked, extra_regressor.float()]), SPIN_49_SOURCES)


class JointJacobian(nn.Module):
    """Derivatives of a `JointBody`'s joints, written out: what autograd would need one pass per number for.

    Args:
        joints: the joints.
    """

    spread: Tensor
    spread_mass: Tensor
    of_pairs: Tensor
    of_joints: Tensor
    shape_basis: Tensor
    pose_basis: Tensor
    rest_basis: Tensor
    generators: Tensor
    used: Tensor

    def __init__(self, joints: JointBody) -> None:
        super().__init__()
        self.joints = joints
        parents = joints.parents
        count = len(parents)
        below = torch.zeros(count, count, dtype=joints.gather.dtype)  # [i, j]: joint i hangs below j, or is it
        for i in range(count):
            j = i
            while j >= 0:
                below[i, j] = 1.0
                j = parents[j]
        device = joints.gather.device
        bones = torch.cat([torch.arange(count, device=device), joints.pair_bone])
        mass = torch.cat([joints.gather.new_ones(count, 1), joints.pair_mass])
        spread = joints.gather.unsqueeze(1) * below.to(device)[bones].T  # (K, J, parts)
        shapes = joints.num_betas
        of_pairs = joints.gather[:, count:]
        constants = {
            "spread": spread.flatten(0, 1),
            "spread_mass": (spread @ mass)[None],  # (1, K, J, 1)
            "of_pairs": of_pairs,
            "of_joints": joints.gather[:, :count],
            "shape_basis": joints.basis[1 : 1 + shapes].unflatten(1, (-1, 3)).permute(1, 2, 0),  # (P, 3, S)
            "pose_basis": joints.basis[1 + shapes :].unflatten(0, (-1, 9)),  # (J - 1, 9, 3 P)
            "rest_basis": joints.joint_shapedirs.unflatten(1, (-1, 3)).permute(1, 2, 0),  # (J, 3, S)
            "generators": skew(joints.identity),  # (3, 3, 3)
            "used": of_pairs.abs().sum(1).nonzero().squeeze(1),  # joints that are regressed from the mesh
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, state: JointState, rotvec: Tensor) -> Tensor:
        """The Jacobian with respect to pose and shape.

        Args:
            state: of the joints at this pose and shape.
            rotvec: (B, J, 3) the pose as rotation vectors.

        Returns:
            (B, K, 3, 3 J + S): metres per radian, then metres per unit of shape.
        """
        body = self.joints
        world, position = state.world[:, :, :3, :3], state.world[:, :, :3, 3]
        bone = world[:, body.pair_bone]
        lever = state.moments - body.pair_mass * state.rest[:, body.pair_bone]
        parts = torch.cat(
            [position, (bone @ lever.unsqueeze(-1)).squeeze(-1) + body.pair_mass * position[:, body.pair_bone]], 1
        )
        # A turn of joint j carries along what hangs below it, about the joint's position.
        arm = (self.spread @ parts).unflatten(1, (-1, len(body.parents))) - self.spread_mass * position.unsqueeze(1)
        turn = right_jacobian(rotvec)
        axes = (world @ turn).transpose(2, 3)  # (B, J, 3 numbers of the vector, 3)
        turned = torch.linalg.cross(axes.unsqueeze(1), arm.unsqueeze(3))  # (B, K, J, 3 numbers, 3)
        # It also changes the pose-dependent displacement of the rest body.
        generators = torch.einsum("bjik,icd->bjkcd", turn[:, 1:], self.generators)
        change = (state.rotmats[:, 1:].unsqueeze(2) @ generators).flatten(-2)  # (B, J - 1, 3 numbers, 9)
        moments = torch.einsum("jfq,bjif->bqji", self.pose_basis, change)  # (B, 3 P, J - 1, 3 numbers)
        moments = bone @ moments.unflatten(1, (-1, 3)).flatten(3)  # (B, P, 3, 3 (J - 1))
        moved = self.of_pairs[self.used] @ moments.flatten(2)  # (B, K', 9 (J - 1))
        by_pose = turned.flatten(2, 3).transpose(2, 3).contiguous()  # (B, K, 3, 3 J)
        by_pose[:, self.used, :, 3:] += moved.unflatten(2, (3, -1))
        return torch.cat([by_pose, self._by_shape(world, bone)], -1)

    def of_root(self, state: JointState, rotvec: Tensor) -> Tensor:
        """The Jacobian with respect to the root's rotation vector alone, (B, K, 3, 3) metres per radian.

        Args:
            state: of the joints.
            rotvec: (B, 3) of the root.
        """
        arm = state.joints - state.world[:, :1, :3, 3]
        axes = (state.world[:, 0, :3, :3] @ right_jacobian(rotvec)).transpose(1, 2)  # (B, 3 numbers, 3)
        return torch.linalg.cross(axes.unsqueeze(1), arm.unsqueeze(2)).transpose(2, 3)

    def _by_shape(self, world: Tensor, bone: Tensor) -> Tensor:
        body = self.joints
        moves: list[Tensor] = []
        for j, parent in enumerate(body.parents):
            if parent < 0:
                moves.append(self.rest_basis[j].expand(len(world), -1, -1))
            else:
                moves.append(moves[parent] + world[:, parent] @ (self.rest_basis[j] - self.rest_basis[parent]))
        position = torch.stack(moves, 1)  # (B, J, 3, S)
        lever = self.shape_basis - body.pair_mass.unsqueeze(-1) * self.rest_basis[body.pair_bone]
        pairs = bone @ lever + body.pair_mass.unsqueeze(-1) * position[:, body.pair_bone]
        flat = self.of_joints @ position.flatten(2) + self.of_pairs @ pairs.flatten(2)
        return flat.unflatten(2, (3, -1))
