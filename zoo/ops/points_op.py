"""The torch ops of `zoo.ops.points`. Kernels (``kernels/points``) register themselves for the CPU when loaded.

That of ``zoo::furthest_points`` does for CUDA, too. Until then, and on any other device, the implementations here are
called: they load them, or compute the reference.

``zoo::rotation_gather`` is the linear map of features

    out[b, p, a, k, :] = sum_j w[b, p, j, table[a, k]] f[b, neighbour[b, p, j], a, :]
    w[b, p, j, m] = max(0, 1 - |offset[b, p, j] - point[m]|^2 / sigma)

from (B, S, A, C) to (B, P, A, K, C), ``zoo::rotation_scatter`` its transpose.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.ops import native, points_reference

_SCHEMAS = {
    "furthest_points": "(Tensor points, int count, float skip) -> Tensor",
    "ball_query": "(Tensor points, Tensor centres, float radius, int count, bool nearest) -> Tensor",
    "rotation_gather": "(Tensor features, Tensor offsets, Tensor neighbours, Tensor points, Tensor table, float sigma)"
    " -> Tensor",
    "rotation_scatter": "(Tensor grad, Tensor offsets, Tensor neighbours, Tensor points, Tensor table, float sigma, "
    "int support) -> Tensor",
}
for _name, _schema in _SCHEMAS.items():
    torch.library.define(f"zoo::{_name}", _schema)

furthest_points = torch.ops.zoo.furthest_points.default
ball_query = torch.ops.zoo.ball_query.default
rotation_gather = torch.ops.zoo.rotation_gather.default
rotation_scatter = torch.ops.zoo.rotation_scatter.default


def _furthest_points(points: Tensor, count: int, skip: float) -> Tensor:
    if native.covers("points", points.device):
        return furthest_points(points, count, skip)
    return points_reference.furthest_points(points, count, skip)


def _ball_query(points: Tensor, centres: Tensor, radius: float, count: int, nearest: bool) -> Tensor:
    if points.device.type == "cpu" and native.covers("points", points.device):
        return ball_query(points, centres, radius, count, nearest)
    return points_reference.ball_query(points, centres, radius, count, nearest)


def _gather(
    features: Tensor, offsets: Tensor, neighbours: Tensor, points: Tensor, table: Tensor, sigma: float
) -> Tensor:
    if features.device.type == "cpu" and native.covers("points", features.device):
        return rotation_gather(features, offsets, neighbours, points, table, sigma)
    return points_reference.rotation_gather(features, offsets, neighbours, points, table, sigma).contiguous()


def _scatter(
    grad: Tensor, offsets: Tensor, neighbours: Tensor, points: Tensor, table: Tensor, sigma: float, support: int
) -> Tensor:
    if grad.device.type == "cpu" and native.covers("points", grad.device):
        return rotation_scatter(grad, offsets, neighbours, points, table, sigma, support)
    return points_reference.rotation_scatter(grad, offsets, neighbours, points, table, sigma, support).contiguous()


def _fake_furthest_points(points: Tensor, count: int, skip: float) -> Tensor:
    return points.new_empty(points.shape[0], count, dtype=torch.long)


def _fake_ball_query(points: Tensor, centres: Tensor, radius: float, count: int, nearest: bool) -> Tensor:
    return points.new_empty(*centres.shape[:2], count, dtype=torch.long)


def _fake_gather(
    features: Tensor, offsets: Tensor, neighbours: Tensor, points: Tensor, table: Tensor, sigma: float
) -> Tensor:
    return features.new_empty(*offsets.shape[:2], *table.shape, features.shape[3])


def _fake_scatter(
    grad: Tensor, offsets: Tensor, neighbours: Tensor, points: Tensor, table: Tensor, sigma: float, support: int
) -> Tensor:
    return grad.new_empty(grad.shape[0], support, len(table), grad.shape[4])


for _name, _here, _fake in (
    ("furthest_points", _furthest_points, _fake_furthest_points),
    ("ball_query", _ball_query, _fake_ball_query),
    ("rotation_gather", _gather, _fake_gather),
    ("rotation_scatter", _scatter, _fake_scatter),
):
    torch.library.impl(f"zoo::{_name}", "CompositeExplicitAutograd", _here)
    torch.library.register_fake(f"zoo::{_name}", _fake)
