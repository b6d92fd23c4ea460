"""The tissues of an axial head, drawn from a seed.

Coordinates are in [-1, 1]^2, x to the right along columns and y down along rows. Shapes are painted from the
outside in, in elliptical polar coordinates (r, theta) in which the brain's surface is r = 1.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32]
HEAD_HEIGHT = 1.0  # half-axis of the head along z, in units of the field of view's half


class Tissue(IntEnum):
    """Labels of a label map."""

    BACKGROUND = 0
    SCALP = 1
    SKULL = 2
    CSF = 3
    GREY_MATTER = 4
    WHITE_MATTER = 5
    DEEP_NUCLEI = 6
    LESION = 7
    VESSEL = 8


def grid(shape: tuple[int, int]) -> tuple[Array, Array]:
    """x and y of pixel centres, (H, W) each, with 0 at index n // 2."""
    y, x = (((np.arange(n) - n // 2) * 2 / n).astype(np.float32) for n in shape)
    return np.broadcast_to(x[None], shape), np.broadcast_to(y[:, None], shape)


class Anatomy:
    """One head.

    Args:
        rng: draws everything.
    """

    def __init__(self, rng: Generator) -> None:
        self.axes = rng.uniform(0.62, 0.70), rng.uniform(0.80, 0.90)
        self.rotation = rng.normal(0, 0.08)
        self.center = rng.normal(0, 0.03, 2)
        self.folds = np.stack((rng.integers(5, 24, 8), rng.uniform(0.004, 0.018, 8), rng.uniform(0, 2 * np.pi, 8)))
        self.white_radius = rng.uniform(0.76, 0.84)
        self.sulci = [self._sulcus(rng) for _ in range(rng.integers(24, 41))]
        self.fissure = rng.uniform(0.006, 0.014), rng.uniform(0.35, 0.55)
        self.ventricle = self._ellipse(rng, (0.10, 0.17), (-0.10, 0.06), (0.07, 0.13), (0.22, 0.34), 0.25, (0.4, 0.7))
        self.nucleus = self._ellipse(rng, (0.22, 0.32), (0.00, 0.18), (0.06, 0.11), (0.12, 0.20), 0.4, (0.3, 0.6))
        self.lesions = [self._spot(rng, (0.012, 0.05), 0.72) for _ in range(rng.integers(0, 5))]
        self.vessels = [self._spot(rng, (0.006, 0.014), 0.95) for _ in range(rng.integers(4, 12))]

    @staticmethod
    def _sulcus(rng: Generator) -> dict[str, float]:
        return {
            "angle": rng.uniform(-np.pi, np.pi),
            "drift": rng.normal(0, 0.4),
            "width": rng.uniform(0.006, 0.018),
            "cortex": rng.uniform(0.035, 0.06),
            "depth": rng.uniform(0.06, 0.28),
            "bend": rng.normal(0, 1.2),
        }

    @staticmethod
    def _ellipse(
        rng: Generator,
        x: tuple[float, float],
        y: tuple[float, float],
        a: tuple[float, float],
        b: tuple[float, float],
        tilt: float,
        height: tuple[float, float],
    ) -> dict[str, float]:
        ranges = {"x": x, "y": y, "a": a, "b": b, "tilt": (0.05, tilt), "height": height}
        return {**{name: rng.uniform(*span) for name, span in ranges.items()}, "z": rng.normal(0, 0.05)}

    @staticmethod
    def _spot(rng: Generator, size: tuple[float, float], reach: float) -> dict[str, float]:
        distance, angle = reach * np.sqrt(rng.uniform()), rng.uniform(-np.pi, np.pi)
        a = rng.uniform(*size)
        return {
            "x": distance * np.cos(angle),
            "y": distance * np.sin(angle),
            "z": rng.uniform(-0.4, 0.4),
            "a": a,
            "b": a * rng.uniform(0.6, 1.6),
            "tilt": rng.uniform(0, np.pi),
            "height": rng.uniform(0.1, 0.4),
        }

    def labels(self, shape: tuple[int, int], z: float) -> NDArray[np.uint8]:
        """Label map (H, W) of `Tissue` values of the slice at height z."""
        shrink = float(np.sqrt(1 - (z / HEAD_HEIGHT) ** 2))
        x, y = grid(shape)
        x, y = x - self.center[0], y - self.center[1]
        cos, sin = np.cos(self.rotation), np.sin(self.rotation)
        u = ((cos * x + sin * y) / (self.axes[0] * shrink)).astype(np.float32)
        v = ((cos * y - sin * x) / (self.axes[1] * shrink)).astype(np.float32)
        r, theta = np.hypot(u, v), np.arctan2(v, u)
        order, amplitude, phase = self.folds[:, :, None, None].astype(np.float32)
        fold = (amplitude * np.cos(order * theta + phase + 2 * np.float32(z))).sum(0)

        labels = np.zeros(shape, dtype=np.uint8)
        labels[r < 1.12] = Tissue.SCALP
        labels[r < 1.06] = Tissue.SKULL
        labels[r < 1.0] = Tissue.CSF
        labels[r < 0.97 + 0.5 * fold] = Tissue.GREY_MATTER
        labels[r < self.white_radius + 1.6 * fold + 0.02 * np.cos(23 * theta)] = Tissue.WHITE_MATTER
        self._cut_sulci(labels, r, theta, z)
        width, reach = self.fissure
        labels[(np.abs(u) < width) & (np.abs(v) > reach) & (r < 0.97)] = Tissue.CSF
        for side in (-1, 1):
            labels[_inside(self.nucleus, side * u, v, z)] = Tissue.DEEP_NUCLEI
            labels[_inside(self.ventricle, side * u, v, z)] = Tissue.CSF
        for kind, spots in ((Tissue.LESION, self.lesions), (Tissue.VESSEL, self.vessels)):
            for spot in spots:
                labels[_inside(spot, u, v, z) & (r < 0.95)] = kind
        return labels

    def _cut_sulci(self, labels: NDArray[np.uint8], r: Array, theta: Array, z: float) -> None:
        """Wedges of CSF from the surface inwards, lined with grey matter."""
        near = np.flatnonzero((r > 0.6) & (r < 1))
        depth, angle, flat = 1 - r.flat[near], theta.flat[near], labels.reshape(-1)
        lining, cut = np.zeros(near.size, dtype=bool), np.zeros(near.size, dtype=bool)
        for sulcus in self.sulci:
            away = angle - np.float32(sulcus["angle"] + sulcus["drift"] * z) - np.float32(sulcus["bend"]) * depth
            across = np.abs((away + np.float32(np.pi)) % np.float32(2 * np.pi) - np.float32(np.pi)) * (1 - depth)
            cut |= (depth < sulcus["depth"]) & (across < sulcus["width"])
            lining |= (depth < sulcus["depth"] + sulcus["cortex"]) & (across < sulcus["width"] + sulcus["cortex"])
        flat[near[lining & (flat[near] == Tissue.WHITE_MATTER)]] = Tissue.GREY_MATTER
        flat[near[cut]] = Tissue.CSF


def _inside(ellipsoid: dict[str, Any], u: Array, v: Array, z: float) -> NDArray[np.bool_]:
    """Where the slice at z cuts an ellipsoid."""
    rest = 1 - ((z - ellipsoid["z"]) / ellipsoid["height"]) ** 2
    if rest <= 0:
        return np.zeros(u.shape, dtype=bool)
    cos, sin = np.float32(np.cos(ellipsoid["tilt"])), np.float32(np.sin(ellipsoid["tilt"]))
    x, y = u - np.float32(ellipsoid["x"]), v - np.float32(ellipsoid["y"])
    along, across = (cos * x + sin * y) / ellipsoid["a"], (cos * y - sin * x) / ellipsoid["b"]
    return along**2 + across**2 < rest
