"""The body's shape from how large its parts are in the cloud and how far apart, which no rotation changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.ops.precision import full_precision

# Square metres added to variances: no derivative or rounding error becomes infinite where a part is flat.
_FLAT = 1e-8
# The least variance that is divided by, and the weight of a batch in the running means.
_LEAST, _MOMENTUM = 1e-6, 0.01
# Standard deviations that a size may be from its mean.
_RANGE = 3.0


@torch.no_grad()
def part_sizes(points: Tensor, segmentation: Tensor, parents: Sequence[int]) -> Tensor:
    """Standard deviations of each part along its three axes, distances from parents' centroids, shares: (B, 5 J).

    Args:
        points: (B, N, 3) metres.
        segmentation: (B, N, J) probability of each part; no derivative passes.
        parents: J numbers.
    """
    mass = segmentation.sum(1)
    centroids = segmentation.mT @ points / mass.clamp_min(1e-6).unsqueeze(-1)
    # Of a point more, so that parts that are not there have no size.
    shares = segmentation / (mass + 1).unsqueeze(1)
    offsets = points.unsqueeze(2) - centroids.unsqueeze(1)
    covariance = torch.einsum("bnj,bnjx,bnjy->bjxy", shares, offsets, offsets)
    spread = (torch.linalg.eigvalsh(covariance).clamp_min(0) + _FLAT).sqrt().flatten(1)
    distance = (centroids - centroids[:, list(parents)]).norm(dim=-1) * mass / (mass + 1)
    return torch.cat([spread, distance, mass / points.shape[1]], 1)


class SizeHead(nn.Module):
    """Betas from `part_sizes`, each first made of mean 0 and variance 1 over the clouds of training.

    Args:
        parents: of the parts.
        hidden: width.
        betas: how many.
    """

    mean: Tensor
    square: Tensor
    seen: Tensor

    def __init__(self, parents: Sequence[int], hidden: int, betas: int) -> None:
        super().__init__()
        self.parents = tuple(parents)
        count = 5 * len(self.parents)
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("square", torch.ones(count))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.mlp = nn.Sequential(nn.Linear(count, hidden), nn.ReLU(), nn.Linear(hidden, betas))

    def forward(self, points: Tensor, segmentation: Tensor) -> Tensor:
        """Points (B, N, 3) and probabilities (B, N, J) -> betas (B, S)."""
        with full_precision(points):
            sizes = part_sizes(points, segmentation.to(points.dtype), self.parents)
            if self.training:
                self._take_in(sizes)
            sizes = (sizes - self.mean) / (self.square - self.mean.square()).clamp_min(_LEAST).sqrt()
            sizes = sizes.clamp(-_RANGE, _RANGE)  # what lies outside is a part that was not found
        betas: Tensor = self.mlp(sizes)
        return betas

    def _take_in(self, sizes: Tensor) -> None:
        """The mean of all batches, and in the long run of the latest: one batch alone says too little."""
        self.seen += 1
        share = (1 / self.seen).clamp_min(_MOMENTUM).to(self.mean)
        self.mean.lerp_(sizes.mean(0).to(self.mean), share)
        self.square.lerp_(sizes.square().mean(0).to(self.square), share)
