"""Sampling, searching and gathering points in plain torch: what the kernels are tested against."""

from __future__ import annotations

import torch
from torch import Tensor

# Distances of so many pairs are made at a time.
_BLOCK = 1 << 23


def furthest_points(points: Tensor, count: int, skip: float) -> Tensor:
    """See `zoo.ops.points.furthest_points`; `skip` is a squared distance from the origin."""
    batch = torch.arange(len(points), device=points.device)
    chosen = torch.zeros(len(points), count, dtype=torch.long, device=points.device)
    distance = torch.full(points.shape[:2], 1e10, dtype=points.dtype, device=points.device)
    # A distance below zero stays the smallest: such a point is never the furthest.
    distance = distance.masked_fill(points.square().sum(-1) <= skip, -1.0)
    for k in range(1, count):
        last = points[batch, chosen[:, k - 1]]
        distance = torch.minimum(distance, (points - last.unsqueeze(1)).square().sum(-1))
        furthest = distance.max(1)
        chosen[:, k] = torch.where(furthest.values > -1, furthest.indices, 0)
    return chosen


def ball_query(points: Tensor, centres: Tensor, radius: float, count: int, nearest: bool) -> Tensor:
    """The neighbours, -1 in the slots that are left."""
    batch, total = points.shape[:2]
    size = min(count, total)
    limit = points.new_full((), radius).square()  # rounded as distances are, so that a point at the radius is outside
    found = []
    for part in centres.split(max(1, _BLOCK // max(1, batch * total)), 1):
        squared = _squared_distances(part.unsqueeze(2), points.unsqueeze(1))  # (B, p, N)
        if nearest:
            first = torch.where(squared < limit, squared, torch.inf).sort(dim=-1, stable=True)
            index = first.indices[..., :size].masked_fill(first.values[..., :size].isinf(), -1)
        else:
            inside = torch.where(squared < limit, torch.arange(total, device=points.device), total)
            index = inside.topk(size, largest=False).values
            index = index.masked_fill(index == total, -1)
        found.append(torch.nn.functional.pad(index, (0, count - size), value=-1))
    return torch.cat(found, 1)


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Of vectors (..., 3), axis by axis: differences of all pairs are three times as large."""
    x, y, z = ((a[..., axis] - b[..., axis]).square() for axis in range(3))
    return x + y + z


def kernel_weights(offsets: Tensor, neighbours: Tensor, points: Tensor, sigma: float) -> Tensor:
    """max(0, 1 - |offset - point|^2 / sigma), 0 where there is no neighbour: (B, P, n, 3), (M, 3) -> (B, P, n, M)."""
    squared = _squared_distances(offsets.unsqueeze(-2), points)
    return (1 - squared / sigma).clamp_min(0) * (neighbours >= 0).unsqueeze(-1)


def _weights_of_rotations(offsets: Tensor, neighbours: Tensor, points: Tensor, table: Tensor, sigma: float) -> Tensor:
    """Weights (B, P, A, K, n), computed once for points that rotations share."""
    if len(points) < table.numel():
        return kernel_weights(offsets, neighbours, points, sigma).mT[:, :, table]
    return kernel_weights(offsets, neighbours, points[table.flatten()], sigma).mT.unflatten(2, tuple(table.shape))


def rotation_gather(
    features: Tensor, offsets: Tensor, neighbours: Tensor, points: Tensor, table: Tensor, sigma: float
) -> Tensor:
    """See `zoo.ops.points_op`: (B, S, A, C) -> (B, P, A, K, C)."""
    batch = torch.arange(len(features), device=features.device)[:, None, None]
    near = features[batch, neighbours.clamp_min(0)]  # (B, P, n, A, C)
    return torch.einsum("bpakn,bpnac->bpakc", _weights_of_rotations(offsets, neighbours, points, table, sigma), near)


def rotation_scatter(
    grad: Tensor, offsets: Tensor, neighbours: Tensor, points: Tensor, table: Tensor, sigma: float, support: int
) -> Tensor:
    """The transpose of `rotation_gather`: (B, P, A, K, C) -> (B, S, A, C)."""
    batch, _, rotations, _, channels = grad.shape
    weights = _weights_of_rotations(offsets, neighbours, points, table, sigma)
    near = torch.einsum("bpakn,bpakc->bpnac", weights, grad)
    index = neighbours.clamp_min(0).flatten(1)
    out = grad.new_zeros(batch, support, rotations, channels)
    rows = torch.arange(batch, device=grad.device).unsqueeze(1).expand_as(index)
    # Not index_add: on a GPU this one adds in an order of its own, the same in every run.
    return out.index_put_((rows, index), near.flatten(1, 2), accumulate=True)
