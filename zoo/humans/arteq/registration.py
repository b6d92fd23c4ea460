"""Bringing a body that was found in a cloud closer to it: articulated ICP by damped Gauss-Newton.

In each round every point takes the vertex that is nearest, vertices of parts that its segmentation thinks unlikely
counting as further away; then all parts' rotations, the betas and the translation move by one linear least-squares
step towards the planes that touch the body there, far points counting less from round to round. It is the refinement
usual behind such networks (point to plane: Chen and Medioni, 1992), and works with any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import roma
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.humans.arteq.network import NUM_PARTS, PARENTS, ArtEqOutput
from zoo.humans.arteq.parts import (
    body_rotations,
    estimate_translation,
    global_rotations,
    local_rotations,
    part_labels,
)
from zoo.humans.body import Body
from zoo.humans.rotations import rotvec_to_rotmat, skew
from zoo.humans.standin.rig import vertex_normals

# Metres, in the first and the last round: how much further away a vertex of an impossible part is, and the distance
# at which a point's weight has fallen to a quarter.
_STRANGE = (0.10, 0.02)
_REACH = (0.15, 0.05)
# Weight of distances along the surface beside those to its plane: 1 would keep points where they touch.
_SLIDING = 0.2
# Square metres: what one unit of shape, and a radian that a joint turns in a round, cost beside the mean squared error.
_PER_SHAPE, _PER_TURN = 1e-5, 1e-4
_DAMPING = 1e-2
# Of several views: rounds for each before one is chosen, and the metres beyond which a point is as bad as any.
_FEW_ROUNDS, _FAR = 5, 0.2


class Registered(NamedTuple):
    """A body brought to a cloud.

    Attributes:
        rotations: (B, 22, 3, 3) of the parts in the world.
        betas: (B, S).
        translation: (B, 3) metres.
    """

    rotations: Tensor
    betas: Tensor
    translation: Tensor


class _Surface(NamedTuple):
    """Vertices (B, V, 3) with normals, without translation, and what their derivatives need."""

    vertices: Tensor
    normals: Tensor
    rest: Tensor
    world: Tensor
    offsets: Tensor


class Registration:
    """Registers a body to clouds.

    Args:
        body: the mesh model; its device is where everything happens.
        vertex_step: points go to every so many vertices.
    """

    def __init__(self, body: Body, vertex_step: int = 4) -> None:
        kept = slice(None, None, vertex_step)
        self.body = body
        self.template, self.shapes, self.skinning = body.v_template[kept], body.shapedirs[kept], body.lbs_weights[kept]
        self.corrections = body.posedirs.unflatten(1, (-1, 3))[:, kept].flatten(1)
        normals = vertex_normals(body.v_template.cpu().numpy(), body.faces.cpu().numpy().astype(np.int64))[kept]
        self.normals = torch.from_numpy(normals).to(self.template)
        self.parts = F.one_hot(part_labels(self.skinning), NUM_PARTS).to(self.template)
        count = len(body.parents)
        below = torch.eye(count)  # [i, j]: joint i hangs below j, or is it
        for joint, parent in enumerate(body.parents):
            if parent >= 0:
                below[joint] += below[parent]
        self.below = below.to(self.template)

    @torch.no_grad()
    def __call__(
        self, points: Tensor, segmentation: Tensor, rotations: Tensor, betas: Tensor, rounds: int
    ) -> Registered:
        """Moves bodies towards clouds.

        Args:
            points: (B, N, 3) metres.
            segmentation: (B, N, 22) probability of each part.
            rotations: (B, 22, 3, 3) of the parts in the world, to begin with.
            betas: (B, S), likewise.
            rounds: how many.
        """
        labels = part_labels(self.skinning)
        translation = estimate_translation(points, segmentation, self.surface(rotations, betas).vertices, labels)
        for round_ in range(rounds):
            done = round_ / max(1, rounds - 1)
            strange, reach = (first * (last / first) ** done for first, last in (_STRANGE, _REACH))
            surface = self.surface(rotations, betas)
            distance = torch.cdist(points, surface.vertices + translation.unsqueeze(1)).square()
            distance = distance + strange**2 * (1 - segmentation @ self.parts.T)
            step = self._step(points, distance.argmin(-1), surface, betas, translation, reach)
            turns, shape, shift = step.split((3 * NUM_PARTS, betas.shape[1], 3), 1)
            rotations = _turned(rotations, turns.unflatten(1, (NUM_PARTS, 3)))
            betas, translation = betas + shape, translation + shift
        return Registered(rotations, betas, translation)

    @torch.no_grad()
    def best_of_views(
        self, network: Callable[[Tensor], ArtEqOutput], points: Tensor, rounds: int, views: int
    ) -> tuple[Registered, Tensor]:
        """What a network finds in clouds (B, N, 3), registered, and its segmentation (B, N, 22).

        Args:
            network: from points to bodies.
            points: metres.
            rounds: of the registration that is kept.
            views: how many rotations of the cloud the network sees. Each body found is registered in a few rounds,
                and that which comes nearest to the points is kept: a body that the network found lying the wrong way
                round rarely is so in all.
        """
        random = torch.Generator().manual_seed(0)
        quaternions = F.normalize(torch.randn(views, 4, generator=random), dim=-1).to(points)
        turns = torch.eye(3).to(points).unsqueeze(0)
        turns = torch.cat([turns, roma.unitquat_to_rotmat(quaternions[1:])])
        candidates: list[tuple[Tensor, ...]] = []
        for turn in turns:
            found = network(points @ turn.T)
            pose, betas, segmentation = turn.T @ found.pose, found.betas, found.segmentation
            if views == 1:
                return self(points, segmentation, pose, betas, rounds), segmentation
            pose, betas, translation = self(points, segmentation, pose, betas, _FEW_ROUNDS)
            vertices = self.surface(pose, betas).vertices + translation.unsqueeze(1)
            far = torch.cdist(points, vertices).amin(2).clamp_max(_FAR).mean(1)
            candidates.append((far, pose, betas, segmentation))
        far, *others = (torch.stack(values, 1) for values in zip(*candidates, strict=True))  # (B, views, ...)
        pose, betas, segmentation = (values[torch.arange(len(points)), far.argmin(1)] for values in others)
        return self(points, segmentation, pose, betas, rounds), segmentation

    def surface(self, rotations: Tensor, betas: Tensor) -> _Surface:
        """The body of the parts' rotations (B, 22, 3, 3) and betas (B, S)."""
        local = body_rotations(rotations)
        joints = self.body.rest_joints(betas)
        world = self.body.transforms(local, joints)
        turn = world[:, :, :3, :3]
        offsets = world[:, :, :3, 3] - (turn @ joints.unsqueeze(-1)).squeeze(-1)
        feature = (local[:, 1:] - torch.eye(3).to(local)).flatten(1)
        rest = self.template + torch.einsum("bk,vck->bvc", betas, self.shapes)
        rest = rest + (feature @ self.corrections).unflatten(1, (-1, 3))
        skin = (self.skinning @ turn.flatten(2)).unflatten(2, (3, 3))
        vertices = (skin @ rest.unsqueeze(-1)).squeeze(-1) + self.skinning @ offsets
        normals = F.normalize((skin @ self.normals.unsqueeze(-1)).squeeze(-1), dim=-1)
        return _Surface(vertices, normals, rest, world, offsets)

    def jacobian(self, which: Tensor, surface: _Surface) -> Tensor:
        """How vertices (B, N), by number, move: (B, N, 3, 66 + S) metres per radian and unit of shape.

        A part's turn is about its joint, in the world's axes, with all that hangs below it. Pose-dependent
        corrections are taken as they are.
        """
        body, turn, place = self.body, surface.world[:, :, :3, :3], surface.world[:, :, :3, 3]
        skinning = self.skinning[which]  # (B, N, J)
        rest = _taken(surface.rest, which)
        by_bone = torch.einsum("bjcd,bnd->bnjc", turn, rest) + surface.offsets.unsqueeze(1)
        arm = torch.einsum("ij,bnic->bnjc", self.below, skinning.unsqueeze(-1) * by_bone)
        arm = (arm - (skinning @ self.below).unsqueeze(-1) * place.unsqueeze(1))[:, :, :NUM_PARTS]
        by_turn = skew(arm).mT.transpose(2, 3).flatten(3)  # w x arm = [arm]x^T w
        moves: list[Tensor] = []
        for joint, parent in enumerate(body.parents):
            own = body.joint_shapedirs[joint].expand(len(turn), -1, -1)
            if parent >= 0:
                above = body.joint_shapedirs[parent]
                own = moves[parent] + turn[:, parent] @ (own - above)
            moves.append(own)
        offsets = torch.stack(moves, 1) - turn @ body.joint_shapedirs  # (B, J, 3, S)
        blended = (skinning @ turn.flatten(2)).unflatten(2, (3, 3))
        by_shape = blended @ self.shapes[which] + (skinning @ offsets.flatten(2)).unflatten(2, (3, -1))
        return torch.cat([by_turn, by_shape], -1)

    def _step(
        self, points: Tensor, which: Tensor, surface: _Surface, betas: Tensor, translation: Tensor, reach: float
    ) -> Tensor:
        """The least-squares step (B, 66 + S + 3) of turns, betas and translation."""
        error = points - _taken(surface.vertices, which) - translation.unsqueeze(1)
        weight = (1 + error.square().sum(-1) / reach**2).pow(-2) / points.shape[1]
        jacobian = self.jacobian(which, surface)
        shift = torch.eye(3).to(points).expand(*jacobian.shape[:3], 3)
        jacobian = torch.cat([jacobian, shift], -1)
        normal = _taken(surface.normals, which).unsqueeze(2)
        # Each point's three errors, and a fourth along the normal: I s + n n^T without a square root.
        rows = torch.cat([_SLIDING**0.5 * jacobian, normal @ jacobian], 2).flatten(1, 2)
        errors = torch.cat([_SLIDING**0.5 * error, (normal @ error.unsqueeze(-1)).squeeze(-1)], 2).flatten(1)
        weighted = rows * weight.repeat_interleave(4, 1).unsqueeze(-1)
        hessian, gradient = weighted.mT @ rows, (weighted.mT @ errors.unsqueeze(-1)).squeeze(-1)
        ridge = torch.zeros(rows.shape[2]).to(points)
        shape = slice(3 * NUM_PARTS, -3)
        ridge[3 : 3 * NUM_PARTS], ridge[shape] = _PER_TURN, _PER_SHAPE
        gradient[:, shape] -= _PER_SHAPE * betas
        size = hessian.diagonal(dim1=1, dim2=2).clone()
        # No axis is special, and no origin: a turned cloud's body is turned, wherever it stands.
        turns = size[:, : shape.start].unflatten(1, (-1, 3)).mean(2).repeat_interleave(3, 1)
        size = torch.cat([turns, size[:, shape], torch.zeros_like(translation)], 1)
        damping = ridge + _DAMPING * size + 1e-9
        step: Tensor = torch.linalg.solve(hessian + torch.diag_embed(damping), gradient)
        return step


def _taken(values: Tensor, which: Tensor) -> Tensor:
    """Rows (B, N, 3) of values (B, V, 3)."""
    return values.gather(1, which.unsqueeze(-1).expand(-1, -1, 3))


def _turned(rotations: Tensor, turns: Tensor) -> Tensor:
    """Rotations (B, 22, 3, 3) after each joint's turn (B, 22, 3), in the world's axes, with all below it."""
    local, turn = local_rotations(rotations), rotvec_to_rotmat(turns)
    above = rotations[:, list(PARENTS)]
    below = above.mT @ turn @ above @ local
    local = torch.cat([turn[:, :1] @ local[:, :1], below[:, 1:]], 1)
    # Rounding would grow from round to round down the skeleton.
    return global_rotations(roma.special_procrustes(local))
