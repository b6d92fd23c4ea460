"""Finite groups of rotations, and the points at which their convolutions sample space.

Feature a of a point belongs to the rotation R_a. When the cloud is turned by R_g, the features of all points are
permuted: feature a of the turned cloud is feature a' of the cloud with R_a' = R_g^-1 R_a (`RotationGroup.permutation`).
Whatever mixes features of different rotations must therefore act from the right: R_a r, never r R_a.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from typing import Literal, ParamSpec, TypeVar

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

GroupName = Literal["icosahedral", "tetrahedral", "trivial"]
KernelName = Literal["epn", "orbit"]
P = ParamSpec("P")
R = TypeVar("R")

# Places of EPN's 60 rotations in the order in which `_closure` finds them. EPN numbers them by the faces of its mesh;
# the order means nothing, but the tables within published weights follow it.
_EPN_ORDER = (
    *(31, 20, 26, 43, 49, 54, 48, 53, 42, 25, 30, 19, 21, 10, 15, 22, 11, 16, 55, 44, 50, 52, 56, 51, 24, 29, 18, 1),
    *(3, 0, 5, 8, 13, 34, 39, 45, 59, 57, 58, 33, 38, 28, 4, 7, 2, 23, 12, 17, 46, 35, 40, 41, 47, 36, 32, 37, 27, 6),
    *(9, 14),
)
# The rotations r_k of an icosahedral group convolution, in the order in which its weights stand.
_EPN_NEIGHBOURS = (44, 31, 32, 13, 42, 43, 30, 14, 12, 29, 28, 27)

# EPN's kernel: the origin and 23 points spread over the unit sphere (nintendops/EPN_PointCloud, MIT licence).
_EPN_POINTS = (
    (0.0, 0.0, 0.0),
    (0.62500912, -0.21323141, -0.73653638),
    (-0.29985356, 0.70637244, -0.64108336),
    (-0.29429707, -0.9397462, -0.17383966),
    (0.22295532, 0.22424522, 0.9331975),
    (-0.98399997, 0.04246768, 0.14228657),
    (0.52171743, 0.75399971, 0.39887869),
    (-0.20191993, -0.020440051, -0.9642545),
    (0.37476736, 0.4672437, -0.79448301),
    (0.019943934, -0.88795155, 0.45950425),
    (0.14923222, 0.96167469, -0.16252817),
    (-0.61578137, 0.21918482, 0.74248981),
    (-0.72691172, -0.47160956, -0.47200641),
    (-0.18267056, 0.78515595, 0.58373213),
    (-0.71123439, -0.57202375, 0.37139374),
    (0.57549655, -0.49155349, 0.63314551),
    (0.046138953, -0.65100569, -0.75122148),
    (0.85679537, 0.14020287, 0.49601853),
    (0.49988821, -0.83625609, -0.14754541),
    (-0.65021193, 0.73881853, 0.050008669),
    (0.94867635, -0.2882444, -0.08642371),
    (-0.80946571, 0.22355066, -0.54285204),
    (-0.19894321, -0.35303739, 0.90868926),
    (0.83476776, 0.46188563, -0.2464713),
)


@dataclass(frozen=True)
class RotationGroup:
    """A finite group of rotations.

    Attributes:
        rotations: (A, 3, 3) float64.
        product: (A, A) int64, R_a R_b = R_product[a, b].
        inverse: (A,) int64.
        neighbours: (A, K) int64: the rotations R_a r_k that a group convolution mixes into a.
    """

    rotations: Tensor
    product: Tensor
    inverse: Tensor
    neighbours: Tensor

    def __len__(self) -> int:
        """Number of rotations."""
        return len(self.rotations)

    @property
    def permutation(self) -> Tensor:
        """(A, A) int64: turning a cloud by R_g makes its feature a what feature permutation[g, a] was."""
        return self.product[self.inverse]

    @property
    def identity(self) -> int:
        """Index of the identity."""
        return int(self.product[0, self.inverse[0]])


def _on_cpu(function: Callable[P, R]) -> Callable[P, R]:
    """What is kept for all networks lies on the CPU, though the first be built ``with torch.device(...)``."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.device("cpu"):
            return function(*args, **kwargs)

    return run


