"""The bones of BODY_25 on a posed body, seen from the joints that turn them.

A bone is the vector between two joints of `zoo.humans.learnable_smplify.graph.BODY_25_TREE`. Given the joints' global
rotations it is a sum of rotated vectors, with no product down the tree: the network's passes stay cheap, and no
translation is needed.

Here the batch is the last dimension and the three coordinates are the first: rotations (3, 3, J, B), vectors
(3, J, B). Sums over coordinates are then sums of long rows, several times as fast as products of small matrices.
Joints are the 22 without the hands, which turn no bone and stay as they are.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from zoo.humans.body import Body
from zoo.humans.joint_body import JointBody
from zoo.humans.joints import SMPL_24, SPIN_49_SOURCES
from zoo.humans.learnable_smplify.graph import BODY_25_TREE, POINTS

JOINTS = 22
_J = {name: k for k, name in enumerate(SMPL_24)}

# Child joint of BODY_25 -> the SMPL joint that turns its bone most, and another that the bone tells of.
_FRAMES = {
    **{1: ("spine2", "pelvis"), 9: ("pelvis", "spine1"), 12: ("pelvis", "spine1"), 0: ("neck", "head")},
    **{15: ("head", "neck"), 16: ("head", "neck"), 17: ("head", "neck"), 18: ("head", "neck")},
    **{2: ("spine3", "right_collar"), 3: ("right_shoulder", "spine3"), 4: ("right_elbow", "right_shoulder")},
    **{5: ("spine3", "left_collar"), 6: ("left_shoulder", "spine3"), 7: ("left_elbow", "left_shoulder")},
    **{10: ("right_hip", "pelvis"), 11: ("right_knee", "right_hip")},
    **{13: ("left_hip", "pelvis"), 14: ("left_knee", "left_hip")},
    **dict.fromkeys((22, 23, 24), ("right_ankle", "right_knee")),
    **dict.fromkeys((19, 20, 21), ("left_ankle", "left_knee")),
}
# Bones that follow one joint's rotation exactly.
_LIMBS = (10, 11, 13, 14, 3, 4, 6, 7)
LIMB_BONES = tuple(k for k, (child, _) in enumerate(BODY_25_TREE) if child in _LIMBS)
LIMB_JOINTS = tuple(_J[_FRAMES[BODY_25_TREE[k][0]][0]] for k in LIMB_BONES)
FIRST_FRAMES = tuple(_J[_FRAMES[child][0]] for child, _ in BODY_25_TREE)
SECOND_FRAMES = tuple(_J[_FRAMES[child][1]] for child, _ in BODY_25_TREE)


def body_25(body: Body) -> JointBody:
    """The joints of BODY_25 on a body as SPIN has them: SMPL's own, and picked vertices for face and feet."""
    picked = torch.zeros(len(body.extra_joints_idxs), len(body.v_template))
    picked[torch.arange(len(picked)), body.extra_joints_idxs] = 1.0
    return JointBody(body, picked, SPIN_49_SOURCES[:POINTS])


