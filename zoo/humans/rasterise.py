"""Which triangle each pixel sees, with a depth buffer in NumPy: for machines on which Open3D can't be loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def rasterise(
    vertices: Array, faces: Array, focal: float, centre: tuple[float, float], size: tuple[int, int]
) -> tuple[Array, Array, Array]:
    """As `zoo.humans.render.cast`: triangles with a corner behind the camera are left out."""
    height, width = size
    depth = vertices[:, 2]
    pixel = focal * vertices[:, :2] / np.maximum(depth, 1e-9)[:, None] + np.asarray(centre)
    corner = pixel[faces]
    edge = _cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    low = np.ceil(corner.min(1)).clip(0).astype(np.int64)
    high = np.minimum(np.floor(corner.max(1)), np.array([width - 1, height - 1])).astype(np.int64)
    kept = (depth[faces] > 1e-6).all(1) & (high >= low).all(1) & (np.abs(edge) > 1e-12)
    which = np.flatnonzero(kept)
    span = high[which] - low[which] + 1
    count = span.prod(1)
    # One row per triangle and pixel of its bounding box.
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    row = np.repeat(np.arange(len(which)), count)
    x = low[which][row, 0] + number % span[row, 0]
    y = low[which][row, 1] + number // span[row, 0]
    triangle = which[row]
    a, b, c = (corner[triangle, k] for k in range(3))
    point = np.stack([x, y], 1)
    screen = np.stack([_cross(c - b, point - b), _cross(a - c, point - c), _cross(b - a, point - a)], 1)
    screen /= edge[triangle][:, None]
    inside = (screen >= 0).all(1)
    triangle, x, y, screen = triangle[inside], x[inside], y[inside], screen[inside]
    weights = screen / depth[faces[triangle]]  # linear on the screen is 1 / depth
    found = 1 / weights.sum(1)
    place = y * width + x
    order = np.lexsort((found, place))
    first = order[np.unique(place[order], return_index=True)[1]]
    seen, barycentric = np.full(height * width, -1), np.zeros((height * width, 3), np.float32)
    nearest = np.full(height * width, np.inf, np.float32)
    seen[place[first]] = triangle[first]
    barycentric[place[first]] = weights[first] * found[first, None]
    nearest[place[first]] = found[first]
    return seen.reshape(size), barycentric.reshape(*size, 3), nearest.reshape(size)


def _cross(a: Array, b: Array) -> Array:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