@cache
@_on_cpu
def rotation_group(name: GroupName = "icosahedral") -> RotationGroup:
    """The 60 rotations of the icosahedron in EPN's order, the 12 of a tetrahedron among them, or none but the identity.

    The icosahedral group is the closure of a third of a turn about (1, 0, 0) and a fifth of one about the vertex
    direction (cos d, 0, -sin d), cos d = sqrt((5 + 2 sqrt 5) / 15). Its group convolutions mix 12 rotations,
    tetrahedral ones all of them.

    Raises:
        ValueError: there is no such group.
    """
    third, fifth = _generators()
    if name == "icosahedral":
        rotations = _closure([third, fifth])[list(_EPN_ORDER)]
    elif name == "tetrahedral":
        rotations = _closure([third, _half_turn(third)])
    elif name == "trivial":
        rotations = torch.eye(3, dtype=torch.float64)[None]
    else:
        raise ValueError(f"there is no group {name!r}: use 'icosahedral', 'tetrahedral' or 'trivial'")
    product = _index(rotations[:, None] @ rotations[None], rotations)
    inverse = _index(rotations.mT, rotations)
    neighbours = product[:, list(_EPN_NEIGHBOURS)] if name == "icosahedral" else product
    return RotationGroup(rotations, product, inverse, neighbours)


@cache
@_on_cpu
def kernel_points(kernel: KernelName, group: GroupName = "icosahedral") -> Tensor:
    """Points (K, 3) float64 of a convolution's kernel, of norm at most 1.

    Args:
        kernel: ``"epn"``, the official 24 points; ``"orbit"``, the origin and whole orbits of the group, so that
            its rotations only permute the points: the 12 vertices of the icosahedron, or the 4 + 4 threefold and 6
            twofold axes of the tetrahedron.
        group: whose orbits; the trivial group takes the tetrahedron's.

    Raises:
        ValueError: there is no such kernel.
    """
    if kernel == "epn":
        points = torch.tensor(_EPN_POINTS, dtype=torch.float64)
        return points / points.norm(dim=1).max()
    if kernel != "orbit":
        raise ValueError(f"there is no kernel {kernel!r}: use 'epn' or 'orbit'")
    third, fifth = _generators()
    origin = torch.zeros(1, 3, dtype=torch.float64)
    axes = [_axis(fifth)] if group == "icosahedral" else [_axis(third), -_axis(third), _axis(_half_turn(third))]
    rotations = rotation_group("tetrahedral" if group == "trivial" else group).rotations
    return torch.cat([origin, *(_distinct(rotations @ axis) for axis in axes)])


def rotated_index(points: Tensor, rotations: Tensor) -> Tensor:
    """Where the group takes points it only permutes: (K, 3) and (A, 3, 3) -> (A, K) int64 with R_a p_k = p_index."""
    turned = torch.einsum("aij,kj->aki", rotations, points)
    distance = (turned.unsqueeze(2) - points).norm(dim=-1)
    nearest = distance.min(-1)
    if float(nearest.values.max()) > 1e-6:
        raise ValueError("the group takes these points elsewhere: they are no union of its orbits")
    return nearest.indices


def _generators() -> tuple[Tensor, Tensor]:
    cosine = ((5 + 2 * 5**0.5) / 15) ** 0.5
    vertex = torch.tensor([cosine, 0.0, -((1 - cosine**2) ** 0.5)], dtype=torch.float64)
    return _rotation(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), 3), _rotation(vertex, 5)


def _rotation(axis: Tensor, order: int) -> Tensor:
    return torch.from_numpy(Rotation.from_rotvec(2 * torch.pi / order * axis.numpy()).as_matrix())


def _axis(rotation: Tensor) -> Tensor:
    vector = torch.from_numpy(Rotation.from_matrix(rotation.numpy()).as_rotvec())
    return vector / vector.norm()


def _half_turn(third: Tensor) -> Tensor:
    """The icosahedral half turn that makes a tetrahedral group with a third of a turn."""
    for rotation in rotation_group("icosahedral").rotations:
        if abs(float(rotation.trace()) + 1) < 1e-9 and len(_closure([third, rotation])) == 12:
            return rotation
    raise AssertionError("the icosahedral group has tetrahedral subgroups")


def _closure(generators: list[Tensor]) -> Tensor:
    """All products of the generators, in the order in which a breadth-first search meets them."""
    found = [torch.eye(3, dtype=torch.float64)]
    for element in found:
        for generator in generators:
            product = element @ generator
            if all(float((product - known).abs().max()) > 1e-6 for known in found):
                found.append(product)
    return torch.stack(found)


def _index(matrices: Tensor, rotations: Tensor) -> Tensor:
    """Which of the rotations each matrix (..., 3, 3) is."""
    # trace(R^T M) is largest, 3, where they are equal.
    return torch.einsum("...ij,aij->...a", matrices, rotations).argmax(-1)


def _distinct(points: Tensor) -> Tensor:
    kept: list[Tensor] = []
    for point in points:
        if all(float((point - other).norm()) > 1e-6 for other in kept):
            kept.append(point)
    return torch.stack(kept)
