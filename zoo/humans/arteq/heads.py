"""From features of points and rotations to parts, rotations of parts and body shape."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.ops.precision import full_precision


class ResidualBlock(nn.Module):
    """A residual block of two linear layers on each point.

    Args:
        dim_in, dim_out: channels; the inner width is the smaller.
    """

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.fc_0 = nn.Linear(dim_in, min(dim_in, dim_out))
        self.fc_1 = nn.Linear(min(dim_in, dim_out), dim_out)
        self.shortcut = nn.Linear(dim_in, dim_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim_in) -> (..., dim_out)."""
        inner: Tensor = self.fc_1(torch.relu(self.fc_0(torch.relu(x))))
        return inner + self.shortcut(x)


class PartSegmentation(nn.Module):
    """A PointNet of residual blocks: logits of the parts for each point.

    Args:
        dim_in: channels of a point.
        hidden: width.
        parts: how many.
        rounds: times that the maximum over the points joins each point's own features.
    """

    def __init__(self, dim_in: int, hidden: int, parts: int, rounds: int = 3) -> None:
        super().__init__()
        self.fc_pos = nn.Linear(dim_in, 2 * hidden)
        self.blocks = nn.ModuleList(ResidualBlock(2 * hidden, hidden) for _ in range(rounds + 1))
        self.fc_c = nn.Linear(hidden, parts)

    def forward(self, features: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, parts)."""
        first, *others = self.blocks
        x = first(self.fc_pos(features))
        for block in others:
            x = block(torch.cat([x, x.amax(1, keepdim=True).expand_as(x)], -1))
        logits: Tensor = self.fc_c(torch.relu(x))
        return logits


class SelfAttention(nn.Module):
    """Multi-head self-attention without normalisation or position.

    Args:
        dim: of a token; heads divide it.
        heads: number of them.
        dim_out: of what comes out.
    """

    def __init__(self, dim: int, heads: int, dim_out: int) -> None:
        super().__init__()
        self.heads = heads
        self.key = nn.Linear(dim, dim, bias=False)
        self.query = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.combine = nn.Linear(dim, dim_out)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, dim) -> (B, T, dim_out)."""
        query, key, value = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.combine(mixed.transpose(1, 2).flatten(2))
        return out


class AttentionStack(nn.Module):
    """Two layers of self-attention; the first adds to its input.

    Args:
        dim, heads: see `SelfAttention`.
        dim_out: of what comes out of the second.
    """

    def __init__(self, dim: int, heads: int, dim_out: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([SelfAttention(dim, heads, dim), SelfAttention(dim, heads, dim_out)])

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, dim) -> (B, T, dim_out)."""
        first, second = self.layers
        out: Tensor = second(tokens + first(tokens))
        return out


class PoseHead(nn.Module):
    """A weight for each rotation of the group, and the rotation nearest to their weighted sum.

    Args:
        dim: channels of a part's features.
        heads: of the attention among the rotations.
        hidden: width after it.
    """

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = AttentionStack(dim, heads, hidden)
        self.mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.weigh = nn.Linear(hidden, 1)

    def forward(self, features: Tensor, rotations: Tensor) -> Tensor:
        """Features (B, J, A, C) and rotations (A, 3, 3) -> the parts' global rotations (B, J, 3, 3)."""
        tokens = self.attention(features.flatten(0, 1))
        weights = self.weigh(self.mlp(tokens)).squeeze(-1)  # (B J, A)
        return mean_rotation(weights, rotations).unflatten(0, features.shape[:2])


def mean_rotation(weights: Tensor, rotations: Tensor) -> Tensor:
    """The rotation nearest to sum_a w_a R_a, (N, A) and (A, 3, 3) -> (N, 3, 3).

    Where it is not unique its derivative is infinite; the one used is damped there.
    """
    with full_precision(weights):
        total = torch.einsum("na,aij->nij", weights.to(rotations.dtype), rotations)
        return nearest_rotation(total)


def nearest_rotation(matrices: Tensor, damping: float = 1e-5) -> Tensor:
    """The rotation nearest to each matrix, (..., 3, 3) -> (..., 3, 3), by SVD.

    Where two rotations are about as near, the derivative 1 / t, t being a sum of two (signed) singular values, is
    replaced by t / (t^2 + damping^2).
    """
    rotation: Tensor = _NearestRotation.apply(matrices, damping)
    return rotation


class _NearestRotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrices: Tensor, damping: float) -> Tensor:
        u, values, vh = torch.linalg.svd(matrices)
        sign = torch.ones_like(values)
        sign[..., 2] = torch.det(u @ vh).sign()
        rotation = (u * sign.unsqueeze(-2)) @ vh
        ctx.save_for_backward(u, values * sign, rotation)
        ctx.damping = damping
        return rotation

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # M = P R with P = U diag(s) U^T; dR = W R with W skew, and P W + W P = dM R^T - R dM^T.
        u, values, rotation = ctx.saved_tensors
        inner = u.mT @ grad @ rotation.mT @ u
        total = values.unsqueeze(-1) + values.unsqueeze(-2)
        skew = (inner - inner.mT) * total / (total.square() + ctx.damping**2)
        return u @ skew @ u.mT @ rotation, None


class ShapeHead(nn.Module):
    """Betas from the parts' features.

    Args:
        dim: channels of a part's features.
        heads: of the attention among the parts.
        value_dim: numbers that a part contributes.
        parts: how many.
        betas: how many.
    """

    def __init__(self, dim: int, heads: int, value_dim: int, parts: int, betas: int) -> None:
        super().__init__()
        self.attention = AttentionStack(dim, heads, value_dim)
        self.mlp = nn.Sequential(nn.Linear(parts * value_dim, betas), nn.ReLU(), nn.Linear(betas, betas))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, J, C) that do not turn -> betas (B, 10)."""
        betas: Tensor = self.mlp(self.attention(features).flatten(1))
        return betas


def three_nearest(points: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (B, N, 3) of the nearest support points and their weights (B, N, 3), 1 / (d^2 + 1e-8) over the sum.

    Args:
        points: (B, N, 3).
        support: (B, S, 3), at least 3 of them.
    """
    with torch.no_grad():
        distance = torch.cdist(points, support, compute_mode="donot_use_mm_for_euclid_dist")
        near = distance.topk(3, largest=False)
        weights = 1 / (near.values.square() + 1e-8)
        return near.indices, weights / weights.sum(-1, keepdim=True)


def interpolate(features: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Features (B, S, ...) of support points at points, (B, N, 3) twice -> (B, N, ...)."""
    dense = weights.new_zeros(*index.shape[:2], features.shape[1]).scatter_add(2, index, weights)
    return (dense.to(features.dtype) @ features.flatten(2)).unflatten(2, features.shape[2:])


def spread(values: Tensor, index: Tensor, weights: Tensor, support: int) -> Tensor:
    """The transpose of `interpolate`: values (B, N, C) of points at the support points -> (B, S, C)."""
    shares = (values.unsqueeze(2) * weights.unsqueeze(-1)).flatten(1, 2)
    out = shares.new_zeros(len(values), support, values.shape[2])
    return out.scatter_add(1, index.flatten(1).unsqueeze(-1).expand_as(shares), shares)
