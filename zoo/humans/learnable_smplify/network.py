"""The network of this package: from bones seen in the frames of the joints that turn them to rotations.

It works on global rotations, which makes each joint's residual a matter of its own bones. Lengths are divided by how
far the bones have to move, and the answer multiplied by it: small motions are found as exactly, relatively, as large
ones, so that a second pass does to the first one's error what the first did to the motion.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from zoo.humans.learnable_smplify.bones import (
    FIRST_FRAMES,
    JOINTS,
    LIMB_BONES,
    LIMB_JOINTS,
    SECOND_FRAMES,
    Bones,
    batch_first,
    batch_last,
    orthonormal,
    product,
    target_bones,
    unrotate,
)
from zoo.humans.learnable_smplify.graph import BODY_25_TREE

_BONES = len(BODY_25_TREE)
_REACH = 0.3  # metres: about a limb's length, by which distances become angles
_FLOOR = 0.002  # metres: motions below are not magnified
_FREE = 0.01  # radians: turns that are open even when all bones are in place


class BoneNetwork(nn.Module):
    """A perceptron over bone-local features, applied `passes` times with the same weights.

    Args:
        hidden: width.
        layers: hidden layers.
        passes: applications; each starts where the one before ended.
        num_betas: shape coefficients that it looks at.
    """

    frames: Tensor
    limb_bones: Tensor
    limb_joints: Tensor
    floor: Tensor
    free: Tensor

    def __init__(self, hidden: int = 160, layers: int = 3, passes: int = 2, num_betas: int = 10) -> None:
        super().__init__()
        self.passes, self.num_betas = passes, num_betas
        # Start bones, differences in two frames, swings, confidences, shape, doubt, pose, scale.
        self.parts = [9 * _BONES + 3 * len(LIMB_BONES), _BONES, num_betas, 1, 6 * (JOINTS - 1) + 1]
        width = sum(self.parts)
        self.first = nn.Linear(width, hidden)
        self.inner = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers - 1))
        self.last = nn.Linear(hidden, 3 * JOINTS)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        constants = {
            "frames": torch.tensor([*FIRST_FRAMES, *SECOND_FRAMES]),
            "limb_bones": torch.tensor(LIMB_BONES),
            "limb_joints": torch.tensor(LIMB_JOINTS),
            # Kept as tensors, since every sum with a number makes one anew.
            "floor": torch.tensor(_FLOOR**2),
            "free": torch.tensor(_FREE),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(
        self,
        bones: Bones,
        rotmats: Tensor,
        betas: Tensor,
        target: Tensor,
        confidence: Tensor | None = None,
        doubt: Tensor | None = None,
    ) -> Tensor:
        """The pose whose joints are the targets.

        Args:
            bones: of the body.
            rotmats: (B, 24, 3, 3) start pose, relative to the parents.
            betas: (B, S).
            target: (B, 25, 3) joints of BODY_25, metres, anywhere in space.
            confidence: (B, 25): 1 for an exact joint, 1 / (1 + s / 1 cm) for one with noise of standard deviation s
                in each coordinate, 0 for a missing one; 1 by default.
            doubt: (B,) standard deviation of the start pose's joint angles in radians, as far as the joints do not
                show it; 0 by default: the start pose is true.

        Returns:
            (B, 24, 3, 3); the hands are the start's.
        """
        for found in self._passes(bones, rotmats, betas, target, confidence, doubt):
            last = found
        return _poses(*last)

    def unroll(
        self,
        bones: Bones,
        rotmats: Tensor,
        betas: Tensor,
        target: Tensor,
        confidence: Tensor | None = None,
        doubt: Tensor | None = None,
    ) -> list[Tensor]:
        """The poses after each pass; arguments as of `forward`."""
        return [_poses(*found) for found in self._passes(bones, rotmats, betas, target, confidence, doubt)]

    def _passes(
        self,
        bones: Bones,
        rotmats: Tensor,
        betas: Tensor,
        target: Tensor,
        confidence: Tensor | None,
        doubt: Tensor | None,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """After each pass the root's rotation (3, 3, 1, B), the others' relative to the parents, and the hands'."""
        shape = betas.T
        rotations = batch_last(rotmats)
        _, local, hands = rotations.split([1, JOINTS - 1, rotations.shape[2] - JOINTS], 2)
        rest = bones.rest(shape, hands)
        world = bones.global_rotations(rotations)
        now = bones(world, local, rest)
        goal, sure = target_bones(bones, batch_last(target), None if confidence is None else confidence.T, now)
        # What is the same in all passes, of which exact joints and a true start leave little.
        of_bones, of_sure, of_shape, of_doubt, of_pose = self.first.weight.split(self.parts, 1)
        bias, share, free = self.first.bias.unsqueeze(1), None, self.free
        if sure is None:
            bias = bias + of_sure.sum(1, keepdim=True)
        else:
            bias, share = torch.addmm(bias, of_sure, sure), _shares(sure)
        if doubt is not None:
            bias, free = torch.addmm(bias, of_doubt, 10 * doubt.unsqueeze(0)), free + doubt
        base = bias + of_shape @ shape.narrow(0, 0, self.num_betas)
        weight = torch.cat([of_bones, of_pose], 1)
        for number in range(self.passes):
            if number > 0:
                now = bones(world, local, rest)
            turns = self.turns(world, local, now, goal, share, base, weight, free)
            world = product(world, exponential(turns))
            if number == self.passes - 1:
                world = orthonormal(world)
            local = bones.relative_rotations(world)
            yield world[:, :, :1], local, hands

    def turns(
        self,
        world: Tensor,
        local: Tensor,
        now: Tensor,
        goal: Tensor,
        share: Tensor | None,
        base: Tensor,
        weight: Tensor,
        free: Tensor,
    ) -> Tensor:
        """Rotation vectors (3, 22, B) to turn the joints by, in their own frames.

        Args:
            world, local: (3, 3, 22, B) global rotations, and (3, 3, 21, B) relative ones without the root.
            now, goal: (3, 24, B) bones as they are and as they are to be.
            share: (24, B) bones' weights in how far they have to move; None for equal ones.
            base: (hidden, B) what confidence, shape and doubt add to the first layer.
            weight: (hidden, 367) of the first layer, of everything else.
            free: (B,) or a number, radians: turns that are open whatever the bones show.
        """
        gap = goal - now
        squares = gap * gap if share is None else gap * gap * share
        scale = torch.add(self.floor, squares.sum((0, 1)), alpha=1 / _BONES).sqrt()
        inverse = scale.reciprocal()
        frames = world.index_select(2, self.frames)
        start = unrotate(frames.narrow(2, 0, _BONES), now)
        seen = unrotate(frames.view(3, 3, 2, _BONES, -1), (gap * inverse).unsqueeze(1))
        limb = start.index_select(1, self.limb_bones)
        swing = swings(limb, torch.addcmul(limb, seen.select(1, 0).index_select(1, self.limb_bones), scale))
        numbers = torch.cat(
            [
                4 * start.flatten(0, 1),
                seen.flatten(0, 2),
                (swing * (_REACH * inverse)).flatten(0, 1),
                *(row.narrow(0, 0, 2).flatten(0, 1) for row in local.unbind(0)),
                scale.log().unsqueeze(0) + 4,
            ]
        )
        x = torch.addmm(base, weight, numbers).relu_()
        for layer in self.inner:
            x = x + _linear(layer, x).relu_()
        turns = _linear(self.last, x).view(3, JOINTS, -1) * torch.add(free, scale, alpha=1 / _REACH)
        return turns.index_add(1, self.limb_joints, swing)


