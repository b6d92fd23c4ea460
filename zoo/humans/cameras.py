"""Cameras: SPIN's weak-perspective crop camera, perspective projection, and cameras of full images and renderers.

The camera frame has x to the right, y down, z forward. A crop's camera looks along +z through the crop's centre.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

FOCAL_LENGTH = 5000.0  # pixels, SPIN's for a crop of 224
IMG_RES = 224

Convention = Literal["opencv", "opengl", "pytorch3d", "blender"]
# What multiplies camera coordinates: OpenGL and Blender look along -z with y up, PyTorch3D along +z with x left.
_AXES: dict[str, tuple[float, float, float]] = {
    "opencv": (1.0, 1.0, 1.0),
    "opengl": (1.0, -1.0, -1.0),
    "blender": (1.0, -1.0, -1.0),
    "pytorch3d": (-1.0, -1.0, 1.0),
}


def perspective_projection(
    points: Tensor, rotation: Tensor | None, translation: Tensor, focal_length: float | Tensor, centre: Tensor
) -> Tensor:
    """Pinhole projection.

    Args:
        points: (B, N, 3) metres.
        rotation: (B, 3, 3), None for the identity.
        translation: (B, 3), added after the rotation.
        focal_length: pixels, one for all or (B,).
        centre: (B, 2) or (2,) principal point in pixels.

    Returns:
        (B, N, 2) pixels.
    """
    if rotation is not None:
        points = points @ rotation.transpose(-1, -2)
    points = points + translation.unsqueeze(-2)
    focal = focal_length.reshape(-1, 1, 1) if isinstance(focal_length, Tensor) else focal_length
    return focal * points[..., :2] / points[..., 2:] + centre.unsqueeze(-2)


def crop_translation(camera: Tensor, focal_length: float = FOCAL_LENGTH, res: int = IMG_RES) -> Tensor:
    """Translation of the network's camera (s, tx, ty): (B, 3) -> (B, 3) metres.

    A metre at the body's depth spans s * res / 2 pixels, so the depth is 2 f / (res s).
    """
    depth = 2 * focal_length / (res * camera[:, 0] + 1e-9)
    return torch.stack([camera[:, 1], camera[:, 2], depth], -1)


def full_image_translation(
    camera: Tensor, centre: Tensor, box: Tensor, image_size: Tensor, focal_length: Tensor | float
) -> Tensor:
    """Translation in the full image's camera of a body seen in a square crop of it.

    Args:
        camera: (B, 3) the crop's (s, tx, ty).
        centre: (B, 2) of the box in pixels.
        box: (B,) its side in pixels (200 times SPIN's scale).
        image_size: (B, 2) or (2,) width and height in pixels.
        focal_length: of the full image, pixels.

    Returns:
        (B, 3): with it, points project to the full image's pixels at the principal point's middle.
    """
    span = box * camera[:, 0] + 1e-9
    shift = 2 * (centre - image_size / 2) / span.unsqueeze(-1)
    depth = 2 * focal_length / span
    return torch.cat([camera[:, 1:] + shift, depth.reshape(-1, 1)], -1)


def assumed_focal_length(box: Tensor, focal_length: float = FOCAL_LENGTH, res: int = IMG_RES) -> float:
    """The full image's focal length in pixels that the crops' stands for, of the largest of the boxes (B,).

    It is long, so nearly orthographic; bodies seen through it lie on the image as the crop's camera lays them, but
    far away. Metric distances need the true focal length.
    """
    return focal_length * float(box.max()) / res


def to_convention(points: Tensor, convention: Convention) -> Tensor:
    """Points of our (OpenCV's) camera frame in that of a renderer, (..., 3)."""
    return points * torch.tensor(_AXES[convention], dtype=points.dtype, device=points.device)


def estimate_translation(
    points: Tensor, keypoints: Tensor, focal_length: float = FOCAL_LENGTH, res: float = IMG_RES
) -> tuple[Tensor, Tensor]:
    """The translation that brings 3-D joints onto 2-D ones, by weighted linear least squares.

    f tx - u tz = u Z - f X for each joint (and the same for y), rows weighted by the square root of the confidence;
    solved in float64.

    Args:
        points: (B, N, 3) metres.
        keypoints: (B, N, 3): x, y in pixels of a crop of side `res`, confidence.
        focal_length: pixels.
        res: side of the crop; its centre is the principal point.

    Returns:
        (B, 3) translations and (B,) whether at least two joints were visible (otherwise the answer is a body
        that fills the crop).
    """
    world, pixel = points.double(), keypoints[..., :2].double() - res / 2
    confidence = keypoints[..., 2].double()
    zero, f = torch.zeros_like(confidence), float(focal_length)
    rows = torch.stack(
        [
            torch.stack([torch.full_like(zero, f), zero, -pixel[..., 0]], -1),
            torch.stack([zero, torch.full_like(zero, f), -pixel[..., 1]], -1),
        ],
        -2,
    )
    right = pixel * world[..., 2:] - f * world[..., :2]
    weight = confidence.sqrt()[..., None]
    rows, right = rows * weight.unsqueeze(-1), right * weight
    matrix, vector = rows.flatten(1, 2), right.flatten(1, 2).unsqueeze(-1)
    normal, target = matrix.transpose(1, 2) @ matrix, matrix.transpose(1, 2) @ vector
    enough = (confidence > 0).sum(-1) >= 2
    safe = torch.where(enough[:, None, None], normal, torch.eye(3, dtype=normal.dtype, device=normal.device))
    solved = torch.linalg.lstsq(safe, target).solution.squeeze(-1)
    fallback = solved.new_tensor([0.0, 0.0, 2 * f / (0.9 * res)])
    return torch.where(enough[:, None], solved, fallback).to(points.dtype), enough
