"""Sampling, searching and rotation convolutions: kernels against the reference, properties, bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import needs_kernels
from zoo import ops
from zoo.humans.arteq.group import GroupName, KernelName, kernel_points, rotated_index, rotation_group
from zoo.ops import native, points_op, points_reference
from zoo.ops.build import BuildError

DTYPES = (torch.float32, torch.float64)


def cloud(batch: int = 2, count: int = 120, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.rand(batch, count, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype) - 0.5


def kernel(name: KernelName, group: GroupName, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    rotations, points = rotation_group(group).rotations, kernel_points(name, group)
    if name == "orbit":
        return (0.2 * points).to(dtype), rotated_index(points, rotations)
    turned = torch.einsum("aij,kj->aki", rotations, 0.2 * points).flatten(0, 1)
    return turned.to(dtype), torch.arange(len(turned)).unflatten(0, (len(rotations), -1))


def around(points: Tensor, centres: int = 30, slots: int = 12) -> tuple[Tensor, Tensor]:
    """Offsets and neighbours, some of which are none."""
    chosen = points[:, :centres]
    neighbours = ops.ball_query(points, chosen, 0.3, slots)
    assert bool((neighbours < 0).any())
    assert bool((neighbours >= 0).all(-1).any())
    batch = torch.arange(len(points))[:, None, None]
    return points[batch, neighbours.clamp_min(0)] - chosen.unsqueeze(2), neighbours


@needs_kernels
def test_the_kernels_are_built() -> None:
    assert "cpu" in native.load("points").devices


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("skip", [-1.0, 0.05])
def test_furthest_points(dtype: torch.dtype, skip: float) -> None:
    points = cloud(dtype=dtype)
    found = ops.furthest_points(points, 50, skip, implementation="compiled")
    assert torch.equal(found, ops.furthest_points(points, 50, skip, implementation="reference"))
    assert bool((found[:, 0] == 0).all())
    assert all(len(set(row.tolist())) == 50 for row in found)
    taken = torch.gather(points, 1, found[..., None].expand(-1, -1, 3))
    assert bool((taken[:, 1:].square().sum(-1) > skip).all())
    # Each is as far from those before as any point that may be taken.
    for k in (1, 7, 49):
        distance = (points.unsqueeze(2) - taken[:, None, :k]).norm(dim=-1).amin(-1)
        allowed = distance.masked_fill(points.square().sum(-1) <= skip, 0.0)
        chosen = (taken[:, k : k + 1] - taken[:, :k]).norm(dim=-1).amin(-1)
        assert torch.allclose(chosen, allowed.amax(1), rtol=1e-6)


def test_sampling_repeats_the_first_where_nothing_is_left() -> None:
    points = torch.zeros(1, 5, 3)
    for implementation in ("compiled", "reference"):
        assert ops.furthest_points(points, 3, 1e-3, implementation).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["nearest", "index"])
def test_ball_query(dtype: torch.dtype, order: ops.points.QueryOrder) -> None:
    points = cloud(dtype=dtype)
    centres = points[:, :40] + 0.01
    found = ops.ball_query(points, centres, 0.3, 12, order, implementation="compiled")
    assert torch.equal(found, ops.ball_query(points, centres, 0.3, 12, order, implementation="reference"))
    distance = torch.cdist(centres, points)
    for b, p in ((0, 0), (1, 17), (1, 39)):
        inside = (distance[b, p] < 0.3).nonzero().flatten()
        wanted = inside[distance[b, p, inside].argsort()] if order == "nearest" else inside
        expected = torch.full((12,), -1)
        expected[: len(wanted[:12])] = wanted[:12]
        assert torch.equal(found[b, p], expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_point_at_the_radius_is_outside(dtype: torch.dtype) -> None:
    for radius in torch.linspace(0.05, 0.5, 50).tolist():
        points = torch.zeros(1, 2, 3, dtype=dtype)
        points[0, 1, 0] = radius
        for implementation in ("compiled", "reference"):
            found = ops.ball_query(points, points[:, :1], radius, 2, implementation=implementation)
            assert found.tolist() == [[[0, -1]]]


@pytest.mark.parametrize("order", ["nearest", "index"])
def test_a_point_that_is_no_number_is_nowhere_near(order: ops.points.QueryOrder) -> None:
    points = cloud()
    points[:, 3] = torch.nan
    for implementation in ("compiled", "reference"):
        found = ops.ball_query(points, points, 0.5, 120, order, implementation=implementation)
        assert not bool((found == 3).any())
        assert bool((found[:, 3] == -1).all())


def test_more_slots_than_points() -> None:
    points = cloud(count=5)
    for implementation in ("compiled", "reference"):
        found = ops.ball_query(points, points, 9.0, 8, implementation=implementation)
        assert bool((found[..., :5] >= 0).all())
        assert bool((found[..., 5:] == -1).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 5, 16, 40])
@pytest.mark.parametrize(
    ("name", "group"), [("epn", "tetrahedral"), ("orbit", "icosahedral"), ("orbit", "tetrahedral")]
)
def test_gathering(name: KernelName, group: GroupName, channels: int, dtype: torch.dtype) -> None:
    points = cloud(dtype=dtype)
    offsets, neighbours = around(points)
    kernel_, table = kernel(name, group, dtype)
    random = torch.Generator().manual_seed(1)
    features = torch.randn(2, 120, len(table), channels, generator=random, dtype=dtype)
    where = (offsets, neighbours, kernel_, table, 0.04)
    out = points_op.rotation_gather(features, *where)
    expected = points_reference.rotation_gather(features, *where)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    assert (out - expected).abs().max() < tolerance * expected.abs().max()
    grad = torch.randn(out.shape, generator=random, dtype=dtype)
    back = points_op.rotation_scatter(grad, *where, 120)
    expected = points_reference.rotation_scatter(grad, *where, 120)
    assert (back - expected).abs().max() < tolerance * expected.abs().max()
    # It is the transpose.
    assert ((out * grad).sum() - (features * back).sum()).abs() < tolerance * (out * grad).abs().sum()


def test_the_convolution_is_its_formula() -> None:
    points = cloud(1, 40)
    offsets, neighbours = around(points, 6, 4)
    kernel_, table = kernel("orbit", "tetrahedral", torch.float64)
    random = torch.Generator().manual_seed(2)
    features = torch.randn(1, 40, 12, 3, generator=random, dtype=torch.float64)
    weight = torch.randn(4, 3, 15, generator=random, dtype=torch.float64)
    out = ops.rotation_convolution(features, weight, offsets, neighbours, kernel_, table, 0.04)
    for p, a in ((0, 0), (3, 7), (5, 11)):
        expected = torch.zeros(4, dtype=torch.float64)
        for j in range(40):
            if (points[0, j] - points[0, p]).norm() < 0.3 and j in neighbours[0, p]:
                for k in range(15):
                    distance = points[0, j] - points[0, p] - kernel_[table[a, k]]
                    expected += (
                        max(0.0, 1 - float(distance.square().sum()) / 0.04) * weight[:, :, k] @ features[0, j, a]
                    )
        assert torch.allclose(out[0, p, a], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["epn", "orbit"])
def test_plain_torch_never_makes_all_weights_at_once(name: KernelName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.ops.points._BLOCK", 100_000)
    points = cloud(2)
    offsets, neighbours = around(points)
    kernel_, table = kernel(name, "icosahedral", torch.float64)
    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                largest.append(out.numel())
            return out

    features = torch.rand(2, 120, 60, 1, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(4, 1, table.shape[1], dtype=torch.float64)
    with Watch():
        out = ops.rotation_convolution(features, weight, offsets, neighbours, kernel_, table, 0.04, "reference")
        out.sum().backward()
    assert 50_000 < max(largest) <= 100_000 < offsets[..., 0].numel() * table.numel()


@pytest.mark.parametrize("implementation", ["compiled", "reference"])
def test_gradients(implementation: ops.Implementation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.ops.points._BLOCK", 2000)  # several blocks
    points = cloud(2, 14)
    neighbours = ops.ball_query(points, points[:, :4], 0.45, 5)
    offsets = points[torch.arange(2)[:, None, None], neighbours.clamp_min(0)] - points[:, :4, None]
    kernel_, table = kernel("orbit", "tetrahedral", torch.float64)
    random = torch.Generator().manual_seed(3)
    features = torch.randn(2, 14, 12, 2, generator=random, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 15, generator=random, dtype=torch.float64, requires_grad=True)

    def convolve(features: Tensor, weight: Tensor) -> Tensor:
        return ops.rotation_convolution(features, weight, offsets, neighbours, kernel_, table, 0.09, implementation)

    assert torch.autograd.gradcheck(convolve, (features, weight), fast_mode=True)


def test_bad_input() -> None:
    points = cloud()
    with pytest.raises(ValueError, match=r"\(B, N, 3\)"):
        ops.furthest_points(points[0], 3)
    with pytest.raises(ValueError, match="121 of 120"):
        ops.furthest_points(points, 121)
    with pytest.raises(ValueError, match="no order"):
        ops.ball_query(points, points, 1.0, 3, "furthest")  # type: ignore[arg-type]
    for radius, count in ((0.0, 3), (-0.1, 3), (float("nan"), 3), (0.1, 0)):
        with pytest.raises(ValueError, match="both should be positive"):
            ops.ball_query(points, points, radius, count)
    with pytest.raises(BuildError, match="kernels for cpu, not for meta"):
        ops.ball_query(points.to("meta"), points.to("meta"), 1.0, 3, implementation="compiled")
    with pytest.raises(ValueError, match="one batch size"):
        ops.ball_query(points, points[:1], 1.0, 3)
    kernel_, table = kernel("orbit", "tetrahedral", torch.float64)
    offsets, neighbours = around(points)
    features = torch.zeros(2, 120, 12, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="don't belong together"):
        ops.rotation_convolution(features, torch.zeros(4, 2, 15), offsets, neighbours, kernel_, table, 0.1)
    with pytest.raises(ValueError, match="sigma should be positive"):
        ops.rotation_convolution(features, torch.zeros(4, 3, 15), offsets, neighbours, kernel_, table, 0.0)
    with pytest.raises(ValueError, match="table"):
        ops.rotation_convolution(features, torch.zeros(4, 3, 13), offsets, neighbours, kernel_, table, 0.1)
    with pytest.raises((RuntimeError, IndexError), match="out of"):
        points_op.rotation_gather(features[:, :3].contiguous(), offsets, neighbours, kernel_, table, 0.1)


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_every_instruction_set(capability: str, zoo_command: Callable[..., Any], tmp_path: Path) -> None:
    points = cloud(dtype=torch.float32)
    offsets, neighbours = around(points)
    random = torch.Generator().manual_seed(10)
    cases = []
    for name, group, channels in (("epn", "tetrahedral", 5), ("orbit", "icosahedral", 40), ("orbit", "tetrahedral", 1)):
        kernel_, table = kernel(name, group, torch.float32)  # type: ignore[arg-type]
        features = torch.randn(2, 120, len(table), channels, generator=random)
        where = (offsets, neighbours, kernel_, table, 0.04)
        out = points_op.rotation_gather(features, *where)
        cases.append((features, where, out, points_op.rotation_scatter(out, *where, 120)))
    torch.save((points, ops.furthest_points(points, 40), cases), tmp_path / "cases.pt")
    (tmp_path / "check.py").write_text(
        "import torch\n"
        "from zoo import ops\n"
        "from zoo.ops import points_op\n"
        "points, chosen, cases = torch.load('cases.pt')\n"
        "assert torch.equal(ops.furthest_points(points, 40, implementation='compiled'), chosen)\n"
        "for features, where, out, back in cases:\n"
        "    torch.testing.assert_close(points_op.rotation_gather(features, *where), out, rtol=1e-4, atol=1e-5)\n"
        "    again = points_op.rotation_scatter(out, *where, 120)\n"
        "    torch.testing.assert_close(again, back, rtol=1e-4, atol=1e-4)\n"
        "print('the same')\n"
    )
    done = zoo_command("check", ATEN_CPU_CAPABILITY=capability)
    assert "the same" in done.stdout, done.stderr