def _sum_of_products(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> Tensor:
    """The sum over three terms, without writing the terms down."""
    return (left[0] * right[0]).addcmul_(left[1], right[1]).addcmul_(left[2], right[2])


def rotate(rotation: Tensor, vector: Tensor) -> Tensor:
    """R v, (3, 3, ...) and (3, ...) -> (3, ...)."""
    return _sum_of_products(rotation.unbind(1), vector.unbind(0))


def unrotate(rotation: Tensor, vector: Tensor) -> Tensor:
    """R^T v, (3, 3, ...) and (3, ...) -> (3, ...)."""
    return _sum_of_products(rotation.unbind(0), vector.unbind(0))


def product(a: Tensor, b: Tensor) -> Tensor:
    """A B, (3, 3, ...) twice -> (3, 3, ...)."""
    return (a.unsqueeze(2) * b).sum(1)


def relative(a: Tensor, b: Tensor) -> Tensor:
    """A^T B, (3, 3, ...) twice -> (3, 3, ...)."""
    return (a.unsqueeze(2) * b.unsqueeze(1)).sum(0)


def orthonormal(a: Tensor) -> Tensor:
    """Nearly orthonormal matrices made more so, (3, 3, ...) -> (3, 3, ...), by a step of Newton's method.

    Without it, rounding errors double from frame to frame where each pose is found from the one before.
    """
    return torch.sub(1.5 * a, product(a, relative(a, a)), alpha=0.5)


def batch_last(tensor: Tensor) -> Tensor:
    """(B, J, 3) -> (3, J, B); (B, J, 3, 3) -> (3, 3, J, B)."""
    return tensor.permute(*range(2, tensor.ndim), 1, 0).contiguous()


def batch_first(tensor: Tensor) -> Tensor:
    """(3, J, B) -> (B, J, 3); (3, 3, J, B) -> (B, J, 3, 3)."""
    return tensor.permute(-1, -2, *range(tensor.ndim - 2))


class Bones(nn.Module):
    """The 24 bones of BODY_25 from global rotations.

    Args:
        joints: BODY_25's joints of a body.
    """

    rest_template: Tensor
    rest_basis: Tensor
    poses: Tensor
    turners: Tensor
    mix: Tensor
    parent: Tensor
    child_ends: Tensor
    parent_ends: Tensor

    def __init__(self, joints: JointBody) -> None:
        super().__init__()
        parents, shapes = joints.parents, joints.num_betas
        count = len(parents)
        path = torch.zeros(count, count)  # [i, j]: the offset of joint j is on the way from the root to joint i
        for i in range(count):
            j = i
            while j > 0:
                path[i, j] = 1.0
                j = parents[j]
        gather = joints.gather.cpu()
        bone, mass = joints.pair_bone.cpu(), joints.pair_mass.cpu()
        offsets = gather[:, :count] @ path + gather[:, count:] @ (mass * path[bone])
        table = torch.cat([offsets, gather[:, count:]], 1)
        child, parent = (torch.tensor(ends) for ends in zip(*BODY_25_TREE, strict=True))
        mix = table[child] - table[parent]
        used = mix.abs().sum(0).nonzero().squeeze(1)  # of the body's joints and points, those that a bone depends on
        lengths, points = used[used < count], used[used >= count] - count
        above = torch.tensor([max(p, 0) for p in parents])

        def rows(matrix: Tensor) -> Tensor:  # (F, K * 3) -> (3, K, F)
            return matrix.cpu().unflatten(1, (-1, 3)).permute(2, 1, 0)

        basis = rows(joints.basis)[:, points]
        places = rows(torch.cat([joints.joint_template.reshape(1, -1), joints.joint_shapedirs]))
        by_shape = [
            places[:, lengths] - places[:, above[lengths]],
            basis[..., : 1 + shapes] - mass[points] * places[:, bone[points]],
        ]
        # The pose's numbers come as (3, 3, joint) here and as (joint, 3, 3) in the basis, less the identity.
        poses = basis[..., 1 + shapes :].unflatten(2, (count - 1, 3, 3)).permute(0, 1, 3, 4, 2)
        by_shape[1][..., 0] -= poses.diagonal(dim1=2, dim2=3).sum((2, 3))
        by_hands = poses[..., JOINTS - 1 :].flatten(2)
        # Of offsets of joints from their parents, and of moments of points about joints: (3 M + 3 P, ...).
        rest = torch.cat(
            [
                torch.nn.functional.pad(by_shape[0], (0, by_hands.shape[2])).flatten(0, 1),
                torch.cat([by_shape[1], by_hands], 2).flatten(0, 1),
            ]
        )
        constants = {
            "rest_template": rest[:, :1],
            "rest_basis": rest[:, 1:],
            "poses": poses[..., : JOINTS - 1].flatten(2).flatten(0, 1),
            "turners": torch.cat([above[lengths], bone[points]]),
            "mix": mix[:, used].expand(3, -1, -1),  # alike for the three coordinates
            "parent": above[1:JOINTS],
            "child_ends": child,
            "parent_ends": parent,
        }
        for name, value in constants.items():
            self.register_buffer(name, value.to(joints.gather.device).contiguous(), persistent=False)
        self.num_betas = shapes
        self.sizes = [3 * len(lengths), 3 * len(points)]
        depth = [0] * JOINTS
        for k in range(1, JOINTS):
            depth[k] = depth[parents[k]] + 1
        # Joints of one depth stand together, in SMPL's order.
        levels = [[k for k in range(JOINTS) if depth[k] == level] for level in range(max(depth) + 1)]
        self.levels = [
            (level[0], len(level), [above.index(parents[k]) for k in level]) for above, level in pairwise(levels)
        ]

    def rest(self, betas: Tensor, hands: Tensor) -> tuple[Tensor, Tensor]:
        """What depends on the shape (S, B) and the hands (3, 3, 2, B) alone: bone vectors before rotation.

        Returns:
            Offsets of joints from their parents (3, M, B), and moments of points about joints, without their
            dependence on the rest of the pose, (3 P, B).
        """
        given = torch.cat([betas, hands.flatten(0, 2)])
        offsets, moments = torch.addmm(self.rest_template, self.rest_basis, given).split(self.sizes)
        return offsets.unflatten(0, (3, -1)), moments

    def global_rotations(self, rotmats: Tensor) -> Tensor:
        """Rotations relative to the parents -> global ones, (3, 3, 22, B)."""
        worlds = [rotmats.narrow(2, 0, 1)]
        for first, count, parents in self.levels:
            if parents == list(range(parents[0], parents[0] + count)):
                above = worlds[-1].narrow(2, parents[0], count)
            else:
                above = torch.cat([worlds[-1].narrow(2, parent, 1) for parent in parents], 2)
            worlds.append(product(above, rotmats.narrow(2, first, count)))
        return torch.cat(worlds, 2)

    def relative_rotations(self, world: Tensor) -> Tensor:
        """Global rotations (3, 3, 22, B) -> those relative to the parents, without the root, (3, 3, 21, B)."""
        return relative(world.index_select(2, self.parent), world.narrow(2, 1, JOINTS - 1))

    def forward(self, world: Tensor, relative_rotations: Tensor, rest: tuple[Tensor, Tensor]) -> Tensor:
        """The bones in the world's frame.

        Args:
            world: (3, 3, 22, B) global rotations.
            relative_rotations: (3, 3, 21, B), to the parents, without the root.
            rest: of `rest`.

        Returns:
            (3, 24, B) metres.
        """
        offsets, moments = rest
        moments = torch.addmm(moments, self.poses, relative_rotations.flatten(0, 2))
        vectors = torch.cat([offsets, moments.view(3, -1, moments.shape[1])], 1)
        return torch.bmm(self.mix, rotate(world.index_select(2, self.turners), vectors))


def target_bones(
    bones: Bones, joints: Tensor, confidence: Tensor | None, start: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Bones between observed joints; a joint that is missing is taken to have moved as its neighbour did.

    Args:
        bones: of the body.
        joints: (3, 25, B) of BODY_25, metres.
        confidence: (25, B) in [0, 1], 0 for a joint that is not there; None where all are exact.
        start: (3, 24, B) bones of the start pose.

    Returns:
        Bones (3, 24, B) and their confidence (24, B), the lesser of the two joints'; None where all are exact.
    """
    if confidence is None:
        ends = (joints.index_select(1, end) for end in (bones.child_ends, bones.parent_ends))
        return torch.sub(*ends), None
    sure = torch.minimum(confidence[bones.child_ends], confidence[bones.parent_ends])
    # Joints of the start pose with the mid-hip at the origin, and how far each has moved from there.
    place: list[Tensor] = [torch.zeros_like(joints[:, 0])] * POINTS
    for k, (c, p) in enumerate(BODY_25_TREE):
        place[c] = place[p] + start[:, k]
    there = confidence > 0
    moved = torch.where(there, joints - torch.stack(place, 1), torch.zeros_like(joints))
    weight = there.to(joints) * joints.new_tensor([1.0 if k in _TORSO else 0.01 for k in range(POINTS)])[:, None]
    middle = (moved * weight).sum(1) / weight.sum(0).clamp_min(1e-6)
    path: list[Tensor] = [torch.where(there[8], moved[:, 8], middle)] * POINTS
    for c, p in BODY_25_TREE:
        path[c] = torch.where(there[c], moved[:, c], path[p])
    shift = torch.stack(path, 1)
    return start + shift[:, bones.child_ends] - shift[:, bones.parent_ends], sure


_TORSO = (8, 9, 12, 1, 2, 5)
