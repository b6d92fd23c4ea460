"""Silhouettes and body parts of predicted bodies against labelled ones, as LSP's segmentations are evaluated.

The six parts and their numbers are those of Unite the People (Lassner et al., CVPR 2017); the evaluation is SPIN's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from zoo.humans.cameras import FOCAL_LENGTH, IMG_RES
from zoo.humans.crops import crop_matrix
from zoo.humans.joints import SMPL_24
from zoo.humans.render import cast

Array = NDArray[Any]
PARTS = ("background", "head", "torso", "right arm", "left arm", "right leg", "left leg")
_LIMBS = {"arm": ("shoulder", "elbow", "wrist", "hand"), "leg": ("hip", "knee", "ankle", "foot")}


@dataclass(frozen=True)
class Segmentation:
    """A labelled picture.

    Attributes:
        mask: (H, W) uint8, 1 on the person.
        parts: (H, W) uint8, numbers of `PARTS`.
        centre: (2,) middle of the person's box, pixels.
        scale: its side over 200 pixels.
    """

    mask: Array
    parts: Array
    centre: Array
    scale: float


def part_labels(weights: Tensor) -> Array:
    """Part of each vertex, (V,) of 1 to 6, by the joint that moves it most.

    Args:
        weights: (V, 24) skinning weights.
    """
    of_joint = np.full(len(SMPL_24), PARTS.index("torso"), np.uint8)
    of_joint[SMPL_24.index("head")] = PARTS.index("head")
    for side in ("right", "left"):
        for limb, joints in _LIMBS.items():
            of_joint[[SMPL_24.index(f"{side}_{joint}") for joint in joints]] = PARTS.index(f"{side} {limb}")
    labels: Array = of_joint[weights.argmax(1).cpu().numpy()]
    return labels


def segment(vertices: Array, faces: Array, labels: Array, shown: Segmentation) -> Array:
    """Parts of a body where its crop lies in the whole picture, (H, W) uint8; 0 beside it.

    Rendered in the crop of 224 pixels and taken over to the picture's pixels by the nearest, as published.

    Args:
        vertices: (V, 3) in the crop camera's frame, metres.
        faces: (F, 3).
        labels: (V,) of `part_labels`.
        shown: the picture and the box.
    """
    middle = (IMG_RES - 1) / 2
    triangle, barycentric, _ = cast(vertices, faces, FOCAL_LENGTH, (middle, middle), (IMG_RES, IMG_RES))
    hit = triangle >= 0
    nearest = np.take_along_axis(faces[triangle[hit]], barycentric[hit].argmax(1)[:, None], 1)[:, 0]
    crop = np.zeros((IMG_RES, IMG_RES), np.uint8)
    crop[hit] = labels[nearest]
    height, width = shown.mask.shape
    to_crop = crop_matrix(shown.centre, shown.scale, 0.0, IMG_RES)
    column, row = (
        np.floor(to_crop[axis, axis] * (np.arange(count) + 0.5) + to_crop[axis, 2]).astype(int)
        for axis, count in enumerate((width, height))
    )
    inside = np.logical_and.outer((row >= 0) & (row < IMG_RES), (column >= 0) & (column < IMG_RES))
    found = crop[np.ix_(row.clip(0, IMG_RES - 1), column.clip(0, IMG_RES - 1))]
    return np.where(inside, found, np.uint8(0))


def _scores(classes: int) -> dict[str, Any]:
    return {
        "accuracy": MulticlassAccuracy(classes, average="micro"),
        "f1": MulticlassF1Score(classes, average="macro"),
    }


class SegmentationScores(torch.nn.Module):
    """Accuracy over all pixels and the classes' mean F1, of the silhouette (2 classes) and of the parts (7 classes).

    Args:
        prefix: of the metrics' names, ``"test/"``.
    """

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.mask = MetricCollection(_scores(2), prefix=f"{prefix}mask_")
        self.parts = MetricCollection(_scores(len(PARTS)), prefix=f"{prefix}part_")

    def update(self, found: Array, shown: Segmentation) -> None:
        """Adds a picture's parts (H, W) as `segment` gives them."""
        parts = torch.from_numpy(found.astype(np.int64)).flatten()
        self.mask.update((parts > 0).long(), torch.from_numpy(shown.mask.astype(np.int64)).flatten())
        self.parts.update(parts, torch.from_numpy(shown.parts.astype(np.int64)).flatten())

    def named(self) -> dict[str, Any]:
        """The metrics by name, for logging."""
        return {**dict(self.mask.items()), **dict(self.parts.items())}
