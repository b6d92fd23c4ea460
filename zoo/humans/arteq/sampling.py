"""Point clouds from posed bodies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.humans.arteq.parts import part_labels


@dataclass(frozen=True)
class SurfaceSample:
    """Points on meshes.

    Attributes:
        points: (B, N, 3) metres.
        labels: (B, N) int64 body parts.
    """

    points: Tensor
    labels: Tensor


def sample_surface(
    vertices: Tensor,
    faces: Tensor,
    skinning: Tensor,
    count: int,
    generator: torch.Generator,
    noise: float = 0.001,
    shared: bool = False,
) -> SurfaceSample:
    """Points spread evenly by area over posed bodies, with their parts by the skinning weights interpolated there.

    Args:
        vertices: (B, V, 3) metres.
        faces: (F, 3) int64.
        skinning: (V, 24) weights of the joints.
        count: points per body.
        generator: of everything random.
        noise: standard deviation of the points, metres.
        shared: as the official code does it: places and noise are drawn once, from the first body, for all.
    """
    drawn = vertices[:1] if shared else vertices
    # `index_select` is several times faster here than indexing, and so is the cross product by coordinates.
    corners = drawn.index_select(1, faces.flatten()).unflatten(1, (-1, 3))  # (B, F, 3, 3)
    (ax, ay, az), (bx, by, bz) = ((corners[:, :, k] - corners[:, :, 0]).unbind(-1) for k in (1, 2))
    area = ((ay * bz - az * by).square() + (az * bx - ax * bz).square() + (ax * by - ay * bx).square()).sqrt()
    # Strata of equal area hold a point each: fewer clumps than independent draws.
    edges = area.cumsum(1)
    places = (torch.arange(count) + torch.rand(len(drawn), count, generator=generator)) / count
    triangle = torch.searchsorted(edges, places.to(edges) * edges[:, -1:]).clamp_max(len(faces) - 1)
    first, second = torch.rand(2, len(drawn), count, generator=generator).to(vertices)
    root = first.sqrt()
    shares = torch.stack([1 - root, root * (1 - second), root * second], -1)  # (B, N, 3)
    jitter = noise * torch.randn(len(drawn), count, 3, generator=generator).to(vertices)
    # In random order: whoever takes the first points takes any.
    order = torch.rand(len(drawn), count, generator=generator).argsort(1)
    triangle, shares = triangle.gather(1, order), shares.gather(1, order.unsqueeze(-1).expand_as(shares))
    whose = faces[triangle].expand(len(vertices), -1, -1)  # (B, N, 3)
    batch = torch.arange(len(vertices))[:, None, None]
    points = (vertices[batch, whose] * shares.unsqueeze(-1)).sum(2) + jitter
    labels = part_labels((skinning[whose] * shares.unsqueeze(-1)).sum(2))
    return SurfaceSample(points, labels)
