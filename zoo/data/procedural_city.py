"""A ray-cast city with exact cameras and surfaces: what block-wise splatting trains on when nothing was downloaded.

Fifty-odd houses stand on a ground of grass and roads; four palettes, one per quadrant, tell blocks apart. Windows and
roofs shine, so that colours depend on the view. Aerial cameras look down and obliquely; the held-out ones stand
elsewhere. Everything follows from the seed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.cache import kept_arrays
from zoo.data.scene_views import Scene, look_at

Array = NDArray[np.float64]

_VERSION = 1  # of the city: a change of it makes cached files stale
_SUPERSAMPLING = 2
_FIELD_OF_VIEW = np.deg2rad(60)
_SUN = np.array([0.4, -0.5, 0.77]) / np.linalg.norm([0.4, -0.5, 0.77])
_SKY = np.array([0.62, 0.72, 0.85])
_GROUND, _WORLD = 4.0, 6.0  # half the side that is built on, and the radius beyond which all is sky
_PALETTES = np.array([[0.62, 0.30, 0.22], [0.32, 0.45, 0.60], [0.76, 0.66, 0.45], [0.42, 0.58, 0.26]])
_ROOFS = np.array([[0.45, 0.20, 0.16], [0.55, 0.60, 0.66], [0.60, 0.48, 0.34], [0.85, 0.50, 0.18]])


@dataclass(frozen=True)
class CityScene(Scene):
    """A scene whose held-out views are its own, not every so many.

    Attributes:
        held_out: indices of the held-out views.
        surfaces: V arrays (H, W, 3) of the surface point each pixel shows, NaN for sky; empty if unknown.
    """

    held_out: tuple[int, ...] = ()
    surfaces: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def test_indices(self) -> list[int]:
        """Indices of the held-out views."""
        return list(self.held_out)

    @property
    def train_indices(self) -> list[int]:
        """Indices of the views to train on."""
        return sorted(set(range(len(self.names))) - set(self.held_out))


def procedural_city(size: int = 56, points: int = 7000, seed: int = 0, positions: int = 5) -> CityScene:
    """The city, from the cache folder if it has been made before.

    Args:
        size: width and height of the images in pixels.
        points: of the sparse cloud, drawn from the surfaces with 0.01 of noise.
        seed: of the houses, their looks, the cameras' jitter and the points.
        positions: the cameras to train on hover over this many places squared, and look five ways from each.
    """
    key = hashlib.sha256(repr((_VERSION, size, points, seed, positions)).encode()).hexdigest()[:16]
    arrays = kept_arrays(f"scenes/city-{key}.npz", lambda: _make(size, points, seed, positions))
    train = int(arrays["train"])
    count = len(arrays["images"])
    return CityScene(
        name="city",
        names=[f"{'train' if i < train else 'test'}_{i:04d}" for i in range(count)],
        images=list(arrays["images"]),
        viewmats=arrays["viewmats"],
        Ks=arrays["Ks"],
        points=arrays["points"],
        point_colors=arrays["point_colors"],
        background=(float(_SKY[0]), float(_SKY[1]), float(_SKY[2])),
        test_every=0,
        held_out=tuple(range(train, count)),
        surfaces=list(arrays["surfaces"]),
    )


def _make(size: int, points: int, seed: int, positions: int) -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(seed)
    city = City.make(generator)
    train = _rig(generator, positions, 7.2 / max(positions - 1, 1), 2.6, 0.15)
    viewmats = np.stack([*train, *_rig(generator, 3, 2.4, 2.45, 0.4)])
    focal = 0.5 * size / np.tan(0.5 * _FIELD_OF_VIEW)
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    images, surfaces = zip(*(city.render(viewmat, K, size) for viewmat in viewmats), strict=True)
    cloud = city.sample(generator, points)
    colors = city.shade(cloud, np.array([0.0, 0.0, 50.0]))
    cloud += generator.normal(0, 0.01, cloud.shape)
    return {
        "train": np.array(len(train)),
        "images": np.stack(images),
        "surfaces": np.stack(surfaces).astype(np.float32),
        "viewmats": viewmats,
        "Ks": np.repeat(K[None], len(viewmats), 0),
        "points": cloud,
        "point_colors": (255 * colors).round().astype(np.uint8),
    }


def _rig(generator: np.random.Generator, side: int, step: float, height: float, jitter: float) -> list[Array]:
    """World-to-camera matrices over a square of places: straight down, and obliquely to four sides."""
    viewmats = []
    for i in range(side):
        for j in range(side):
            eye = np.array([(i - (side - 1) / 2) * step, (j - (side - 1) / 2) * step, height])
            eye += generator.uniform(-jitter, jitter, 3)
            for aim in ((0.0, 0.0), (1, 0), (-1, 0), (0, 1), (0, -1)):
                below = np.array([eye[0], eye[1], 0.0])
                target = below + 0.85 * height * np.array([aim[0], aim[1], 0.0])
                up = np.array([0.0, 1, 0]) if aim == (0.0, 0.0) else np.array([0.0, 0, 1])
                viewmats.append(look_at(eye, target, up))
    return viewmats


@dataclass(frozen=True)
class City:
    """Houses as boxes, and what they look like.

    Attributes:
        low, high: (H, 3) corners of the houses.
        palette: (H,) which of the four.
        tint: (H, 3) factor on its colours.
        turn: (H,) orientation of the roof's stripes.
    """

    low: Array
    high: Array
    palette: NDArray[np.int64]
    tint: Array
    turn: Array

    @classmethod
    def make(cls, generator: np.random.Generator) -> City:
        """A city on 8 x 8 cells of one unit."""
        low, high, palette = [], [], []
        for i in range(8):
            for j in range(8):
                built, width, depth, height, x, y = generator.uniform(size=6)
                if built > 0.88:
                    continue
                side = 0.45 + 0.27 * np.array([width, depth])
                corner = np.array([i, j]) - _GROUND + (1 - side) * (0.25 + 0.5 * np.array([x, y]))
                low.append([*corner, 0.0])
                high.append([*(corner + side), 0.25 + 0.85 * height])
                palette.append((i >= 4) + 2 * (j >= 4))
        count = len(low)
        tint = generator.uniform(0.75, 1.25, (count, 1)) * generator.uniform(0.92, 1.08, (count, 3))
        turn = generator.uniform(0, np.pi, count)
        return cls(np.array(low), np.array(high), np.array(palette), tint, turn)

    def cast(self, eye: Array, rays: Array) -> Array:
        """Where rays (R, 3) from a point (3,) meet something, (R, 3); NaN for the sky."""
        with np.errstate(divide="ignore", invalid="ignore"):
            # Coordinate by coordinate: minima over an axis of three are slow.
            inverse = [np.ascontiguousarray(1 / rays[:, k], dtype=np.float32) for k in range(3)]
            origin = [np.float32(eye[k]) for k in range(3)]
            nearest = np.where(rays[:, 2] < 0, -origin[2] * inverse[2], np.float32(np.inf))
            for low, high in zip(self.low.astype(np.float32), self.high.astype(np.float32), strict=True):
                slabs = [((low[k] - origin[k]) * inverse[k], (high[k] - origin[k]) * inverse[k]) for k in range(3)]
                enter, leave = np.minimum(*slabs[0]), np.maximum(*slabs[0])
                for one, other in slabs[1:]:
                    np.maximum(enter, np.minimum(one, other), out=enter)
                    np.minimum(leave, np.maximum(one, other), out=leave)
                hit = (enter <= leave) & (enter > 0) & (enter < nearest)
                nearest[hit] = enter[hit]
            where = eye + rays * nearest[:, None].astype(np.float64)
        lost = ~np.isfinite(nearest) | (np.hypot(where[:, 0], where[:, 1]) > _WORLD)
        where[lost] = np.nan
        return where

    def render(self, viewmat: Array, K: Array, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Picture (size, size, 3) and the surface point of each pixel's centre."""
        eye = -viewmat[:3, :3].T @ viewmat[:3, 3]

        def rays(count: int) -> Array:
            steps = (np.arange(count) + 0.5) * size / count
            columns, rows = np.meshgrid(steps, steps)
            local = [(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1], np.ones_like(rows)]
            return np.stack(local, -1).reshape(-1, 3) @ viewmat[:3, :3]

        fine = _SUPERSAMPLING * size
        colors = self.shade(self.cast(eye, rays(fine)), eye)
        colors = colors.reshape(size, _SUPERSAMPLING, size, _SUPERSAMPLING, 3).mean((1, 3))
        surface = self.cast(eye, rays(size)).reshape(size, size, 3)
        return (255 * colors).round().astype(np.uint8), surface.astype(np.float32)

    def shade(self, where: Array, eye: Array) -> Array:
        """Colours (R, 3) of surface points (R, 3) as seen from a point (3,)."""
        colors = np.tile(_SKY, (len(where), 1))
        house, face = self._faces(where)
        solid: NDArray[np.bool_] = np.isfinite(where[:, 2])
        ground, built = solid & (house < 0), solid & (house >= 0)
        normal = np.zeros_like(where)
        normal[:, 2] = 1.0
        gloss = np.zeros(len(where))
        colors[ground] = _ground(where[ground])
        p, h, f = where[built], house[built], face[built]
        axis, side = f // 2, 2 * (f % 2) - 1
        outward = np.zeros_like(p)
        outward[np.arange(len(p)), axis] = side
        normal[built] = outward
        roof = axis == 2
        along = np.where(axis == 0, p[:, 1], p[:, 0])
        window = ((along * 6) % 1 > 0.35) & ((p[:, 2] * 6) % 1 > 0.35) & ~roof
        stripe = np.sin(14 * (np.cos(self.turn[h]) * p[:, 0] + np.sin(self.turn[h]) * p[:, 1])) > 0
        base = np.where(roof[:, None], _ROOFS[self.palette[h]] * np.where(stripe, 1.0, 0.72)[:, None], 0)
        wall = _PALETTES[self.palette[h]] * np.where(window, 0.35, 1.0)[:, None]
        colors[built] = np.where(roof[:, None], base, wall) * self.tint[h]
        gloss[built] = np.where(window | roof, 0.35, 0.0)
        light = 0.45 + 0.6 * (normal @ _SUN).clip(0)
        with np.errstate(invalid="ignore"):
            towards = eye - where
            towards /= np.linalg.norm(towards, axis=1, keepdims=True)
            half = towards + _SUN
            half /= np.linalg.norm(half, axis=1, keepdims=True)
            shine = gloss * (normal * half).sum(1).clip(0) ** 30
        lit = colors * light[:, None] + shine[:, None]
        return np.where(solid[:, None], lit, _SKY).clip(0, 1)

    def _faces(self, where: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The house each point is on, -1 for none, and which face: 0 to 5 for -x, +x, -y, +y, -z, +z."""
        house = np.full(len(where), -1)
        face = np.zeros(len(where), dtype=np.int64)
        with np.errstate(invalid="ignore"):
            raised = np.flatnonzero(where[:, 2] > 1e-3)
        x, y, z = where[raised].T.copy()
        for index, (low, high) in enumerate(zip(self.low - 1e-3, self.high + 1e-3, strict=True)):
            on = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1]) & (z < high[2])
            if on.any():
                points = where[raised[on]]
                gaps = np.stack([np.abs(points - self.low[index]), np.abs(points - self.high[index])], axis=2)
                house[raised[on]] = index
                face[raised[on]] = gaps.reshape(-1, 6).argmin(1)
        return house, face

    def sample(self, generator: np.random.Generator, count: int) -> Array:
        """Points (count, 3) spread evenly over ground, walls and roofs, none under houses."""
        size = self.high - self.low
        walls = np.stack([size[:, 1] * size[:, 2]] * 2 + [size[:, 0] * size[:, 2]] * 2 + [size[:, 0] * size[:, 1]], 1)
        areas = np.append(walls.flatten(), np.pi * _WORLD**2)
        chosen = generator.choice(len(areas), 2 * count, p=areas / areas.sum())
        unit = generator.uniform(size=(2 * count, 3))
        house, kind = np.divmod(chosen, 5)
        ground = chosen == len(areas) - 1
        house = np.where(ground, 0, house)
        points = self.low[house] + unit * size[house]
        for face, (axis, corner) in enumerate(((0, self.low), (0, self.high), (1, self.low), (1, self.high))):
            here = (kind == face) & ~ground
            points[here, axis] = corner[house[here], axis]
        roof = (kind == 4) & ~ground
        points[roof, 2] = self.high[house[roof], 2]
        radius, angle = _WORLD * np.sqrt(unit[ground, 0]), 2 * np.pi * unit[ground, 1]
        points[ground] = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros(ground.sum())])
        within = (points[:, None, :2] > self.low[:, :2]) & (points[:, None, :2] < self.high[:, :2])
        under = np.asarray(within.all(2)).any(axis=1)
        return points[~(ground & under)][:count]


def _ground(where: Array) -> Array:
    """Grass with roads along the cells' borders."""
    x, y = where[:, 0], where[:, 1]
    blades = 0.5 + 0.25 * np.sin(9 * x + 3 * np.sin(5 * y)) + 0.25 * np.sin(11 * y + 2 * np.sin(7 * x))
    grass = np.array([0.22, 0.40, 0.16]) + blades[:, None] * np.array([0.18, 0.20, 0.10])
    to_road = np.minimum(np.abs(x - np.round(x)), np.abs(y - np.round(y)))
    road = (to_road < 0.09)[:, None]
    line = ((to_road < 0.015) & (((x + y) * 4) % 1 < 0.5))[:, None]
    built_on = (np.maximum(np.abs(x), np.abs(y)) < _GROUND + 0.09)[:, None]
    asphalt = np.where(line, np.array([0.9, 0.88, 0.75]), np.array([0.34, 0.34, 0.36]))
    return np.where(road & built_on, asphalt, grass)
