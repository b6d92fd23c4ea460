"""Named sets of joints on a body, and what of BODY_25 they tell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import ConfigError, did_you_mean
from zoo.humans.body import Body
from zoo.humans.joint_body import JointBody
from zoo.humans.joints import BODY_25, JOINT_SETS, SPIN_SOURCES
from zoo.humans.learnable_smplify.graph import POINTS

_ALIASES = {"mid_hip": "pelvis"}
# SPIN_SOURCES beyond these are regressed by a matrix that comes with SPIN's data.
_FREE_SOURCES = SPIN_SOURCES[:45]
# Joints of other annotations -> the nearest of ours. Their places differ by some centimetres.
_NEAR = {
    **{"right_hip_lsp": "right_hip", "left_hip_lsp": "left_hip", "neck_lsp": "neck", "thorax_mpii": "neck"},
    **{"pelvis_mpii": "pelvis", "spine_h36m": "spine2", "spine": "spine2", "head_h36m": "head"},
}
_OFF = 0.03  # metres: what a joint of another annotation is off by
_UNIT = 0.01


@dataclass(frozen=True)
class NamedJoints:
    """Joints of a set on a body.

    Attributes:
        names: of the joints; those that no joint of the body is near to are left out of `points`.
        rows: of the set's joints that `points` has, in its order.
        points: the body's.
        sure: (len(rows),) confidence that body and annotation mean the same point.
        source: (25,) place in `points` of each joint of BODY_25, -1 where the set has none.
    """

    names: tuple[str, ...]
    rows: Tensor
    points: JointBody
    sure: Tensor
    source: Tensor

    def observe(self, joints: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
        """Joints (B, len(rows), 3) with confidence -> those of BODY_25 (B, 25, 3) and theirs (B, 25)."""
        there = self.source >= 0
        place = self.source.clamp_min(0)
        return joints[:, place], confidence[:, place] * there.to(confidence)


def set_names(keypoints: str | tuple[str, ...]) -> tuple[str, ...]:
    """The joint names of a set, or those given.

    Raises:
        ConfigError: no such set, or no body joint is near to any of the names.
    """
    if isinstance(keypoints, str):
        if keypoints not in JOINT_SETS:
            raise ConfigError(f"There is no joint set '{keypoints}'. {did_you_mean(keypoints, JOINT_SETS)}")
        names = JOINT_SETS[keypoints]
    else:
        names = tuple(keypoints)
    names = tuple(name.removeprefix("op_") for name in names)
    if not any(_source(name) for name in names):
        raise ConfigError(
            f"None of the joints {', '.join(names[:5])} is known. {did_you_mean(names[0], _FREE_SOURCES)}"
        )
    return names


def _source(name: str) -> str | None:
    """The joint or vertex of the body that a name means, or nearly means."""
    name = _ALIASES.get(name, name)
    name = _NEAR.get(name, name)
    return name if name in _FREE_SOURCES else None


def named_joints(body: Body, keypoints: str | tuple[str, ...] = "body-25") -> NamedJoints:
    """A set's joints on a body.

    Args:
        body: SMPL or the stand-in.
        keypoints: a set of `zoo.humans.joints.JOINT_SETS`, or names.

    Raises:
        ConfigError: see `set_names`.
    """
    names = set_names(keypoints)
    rows = [k for k, name in enumerate(names) if _source(name)]
    chosen = [_source(names[k]) or "" for k in rows]
    picked = torch.zeros(len(body.extra_joints_idxs), len(body.v_template))
    picked[torch.arange(len(picked)), body.extra_joints_idxs] = 1.0
    points = JointBody(body, picked, tuple(_FREE_SOURCES.index(name) for name in chosen))
    # Human3.6M's joints bear the names of SMPL's and lie elsewhere.
    exact = [names[k] not in _NEAR and keypoints != "h36m-17" for k in rows]
    sure = torch.tensor([1.0 if same else 1 / (1 + _OFF / _UNIT) for same in exact])
    order = sorted(range(len(rows)), key=lambda k: exact[k])  # an exact joint counts before a near one
    place = {chosen[k]: k for k in order}
    source = torch.tensor([place.get(_ALIASES.get(name, name), -1) for name in BODY_25])
    assert len(source) == POINTS
    return NamedJoints(tuple(names[k] for k in rows), torch.tensor(rows), points, sure, source)
