"""Body shape from joints alone: the lengths that no pose changes."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.humans.joint_body import JointBody

_SIDES = ("left", "right")
# Pairs whose distance is the bone's, and such as bend a little; metres that each is trusted to.
_RIGID = (
    *((f"{side}_{a}", f"{side}_{b}") for side in _SIDES for a, b in (("hip", "knee"), ("knee", "ankle"))),
    *((f"{side}_{a}", f"{side}_{b}") for side in _SIDES for a, b in (("shoulder", "elbow"), ("elbow", "wrist"))),
    *((f"{side}_ankle", f"{side}_{point}") for side in _SIDES for point in ("heel", "big_toe", "foot")),
    *((f"{side}_hip_lsp", f"{side}_knee") for side in _SIDES),
    *(("left_hip", "right_hip"), ("left_ear", "right_ear"), ("left_eye", "right_eye"), ("nose", "left_ear")),
    ("nose", "right_ear"),
)
_BENDING = (
    *(("neck", "mid_hip"), ("left_shoulder", "right_shoulder"), ("neck", "left_shoulder"), ("neck", "right_shoulder")),
    *(("left_shoulder", "left_hip"), ("right_shoulder", "right_hip"), ("neck", "pelvis")),
)
_RIGID_TRUST, _BENDING_TRUST = 0.004, 0.03


@torch.no_grad()
def estimate_shape(
    points: JointBody, names: tuple[str, ...], joints: Tensor, confidence: Tensor, steps: int = 6
) -> Tensor:
    """Shape coefficients of one body from all frames, by Gauss-Newton from the mean shape with the prior N(0, 1).

    Args:
        points: gives the named joints of a pose and shape.
        names: of the joints.
        joints: (T, K, 3) metres.
        confidence: (T, K), 0 for a joint that is not there.
        steps: of Gauss-Newton.

    Returns:
        (1, S); the mean shape where no distance is known.
    """
    count = points.num_betas
    place = {name: k for k, name in enumerate(names)}
    pairs = [
        (place[a], place[b], trust)
        for group, trust in ((_RIGID, _RIGID_TRUST), (_BENDING, _BENDING_TRUST))
        for a, b in group
        if a in place and b in place
    ]
    shape = joints.new_zeros(count)
    if not pairs:
        return shape.unsqueeze(0)
    rest = torch.eye(3, dtype=joints.dtype, device=joints.device).expand(count + 1, len(points.parents), 3, 3)
    probes = torch.cat([joints.new_zeros(1, count), torch.eye(count, dtype=joints.dtype, device=joints.device)])
    placed = points.state(rest, probes).joints  # the points of the unposed body are linear in the shape
    first, second = [p[0] for p in pairs], [p[1] for p in pairs]
    vectors = placed[:, first] - placed[:, second]
    base, slope = vectors[0], vectors[1:] - vectors[:1]
    seen = (joints[:, first] - joints[:, second]).norm(dim=-1)
    weight = torch.minimum(confidence[:, first], confidence[:, second])
    total = weight.sum(0)
    known = total > 0
    length = (seen * weight).sum(0) / total.clamp_min(1e-9)
    trust = joints.new_tensor([p[2] for p in pairs])
    precision = torch.where(known, 1 / trust.square(), torch.zeros_like(trust))
    for _ in range(steps):
        vector = base + torch.einsum("s,spc->pc", shape, slope)
        reach = vector.norm(dim=-1)
        jacobian = torch.einsum("spc,pc->ps", slope, vector / reach.unsqueeze(-1))
        hessian = jacobian.T @ (precision.unsqueeze(1) * jacobian) + torch.eye(count).to(joints)
        gradient = jacobian.T @ (precision * (reach - length)) + shape
        shape = shape - torch.linalg.solve(hessian, gradient)
    return shape.clamp(-4, 4).unsqueeze(0)
