"""Found poses as `zoo.humans.learnable_smplify.figures` draws them: their meshes, joints and errors on a body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from zoo.humans.body import Body
from zoo.humans.joint_body import JointBody
from zoo.humans.learnable_smplify import figures
from zoo.humans.learnable_smplify.fitting import FittedMotion
from zoo.humans.learnable_smplify.geometry import aligned_error
from zoo.humans.motion.sequence import Motion
from zoo.humans.rotations import rotvec_to_rotmat

_SHOWN = 8  # frames of a motion


def pose_strips(
    body: Body,
    joints: JointBody,
    titles: Sequence[str],
    truth: Tensor,
    found: Tensor,
    betas: Tensor,
    start: Tensor | None = None,
) -> Figure:
    """True and found poses, a column each.

    Args:
        body: of the meshes.
        joints: BODY_25's of it.
        titles: of the columns.
        truth, found, start: (N, 24, 3, 3) rotations relative to the parents; the last are shown where given.
        betas: (N, S).
    """

    def mesh(rotmats: Tensor) -> figures.Array:
        posed = body(rotmats[:, :1], rotmats[:, 1:], betas)
        vertices: figures.Array = (posed.vertices - posed.joints[:, :1]).cpu().numpy()
        return vertices

    def points(rotmats: Tensor) -> figures.Array:
        state = joints.state(rotmats, betas)
        placed: figures.Array = (state.joints - state.world[:, :1, :3, 3]).cpu().numpy()
        return placed

    given = points(truth)
    return figures.strips(
        titles,
        given,
        {} if start is None else {"start": mesh(start)},
        mesh(truth),
        mesh(found),
        points(found),
        body.faces.cpu().numpy(),
        np.array([figures.facing(j) for j in given]),
    )


def motion_figures(
    body: Body, joints: JointBody, motion: Motion, fits: Mapping[str, FittedMotion]
) -> dict[str, Figure]:
    """A motion's frames as found, and the errors of all frames.

    Args:
        body: of the meshes.
        joints: BODY_25's of it.
        motion: the truth.
        fits: label -> the motion as found; the first is shown as bodies.
    """
    device = body.v_template.device
    rotmats = rotvec_to_rotmat(torch.from_numpy(motion.poses).to(device).unflatten(1, (-1, 3)))
    betas = torch.from_numpy(motion.betas).to(device)[None].expand(len(rotmats), -1)
    found = {name: rotvec_to_rotmat(fit.pose.unflatten(1, (-1, 3))) for name, fit in fits.items()}

    def mesh(pose: Tensor, shape: Tensor) -> Tensor:
        vertices: Tensor = body(pose[:, :1], pose[:, 1:], shape.expand(len(pose), -1)).vertices
        return vertices

    truth = mesh(rotmats, betas)

    def errors(vertices: Tensor) -> figures.Array:
        millimetres: figures.Array = 1000 * aligned_error(vertices, truth, body.J_regressor).cpu().numpy()
        return millimetres

    curves = {name: errors(mesh(found[name], fit.betas)) for name, fit in fits.items()}
    kept = errors(mesh(rotmats[:1], betas[:1]).expand_as(truth)).mean()
    shown = torch.linspace(0, len(rotmats) - 1, _SHOWN).round().long()
    titles = [f"{float(k) / motion.fps:.1f} s" for k in shown]
    first = next(iter(found.values()))
    return {
        "motion": pose_strips(body, joints, titles, rotmats[shown], first[shown], betas[shown]),
        "errors": figures.error_curves(
            curves, motion.fps, f"{motion.name}, each pose from the one before (first pose kept: {kept:.0f} mm)"
        ),
    }
