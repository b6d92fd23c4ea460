"""The human-centric frame, angles between rotations and the errors of the published evaluation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.humans.metrics import procrustes

MID_HIP, NECK, RIGHT_HIP, LEFT_HIP = 8, 1, 9, 12
# The published code aligns meshes at joint 8 of SMPL's regressor; that is the right ankle, not the mid-hip.
ANKLE = 8
_TINY = 1e-8
_CLAMP = 1e-6


def _unit(vector: Tensor) -> Tensor:
    return vector / (vector.norm(dim=-1, keepdim=True) + _TINY)


def human_frame(joints: Tensor) -> tuple[Tensor, Tensor]:
    """Axes and origin of a body: the origin at the mid-hip, y to the left hip, z up the torso.

    The third axis is z x y, so the frame is a mirrored one (determinant -1), as published.

    Args:
        joints: (B, 25, 3) of BODY_25.

    Returns:
        Axes as columns (B, 3, 3) and origin (B, 1, 3): a point's coordinates are (point - origin) @ axes.
    """
    y = _unit(joints[:, LEFT_HIP] - joints[:, RIGHT_HIP])
    torso = _unit(joints[:, NECK] - joints[:, MID_HIP])
    z = _unit(torso - (torso * y).sum(-1, keepdim=True) * y)
    x = _unit(torch.linalg.cross(z, y))
    return torch.stack([x, y, z], -1), joints[:, MID_HIP : MID_HIP + 1]


def normalise(start: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets of joints (B, 25, 3) in the frame of the first."""
    axes, origin = human_frame(start)
    return (start - origin) @ axes, (target - origin) @ axes


def published_angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle between rotations as the published loss has it, times 2 / pi: (..., 3, 3) twice -> (...).

    The cosine is clamped a little below 1, so that the derivative of acos is finite: it vanishes there.
    """
    cosine = ((a * b).sum((-2, -1)) - 1) / 2
    return cosine.clamp(-1 + _CLAMP, 1 - _CLAMP).acos() * (2 / math.pi)


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle between rotations times 2 / pi, exact near zero: 2 asin(|a - b| / (2 sqrt 2))."""
    chord = ((a - b).square().sum((-2, -1)) + 1e-12).sqrt() / (2 * math.sqrt(2))
    return 2 * chord.clamp(max=1 - _CLAMP).asin() * (2 / math.pi)


def aligned_error(prediction: Tensor, target: Tensor, regressor: Tensor, joint: int = 0) -> Tensor:
    """Mean vertex distance after bringing one regressed joint together, in the vertices' unit: (B,).

    Args:
        prediction, target: (B, V, 3).
        regressor: (J, V) joints of a mesh.
        joint: 0, the pelvis, or `ANKLE` for the published protocol.
    """
    row = regressor[joint]
    shift = torch.einsum("v,bvc->bc", row, target - prediction).unsqueeze(1)
    return (prediction + shift - target).norm(dim=-1).mean(1)


def published_procrustes(source: Tensor, target: Tensor) -> Tensor:
    """`source` after the published similarity alignment, (B, N, 3) twice -> (B, N, 3).

    It divides by the unbiased variance, so the scale is smaller by (N - 1) / N.
    """
    count = source.shape[1]
    exact = procrustes(source, target)
    centre = exact.mean(1, keepdim=True)
    return centre + (exact - centre) * ((count - 1) / count)
