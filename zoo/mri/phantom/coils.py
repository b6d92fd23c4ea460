"""Sensitivities of circular receive coils around the head, by the law of Biot and Savart."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

CYLINDER = 1.45  # radius on which the coils' centres lie; the field of view is [-1, 1]^2
RING_HEIGHT = 0.35
SEGMENTS = 16
COARSE = 32  # grid on which the field is evaluated before interpolation


class CoilArray:
    """Loops on a cylinder around z, facing its axis; from 8 coils on they stand in two rings.

    Args:
        count: number of coils.
        rng: draws their places and phases.
    """

    def __init__(self, count: int, rng: Generator) -> None:
        rings = 2 if count >= 8 else 1
        ring = np.arange(count) % rings
        angle = 2 * np.pi * np.arange(count) / count + rng.normal(0, 0.05, count) + rng.uniform(0, 2 * np.pi)
        height = RING_HEIGHT * (2 * ring - 1) if rings == 2 else np.zeros(count)
        radius = 0.5 if count <= 8 else 0.4
        self.phase = rng.uniform(0, 2 * np.pi, count)

        turn = 2 * np.pi * (np.arange(SEGMENTS) + 0.5) / SEGMENTS
        outward = np.stack((np.cos(angle), np.sin(angle), np.zeros(count)), -1)
        around = np.stack((-np.sin(angle), np.cos(angle), np.zeros(count)), -1)
        up = np.array([0.0, 0.0, 1.0])
        center = CYLINDER * outward + height[:, None] * up
        cos, sin = np.cos(turn)[None, :, None], np.sin(turn)[None, :, None]
        self.position = center[:, None] + radius * (cos * around[:, None] + sin * up)
        self.current = radius * 2 * np.pi / SEGMENTS * (-sin * around[:, None] + cos * up)

    def sensitivities(self, shape: tuple[int, int], z: float) -> NDArray[np.complex64]:
        """(C, H, W) B_x - i B_y at height z, on the grid of `zoo.mri.phantom.anatomy.grid`."""
        from scipy.interpolate import RectBivariateSpline

        axis = np.linspace(-1, 1, COARSE)
        y, x = np.meshgrid(axis, axis, indexing="ij")
        points = np.stack((x, y, np.full_like(x, z)), -1)[None, None]
        away = points - self.position[:, :, None, None]
        field = np.cross(self.current[:, :, None, None], away) / np.linalg.norm(away, axis=-1, keepdims=True) ** 3
        received = (field[..., 0] - 1j * field[..., 1]).sum(1) * np.exp(1j * self.phase)[:, None, None]
        rows, columns = ((np.arange(n) - n // 2) * 2 / n for n in shape)

        def fine(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return RectBivariateSpline(axis, axis, values)(rows, columns)

        return np.stack([fine(c.real) + 1j * fine(c.imag) for c in received]).astype(np.complex64)
