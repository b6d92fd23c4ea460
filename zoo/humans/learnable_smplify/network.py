"""The network of this package: from bones seen in the frames of the joints that turn them to rotations.

It works on global rotations, which makes each joint's residual a matter of its own bones. Lengths are divided by how
far the bones have to move, and the answer multiplied by it: small motions are found as exactly, relatively, as large
ones, so that a second pass does to the first one's error what the first did to the motion.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.humans.learnable_smplify.bones import (
    FIRST_FRAMES,
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

JOINTS = 22
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

    def __init__(self, hidden: int = 256, layers: int = 3, passes: int = 2, num_betas: int = 10) -> None:
        super().__init__()
        self.passes, self.num_betas = passes, num_betas
        # Start bones, differences in two frames, swings, confidences, shape, doubt, pose, scale.
        width = 3 * _BONES + 6 * _BONES + 3 * len(LIMB_BONES) + _BONES + num_betas + 1 + 6 * (JOINTS - 1) + 1
        self.first = nn.Linear(width, hidden)
        self.inner = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers - 1))
        self.last = nn.Linear(hidden, 3 * JOINTS)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        constants = {
            "frames": torch.tensor([*FIRST_FRAMES, *SECOND_FRAMES]),
            "limb_bones": torch.tensor(LIMB_BONES),
            "limb_joints": torch.tensor(LIMB_JOINTS),
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
        return self.unroll(bones, rotmats, betas, target, confidence, doubt)[-1]

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
        shape = betas.T
        rest = bones.rest(shape)
        local = batch_last(rotmats)
        hands = local[:, :, JOINTS:]
        world = bones.global_rotations(local)
        now = bones(world, local, rest)
        goal, sure = target_bones(bones, batch_last(target), None if confidence is None else confidence.T, now)
        doubt = shape.new_zeros(shape.shape[1]) if doubt is None else doubt
        context = torch.cat([sure, shape[: self.num_betas], 10 * doubt.unsqueeze(0)])
        found = []
        for number in range(self.passes):
            if number > 0:
                now = bones(world, local, rest)
            turned = product(world[:, :, :JOINTS], exponential(self.turns(world, local, now, goal, context)))
            if number == self.passes - 1:
                turned = orthonormal(turned)
            world = torch.cat([turned, product(turned[:, :, -2:], hands)], 2)
            local = bones.local_rotations(world)
            found.append(batch_first(local))
        return found

    def turns(self, world: Tensor, local: Tensor, now: Tensor, goal: Tensor, context: Tensor) -> Tensor:
        """Rotation vectors (3, 22, B) to turn the joints by, in their own frames.

        Args:
            world, local: (3, 3, 24, B) rotations, global and relative.
            now, goal: (3, 24, B) bones as they are and as they are to be.
            context: (24 + S + 1, B): the bones' confidence, the shape, ten times the doubt.
        """
        gap = goal - now
        shown = (context[:_BONES] > 0).to(gap)
        scale = ((gap.square().sum(0) * shown).sum(0) / shown.sum(0).clamp_min(1.0) + _FLOOR**2).sqrt()
        inverse = 1 / scale
        frames = world.index_select(2, self.frames)
        seen = unrotate(frames, torch.cat([gap, gap], 1))
        start = unrotate(frames[:, :, :_BONES], now)
        limb = start[:, self.limb_bones]
        swing = swings(limb, limb + seen[:, self.limb_bones])
        numbers = torch.cat(
            [
                4 * start.flatten(0, 1),
                (seen * inverse).flatten(0, 1),
                (swing * (_REACH * inverse)).flatten(0, 1),
                context,
                local[:, :2, 1:JOINTS].flatten(0, 2),
                scale.log().unsqueeze(0) + 4,
            ]
        )
        x = torch.relu(_linear(self.first, numbers))
        for layer in self.inner:
            x = x + torch.relu(_linear(layer, x))
        turns = _linear(self.last, x).unflatten(0, (3, JOINTS)) * (scale / _REACH + _FREE + 0.1 * context[-1])
        return turns.index_add(1, self.limb_joints, swing)


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    """A linear layer on columns."""
    assert isinstance(layer, nn.Linear)
    return torch.addmm(layer.bias.unsqueeze(1), layer.weight, x)


def swings(source: Tensor, target: Tensor) -> Tensor:
    """Smallest rotations between directions as rotation vectors, (3, ...) twice of any length -> (3, ...)."""
    cross = torch.linalg.cross(source, target, dim=0)
    sine = (cross.square().sum(0) + 1e-12).sqrt()
    return cross * (torch.atan2(sine, (source * target).sum(0)) / sine)


def exponential(turns: Tensor) -> Tensor:
    """Rotation vectors -> matrices, (3, ...) -> (3, 3, ...), in few operations; Rodrigues' formula."""
    squared = turns.square().sum(0) + 1e-12
    angle = squared.sqrt()
    cosine = angle.cos()
    x, y, z = (turns * (angle.sin() / angle)).unbind(0)
    first = torch.stack([cosine, -z, y, z, cosine, -x, -y, x, cosine]).unflatten(0, (3, 3))
    return torch.addcmul(first, turns.unsqueeze(1), (turns * ((1 - cosine) / squared)).unsqueeze(0))
