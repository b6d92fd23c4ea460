"""Operations on point clouds: sampling, searching, and convolutions whose features turn with the cloud.

Indices are found without derivatives; the convolution is differentiable in its features and weights, not in the
coordinates. Source: Chen et al., "Equivariant Point Network for 3D Point Cloud Analysis", CVPR 2021
(arXiv 2103.14147). Computed by kernels (``kernels/points``, `zoo.ops.points_op`) where they can be built: on a CPU all
in C++, on a GPU the sampling in CUDA, whose thousands of small steps plain torch would launch one by one. All else runs
in plain torch (`zoo.ops.points_reference`).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from zoo.ops import native, points_op, points_reference
from zoo.ops.build import BuildError
from zoo.ops.native import Implementation
from zoo.ops.precision import full_precision

QueryOrder = Literal["index", "nearest"]

# Gathered features of so many numbers, and in plain torch as many weights, are made at a time: the rest waits.
_BLOCK = 1 << 23


def furthest_points(points: Tensor, count: int, skip: float = 0.0, implementation: Implementation = "auto") -> Tensor:
    """Indices of points that are spread out: the first, then always the one furthest from all taken so far.

    Args:
        points: (B, N, 3) float32 or float64.
        count: how many, at most N.
        skip: points with \\|x\\|^2 <= `skip` are left out, but for the first (EPN does so, with 1e-3); where nothing
            else is left, the first is repeated. Below 0, none are.
        implementation: see `zoo.ops.rational.rational`.

    Returns:
        (B, `count`) int64.

    Raises:
        ValueError: wrong shape, or too many points are asked for.
    """
    points = _check_points(points, "points")
    if not 0 < count <= points.shape[1]:
        raise ValueError(f"{count} of {points.shape[1]} points can't be sampled")
    if _by_reference(points, implementation, ("cpu", "cuda")):
        return points_reference.furthest_points(points, count, skip)
    result: Tensor = points_op.furthest_points(points, count, skip)
    return result


def ball_query(
    points: Tensor,
    centres: Tensor,
    radius: float,
    count: int,
    order: QueryOrder = "nearest",
    implementation: Implementation = "auto",
) -> Tensor:
    """Indices of the points nearer than `radius` to each centre, at most `count` of them.

    Args:
        points: (B, N, 3) float32 or float64.
        centres: (B, P, 3), likewise.
        radius: in the points' unit.
        count: slots per centre.
        order: which are kept: ``"nearest"``, by distance, or ``"index"``, the first in the cloud's order.
        implementation: see `zoo.ops.rational.rational`.

    Returns:
        (B, P, `count`) int64, in the order of `order`; -1 in the slots that are left.

    Raises:
        ValueError: wrong shapes, an unknown order, no slots, or a radius that is not positive.
    """
    points, centres = _check_points(points, "points"), _check_points(centres, "centres")
    if len(points) != len(centres) or points.dtype != centres.dtype:
        raise ValueError("points and centres should have one batch size and dtype")
    if count < 1 or not radius > 0:
        raise ValueError(f"a ball of radius {radius} with {count} slots holds nothing: both should be positive")
    if order not in ("nearest", "index"):
        raise ValueError(f"there is no order {order!r}: use 'nearest' or 'index'")
    function = points_reference.ball_query if _by_reference(points, implementation) else points_op.ball_query
    result: Tensor = function(points, centres, radius, count, order == "nearest")
    return result


def rotation_convolution(
    features: Tensor,
    weight: Tensor,
    offsets: Tensor,
    neighbours: Tensor,
    points: Tensor,
    table: Tensor,
    sigma: float,
    implementation: Implementation = "auto",
) -> Tensor:
    """A convolution in space of features that belong to rotations R_a, with kernel points that turn with them.

    out[p, a, o] = sum_{c,k} weight[o, c, k] sum_j max(0, 1 - \\|x_j - x_p - y_ak\\|^2 / sigma) f[j, a, c], y_ak being
    ``points[table[a, k]]``, the k-th kernel point turned by R_a. What is gathered, K times the features, is made
    block by block, and again in the backward pass, never as a whole.

    Args:
        features: (B, S, A, C) of S points.
        weight: (O, C, K).
        offsets: (B, P, n, 3): x_j - x_p. No gradient goes there.
        neighbours: (B, P, n) int64: the points j; -1 for none, after those that are there.
        points: (M, 3). If they are few because rotations share them, the arithmetic is shared, too.
        table: (A, K) int64.
        sigma: squared reach of a kernel point.
        implementation: see `zoo.ops.rational.rational`.

    Returns:
        (B, P, A, O), in float32 under autocast, too.

    Raises:
        ValueError: shapes that do not belong together, or a reach that is not positive.
    """
    if features.ndim != 4 or weight.ndim != 3 or features.shape[3] != weight.shape[1]:
        raise ValueError(f"features {tuple(features.shape)} and weight {tuple(weight.shape)} don't belong together")
    if table.shape != (features.shape[2], weight.shape[2]) or neighbours.shape != offsets.shape[:3]:
        raise ValueError("the table should be (A, K), the offsets (B, P, n, 3) and the neighbours (B, P, n)")
    if not sigma > 0:
        raise ValueError(f"sigma should be positive, not {sigma}")
    by_reference = _by_reference(features, implementation)
    # Without a compiler it is the reference, too, and should know that it is.
    by_reference |= features.device.type == "cpu" and not native.available("points", features.device)
    with full_precision(features):
        if features.dtype != torch.float64:
            features = features.float()
        weight, offsets, points = (tensor.to(features.dtype) for tensor in (weight, offsets, points))
        flat = weight.transpose(1, 2).flatten(1)  # (O, K C), as the gathered features lie
        out: Tensor = _RotationConvolution.apply(
            features, flat, offsets, neighbours.long(), points, table.long(), sigma, by_reference
        )
    return out


class _RotationConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        offsets: Tensor,
        neighbours: Tensor,
        points: Tensor,
        table: Tensor,
        sigma: float,
        by_reference: bool,
    ) -> Tensor:
        ctx.save_for_backward(features, weight, offsets, neighbours, points, table)
        ctx.sigma, ctx.by_reference = sigma, by_reference
        gather = points_reference.rotation_gather if by_reference else points_op.rotation_gather
        out = []
        for part in _blocks(features, offsets, table, by_reference):
            gathered = gather(features, offsets[:, part], neighbours[:, part], points, table, sigma)
            out.append(gathered.flatten(3) @ weight.T)
        return out[0] if len(out) == 1 else torch.cat(out, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, offsets, neighbours, points, table = ctx.saved_tensors
        gather = points_reference.rotation_gather if ctx.by_reference else points_op.rotation_gather
        scatter = points_reference.rotation_scatter if ctx.by_reference else points_op.rotation_scatter
        to_features = torch.zeros_like(features) if ctx.needs_input_grad[0] else None
        to_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for part in _blocks(features, offsets, table, ctx.by_reference):
            where = (offsets[:, part], neighbours[:, part], points, table, ctx.sigma)
            above = grad[:, part]
            if to_weight is not None:
                gathered = gather(features, *where).flatten(3).flatten(0, 2)
                to_weight += above.flatten(0, 2).T @ gathered
            if to_features is not None:
                gathered_grad = (above @ weight).unflatten(3, (table.shape[1], features.shape[3]))
                to_features += scatter(gathered_grad, *where, features.shape[1])
        return to_features, to_weight, None, None, None, None, None, None


def _blocks(features: Tensor, offsets: Tensor, table: Tensor, by_reference: bool) -> list[slice]:
    """Runs of centres whose gathered features make a block."""
    batch, centres, slots = offsets.shape[:3]
    (rotations, kernel), channels = table.shape, features.shape[3]
    numbers = kernel * channels
    if by_reference:  # which makes weights and neighbours' features, too
        numbers = max(numbers, slots * kernel, slots * channels)
    size = max(1, _BLOCK // max(1, batch * rotations * numbers))
    return [slice(first, first + size) for first in range(0, centres, size)] or [slice(0, 0)]


def _check_points(points: Tensor, name: str) -> Tensor:
    if points.ndim != 3 or points.shape[2] != 3 or not points.shape[1]:
        raise ValueError(f"{name} should be of the shape (B, N, 3), not {tuple(points.shape)}")
    return points if points.dtype in (torch.float32, torch.float64) else points.float()


def _by_reference(tensor: Tensor, implementation: Implementation, devices: tuple[str, ...] = ("cpu",)) -> bool:
    device = tensor.device
    if implementation == "compiled":
        if device.type not in devices:
            raise BuildError(
                f"This op of zoo.ops.points has kernels for {' and '.join(devices)}, not for {device.type}."
            )
        native.require("points", device)
    # Elsewhere plain torch is what there is: no word is lost about it.
    return native.is_reference(implementation) or device.type not in (*devices, "meta")
