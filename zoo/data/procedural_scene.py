"""A ray-traced scene with exact cameras and depth: what splatting trains on when nothing has been downloaded.

Three textured boxes and two glossy spheres stand on a ground of noise and glyphs under a textured dome; cameras go
round them in two turns of varying height and look inwards. Everything follows from the seed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.cache import kept_arrays
from zoo.data.scene_views import Scene, look_at

Array = NDArray[np.float64]

_VERSION = 1  # of the scene: a change of it makes cached files stale
_ARRAYS = ("images", "depths", "viewmats", "Ks", "points", "point_colors")
_FIELD_OF_VIEW = 0.9
_SUPERSAMPLING = 2
_SUN = np.array([0.4, 0.3, 0.87]) / np.linalg.norm([0.4, 0.3, 0.87])


def procedural_scene(size: int = 128, views: int = 56, points: int = 600, seed: int = 0, test_every: int = 8) -> Scene:
    """The scene, from the cache folder if it has been made before.

    Args:
        size: width and height of the images in pixels.
        views: number of cameras.
        points: of the sparse cloud, sampled from the training views' depth with 0.4 % of noise.
        seed: of textures, places and points.
        test_every: every view whose index is a multiple of it is held out.
    """
    key = hashlib.sha256(repr((_VERSION, size, views, points, seed, test_every)).encode()).hexdigest()[:16]
    arrays = kept_arrays(
        f"scenes/procedural-{key}.npz",
        lambda: dict(zip(_ARRAYS, _make(size, views, points, seed, test_every), strict=True)),
    )
    return Scene(
        name="procedural",
        names=[f"{i:03d}" for i in range(views)],
        images=list(arrays["images"]),
        viewmats=arrays["viewmats"],
        Ks=arrays["Ks"],
        points=arrays["points"],
        point_colors=arrays["point_colors"],
        test_every=test_every,
        depths=list(arrays["depths"]),
    )


def _make(size: int, views: int, points: int, seed: int, test_every: int) -> tuple[NDArray[np.generic], ...]:
    """The arrays that are named in `_ARRAYS`."""
    generator = np.random.default_rng(seed)
    world = _World.make(generator)
    viewmats = np.stack([_camera(i / views) for i in range(views)])
    focal = 0.5 * size / np.tan(0.5 * _FIELD_OF_VIEW)
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    images, depths = zip(*(_render(world, viewmat, K, size) for viewmat in viewmats), strict=True)
    train = np.array([i for i in range(views) if not test_every or i % test_every])
    view = generator.choice(train, points)
    row, column = generator.integers(size, size=(2, points))
    z = np.stack(depths)[view, row, column] * generator.normal(1.0, 0.004, points)
    rays = np.stack([(column + 0.5 - size / 2) / focal, (row + 0.5 - size / 2) / focal, np.ones(points)], axis=-1)
    local = rays * z[:, None] - viewmats[view, :3, 3]
    cloud = np.einsum("pji,pj->pi", viewmats[view, :3, :3], local)
    colors = np.stack(images)[view, row, column]
    return np.stack(images), np.stack(depths), viewmats, np.repeat(K[None], views, 0), cloud, colors


def _camera(part: float) -> Array:
    """The world-to-camera matrix at a part of the way, 0 to 1."""
    angle = 2 * np.pi * 2 * part
    height = 1.25 + 0.55 * np.sin(2 * np.pi * 3 * part + 0.4) + 0.25 * (part - 0.5)
    eye = np.array([2.9 * np.cos(angle), 2.9 * np.sin(angle), height])
    return look_at(eye, np.array([0.0, 0.0, 0.35]), np.array([0.0, 0.0, 1.0]))


def _noise(generator: np.random.Generator, size: int, octaves: tuple[int, ...]) -> Array:
    """A periodic picture (size, size) in [0, 1] of smooth noise, the finer the weaker."""
    from scipy.ndimage import map_coordinates

    steps = np.arange(size) / size
    total = np.zeros((size, size))
    for k, cells in enumerate(octaves):
        grid = generator.random((cells, cells))
        at = np.meshgrid(steps * cells, steps * cells, indexing="ij")
        total += 0.6**k * map_coordinates(grid, at, order=3, mode="grid-wrap")
    return (total - total.min()) / np.ptp(total)


def _texture(generator: np.random.Generator, glyphs: int) -> Array:
    """(256, 256, 3) periodic colours: two hues mixed by noise, with dark and light glyphs of a few strokes."""
    size = 256
    dark, light = generator.uniform(0.1, 0.5, 3), generator.uniform(0.5, 1.0, 3)
    mix = _noise(generator, size, (4, 8, 16, 32))[..., None]
    picture = dark * (1 - mix) + light * mix
    for _ in range(glyphs):
        tone = generator.choice([0.06, 0.95]) * generator.uniform(0.7, 1.0, 3)
        row, column = generator.integers(size, size=2)
        for _ in range(generator.integers(2, 5)):
            height, width = generator.permutation([generator.integers(4, 8), generator.integers(10, 30)])
            rows = (row + generator.integers(-8, 9) + np.arange(height)) % size
            columns = (column + generator.integers(-8, 9) + np.arange(width)) % size
            picture[np.ix_(rows, columns)] = tone
    return picture


def _look_up(texture: Array, u: Array, v: Array) -> Array:
    """Bilinear colours (M, 3) at texture coordinates, which are periodic with period 1."""
    size = len(texture)
    x, y = u * size - 0.5, v * size - 0.5
    i, j = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - i)[:, None], (y - j)[:, None]
    i0, i1, j0, j1 = i % size, (i + 1) % size, j % size, (j + 1) % size
    top = texture[j0, i0] * (1 - fx) + texture[j0, i1] * fx
    bottom = texture[j1, i0] * (1 - fx) + texture[j1, i1] * fx
    return top * (1 - fy) + bottom * fy


@dataclass(frozen=True)
class _World:
    boxes: list[tuple[Array, Array, Array]]  # lower corner, upper corner, rotation about z as (cos, sin)
    spheres: list[tuple[Array, float]]
    textures: list[Array]  # ground, dome, boxes, spheres
    haze: Array  # the ground's texture without its fine parts

    @staticmethod
    def make(generator: np.random.Generator) -> _World:
        """Places and paints the objects."""
        from scipy.ndimage import gaussian_filter

        boxes = []
        places = ((0.3, 0.75, (0.5, 0.4, 0.75)), (2.5, 0.8, (0.45, 0.6, 0.5)), (4.4, 0.7, (0.6, 0.4, 0.4)))
        for angle, radius, sizes in places:
            size = np.array(sizes) * generator.uniform(0.9, 1.1, 3)
            centre = np.array([radius * np.cos(angle), radius * np.sin(angle), size[2] / 2])
            turn = generator.uniform(0, np.pi)
            boxes.append((centre - size / 2, centre + size / 2, np.array([np.cos(turn), np.sin(turn)])))
        spheres = [
            (np.array([0.85 * np.cos(1.4), 0.85 * np.sin(1.4), 0.32]), 0.32),
            (np.array([0.1, -0.1, 0.4]), 0.4),
        ]
        textures = [_texture(generator, glyphs) for glyphs in (60, 25, 25, 25, 25, 14, 14)]
        haze = gaussian_filter(textures[0], (10, 10, 0), mode="wrap")
        return _World(boxes, spheres, textures, haze)


def _render(world: _World, viewmat: Array, K: Array, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """An image (size, size, 3), each pixel the mean of 2 x 2 rays, and the z of its nearest ray."""
    fine = size * _SUPERSAMPLING
    steps = (np.arange(fine) + 0.5) / _SUPERSAMPLING
    x, y = np.meshgrid((steps - K[0, 2]) / K[0, 0], (steps - K[1, 2]) / K[1, 1])
    local = np.stack([x.ravel(), y.ravel(), np.ones(fine * fine)], axis=-1)
    rotation = viewmat[:3, :3]
    # The rays' z component is 1, so that the parameter along a ray is its depth.
    colors, z = _trace(world, -rotation.T @ viewmat[:3, 3], local @ rotation)
    blocks = (size, _SUPERSAMPLING, size, _SUPERSAMPLING)
    image = colors.reshape(*blocks, 3).mean((1, 3))
    depth = z.reshape(blocks).min((1, 3))
    return np.round(255 * image.clip(0, 1)).astype(np.uint8), depth.astype(np.float32)


def _trace(world: _World, eye: Array, rays: Array) -> tuple[Array, Array]:
    """Colours (M, 3) and ray parameters (M,) of the first surface that each ray meets."""
    nearest = np.full(len(rays), np.inf)
    colors = np.zeros((len(rays), 3))

    def keep(t: Array, valid: NDArray[np.bool_]) -> NDArray[np.int64]:
        hit = np.flatnonzero(valid & (t < nearest) & (t > 1e-6))
        nearest[hit] = t[hit]
        return hit

    with np.errstate(divide="ignore", invalid="ignore"):
        t = _sphere(eye, rays, np.zeros(3), 9.0)[1]
        hit = keep(t, np.isfinite(t))
        direction = (eye + rays[hit] * t[hit, None]) / 9.0
        u = np.arctan2(direction[:, 1], direction[:, 0]) / (2 * np.pi)
        colors[hit] = 0.35 + 0.6 * _look_up(world.textures[1], 2 * u, 0.8 * direction[:, 2])

        t = -eye[2] / rays[:, 2]
        where = eye[:2] + rays[:, :2] * t[:, None]
        hit = keep(t, (t > 0) & ((where**2).sum(-1) < 81.0))
        # Far away the pattern fades, or it would be finer than a pixel.
        sharp, smooth = (_look_up(t, where[hit, 0] / 3.2, where[hit, 1] / 3.2) for t in (world.textures[0], world.haze))
        fade = ((np.linalg.norm(where[hit], axis=1) - 1.5) / 2).clip(0, 1)[:, None]
        colors[hit] = (1 - fade) * sharp + fade * smooth

        for k, (low, high, turn) in enumerate(world.boxes):
            t, normal, u, v = _box(eye, rays, low, high, turn)
            hit = keep(t, np.isfinite(t))
            light = 0.45 + 0.55 * (normal[hit] @ _SUN).clip(0)
            colors[hit] = light[:, None] * _look_up(world.textures[2 + k], u[hit], v[hit])

        for k, (centre, radius) in enumerate(world.spheres):
            t = _sphere(eye, rays, centre, radius)[0]
            hit = keep(t, np.isfinite(t))
            normal = (eye + rays[hit] * t[hit, None] - centre) / radius
            u = np.arctan2(normal[:, 1], normal[:, 0]) / (2 * np.pi)
            texture = _look_up(world.textures[5 + k], u, np.arccos(normal[:, 2].clip(-1, 1)) / np.pi)
            unit = rays[hit] / np.linalg.norm(rays[hit], axis=1, keepdims=True)
            mirrored = unit - 2 * (unit * normal).sum(-1, keepdims=True) * normal
            gloss = 0.5 * (mirrored @ _SUN).clip(0) ** 12
            colors[hit] = texture * (0.45 + 0.55 * (normal @ _SUN).clip(0))[:, None] + gloss[:, None]
    return colors, nearest


def _sphere(eye: Array, rays: Array, centre: Array, radius: float) -> tuple[Array, Array]:
    """Where each ray enters and leaves a sphere; NaN if it misses."""
    a, b = (rays**2).sum(-1), rays @ (eye - centre)
    root = np.sqrt(b * b - a * (((eye - centre) ** 2).sum() - radius**2))
    return (-b - root) / a, (-b + root) / a


def _box(eye: Array, rays: Array, low: Array, high: Array, turn: Array) -> tuple[Array, Array, Array, Array]:
    """Ray parameter (NaN for a miss), normal and texture coordinates of a box turned about its centre's vertical."""
    centre = (low + high) / 2
    rotation = np.array([[turn[0], turn[1], 0], [-turn[1], turn[0], 0], [0, 0, 1]])
    origin, direction = rotation @ (eye - centre), rays @ rotation.T
    half = (high - low) / 2
    first, second = (-half - origin) / direction, (half - origin) / direction
    enter, leave = np.minimum(first, second), np.maximum(first, second)
    axis = enter.argmax(-1)
    t = enter.max(-1)
    t = np.where(t <= leave.min(-1), t, np.nan)
    local = origin + direction * t[:, None]
    rows = np.arange(len(rays))
    normal = np.zeros_like(rays)
    normal[rows, axis] = -np.sign(direction[rows, axis])
    across = np.where(axis == 0, local[:, 1], local[:, 0])
    along = np.where(axis == 2, local[:, 1], local[:, 2])
    # Each side shows a part of its own.
    shift = 0.37 * axis + 0.21 * (normal[rows, axis] > 0)
    return t, normal @ rotation, across / 1.2 + shift, along / 1.2 + shift
