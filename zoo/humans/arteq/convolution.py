"""Convolutions over space and over a rotation group, and the separable blocks made of them.

Features are (B, P, A, C): of P points, for A rotations, C channels. Turning the cloud by a rotation of the group
permutes A (see `zoo.humans.arteq.group`). Source: Chen et al., EPN, CVPR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.humans.arteq.group import GroupName, KernelName, kernel_points, rotated_index, rotation_group
from zoo.ops import ball_query, furthest_points, rotation_convolution
from zoo.ops.precision import full_precision

# A kernel's furthest point lies at this share of the radius.
_KERNEL_REACH = 0.7
# EPN's sampling leaves out points with |x|^2 up to this, in square metres.
_EPN_SKIP = 1e-3


@dataclass(frozen=True)
class ConvSetting:
    """A spatial convolution.

    Attributes:
        dim_in, dim_out: channels.
        stride: centres are ceil(P / stride) of the points.
        radius: of the ball query, metres.
        sigma: squared reach of a kernel point, square metres.
        n_neighbor: slots of the ball query.
        lazy_sample: centres are the first points instead of furthest points: right behind a layer that sampled.
    """

    dim_in: int
    dim_out: int
    stride: int
    radius: float
    sigma: float
    n_neighbor: int
    lazy_sample: bool


@dataclass(frozen=True)
class Neighbourhood:
    """Centres and what lies about them.

    Attributes:
        xyz: (B, P, 3) centres.
        chosen: (B, P) int64, which points they are; None for all of them in order.
        neighbours: (B, P, n) int64, -1 for none.
        offsets: (B, P, n, 3), neighbours relative to the centre.
    """

    xyz: Tensor
    chosen: Tensor | None
    neighbours: Tensor
    offsets: Tensor


@torch.no_grad()
def find_neighbourhood(xyz: Tensor, setting: ConvSetting, kernel: KernelName) -> Neighbourhood:
    """Centres and neighbours of a convolution over points (B, P, 3).

    With the ``"epn"`` kernel as the official code finds them: the first neighbours by index, and empty slots filled
    with those found again from the first on, so that some count twice; if just one slot is empty, with point 0.
    With ``"orbit"`` the nearest ones, whatever the order of the points, and nothing in empty slots.
    """
    centres, chosen = xyz, None
    if setting.stride > 1:
        count = -(-xyz.shape[1] // setting.stride)
        if setting.lazy_sample:
            chosen = torch.arange(count, device=xyz.device).expand(len(xyz), -1)
        else:
            chosen = furthest_points(xyz, count, _EPN_SKIP if kernel == "epn" else -1.0)
        centres = take(xyz, chosen)
    order = "index" if kernel == "epn" else "nearest"
    neighbours = ball_query(xyz, centres, setting.radius, setting.n_neighbor, order)  # type: ignore[arg-type]
    if kernel == "epn":
        neighbours = _fill(neighbours)
    offsets = take(xyz, neighbours.clamp_min(0).flatten(1)).unflatten(1, (-1, setting.n_neighbor))
    return Neighbourhood(centres, chosen, neighbours, offsets - centres.unsqueeze(2))


def take(values: Tensor, index: Tensor) -> Tensor:
    """Rows of (B, P, ...) at (B, Q) -> (B, Q, ...)."""
    return values[torch.arange(len(values), device=values.device).unsqueeze(1), index]


def _fill(neighbours: Tensor) -> Tensor:
    """EPN's way with empty slots."""
    slots = neighbours.shape[-1]
    found = (neighbours >= 0).sum(-1, keepdim=True)
    cyclic = torch.arange(slots, device=neighbours.device) % found.clamp_min(1)
    filled = neighbours.gather(-1, cyclic).clamp_min(0)
    filled[..., -1:].masked_fill_(found == slots - 1, 0)
    return filled


class InterConv(nn.Module):
    """Convolution over space: mixes the points of a ball, each rotation by its own turned kernel.

    Args:
        setting: see `ConvSetting`.
        group: whose rotations.
        kernel: ``"epn"``: sums over neighbours and 24 points that each rotation takes elsewhere. ``"orbit"``: the
            mean over neighbours (so it does not depend on the density of points), and points that rotations permute.
    """

    points: Tensor
    table: Tensor

    def __init__(self, setting: ConvSetting, group: GroupName, kernel: KernelName) -> None:
        super().__init__()
        self.setting, self.kernel = setting, kernel
        points = kernel_points(kernel, group)
        rotations = rotation_group(group).rotations
        if kernel == "epn":
            table = torch.arange(len(rotations) * len(points)).unflatten(0, (len(rotations), len(points)))
        else:
            table = rotated_index(points, rotations)
        self.weight = nn.Parameter(torch.empty(setting.dim_out, setting.dim_in, len(points)))
        self.bias = nn.Parameter(torch.full((setting.dim_out,), 1e-3))
        nn.init.xavier_uniform_(self.weight.data.view(setting.dim_out, -1))
        scaled, device = (points * _KERNEL_REACH * setting.radius).float(), self.weight.device
        self.register_buffer("points", scaled.to(device), persistent=kernel == "epn")
        self.register_buffer("table", table.to(device), persistent=False)

    def forward(self, features: Tensor, around: Neighbourhood, rotations: Tensor) -> Tensor:
        """(B, S, A, C) -> (B, P, A, O), with the rotations (A, 3, 3)."""
        points = self.points
        if self.kernel == "epn":
            points = torch.einsum("aij,kj->aki", rotations, points).flatten(0, 1)
        out = rotation_convolution(
            features, self.weight, around.offsets, around.neighbours, points, self.table, self.setting.sigma
        )
        if self.kernel == "orbit":
            out = out / (around.neighbours >= 0).sum(-1).clamp_min(1)[..., None, None]
        return out + self.bias


