"""Joints as detectors give them: noisy, and some of them missing."""

from __future__ import annotations

import torch
from torch import Tensor

_FACE, _FEET = (0, 15, 16, 17, 18), (19, 20, 21, 22, 23, 24)
# What of BODY_25 other sets lack: COCO, one without feet, SMPL's joints, Human3.6M's.
_LACKING = ((1, 8, *_FEET), _FEET, (*_FACE, *_FEET), (1, *_FACE, *_FEET))
_PATTERNS = [[float(k in lacking) for k in range(25)] for lacking in _LACKING]
_NOISE_UNIT = 0.01  # metres: noise at which a joint's confidence is one half


def disturb(joints: Tensor, noise_share: float, noise: float, missing: float) -> tuple[Tensor, Tensor]:
    """Noise on the joints of some examples, with the confidence that tells of it.

    Args:
        joints: (B, 25, 3) of BODY_25, metres.
        noise_share: of the examples whose joints are noisy.
        noise: metres; an example's standard deviation is at most this, a joint's twice as much.
        missing: share of the joints of a fifth of all examples that are missing; besides, share of the examples that
            lack those joints of BODY_25 which another set of keypoints has not.

    Returns:
        Joints (B, 25, 3) and confidences (B, 25), 0 where a joint is missing.
    """
    count = len(joints)

    def some(share: float, *shape: int) -> Tensor:
        return (torch.rand(*shape, device=joints.device) < share).to(joints)

    noisy = some(noise_share, count, 1)
    which = torch.randint(len(_PATTERNS), (count,), device=joints.device)
    lacking = joints.new_tensor(_PATTERNS)[which] * some(missing, count, 1)
    sigma = noisy * noise * torch.rand(count, 1, device=joints.device) * 2 * torch.rand_like(joints[..., 0])
    gone = some(0.2, count, 1) * some(missing, *joints.shape[:2])
    confidence = confidence_of(sigma) * (1 - gone) * (1 - lacking)
    return joints + sigma.unsqueeze(-1) * torch.randn_like(joints), confidence


def confidence_of(noise: Tensor) -> Tensor:
    """Confidence of joints with noise of so many metres' standard deviation in each coordinate."""
    return 1 / (1 + noise / _NOISE_UNIT)
