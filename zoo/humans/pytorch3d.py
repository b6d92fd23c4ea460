"""PyTorch3D's rasteriser on a GPU, with the same answer as the ray caster's.

PyTorch3D is no dependency: it is built for one version of PyTorch at a time. It is used where it is installed and there
is a GPU; on a processor its rasteriser tries every triangle at every pixel, and Open3D is far faster.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]


@cache
def available() -> bool:
    """Whether PyTorch3D and a GPU are there."""
    if not torch.cuda.is_available():
        return False
    try:
        importlib.import_module("pytorch3d.renderer.mesh.rasterize_meshes")
    except (ImportError, OSError):
        return False
    return True


def rasterise(
    vertices: Array,
    faces: Array,
    focal: float,
    centre: tuple[float, float],
    size: tuple[int, int],
    device: str = "cuda",
) -> tuple[Array, Array, Array]:
    """As `zoo.humans.render.cast`, on `device`."""
    meshes = importlib.import_module("pytorch3d.structures").Meshes
    draw = importlib.import_module("pytorch3d.renderer.mesh.rasterize_meshes").rasterize_meshes
    height, width = size
    depth = vertices[:, 2:]
    pixel = focal * vertices[:, :2] / np.maximum(depth, 1e-9) + np.asarray(centre)
    # Its screen has x to the left and y up; the shorter side of the picture spans [-1, 1].
    screen = (np.array([width, height]) - 1 - 2 * pixel) / min(size)
    corners = torch.from_numpy(np.concatenate([screen, depth], 1).astype(np.float32)).to(device)
    triangles = torch.from_numpy(faces.astype(np.int64)).to(device)
    triangle, found, barycentric, _ = draw(
        meshes([corners], [triangles]), (height, width), blur_radius=0.0, faces_per_pixel=1, perspective_correct=True
    )
    seen: Array = triangle[0, ..., 0].cpu().numpy()
    return seen, barycentric[0, :, :, 0].cpu().numpy(), np.where(seen >= 0, found[0, ..., 0].cpu().numpy(), np.inf)
