"""The stand-in body's surface: the zero set of a smooth union of ellipsoids and tapering capsules.

Everything is a function of |x|, so the body is exactly symmetric. Lengths are metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Point = tuple[float, float, float]


def smooth_min(a: Array, b: Array, width: float) -> Array:
    """Polynomial smooth minimum that differs from the minimum where |a - b| < width."""
    return np.minimum(a, b) - 0.25 * width * np.maximum(0.0, 1.0 - np.abs(a - b) / width) ** 2


def ellipsoid(points: Array, centre: Point, radii: Point) -> Array:
    """Approximate signed distance to an axis-parallel ellipsoid."""
    q = (points - centre) / radii
    k0 = np.maximum(np.linalg.norm(q, axis=-1), 1e-9)
    k1 = np.maximum(np.linalg.norm(q / radii, axis=-1), 1e-9)
    return k0 * (k0 - 1.0) / k1


def cone(points: Array, start: Point, end: Point, radius_start: float, radius_end: float) -> Array:
    """Signed distance to a capsule whose radius changes linearly along its axis (exact where the taper is slow)."""
    axis = np.subtract(end, start)
    along = np.clip((points - start) @ axis / (axis @ axis), 0.0, 1.0)
    nearest = np.asarray(start) + along[..., None] * axis
    return np.linalg.norm(points - nearest, axis=-1) - (radius_start + (radius_end - radius_start) * along)


# (kind, geometry, blend width with what stands before it in its group)
_Part = tuple[str, tuple[Any, ...], float]
_E, _C = "ellipsoid", "cone"
_TRUNK: Sequence[_Part] = (
    (_E, ((0, -0.235, -0.005), (0.155, 0.12, 0.112)), 0.0),
    (_E, ((0, -0.07, 0.002), (0.132, 0.17, 0.098)), 0.08),
    (_E, ((0, 0.11, -0.002), (0.158, 0.19, 0.112)), 0.08),
    (_C, ((0.02, 0.215, -0.015), (0.175, 0.222, -0.015), 0.06, 0.058), 0.06),
    (_C, ((0.02, 0.275, -0.025), (0.12, 0.245, -0.02), 0.05, 0.035), 0.04),
    (_E, ((0.066, 0.13, 0.07), (0.075, 0.065, 0.05)), 0.05),
    (_E, ((0.075, -0.285, -0.055), (0.085, 0.095, 0.085)), 0.05),
    (_C, ((0, 0.25, -0.025), (0, 0.37, 0), 0.060, 0.055), 0.03),
)
_HEAD: Sequence[_Part] = (
    (_E, ((0, 0.468, 0.012), (0.075, 0.105, 0.094)), 0.0),
    (_E, ((0, 0.40, 0.045), (0.055, 0.058, 0.06)), 0.04),
    (_C, ((0, 0.452, 0.105), (0, 0.43, 0.118), 0.010, 0.014), 0.02),
    (_E, ((0.077, 0.45, 0), (0.012, 0.03, 0.018)), 0.012),
)
_ARM: Sequence[_Part] = (
    (_C, ((0.18, 0.222, -0.015), (0.44, 0.215, -0.03), 0.056, 0.042), 0.0),
    (_C, ((0.44, 0.215, -0.03), (0.685, 0.22, -0.025), 0.044, 0.028), 0.03),
    (_E, ((0.245, 0.23, -0.015), (0.085, 0.058, 0.056)), 0.04),
    (_E, ((0.52, 0.216, -0.03), (0.09, 0.046, 0.044)), 0.03),
)
_HAND: Sequence[_Part] = (
    (_E, ((0.765, 0.216, -0.02), (0.095, 0.020, 0.042)), 0.0),
    (_C, ((0.715, 0.214, 0.005), (0.765, 0.206, 0.042), 0.016, 0.011), 0.02),
)
_LEG: Sequence[_Part] = (
    (_C, ((0.083, -0.31, 0), (0.095, -0.70, 0.005), 0.088, 0.056), 0.0),
    (_C, ((0.095, -0.70, 0.005), (0.09, -1.085, -0.03), 0.054, 0.036), 0.04),
    (_E, ((0.098, -0.83, -0.022), (0.052, 0.13, 0.052)), 0.04),
    (_E, ((0.105, -0.45, 0.01), (0.078, 0.17, 0.085)), 0.05),
)
_FOOT: Sequence[_Part] = (
    (_C, ((0.088, -1.125, -0.05), (0.115, -1.148, 0.12), 0.040, 0.030), 0.0),
    (_E, ((0.112, -1.15, 0.09), (0.046, 0.028, 0.075)), 0.02),
)
_SOLE = -1.172


def _group(points: Array, parts: Sequence[_Part]) -> Array:
    value: Array | None = None
    for kind, geometry, width in parts:
        part = ellipsoid(points, *geometry) if kind == _E else cone(points, *geometry)
        value = part if value is None else smooth_min(value, part, width)
    assert value is not None
    return value


def signed_distance(points: Array) -> Array:
    """Negative inside the body, positive outside, (N, 3) -> (N,)."""
    folded = np.concatenate([np.abs(points[:, :1]), points[:, 1:]], 1)
    arm = smooth_min(_group(folded, _ARM), _group(folded, _HAND), 0.03)
    leg = smooth_min(_group(folded, _LEG), _group(folded, _FOOT), 0.03)
    body = smooth_min(_group(folded, _TRUNK), _group(folded, _HEAD), 0.025)
    body = smooth_min(smooth_min(body, arm, 0.035), leg, 0.045)
    return -smooth_min(-body, folded[:, 1] - _SOLE, 0.012)  # smooth intersection with the half-space above the sole


def gradient(points: Array, step: float = 1e-4) -> Array:
    """Central differences of `signed_distance`, (N, 3) -> (N, 3)."""
    offsets = step * np.eye(3)
    return np.stack(
        [(signed_distance(points + o) - signed_distance(points - o)) / (2 * step) for o in offsets], axis=-1
    )


def project(points: Array) -> Array:
    """One Newton step of each point towards the surface, of at most 3 cm."""
    slope = gradient(points)
    move = -(signed_distance(points) / np.maximum((slope**2).sum(-1), 0.2))[:, None] * slope
    length = np.linalg.norm(move, axis=-1, keepdims=True)
    return points + move * np.minimum(1.0, 0.03 / np.maximum(length, 1e-12))
