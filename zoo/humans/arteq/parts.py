"""Body parts: labels of points, rotations along the skeleton, centroids.

A part is one of SMPL's first 22 joints. Hands belong to the wrists and toes to the ankles, so that the parts 10 and
11 have no points.
"""

from __future__ import annotations

import roma
import torch
from torch import Tensor

from zoo.humans.arteq.network import NUM_PARTS, PARENTS

# Parts without points: both feet.
EMPTY_PARTS = (10, 11)
_MERGED = {22: 20, 23: 21, 10: 7, 11: 8}


def part_labels(weights: Tensor) -> Tensor:
    """The part of each point by its skinning weights, (..., 24) -> (...) int64."""
    merged = torch.tensor([_MERGED.get(joint, joint) for joint in range(24)], device=weights.device)
    return merged[weights.argmax(-1)]


def global_rotations(local: Tensor) -> Tensor:
    """Rotations relative to the parents (B, J >= 22, 3, 3) -> the first 22 parts' rotations in the world."""
    world: list[Tensor] = [local[:, 0]]
    for part in range(1, NUM_PARTS):
        world.append(world[PARENTS[part]] @ local[:, part])
    return torch.stack(world, 1)


def local_rotations(world: Tensor) -> Tensor:
    """The inverse of `global_rotations`, (B, 22, 3, 3) -> (B, 22, 3, 3)."""
    above = world[:, list(PARENTS[1:])]
    return torch.cat([world[:, :1], above.mT @ world[:, 1:]], 1)


def body_rotations(world: Tensor) -> Tensor:
    """SMPL's 24 rotations of a pose given by its parts, (B, 22, 3, 3) -> (B, 24, 3, 3); hands as the wrists."""
    hands = torch.eye(3, dtype=world.dtype, device=world.device).expand(len(world), 2, 3, 3)
    return torch.cat([local_rotations(world), hands], 1)


def without_hands(pose: Tensor) -> Tensor:
    """Rotation vectors (B, 72) with straight hands, as the official protocol has them."""
    return torch.cat([pose[:, : 3 * NUM_PARTS], torch.zeros_like(pose[:, 3 * NUM_PARTS :])], 1)


def turn(pose: Tensor, rotation: Tensor) -> Tensor:
    """Rotation vectors (B, 72) of bodies turned about their pelvis by (B, 3, 3)."""
    root = roma.rotmat_to_rotvec(rotation @ roma.rotvec_to_rotmat(pose[:, :3]))
    return torch.cat([root, pose[:, 3:]], 1)


def turn_euler(pose: Tensor, angles: Tensor) -> Tensor:
    """The official augmentation: angles (B, 3) added to the root's XYZ Euler angles. It favours the poles."""
    present = roma.rotvec_to_euler("XYZ", pose[:, :3], as_tuple=False)
    return torch.cat([roma.euler_to_rotvec("XYZ", present + angles), pose[:, 3:]], 1)


def part_centroids(points: Tensor, weights: Tensor) -> Tensor:
    """Weighted means of points (B, N, 3) for each part, by weights (B, N, 22) that need not sum to 1."""
    total = weights.sum(1).clamp_min(1e-12).unsqueeze(-1)
    return weights.mT @ points / total


def estimate_translation(points: Tensor, segmentation: Tensor, vertices: Tensor, vertex_labels: Tensor) -> Tensor:
    """Where a body stands: what moves the centroids of its parts to those of the cloud, in least squares.

    A part counts by how many points it has, so that a scan from one side is still met by what it shows.

    Args:
        points: (B, N, 3) metres.
        segmentation: (B, N, 22) probability of each part.
        vertices: (B, V, 3) of the body without translation.
        vertex_labels: (V,) parts of the vertices.

    Returns:
        (B, 3) metres.
    """
    belongs = torch.nn.functional.one_hot(vertex_labels, NUM_PARTS).to(points).expand(len(points), -1, -1)
    shift = part_centroids(points, segmentation) - part_centroids(vertices, belongs)
    share = segmentation.sum(1) * (belongs.sum(1) > 0)
    return (shift * share.unsqueeze(-1)).sum(1) / share.sum(1, keepdim=True)
