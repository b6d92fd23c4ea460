"""The shape head that goes by how large the parts are."""

from __future__ import annotations

import pytest
import roma
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.humans.arteq.sizes import SizeHead, part_sizes

PARENTS = (0, 0, 1)


def clouds() -> tuple[Tensor, Tensor]:
    """Two clouds of two boxes of parts 0 and 1, 2 m apart, and no part 2; float64."""
    points = torch.rand(2, 4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    points = points * torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)
    labels = torch.arange(4000).expand(2, -1) % 4 // 3  # three quarters and a quarter
    points[..., 0] += 2.0 * labels
    return points, F.one_hot(labels, 3).double()


def test_sizes_of_boxes() -> None:
    sizes = part_sizes(*clouds(), PARENTS)
    spread, distance, share = sizes[:, :9].unflatten(1, (3, 3)), sizes[:, 9:12], sizes[:, 12:]
    expected = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64) / 12**0.5
    assert torch.allclose(spread[:, :2], expected.expand(2, 2, 3), rtol=0.05)
    assert spread[:, 2].max() < 1e-3
    assert torch.allclose(distance[:, 1], torch.full((2,), 2.0, dtype=torch.float64), rtol=0.01)
    assert distance[:, [0, 2]].abs().max() == 0
    assert torch.allclose(share, torch.tensor([0.75, 0.25, 0.0], dtype=torch.float64).expand(2, 3))


def test_no_rotation_or_place_changes_the_shape() -> None:
    points, segmentation = clouds()
    head = SizeHead(PARENTS, 8, 10).double().eval()
    moved = points @ roma.random_rotmat(2, dtype=torch.float64).mT + 3.0
    assert (head(moved, segmentation) - head(points, segmentation)).abs().max() < 1e-6


def test_sizes_are_normalised_by_all_that_training_saw() -> None:
    random = torch.Generator().manual_seed(1)
    points, segmentation = (x.float() for x in clouds())
    head = SizeHead(PARENTS, 8, 10)
    scales = 1 + 0.1 * torch.randn(60, 1, 1, generator=random)
    for scale in scales:
        head(scale * points[:1], segmentation[:1])
    seen = torch.cat([part_sizes(scale * points[:1], segmentation[:1], PARENTS) for scale in scales])
    assert torch.allclose(head.mean, seen.mean(0), atol=1e-5)
    assert torch.allclose(head.square - head.mean.square(), seen.var(0, unbiased=False), atol=1e-5)
    head.eval()
    before = head.mean.clone()
    assert (head(5 * points, segmentation) - head(6 * points, segmentation)).abs().max() < 1e-6  # as large as can be
    assert torch.equal(head.mean, before)


def test_only_the_head_learns_from_the_shape() -> None:
    points, segmentation = (x.float().requires_grad_() for x in clouds())
    head = SizeHead(PARENTS, 8, 10)
    head(points, segmentation).sum().backward()
    assert points.grad is None
    assert segmentation.grad is None
    assert float(head.mlp[2].weight.grad.abs().max()) > 0  # type: ignore[union-attr,operator]


@pytest.mark.parametrize("parts", [1, 22])
def test_a_cloud_of_few_points(parts: int) -> None:
    segmentation = torch.full((1, 4, parts), 1 / parts)
    sizes = part_sizes(torch.zeros(1, 4, 3), segmentation, (0,) * parts)
    assert sizes.shape == (1, 5 * parts)
    assert bool(sizes.isfinite().all())
