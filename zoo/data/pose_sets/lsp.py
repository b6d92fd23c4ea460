"""Leeds Sports Poses and its extension, with the silhouettes of Unite the People."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from zoo.data.matlab_tags import numeric_variables
from zoo.data.pose_sets.annotations import PersonRow, box, in_superset
from zoo.errors import DataError
from zoo.files import parsing
from zoo.humans.joints import LSP_TO_SUPERSET

Array = NDArray[Any]
_TRAINING = 1000  # pictures; as many for the test
_MARGIN = 1.2


def _joints(path: Path, first: int) -> Array:
    """(N, 14, 3) of ``joints.mat`` in either of its layouts: (3, 14, N), `first` 0, or (14, 3, N), `first` 1."""
    with parsing(path, "LSP's joints"):
        if "joints" not in numeric_variables(path):
            raise DataError(f"{path} has no array 'joints'.")
        from scipy.io import loadmat

        joints = loadmat(path, variable_names=["joints"])["joints"]
        shapes = {0: (3, 14), 1: (14, 3)}
        if joints.ndim != 3 or joints.shape[:2] != shapes[first]:
            raise DataError(
                f"{path}: the joints have the shape {joints.shape}, expected {(*shapes[first], 'pictures')}."
            )
    return joints.transpose((2, 1, 0) if first == 0 else (2, 0, 1))


def read_lsp(root: Path) -> Iterator[PersonRow]:
    """The first 1000 pictures of LSP at their original resolution (``lsp_dataset_original``).

    Every joint counts, as published; the third number says which are hidden.

    Args:
        root: folder of ``joints.mat`` and ``images/im0001.jpg``.

    Raises:
        DataError: the file is absent, damaged or of another layout.
    """
    for number, points in enumerate(_joints(root / "joints.mat", 0)[:_TRAINING], 1):
        yield _row(f"images/im{number:04d}.jpg", points[:, :2])


def read_lsp_test(root: Path) -> Iterator[PersonRow]:
    """The last 1000 pictures of LSP (``lsp_dataset``), with the names of their segmentations in UPi-S1h.

    Args:
        root: folder of ``joints.mat`` and ``images/im1001.jpg``.

    Raises:
        DataError: the file is absent, damaged or of another layout.
    """
    for number, points in enumerate(_joints(root / "joints.mat", 0)[_TRAINING:], _TRAINING + 1):
        row = _row(f"images/im{number:04d}.jpg", points[:, :2])
        row["maskname"] = f"im{number:04d}_segmentation.png"
        row["partname"] = f"im{number:04d}_part_segmentation.png"
        yield row


def read_lspet(root: Path) -> Iterator[PersonRow]:
    """The pictures of the extension at high resolution (``hr-lspet``) that are there.

    Joints that were not labelled lie anywhere: they do not count here. (The published annotations count them.)

    Args:
        root: folder of ``joints.mat`` and ``im00001.png``.

    Raises:
        DataError: the file is absent, damaged or of another layout.
    """
    for number, points in enumerate(_joints(root / "joints.mat", 1), 1):
        name, labelled = f"im{number:05d}.png", points[:, 2] > 0
        if not (root / name).is_file() or labelled.sum() < 2:
            continue
        row = _row(name, points[:, :2], points[labelled, :2])
        row["part"][: len(labelled), 2] = labelled
        yield row


def _row(name: str, points: Array, boxed: Array | None = None) -> PersonRow:
    centre, scale = box(points if boxed is None else boxed, _MARGIN)
    return {"imgname": name, "center": centre, "scale": scale, "part": in_superset(points, LSP_TO_SUPERSET)}
