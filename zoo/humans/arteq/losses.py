"""ArtEq's losses and their weights. Source: Feng et al., ICCV 2023, and the official code."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.humans.arteq.network import ArtEqOutput
from zoo.humans.arteq.parts import EMPTY_PARTS, part_centroids


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses: of `losses` by name."""

    segmentation: float = 5.0
    rotations: float = 5.0
    betas: float = 1.0
    joints: float = 100.0
    vertices: float = 100.0
    normals: float = 1.0
    markers: float = 200.0
    centroids: float = 100.0


@dataclass(frozen=True)
class BodyState:
    """A posed body as the losses see it.

    Attributes:
        rotations: (B, 22, 3, 3) of the parts in the world.
        betas: (B, 10).
        vertices: (B, V, 3) metres.
        joints: (B, J, 3) metres.
    """

    rotations: Tensor
    betas: Tensor
    vertices: Tensor
    joints: Tensor


def normal_errors(prediction: Tensor, target: Tensor, faces: Tensor) -> Tensor:
    """\\|cos\\| between predicted edges and true normals: (B, V, 3) twice and (F, 3) -> (B, 3 F).

    All faces' first edges (0 to 1), then their second (0 to 2), then their third (1 to 2).
    """
    a, b, c = (target[:, faces[:, corner]] for corner in range(3))
    normal = F.normalize(torch.linalg.cross(F.normalize(b - a, dim=-1), F.normalize(c - a, dim=-1)), dim=-1)
    corners = [prediction[:, faces[:, corner]] for corner in range(3)]
    cosines = [
        (F.normalize(corners[k] - corners[i], dim=-1) * normal).sum(-1).abs() for i, k in ((0, 1), (0, 2), (1, 2))
    ]
    return torch.cat(cosines, 1)


def losses(
    output: ArtEqOutput,
    found: BodyState,
    truth: BodyState,
    cloud: tuple[Tensor, Tensor],
    faces: Tensor | None = None,
    markers: Tensor | None = None,
    first_pose_only: bool = False,
) -> dict[str, Tensor]:
    """Each loss without its weight.

    Args:
        output: of the network.
        found, truth: bodies.
        cloud: points (B, N, 3) and their labels (B, N).
        faces: (F, 3) for the loss of the normals; None to leave it out.
        markers: indices of vertices for a loss of their own; None to leave it out.
        first_pose_only: the rotations of the batch's first body alone, as the official code has it.
    """
    points, labels = cloud
    one_hot = F.one_hot(labels, output.logits.shape[-1]).to(points)
    # Numbers and no mask: how many it selects, a GPU would have to be asked.
    there = [part for part in range(one_hot.shape[-1]) if part not in EMPTY_PARTS]
    rows = slice(0, 1) if first_pose_only else slice(None)
    terms = {
        # From the logits: no logarithm of a probability that is 0.
        "segmentation": F.cross_entropy(output.logits.flatten(0, 1), labels.flatten()),
        "rotations": F.mse_loss(found.rotations[rows], truth.rotations[rows]),
        "betas": F.mse_loss(found.betas, truth.betas),
        "joints": F.mse_loss(found.joints, truth.joints),
        "vertices": F.mse_loss(found.vertices, truth.vertices),
        "centroids": F.mse_loss(
            part_centroids(points, output.segmentation)[:, there], part_centroids(points, one_hot)[:, there]
        ),
    }
    if faces is not None:
        terms["normals"] = normal_errors(found.vertices, truth.vertices, faces).mean()
    if markers is not None:
        terms["markers"] = F.mse_loss(found.vertices[:, markers], truth.vertices[:, markers])
    return terms


def total(terms: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Weighted sum."""
    return torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
