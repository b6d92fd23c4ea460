"""Following a motion frame by frame, each pose found from the one before."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.humans.joint_body import JointBody
from zoo.humans.learnable_smplify import published
from zoo.humans.learnable_smplify.stgcn import OfficialNetwork

# A pose (B, 24, 3, 3) and the number of the frame to reach -> the pose there.
Step = Callable[[Tensor, int], Tensor]
# A pose and the number of a frame -> how far its joints are from those of the frame, (B,).
Distance = Callable[[Tensor, int], Tensor]
FIRST_ANCHORED = 62


def follow(
    step: Step,
    start: Tensor,
    frames: int,
    distance: Distance | None = None,
    anchored: Step | None = None,
    first_anchored: int = FIRST_ANCHORED,
) -> Tensor:
    """Poses of frames 1, 2, ... of one or several motions of equal length.

    With `anchored`, from frame `first_anchored` on, the pose found from the previous one, the one found straight from
    the first, and the previous one itself compete, and the one whose joints are nearest is taken: the published
    remedy against drift.

    Args:
        step: from the previous pose.
        start: (B, 24, 3, 3) pose of frame 0.
        frames: of the motion, the first included.
        distance: by which the candidates compete.
        anchored: from the pose of frame 0.
        first_anchored: number of a frame.

    Returns:
        (frames - 1, B, 24, 3, 3).
    """
    found, pose = [], start
    for frame in range(1, frames):
        new = step(pose, frame)
        if anchored is not None and distance is not None and frame >= first_anchored:
            candidates = torch.stack([new, anchored(start, frame), pose])
            errors = torch.stack([distance(candidate, frame) for candidate in candidates])
            new = candidates[errors.argmin(0), torch.arange(len(start), device=start.device)]
        pose = new
        found.append(pose)
    return torch.stack(found)


@torch.no_grad()
def published_sequence(
    network: OfficialNetwork, joints: JointBody, rotmats: Tensor, betas: Tensor, trans: Tensor, constrained: bool
) -> Tensor:
    """The published sequential inference on a motion whose shape, translations and first pose are given.

    Args:
        network: the published one, in eval mode.
        joints: that it reads.
        rotmats: (T, 24, 3, 3) true poses, of which the first is the start and the others only give joints.
        betas: (1, S).
        trans: (T, 3).
        constrained: with the anchor of `follow`, for which the target is placed where the first frame is.

    Returns:
        (T - 1, 24, 3, 3) poses of frames 1, 2, ...
    """
    targets = joints.state(rotmats, betas.expand(len(rotmats), -1)).joints

    def posed(pose: Tensor) -> Tensor:
        return joints.state(pose, betas).joints

    def step(pose: Tensor, frame: int) -> Tensor:
        goal = targets[frame : frame + 1] + trans[frame]
        return published.step(network, pose, betas, posed(pose) + trans[frame - 1], goal)

    def anchored(pose: Tensor, frame: int) -> Tensor:
        goal = targets[frame : frame + 1] + trans[0]
        return published.step(network, pose, betas, targets[:1] + trans[0], goal)

    def distance(pose: Tensor, frame: int) -> Tensor:
        return (posed(pose) - targets[frame : frame + 1]).abs().mean((1, 2))

    found = follow(step, rotmats[:1], len(rotmats), distance, anchored if constrained else None)
    return found[:, 0]