def _shares(sure: Tensor) -> Tensor:
    """(24, B) bones' confidence -> equal weights of those that are seen, 1 where all are."""
    shown = (sure > 0).to(sure)
    return shown * (_BONES / shown.sum(0).clamp_min(1.0))


def _poses(root: Tensor, local: Tensor, hands: Tensor) -> Tensor:
    """(B, 24, 3, 3)."""
    return batch_first(torch.cat([root, local, hands], 2))


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    """A linear layer on columns."""
    assert isinstance(layer, nn.Linear)
    return torch.addmm(layer.bias.unsqueeze(1), layer.weight, x)


def swings(source: Tensor, target: Tensor) -> Tensor:
    """Smallest rotations between directions as rotation vectors, (3, ...) twice of any length -> (3, ...)."""
    cross = torch.linalg.cross(source, target, dim=0)
    sine = ((cross * cross).sum(0) + 1e-12).sqrt()
    return cross * (torch.atan2(sine, (source * target).sum(0)) / sine)


def exponential(turns: Tensor) -> Tensor:
    """Rotation vectors -> matrices, (3, ...) -> (3, 3, ...), in few operations; Rodrigues' formula."""
    squared = (turns * turns).sum(0) + 1e-12
    angle = squared.sqrt()
    cosine = angle.cos()
    x, y, z = (turns * (angle.sin() / angle)).unbind(0)
    first = torch.stack([cosine, -z, y, z, cosine, -x, -y, x, cosine]).view(3, 3, *turns.shape[1:])
    return torch.addcmul(first, turns.unsqueeze(1), (turns * ((cosine - 1) / squared)).unsqueeze(0), value=-1)
