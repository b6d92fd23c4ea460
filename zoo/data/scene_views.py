"""A static scene as photographs with known cameras, and the batches dealt from it.

Conventions, everywhere in this package: camera axes x right, y down, z forward (OpenCV, COLMAP); extrinsics are 4 x 4
world-to-camera matrices; pixel (column i, row j) has its centre at (i + 0.5, j + 0.5), and intrinsics are in those
coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset


class ViewBatch(TypedDict):
    """Photographs of one size, and their cameras.

    Keys:
        image: (B, H, W, 3) float32 in [0, 1].
        viewmat: (B, 4, 4) float32, world to camera.
        K: (B, 3, 3) float32, intrinsics in pixels.
        index: (B,) int64, the view's place in the scene.
    """

    image: Tensor
    viewmat: Tensor
    K: Tensor
    index: Tensor


@dataclass(frozen=True)
class Scene:
    """Views in the order of their names, and a sparse cloud of points.

    Attributes:
        name: what to call it.
        names: of the views, V of them.
        images: V arrays (H, W, 3) uint8.
        viewmats: (V, 4, 4) float64, world to camera.
        Ks: (V, 3, 3) float64.
        points: (P, 3) float64; empty if none are known.
        point_colors: (P, 3) uint8.
        background: colour behind everything, in [0, 1].
        test_every: every view whose index is a multiple of it is held out; 0 for none.
        depths: V arrays (H, W) of exact z, where they are known.
    """

    name: str
    names: list[str]
    images: list[NDArray[np.uint8]]
    viewmats: NDArray[np.float64]
    Ks: NDArray[np.float64]
    points: NDArray[np.float64]
    point_colors: NDArray[np.uint8]
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    test_every: int = 8
    depths: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def test_indices(self) -> list[int]:
        """Indices of the held-out views."""
        return [i for i in range(len(self.names)) if self.test_every and i % self.test_every == 0]

    @property
    def train_indices(self) -> list[int]:
        """Indices of the views to train on."""
        return [i for i in range(len(self.names)) if not self.test_every or i % self.test_every]

    @cached_property
    def centres(self) -> NDArray[np.float64]:
        """(V, 3) camera centres."""
        return camera_centres(self.viewmats)

    @cached_property
    def extent(self) -> float:
        """1.1 times the largest distance of a training camera from their mean: the scene's unit of length."""
        return scene_extent(self.centres[self.train_indices])


def camera_centres(viewmats: NDArray[np.float64]) -> NDArray[np.float64]:
    """(V, 3) centres of world-to-camera matrices (V, 4, 4)."""
    return -np.einsum("vji,vj->vi", viewmats[:, :3, :3], viewmats[:, :3, 3])


def scene_extent(centres: NDArray[np.float64]) -> float:
    """1.1 times the largest distance of camera centres (V, 3) from their mean."""
    return 1.1 * float(np.linalg.norm(centres - centres.mean(0), axis=1).max())


def opengl_to_viewmat(camera_to_world: NDArray[np.float64]) -> NDArray[np.float64]:
    """World-to-camera matrices with OpenCV axes of camera-to-world ones (..., 4, 4) with OpenGL axes.

    OpenGL's camera looks along -z with y up.
    """
    flipped = np.array(camera_to_world, dtype=np.float64)
    flipped[..., :3, 1:3] *= -1
    return np.asarray(np.linalg.inv(flipped), dtype=np.float64)


def look_at(eye: NDArray[np.float64], target: NDArray[np.float64], up: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 4 x 4 world-to-camera matrix of a camera at `eye` that looks at `target` with `up` upwards."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    viewmat = np.eye(4)
    viewmat[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    viewmat[:3, 3] = -viewmat[:3, :3] @ eye
    return viewmat


class Views(Dataset[ViewBatch]):
    """Some views of a scene, each as a batch of one.

    Args:
        scene: the scene.
        indices: which of its views.
    """

    def __init__(self, scene: Scene, indices: list[int]) -> None:
        self.scene, self.indices = scene, indices

    def __len__(self) -> int:
        """Number of views."""
        return len(self.indices)

    def __getitem__(self, index: int) -> ViewBatch:
        """The index-th of these views, as a batch of one."""
        view = self.indices[index]
        return view_batch(self.scene, [view])


def view_batch(scene: Scene, indices: list[int]) -> ViewBatch:
    """A batch of views of equal size."""
    images = np.stack([scene.images[i] for i in indices])
    return {
        "image": torch.from_numpy(images).float() / 255,
        "viewmat": torch.from_numpy(scene.viewmats[indices]).float(),
        "K": torch.from_numpy(scene.Ks[indices]).float(),
        "index": torch.tensor(indices),
    }


def collate_views(samples: list[ViewBatch]) -> ViewBatch:
    """Joins batches of views of equal size."""
    if len(samples) == 1:
        return samples[0]
    return {
        "image": torch.cat([s["image"] for s in samples]),
        "viewmat": torch.cat([s["viewmat"] for s in samples]),
        "K": torch.cat([s["K"] for s in samples]),
        "index": torch.cat([s["index"] for s in samples]),
    }
