"""SPIN's annotations: what a reader of a raw data set gives per person, and the npz file of them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError
from zoo.files import atomic_path

Array = NDArray[Any]
# Where the 17 joints that Human3.6M and MPI-INF-3DHP share (pelvis, left leg, right leg, spine, neck, head, left arm,
# right arm) stand in the superset.
BODY_17_TO_SUPERSET = (14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6)


class PersonRow(TypedDict, total=False):
    """One person in one picture; a data set gives the same keys in every row.

    Keys:
        imgname: path of the picture below the data set's folder of pictures.
        center: (2,) middle of the box, pixels.
        scale: side of the box over 200 pixels.
        part: (24, 3) the superset's joints in pixels of the picture, confidence.
        openpose: (25, 3) detected joints, BODY_25.
        S: (24, 4) the superset's joints in metres about the pelvis in the camera's axes, validity.
        pose: (72,) rotation vectors in the camera's frame.
        shape: (10,).
        gender: ``"m"`` or ``"f"``.
        maskname, partname: files of the person's silhouette and of the body's six parts.
    """

    imgname: str
    center: Array
    scale: float
    part: Array
    openpose: Array
    S: Array
    pose: Array
    shape: Array
    gender: str
    maskname: str
    partname: str


def box(points: Array, margin: float) -> tuple[Array, float]:
    """Middle (2,) and scale of the square box about points (N, 2), its side `margin` times their larger extent."""
    low, high = points.min(0), points.max(0)
    return (low + high) / 2, float(margin * (high - low).max() / 200)


def in_superset(points: Array, places: Sequence[int]) -> Array:
    """Points (J, C) at the places of the superset that they belong to, with confidence 1: (24, C + 1)."""
    out = np.zeros((24, points.shape[1] + 1), np.float32)
    out[list(places), :-1], out[list(places), -1] = points, 1.0
    return out


def write_annotations(rows: Iterable[PersonRow], path: Path) -> int:
    """Writes the rows as an npz file in SPIN's layout; returns their number.

    Raises:
        DataError: there are none.
    """
    people = list(rows)
    if not people:
        raise DataError(f"Nobody was found to annotate for {path.name}: are the folders those of the data card?")
    arrays: dict[str, Any] = {
        key: np.array([row[key] for row in people])  # type: ignore[literal-required]
        for key in people[0]
    }
    with atomic_path(path) as temporary:
        np.savez(temporary, **{k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in arrays.items()})
    return len(people)