class IntraConv(nn.Module):
    """Convolution over the group: mixes the rotations R_a r_k of each point into R_a.

    Args:
        dim_in, dim_out: channels.
        neighbours: K, how many rotations are mixed.
    """

    def __init__(self, dim_in: int, dim_out: int, neighbours: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim_out, dim_in, neighbours))
        self.bias = nn.Parameter(torch.full((dim_out,), 1e-3))
        nn.init.xavier_uniform_(self.weight.data.view(dim_out, -1))

    def forward(self, features: Tensor, neighbours: Tensor) -> Tensor:
        """(B, P, A, C) -> (B, P, A, O), with the group's neighbours (A, K)."""
        if neighbours.shape[1] == len(neighbours):
            return _mix_all(features, self.weight, neighbours) + self.bias
        with full_precision(features):
            mixed: Tensor = _GroupConvolution.apply(features.to(self.weight.dtype), self.weight, neighbours)
        return mixed + self.bias


def _mix_all(features: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    """`_mix` where every rotation is every other's neighbour: one matrix of all, and nothing to gather."""
    # Rotation a takes from b what stands at k with table[a, k] = b.
    # index_select, whose backward pass takes half the time of an index's.
    spread = weight.index_select(2, table.argsort(1).flatten()).unflatten(2, table.shape)
    matrix = spread.permute(3, 1, 2, 0)  # (A from, C, A to, O)
    mixed: Tensor = features.flatten(2) @ matrix.flatten(2).flatten(0, 1).to(features.dtype)
    return mixed.unflatten(2, (len(table), -1))


# Gathered features of so many numbers are made at a time.
_BLOCK = 1 << 23


def _mix(features: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    """sum_{c,k} weight[o, c, k] f[p, table[a, k], c]."""
    flat = weight.transpose(1, 2).flatten(1).T
    size = max(1, _BLOCK // max(1, len(features) * table.numel() * features.shape[3]))
    mixed = [part[:, :, table].flatten(3) @ flat for part in features.split(size, 1)]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, 1)


class _GroupConvolution(torch.autograd.Function):
    """`_mix`, of which only the features are kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight, table)
        return _mix(features, weight, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, table = ctx.saved_tensors
        to_features = to_weight = None
        if ctx.needs_input_grad[0]:
            # a -> table[a, k] is a permutation for each k: its transpose gathers, too.
            to_features = _mix(grad, weight.transpose(0, 1), table.argsort(0))
        if ctx.needs_input_grad[1]:
            to_weight = torch.zeros_like(weight)
            size = max(1, _BLOCK // max(1, len(features) * table.numel() * features.shape[3]))
            for part, above in zip(features.split(size, 1), grad.split(size, 1), strict=True):
                product = above.flatten(0, 2).T @ part[:, :, table].flatten(0, 2).flatten(1)
                to_weight += product.unflatten(1, (table.shape[1], -1)).transpose(1, 2)
        return to_features, to_weight, None


def normalise(features: Tensor) -> Tensor:
    """Mean 0 and variance 1 of each channel over points and rotations, then a leaky ReLU."""
    flat = features.flatten(1, 2).mT  # a long last axis: several times faster than `torch.var_mean` along two
    return F.leaky_relu(F.instance_norm(flat), 0.01).mT.reshape(features.shape)


class SeparableBlock(nn.Module):
    """A convolution over space, then one over the group, beside a linear short cut.

    Args:
        setting, group, kernel: of the spatial one, see `InterConv`.
    """

    def __init__(self, setting: ConvSetting, group: GroupName, kernel: KernelName) -> None:
        super().__init__()
        self.inter = InterConv(setting, group, kernel)
        self.intra = IntraConv(setting.dim_out, setting.dim_out, rotation_group(group).neighbours.shape[1])
        self.skip = nn.Linear(setting.dim_in, setting.dim_out)
        nn.init.xavier_uniform_(self.skip.weight)
        nn.init.constant_(self.skip.bias, 1e-3)

    def forward(self, xyz: Tensor, features: Tensor, rotations: Tensor, neighbours: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B, S, 3) and features (B, S, A, C) -> centres (B, P, 3) and features (B, P, A, O).

        Args:
            xyz, features: of the points.
            rotations: (A, 3, 3).
            neighbours: (A, K), see `zoo.humans.arteq.group.RotationGroup`.
        """
        around = find_neighbourhood(xyz, self.inter.setting, self.inter.kernel)
        out = normalise(self.inter(features, around, rotations))
        out = normalise(self.intra(out, neighbours))
        kept = features if around.chosen is None else take(features, around.chosen)
        return around.xyz, out + normalise(self.skip(kept))
