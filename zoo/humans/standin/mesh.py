"""The stand-in body's mesh: 6890 vertices in rings around trunk and limbs, fitted to the surface.

The counts are SMPL's by construction: 40 torso rings of 64 less the arm holes, a pole, 7 crotch vertices, and
four tubes of 40-vertex rings with a tip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from zoo.humans.standin.surface import project

Array = NDArray[Any]

COLUMNS, LIMB, ARM_RINGS, LEG_RINGS = 64, 40, 26, 30
_HEIGHTS = np.concatenate(
    [
        np.linspace(-0.335, 0.125, 18, endpoint=False),
        np.linspace(0.125, 0.287, 11),
        [0.300, 0.315, 0.335, 0.36, 0.39, 0.425, 0.46, 0.495, 0.525, 0.550, 0.566],
    ]
)
_POLE = 0.573
_HOLE_ROWS, _HOLE_REACH = (18, 28), 5
_ARM_X = np.concatenate([np.linspace(0.18, 0.67, 16, endpoint=False), np.linspace(0.67, 0.852, 10)])
_ARM_AXIS = np.array(
    [(0.18, 0.222, -0.015), (0.44, 0.215, -0.03), (0.685, 0.22, -0.025), (0.77, 0.216, -0.02), (0.86, 0.216, -0.02)]
)
_LEG_AXIS = np.array(
    [
        *[(0.092, -0.39, 0), (0.095, -0.70, 0.005), (0.09, -1.05, -0.03), (0.091, -1.10, -0.02)],
        *[(0.096, -1.135, 0.02), (0.104, -1.146, 0.07), (0.113, -1.150, 0.135)],
    ]
)
_ITERATIONS = 40


@dataclass(frozen=True)
class RingMesh:
    """A closed mesh.

    Attributes:
        vertices: (6890, 3) metres.
        faces: (13776, 3), counter-clockwise from outside.
        mirror: (6890,) index of each vertex's mirror image.
        average: (6890, 6890) sparse operator that averages a vertex's neighbours.
    """

    vertices: Array
    faces: Array
    mirror: Array
    average: scipy.sparse.csr_matrix


class _Builder:
    """Vertices of the left half and the middle; the right half mirrors them."""

    def __init__(self) -> None:
        self.points: list[Array] = []
        self.faces: list[tuple[int, int, int]] = []
        self.stiffness: list[float] = []  # how much of the initial shape's curvature the fit keeps
        self.pinned: list[int] = []

    def add(self, point: Array, stiffness: float) -> int:
        self.points.append(np.asarray(point, float))
        self.stiffness.append(stiffness)
        return len(self.points) - 1

    def quad(self, a: int, b: int, c: int, d: int) -> None:
        self.faces += [(a, b, c), (a, c, d)]

    def tube(self, rim: list[int], rings: list[Array], tip: Array) -> None:
        """A closed tube from `rim`, whose vertices run the same way as those of the rings."""
        above = rim
        for number, ring in enumerate(rings):
            below = [self.add(point, 0.75 * min(1.0, number / 5)) for point in ring]
            for i in range(LIMB):
                k = (i + 1) % LIMB
                self.quad(above[i], below[i], below[k], above[k])
            above = below
        end = self.add(tip, 0.75)
        self.pinned.append(end)
        self.faces += [(above[i], end, above[(i + 1) % LIMB]) for i in range(LIMB)]


def build_mesh() -> RingMesh:
    """Topology, first shape, and the fit to the surface; deterministic."""
    builder = _Builder()
    torso, pole = _torso(builder)
    crotch = _crotch(builder, torso)
    rims = {
        1: (_arm_rim(torso, 1), [*(torso[0][c] for c in range(33)), *crotch]),
        -1: (_arm_rim(torso, -1), [*(torso[0][-c % COLUMNS] for c in range(33)), *crotch]),
    }
    for side in (1, -1):
        first = len(builder.faces)
        arm_rings, arm_tip = _arm(side)
        builder.tube(rims[side][0], arm_rings, arm_tip)
        leg_rings, leg_tip = _leg(side)
        builder.tube(rims[side][1], leg_rings, leg_tip)
        if side < 0:  # the mirror image of a tube is inside out
            builder.faces[first:] = [(a, c, b) for a, b, c in builder.faces[first:]]
    builder.pinned.append(pole)
    points, faces = np.array(builder.points), np.array(builder.faces)
    mirror = _mirror_map(points)
    average = neighbour_average(len(points), faces)
    fitted = _fit(points, average, np.array(builder.stiffness), builder.pinned, mirror)
    return RingMesh(fitted, faces, mirror, average)


def _in_hole(row: int, column: int) -> bool:
    inside_rows = _HOLE_ROWS[0] < row < _HOLE_ROWS[1]
    return inside_rows and any(abs(column - centre) < _HOLE_REACH for centre in (16, 48))


def _torso(builder: _Builder) -> tuple[list[list[int]], int]:
    """Rings of the torso and head as vertex indices (-1 in the arm holes), and the pole."""
    at = [-0.34, -0.235, -0.07, 0.11, 0.22, 0.28, 0.33, 0.39, 0.47, 0.53, 0.566]
    half_width = np.interp(_HEIGHTS, at, [0.14, 0.155, 0.13, 0.16, 0.17, 0.09, 0.056, 0.06, 0.078, 0.06, 0.02])
    half_depth = np.interp(_HEIGHTS, at, [0.11, 0.12, 0.10, 0.115, 0.08, 0.065, 0.056, 0.08, 0.095, 0.075, 0.02])
    rows: list[list[int]] = []
    for row, y in enumerate(_HEIGHTS):
        stiffness = 0.75 if y > 0.36 else 0.0
        ring = []
        for column in range(COLUMNS):
            angle = 2 * np.pi * column / COLUMNS
            point = np.array([half_width[row] * np.sin(angle), y, half_depth[row] * np.cos(angle)])
            ring.append(-1 if _in_hole(row, column) else builder.add(point, stiffness))
        rows.append(ring)
    pole = builder.add(np.array([0.0, _POLE, 0.012]), 0.75)
    for row in range(len(rows) - 1):
        for column in range(COLUMNS):
            right = (column + 1) % COLUMNS
            quad = (rows[row][column], rows[row][right], rows[row + 1][right], rows[row + 1][column])
            if min(quad) >= 0:
                builder.quad(*quad)
    builder.faces += [(rows[-1][c], rows[-1][(c + 1) % COLUMNS], pole) for c in range(COLUMNS)]
    return rows, pole


def _crotch(builder: _Builder, torso: list[list[int]]) -> list[int]:
    """Seven vertices on the middle plane from the back of the lowest ring to its front."""
    back, front = builder.points[torso[0][32]], builder.points[torso[0][0]]
    path = []
    for t in np.arange(1, 8) / 8:
        point = back + t * (front - back)
        point[0], point[1] = 0.0, point[1] - 0.05 * np.sin(np.pi * t)
        path.append(builder.add(point, 0.0))
    return path


def _arm_rim(torso: list[list[int]], side: int) -> list[int]:
    """The 40 vertices around an arm hole, from the front middle upwards."""
    low, high = _HOLE_ROWS
    middle, reach = (low + high) // 2, _HOLE_REACH
    walk = [
        *((row, -reach) for row in range(middle, high)),
        *((high, column) for column in range(-reach, reach)),
        *((row, reach) for row in range(high, low, -1)),
        *((low, column) for column in range(reach, -reach, -1)),
        *((row, -reach) for row in range(low, middle)),
    ]
    return [torso[row][(side * (16 + column)) % COLUMNS] for row, column in walk]


def _arm(side: int) -> tuple[list[Array], Array]:
    angles = 2 * np.pi * np.arange(LIMB) / LIMB
    rings = []
    for x in _ARM_X:
        y, z = (np.interp(x, _ARM_AXIS[:, 0], _ARM_AXIS[:, k]) for k in (1, 2))
        at = [0.18, 0.25, 0.44, 0.52, 0.66, 0.70, 0.76, 0.852]
        tall = np.interp(x, at, [0.058, 0.056, 0.043, 0.046, 0.030, 0.022, 0.020, 0.008])
        deep = np.interp(x, at, [0.058, 0.056, 0.043, 0.044, 0.030, 0.034, 0.044, 0.016])
        ring = np.stack([np.full(LIMB, x), y + tall * np.sin(angles), z + deep * np.cos(angles)], 1)
        rings.append(ring * [side, 1, 1])
    return rings, np.array([side * 0.860, 0.216, -0.02])


def _leg(side: int) -> tuple[list[Array], Array]:
    lengths = np.linalg.norm(np.diff(_LEG_AXIS, axis=0), axis=1)
    node = np.concatenate([[0.0], np.cumsum(lengths)])
    along = np.concatenate([np.linspace(0, node[2], 19), np.linspace(node[2], node[-1], 12)[1:]])
    centres = np.stack([np.interp(along, node, _LEG_AXIS[:, k]) for k in range(3)], 1)
    tangents = np.gradient(centres, along, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    at = [0.0, 0.3, node[2] - 0.12, node[2], node[3], node[4], node[5], node[6]]
    radius = np.interp(along, at, [0.088, 0.056, 0.04, 0.038, 0.042, 0.040, 0.036, 0.018])
    # The outer part of the rim (32 of 40 steps) spans more than half of the circle.
    angles = np.deg2rad(-54) + 2 * np.pi * np.arange(LIMB) / LIMB
    rings = []
    for centre, tangent, r in zip(centres, tangents, radius, strict=True):
        front = np.cross(tangent, [1.0, 0.0, 0.0])
        front /= np.linalg.norm(front)
        ring = centre + r * (np.cos(angles)[:, None] * front + np.sin(angles)[:, None] * np.array([1.0, 0.0, 0.0]))
        rings.append(ring * [side, 1, 1])
    return rings, np.array([side * 0.115, -1.150, 0.160])


def _mirror_map(points: Array) -> Array:
    keys = np.round(points, 9) + 0.0
    index = {tuple(key): k for k, key in enumerate(keys)}
    return np.array([index[tuple(np.round(point * [-1, 1, 1], 9) + 0.0)] for point in points])


def neighbour_average(count: int, faces: Array) -> scipy.sparse.csr_matrix:
    """The operator that replaces a value on vertices by the mean over their neighbours."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    both = np.concatenate([edges, edges[:, ::-1]])
    adjacency = scipy.sparse.coo_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count)).tocsr()
    adjacency.data[:] = 1.0
    degree = np.asarray(adjacency.sum(1)).ravel()
    return scipy.sparse.diags(1 / degree) @ adjacency


def symmetrise(values: Array, mirror: Array) -> Array:
    """The mean of points or vectors (V, 3) and of their mirror images."""
    return 0.5 * (values + values[mirror] * [-1, 1, 1])


def _fit(points: Array, average: Any, stiffness: Array, pinned: list[int], mirror: Array) -> Array:
    """Relaxes the mesh on the surface; limbs and head keep the curvature of their first shape."""
    rest = stiffness[:, None] * (average @ points - points)
    for _ in range(2):
        points[pinned] = project(points[pinned])
    tips = points[pinned].copy()
    left = np.flatnonzero(points[:, 0] >= 0)
    right = np.flatnonzero(points[:, 0] < 0)
    for _ in range(_ITERATIONS):
        points = points + 0.5 * (average @ points - points - rest)
        points = symmetrise(points, mirror)
        half = points[left]
        for _ in range(2):
            half = project(half)
        points[left] = half
        points[right] = points[mirror[right]] * [-1, 1, 1]
        points = symmetrise(points, mirror)
        points[pinned] = tips
    return points
