"""Sampling, searching and gathering points in plain torch: what the kernels are tested against."""

from __future__ import annotations

import torch
from torch import Tensor


def furthest_points(points: Tensor, count: int, skip: float) -> Tensor:
    """See `zoo.ops.points.furthest_points`; `skip` is a squared distance from the origin."""
    batch = torch.arange(len(points), device=points.device)
    chosen = torch.zeros(len(points), count, dtype=torch.long, device=points.device)
    distance = torch.full(points.shape[:2], 1e10, dtype=points.dtype, device=points.device)
    # A distance below zero stays the smallest: such a point is never the furthest.
    distance[points.square().sum(-1) <= skip] = -1.0
    for k in range(1, count):
        last = points[batch, chosen[:, k - 1]]
        distance = torch.minimum(distance, (points - last.unsqueeze(1)).square().sum(-1))
        furthest = distance.max(1)
        chosen[:, k] = torch.where(furthest.values > -1, furthest.indices, 0)
    return chosen


def ball_query(points: Tensor, centres: Tensor, radius: float, count: int, nearest: bool) -> Tensor:
    """The neighbours, -1 in the slots that are left."""
    found = []
    for part in centres.split(256, 1):
        squared = (part.unsqueeze(2) - points.unsqueeze(1)).square().sum(-1)  # (B, p, N)
        outside = squared >= radius * radius
        key = squared if nearest else torch.arange(points.shape[1], device=points.device).to(squared).expand_as(squared)
        key = key.masked_fill(outside, torch.inf)
        size = min(count, points.shape[1])
        first = key.sort(dim=-1, stable=True)
        index = first.indices[..., :size].masked_fill(first.values[..., :size].isinf(), -1)
        found.append(torch.nn.functional.pad(index, (0, count - size), value=-1))
    return torch.cat(found, 1)


def kernel_weights(offsets: Tensor, neighbours: Tensor, points: Tensor, sigma: float) -> Tensor:
    """max(0, 1 - |offset - point|^2 / sigma), 0 where there is no neighbour: (B, P, n, 3), (M, 3) -> (B, P, n, M)."""
    squared = (offsets.unsqueeze(-2) - points).square().sum(-1)
    return (1 - squared / sigma).clamp_min(0) * (neighbours >= 0).unsqueeze(-1)


def _weights_of_rotations(
    offsets: Tensor, neighbours: Tensor, points: Tensor, table: Tensor, sigma: float
) -> tuple[Tensor, bool]:
    """Weights (B, P, M, n) of points that all rotations share, or (B, P, A, K, n); and whether it is the former."""
    if len(points) <= 4 * table.shape[1]:
        return kernel_weights(offsets, neighbours, points, sigma).mT, True
    weights = kernel_weights(offsets, neighbours, points[table.flatten()], sigma)
    return weights.mT.unflatten(2, tuple(table.shape)), False


def rotation_gather(
    features: Tensor, offsets: Tensor, neighbours: Tensor, points: Tensor, table: Tensor, sigma: float
) -> Tensor:
    """See `zoo.ops.points_op`: (B, S, A, C) -> (B, P, A, K, C)."""
    batch = torch.arange(len(features), device=features.device)[:, None, None]
    near = features[batch, neighbours.clamp_min(0)]  # (B, P, n, A, C)
    weights, shared = _weights_of_rotations(offsets, neighbours, points, table, sigma)
    if not shared:
        return torch.einsum("bpakn,bpnac->bpakc", weights, near)
    gathered = (weights @ near.flatten(3)).unflatten(3, tuple(near.shape[3:]))  # (B, P, M, A, C)
    rotation = torch.arange(len(table), device=table.device).unsqueeze(1)
    return gathered[:, :, table, rotation]


def rotation_scatter(
    grad: Tensor, offsets: Tensor, neighbours: Tensor, points: Tensor, table: Tensor, sigma: float, support: int
) -> Tensor:
    """The transpose of `rotation_gather`: (B, P, A, K, C) -> (B, S, A, C)."""
    batch, _, rotations, _, channels = grad.shape
    weights, shared = _weights_of_rotations(offsets, neighbours, points, table, sigma)
    if shared:
        places = grad.new_zeros(*grad.shape[:2], len(points), rotations, channels)
        rotation = torch.arange(rotations, device=grad.device).unsqueeze(1).expand_as(table)
        places.index_put_((*_all(grad), table, rotation), grad, accumulate=True)
        near = (weights.mT @ places.flatten(3)).unflatten(3, (rotations, channels))
    else:
        near = torch.einsum("bpakn,bpakc->bpnac", weights, grad)
    index = neighbours.clamp_min(0).flatten(1)
    out = grad.new_zeros(batch, support, rotations, channels)
    rows = torch.arange(batch, device=grad.device).unsqueeze(1).expand_as(index)
    return out.index_put((rows, index), near.flatten(1, 2), accumulate=True)


def _all(grad: Tensor) -> tuple[Tensor, Tensor]:
    batch, centres = (torch.arange(size, device=grad.device) for size in grad.shape[:2])
    return batch[:, None, None, None], centres[:, None, None]
