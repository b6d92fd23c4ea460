"""Pictures of bodies by ray casting with Open3D, with smooth normals; by PyTorch3D on a GPU, by NumPy without Open3D.

No window or graphics card is needed. The camera looks along +z, x to the right, y down.
"""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.humans import pytorch3d
from zoo.humans.rasterise import rasterise
from zoo.humans.standin.rig import vertex_normals

Array = NDArray[Any]
DEFAULT_COLOUR = (0.62, 0.71, 0.86)


@cache
def _open3d() -> Any | None:
    """Open3D, or None with one warning where it can't be loaded."""
    try:
        return importlib.import_module("open3d")
    except (ImportError, OSError) as error:
        warnings.warn(
            f"Open3D can't be loaded ({error}): bodies are drawn by NumPy, which is as exact. For Open3D: pip install "
            "'zoo[humans]', and on Debian apt-get install libusb-1.0-0 libgomp1.",
            stacklevel=2,
        )
        return None


def cast(vertices: Array, faces: Array, focal: float, centre: tuple[float, float], size: tuple[int, int]) -> Any:
    """What each pixel of a pinhole camera at the origin sees.

    Args:
        vertices: (V, 3) in camera coordinates.
        faces: (F, 3).
        focal: pixels.
        centre: principal point in pixels; the first pixel's middle is (0, 0).
        size: height and width.

    Returns:
        Triangle (H, W) int64, -1 where there is none; barycentric coordinates (H, W, 3); depth (H, W), inf where
        there is none.
    """
    if pytorch3d.available():
        return pytorch3d.rasterise(vertices, faces, focal, centre, size)
    o3d = _open3d()
    if o3d is None:
        return rasterise(vertices, faces, focal, centre, size)
    tensor = o3d.core.Tensor
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(
        tensor(np.ascontiguousarray(vertices, np.float32)), tensor(np.ascontiguousarray(faces, np.uint32))
    )
    height, width = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    direction = np.stack([(x - centre[0]) / focal, (y - centre[1]) / focal, np.ones_like(x, float)], -1)
    rays = np.concatenate([np.zeros_like(direction), direction], -1).astype(np.float32)
    hits = scene.cast_rays(tensor(rays), nthreads=1)
    triangle = hits["primitive_ids"].numpy().astype(np.int64)
    depth = hits["t_hit"].numpy()  # in units of the direction, whose z is 1
    seen = np.isfinite(depth)
    uv = hits["primitive_uvs"].numpy()
    barycentric = np.concatenate([1 - uv.sum(-1, keepdims=True), uv], -1)
    return np.where(seen, triangle, -1), barycentric, depth


def render(
    vertices: Array,
    faces: Array,
    focal: float,
    size: tuple[int, int],
    centre: tuple[float, float] | None = None,
    colours: Array | tuple[float, float, float] = DEFAULT_COLOUR,
    background: Array | float = 1.0,
    light: tuple[float, float, float] = (-0.3, -0.5, -0.8),
    ambient: float = 0.35,
    supersample: int = 2,
) -> tuple[Array, Array]:
    """A shaded picture of a mesh.

    Args:
        vertices: (V, 3) in camera coordinates, metres.
        faces: (F, 3).
        focal: pixels.
        size: height and width of the picture.
        centre: principal point in pixels; the picture's middle by default.
        colours: (V, 3) or one colour, in [0, 1].
        background: an image (H, W, 3) in [0, 1] or a grey value.
        light: direction from the body to the light, in camera coordinates.
        ambient: share of light without direction.
        supersample: rays per pixel and axis.

    Returns:
        Image (H, W, 3) float32 in [0, 1] and the body's coverage of each pixel (H, W).
    """
    height, width = size
    centre = centre or ((width - 1) / 2, (height - 1) / 2)
    s = supersample
    fine = ((centre[0] + 0.5) * s - 0.5, (centre[1] + 0.5) * s - 0.5)
    triangle, barycentric, _ = cast(vertices, faces, focal * s, fine, (height * s, width * s))
    hit = triangle >= 0
    corners, weights = faces[triangle[hit]], barycentric[hit][..., None]
    normals = vertex_normals(vertices, faces)
    normal = (normals[corners] * weights).sum(1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    towards = np.asarray(light) / np.linalg.norm(light)
    shade = ambient + (1 - ambient) * np.maximum(normal @ towards, 0.0)
    colour = np.broadcast_to(np.asarray(colours, float), vertices.shape)
    picture = np.zeros((height * s, width * s, 3), np.float32)
    picture[hit] = (colour[corners] * weights).sum(1) * shade[:, None]
    coverage = _pool(hit.astype(np.float32)[..., None], s)
    scene = np.broadcast_to(np.asarray(background, np.float32), (height, width, 3))
    image = _pool(picture, s) + (1 - coverage) * scene
    return np.clip(image, 0, 1).astype(np.float32), coverage[..., 0]


def _pool(image: Array, factor: int) -> Array:
    height, width, channels = image.shape
    return image.reshape(height // factor, factor, width // factor, factor, channels).mean((1, 3))


def side_view(vertices: Array, faces: Array, size: tuple[int, int], degrees: float = 90.0, **look: Any) -> Array:
    """The body turned about its vertical axis, filling a picture of its own; arguments as of `render`."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    middle = 0.5 * (vertices.min(0) + vertices.max(0))
    turned = (vertices - middle) @ turn.T
    extent = max(np.ptp(turned[:, 0]), np.ptp(turned[:, 1]), 1e-6)
    distance, focal = 10.0, 0.85 * min(size) / extent * 10.0
    return render(turned + np.array([0.0, 0.0, distance]), faces, focal, size, **look)[0]


def upright(vertices: Array) -> Array:
    """A body in its own frame (y up, facing +z) as a camera in front of it sees it."""
    return vertices * [1, -1, -1]
