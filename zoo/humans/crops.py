"""Crops of people: one affine warp from the picture to a square, and the same map for keypoints.

The box has its centre in pixels and its side in units of 200 pixels, as SPIN's annotations give it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from zoo.humans.joints import BODY_25_FLIP, SPIN_49_FLIP, SUPERSET_FLIP

Array = NDArray[Any]
CropMode = Literal["exact", "legacy", "skimage"]


@dataclass(frozen=True)
class Variation:
    """How a crop is varied in training.

    Attributes:
        flip: mirrored.
        rotation: degrees.
        scale: of the box.
        colour: (3,) factors of the channels.
    """

    flip: bool = False
    rotation: float = 0.0
    scale: float = 1.0
    colour: Array | None = None


@dataclass(frozen=True)
class Augmentation:
    """How much crops are varied; the defaults are SPIN's.

    Attributes:
        flip: probability of mirroring.
        rotation: standard deviation in degrees; at most twice that, and none with probability 0.6.
        scale: standard deviation, and the most that the box grows or shrinks.
        colour: factors lie within 1 +- this.
    """

    flip: float = 0.5
    rotation: float = 30.0
    scale: float = 0.25
    colour: float = 0.4

    def draw(self, rng: np.random.Generator) -> Variation:
        """A random variation."""
        flip = bool(rng.random() < self.flip)
        colour = rng.uniform(1 - self.colour, 1 + self.colour, 3)
        rotation = float(np.clip(rng.normal(0, 1), -2, 2) * self.rotation)
        scale = float(np.clip(1 + rng.normal(0, 1) * self.scale, 1 - self.scale, 1 + self.scale))
        return Variation(flip, rotation if rng.random() >= 0.6 else 0.0, scale, colour)


def crop_matrix(centre: Array, scale: float, rotation: float, size: int) -> Array:
    """The map (3, 3) from the picture's pixels to those of the crop.

    The picture is turned by `rotation` degrees about the box's centre: anticlockwise as one looks at it.
    """
    zoom = size / (200.0 * scale)
    matrix = np.diag([zoom, zoom, 1.0])
    matrix[:2, 2] = size * (0.5 - np.asarray(centre, float) / (200.0 * scale))
    if rotation:
        angle = -np.deg2rad(rotation)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
        middle = np.array([[1, 0, size / 2], [0, 1, size / 2], [0, 0, 1.0]])
        back = np.array([[1, 0, -size / 2], [0, 1, -size / 2], [0, 0, 1.0]])
        matrix = middle @ turn @ back @ matrix
    return matrix


def crop_image(picture: Array, centre: Array, scale: float, size: int, rotation: float = 0.0) -> Array:
    """The box of a picture (H, W, 3) uint8 as a square (size, size, 3), bilinear, black outside.

    Where the box is larger than the crop the picture is shrunk first, with an area filter, so that no detail aliases.
    """
    image = Image.fromarray(picture)
    matrix = crop_matrix(centre, scale, rotation, size)
    zoom = size / (200.0 * scale)
    if zoom < 1:
        small = image.resize(
            (max(1, round(image.width * zoom)), max(1, round(image.height * zoom))), Image.Resampling.BILINEAR
        )
        matrix = matrix @ np.diag([image.width / small.width, image.height / small.height, 1.0])
        image = small
    inverse = np.linalg.inv(matrix)
    return np.asarray(
        image.transform((size, size), Image.Transform.AFFINE, tuple(inverse[:2].ravel()), Image.Resampling.BILINEAR)
    )


def to_whole_pixels(points: Array, matrix: Array) -> Array:
    """Points through a map, cut off to whole pixels, as the original counts and cuts them.

    Args:
        points: (..., 2) pixels, of which the first is 1.
        matrix: (3, 3) of `crop_matrix`, or its inverse.

    Returns:
        (..., 2) int64, counted from 1.
    """
    placed = (np.asarray(points, float) - 1) @ matrix[:2, :2].T + matrix[:2, 2]
    return np.trunc(placed).astype(np.int64) + 1


def _whole_box(picture: Array, centre: Array, scale: float, size: int, rotation: float) -> tuple[Array, int]:
    """The box in whole pixels as the original cuts it, black beyond the picture, and its margin for turning."""
    inverse = np.linalg.inv(crop_matrix(centre, scale, 0.0, size))
    low, high = to_whole_pixels(np.array([[1, 1], [size + 1, size + 1]]), inverse) - 1
    margin = 0
    if rotation:
        margin = int(np.linalg.norm(high - low) / 2 - (high[1] - low[1]) / 2)
        low, high = low - margin, high + margin
    width, height = high - low
    box = np.zeros((height, width, 3), picture.dtype)
    (x0, y0), (x1, y1) = np.maximum(low, 0), np.minimum(high, picture.shape[1::-1])
    if x1 > x0 and y1 > y0:
        box[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]] = picture[y0:y1, x0:x1]
    return box, margin


def _without(box: Array, margin: int) -> Array:
    return box[margin : len(box) - margin, margin : box.shape[1] - margin]


def legacy_crop(picture: Array, centre: Array, scale: float, size: int, rotation: float = 0.0) -> Array:
    """The box as the official weights were trained on it, (size, size, 3) uint8.

    Corners are whole pixels, the box is filled with black beyond the picture and turned with a margin, and both turning
    and resizing first stretch the range of the values to 0...255, as SciPy's image functions did until version 1.0.

    Args:
        picture: (H, W, 3) in [0, 255].
        centre, scale, size, rotation: as of `crop_image`.
    """
    box, margin = _whole_box(picture, centre, scale, size, rotation)
    if rotation:
        turned = np.asarray(Image.fromarray(_stretch(box)).rotate(rotation, Image.Resampling.BILINEAR))
        box = _without(turned, margin)
    return np.asarray(Image.fromarray(_stretch(box)).resize((size, size), Image.Resampling.BILINEAR))


def skimage_crop(picture: Array, centre: Array, scale: float, size: int, rotation: float = 0.0) -> Array:
    """The box as the official code's branch for newer libraries cuts it, (size, size, 3) in the picture's range.

    The corners are those of `legacy_crop`; turning and resizing are scikit-image's: bilinear, black beyond the box, and
    blurred with a Gaussian before it shrinks.

    Args:
        picture: (H, W, 3).
        centre, scale, size, rotation: as of `crop_image`.
    """
    box, margin = _whole_box(picture.astype(np.float64), centre, scale, size, rotation)
    if rotation:
        angle = np.deg2rad(rotation)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # of rows and columns
        middle = (np.array(box.shape[:2]) - 1) / 2
        shift = middle - turn @ middle
        turned = [ndimage.affine_transform(box[..., k], turn, shift, order=1, mode="grid-constant") for k in range(3)]
        box = _without(np.stack(turned, -1), margin)
    factors = np.array([*box.shape[:2], size]) / size
    blurred = ndimage.gaussian_filter(box, np.maximum(0, (factors - 1) / 2), mode="mirror")
    resized: Array = ndimage.zoom(blurred, 1 / factors, order=1, mode="mirror", grid_mode=True)
    return resized


def take_crop(picture: Array, centre: Array, scale: float, size: int, rotation: float, mode: CropMode) -> Array:
    """`crop_image` or one of the original crops of a picture (H, W, 3) in [0, 1], as (size, size, 3) uint8."""
    if mode == "legacy":
        return legacy_crop(255 * picture, centre, scale, size, rotation)
    if mode == "skimage":
        return skimage_crop(255 * picture, centre, scale, size, rotation).round().clip(0, 255).astype(np.uint8)
    return crop_image((255 * picture).astype(np.uint8), centre, scale, size, rotation)


def _stretch(values: Array) -> Array:
    """Bytes whose range is 0...255; bytes stay as they are."""
    if values.dtype == np.uint8:
        return values
    low, span = float(values.min()), float(np.ptp(values)) or 1.0
    return ((values - low) * (255.0 / span) + 0.5).clip(0, 255).astype(np.uint8)


def crop_keypoints(
    keypoints: Array, centre: Array, scale: float, rotation: float, flip: bool, truncate: int | None = None
) -> Array:
    """Keypoints in the picture's pixels -> [-1, 1] across the crop, mirrored if wanted.

    Args:
        keypoints: (49, 3) or (24, 3).
        centre, scale, rotation: of the box, see `crop_matrix`.
        flip: mirrored after that.
        truncate: the crop's side in pixels to whole numbers of which the positions are cut off, as the original
            does (a bias of up to a pixel); None for exact positions.
    """
    out = np.array(keypoints, np.float32)
    matrix = crop_matrix(centre, scale, rotation, truncate or 2)
    out[:, :2] = keypoints[:, :2] @ matrix[:2, :2].T + matrix[:2, 2]
    if truncate is not None:
        out[:, :2] = to_whole_pixels(keypoints[:, :2] + 1, matrix) * 2 / truncate
    out[:, :2] -= 1.0
    return flip_points(out) if flip else out


def flip_points(points: Array) -> Array:
    """Mirrored points about x = 0, left and right swapped; (49, C), (25, C) or (24, C)."""
    order = {49: SPIN_49_FLIP, 25: BODY_25_FLIP, 24: SUPERSET_FLIP}[len(points)]
    out = points[list(order)].copy()
    out[:, 0] = -out[:, 0]
    return out


def turn_points(points: Array, rotation: float, flip: bool) -> Array:
    """Joints in space (24, 4) of the superset, turned with the picture by `rotation` degrees, then mirrored."""
    angle = -np.deg2rad(rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    out = points.copy()
    out[:, :3] = points[:, :3] @ turn.T
    return flip_points(out) if flip else out
