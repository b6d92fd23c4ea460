"""The rotation groups: golden tables, axioms, orbits."""

from __future__ import annotations

import pytest
import torch

from tests import goldens
from zoo.humans.arteq.group import GroupName, kernel_points, rotated_index, rotation_group

GROUPS: tuple[GroupName, ...] = ("icosahedral", "tetrahedral")


def test_official_tables() -> None:
    golden = goldens.load("humans-arteq", "group")
    group = rotation_group("icosahedral")
    assert (group.rotations - golden["anchors"]).abs().max() < 2e-6
    assert torch.equal(group.product, golden["mul"])
    assert torch.equal(group.inverse, golden["inv"])
    assert torch.equal(group.neighbours, golden["intra_idx"])
    assert torch.equal(group.permutation, golden["feat_perm"])
    assert group.identity == int(golden["identity"])
    assert torch.equal(group.neighbours[group.identity], golden["rel_idx"])
    assert (group.rotations[golden["rel_idx"]] - golden["rel_rot"]).abs().max() < 2e-6
    assert (kernel_points("epn") - golden["kernels24"]).abs().max() < 1e-6


@pytest.mark.parametrize("name", GROUPS)
def test_axioms(name: GroupName) -> None:
    group = rotation_group(name)
    count = len(group)
    assert count == {"icosahedral": 60, "tetrahedral": 12}[name]
    p = group.product
    whole = torch.arange(count)
    assert torch.equal(p.sort(0).values, whole[:, None].expand(count, count))
    assert torch.equal(p.sort(1).values, whole.expand(count, count))
    assert torch.equal(p[p].flatten(), p[:, p].flatten())  # (ab)c = a(bc)
    assert (group.rotations[:, None] @ group.rotations - group.rotations[p]).abs().max() < 1e-12
    assert torch.equal(p[whole, group.inverse], torch.full((count,), group.identity))


@pytest.mark.parametrize(("name", "sizes"), [("icosahedral", (1, 15, 20, 24)), ("tetrahedral", (1, 3, 8, 0))])
def test_orders_of_the_elements(name: GroupName, sizes: tuple[int, ...]) -> None:
    group = rotation_group(name)
    orders = []
    for a in range(len(group)):
        power, order = a, 1
        while power != group.identity:
            power, order = int(group.product[power, a]), order + 1
        orders.append(order)
    assert tuple(orders.count(order) for order in (1, 2, 3, 5)) == sizes


@pytest.mark.parametrize("name", GROUPS)
def test_the_group_permutes_an_orbit_kernel(name: GroupName) -> None:
    points = kernel_points("orbit", name)
    assert len(points) == {"icosahedral": 13, "tetrahedral": 15}[name]
    group = rotation_group(name)
    index = rotated_index(points, group.rotations)
    assert (torch.einsum("aij,kj->aki", group.rotations, points) - points[index]).abs().max() < 1e-12
    with pytest.raises(ValueError, match="no union of its orbits"):
        rotated_index(kernel_points("epn"), group.rotations)


def test_an_unknown_group() -> None:
    with pytest.raises(ValueError, match="octahedral"):
        rotation_group("octahedral")  # type: ignore[arg-type]
