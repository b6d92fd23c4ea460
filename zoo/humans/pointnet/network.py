"""A PointNet that finds the same as ArtEq, without equivariance.

Source: Qi et al., "PointNet", CVPR 2017; segmentation, gathering by parts and the shape head are ArtEq's.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.humans.arteq.heads import PartSegmentation, ShapeHead, nearest_rotation
from zoo.humans.arteq.network import NUM_PARTS, PARENTS, ArtEqOutput
from zoo.ops.precision import full_precision


class PointNet(nn.Module):
    """Part segmentation, part rotations and shape of a body.

    Args:
        widths: of the layers on each point.
        part_hidden: width of the segmentation.
        attention_heads: of the shape head.
        shape_value_dim: numbers that each part contributes to the shape.
        part_dim: width of a part's features and of the pose head.

    Raises:
        ValueError: the attention's heads don't divide the width of a part.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 128, 128),
        part_hidden: int = 74,
        attention_heads: int = 8,
        shape_value_dim: int = 6,
        part_dim: int = 80,
    ) -> None:
        super().__init__()
        if attention_heads < 1 or part_dim % attention_heads:
            raise ValueError(f"{attention_heads} attention heads don't divide part_dim={part_dim}")
        layers: list[nn.Module] = []
        for dim_in, dim_out in pairwise((3, *widths)):
            layers += [nn.Linear(dim_in, dim_out), nn.LayerNorm(dim_out), nn.ReLU()]
        self.points = nn.Sequential(*layers)
        width = 2 * widths[-1]  # with the maximum over all points
        self.part_segmentation = PartSegmentation(width, part_hidden, NUM_PARTS)
        self.part = nn.Linear(2 * width, part_dim)  # of a part's features and its parent's
        # Layers of its own for each part: a part must be turned by what it is.
        self.hidden = nn.Parameter(torch.empty(NUM_PARTS, part_dim, part_dim))
        self.rotate = nn.Parameter(torch.empty(NUM_PARTS, part_dim, 9))
        nn.init.normal_(self.hidden, std=(2 / part_dim) ** 0.5)
        nn.init.normal_(self.rotate, std=0.1 / part_dim**0.5)
        self.shape_head = ShapeHead(part_dim, attention_heads, shape_value_dim, NUM_PARTS, 10)

    def forward(self, points: Tensor, segmentation: Tensor | None = None) -> ArtEqOutput:
        """As `zoo.humans.arteq.network.ArtEqNetwork`'s: points (B, N, 3), metres, and a given segmentation."""
        own = self.points(points - points.mean(1, keepdim=True))
        features = torch.cat([own, own.amax(1, keepdim=True).expand_as(own)], -1)
        logits = self.part_segmentation(features)
        found = logits.softmax(-1)
        shares = F.normalize(found if segmentation is None else segmentation, p=1.0, dim=1)
        parts = shares.mT @ features
        parts = torch.cat([parts[:, list(PARENTS)], parts], -1)
        parts = torch.relu(self.part(parts))
        hidden = torch.relu(torch.einsum("bjc,jch->bjh", parts, self.hidden))
        numbers = torch.einsum("bjh,jhn->bjn", hidden, self.rotate)
        matrices = numbers.to(points.dtype).unflatten(-1, (3, 3)) + torch.eye(3).to(points)
        with full_precision(points):
            pose = nearest_rotation(matrices)
        return ArtEqOutput(found, pose, self.shape_head(parts), logits)
