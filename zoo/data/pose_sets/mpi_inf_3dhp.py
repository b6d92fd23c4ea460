"""MPI-INF-3DHP: people in a studio seen by eight cameras, and six test sequences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.matlab_tags import cell_variables
from zoo.data.pose_sets.annotations import BODY_17_TO_SUPERSET, PersonRow, box, in_superset
from zoo.errors import DataError
from zoo.files import parsing

Array = NDArray[Any]
CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
EVERY = 10  # frames
_SIZE = 2048
_MARGIN = 1.2
# The 17 joints of `BODY_17_TO_SUPERSET` among the 28 of the training set and the 17 of the test set.
_OF_TRAINING = (4, 18, 19, 20, 23, 24, 25, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16)
_OF_TEST = (14, 11, 12, 13, 8, 9, 10, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4)


def read_3dhp(root: Path) -> Iterator[PersonRow]:
    """Every tenth frame of the training sequences in which all joints lie within the picture.

    Args:
        root: folder of ``S1/Seq1/annot.mat`` and ``S1/Seq1/imageFrames/video_0/frame_000001.jpg``.

    Raises:
        DataError: there are no sequences, or one is damaged or of another layout.
    """
    sequences = sorted(root.glob("S[1-8]/Seq[12]/annot.mat"))
    if not sequences:
        raise DataError(f"{root} has no S1/Seq1/annot.mat: MPI-INF-3DHP's get_dataset.sh puts the sequences there.")
    for file in sequences:
        yield from _sequence(file, f"{file.parent.parent.name}/{file.parent.name}")


def _sequence(file: Path, name: str) -> Iterator[PersonRow]:
    with parsing(file, "annotations of MPI-INF-3DHP"):
        missing = {"annot2", "annot3"} - set(cell_variables(file))
        if missing:
            raise DataError(f"{file} has no {' and no '.join(sorted(missing))}.")
        from scipy.io import loadmat

        content = loadmat(file, variable_names=["annot2", "annot3"])
        for camera in CAMERAS:
            pixels = content["annot2"][camera, 0].reshape(-1, 28, 2)[:, list(_OF_TRAINING)]
            points = content["annot3"][camera, 0].reshape(-1, 28, 3)[:, list(_OF_TRAINING)]
            for frame in range(0, len(pixels), EVERY):
                if ((pixels[frame] >= 0) & (pixels[frame] < _SIZE)).all():
                    picture = f"{name}/imageFrames/video_{camera}/frame_{frame + 1:06d}.jpg"
                    yield _row(picture, pixels[frame], points[frame])


def read_3dhp_test(root: Path) -> Iterator[PersonRow]:
    """The valid frames of the test sequences, with the joints of the universal skeleton.

    Args:
        root: folder of ``mpi_inf_3dhp_test_set/TS1/annot_data.mat`` and ``.../TS1/imageSequence/img_000001.jpg``.

    Raises:
        DataError: there are no sequences, or one is damaged or of another layout.
    """
    import h5py

    files = sorted((root / "mpi_inf_3dhp_test_set").glob("TS[1-6]/annot_data.mat"))
    if not files:
        raise DataError(f"{root} has no mpi_inf_3dhp_test_set/TS1/annot_data.mat: get_testset.sh puts it there.")
    for file in files:
        with parsing(file, "annotations of MPI-INF-3DHP's test"), h5py.File(file) as content:
            pixels = np.array(content["annot2"]).reshape(-1, 17, 2)[:, list(_OF_TEST)]
            points = np.array(content["univ_annot3"]).reshape(-1, 17, 3)[:, list(_OF_TEST)]
            for frame in np.flatnonzero(np.array(content["valid_frame"]).ravel()):
                picture = f"mpi_inf_3dhp_test_set/{file.parent.name}/imageSequence/img_{frame + 1:06d}.jpg"
                yield _row(picture, pixels[frame], points[frame])


def _row(name: str, pixels: Array, millimetres: Array) -> PersonRow:
    centre, scale = box(pixels, _MARGIN)
    return {
        "imgname": name,
        "center": centre,
        "scale": scale,
        "part": in_superset(pixels, BODY_17_TO_SUPERSET),
        "S": in_superset((millimetres - millimetres[0]) / 1000, BODY_17_TO_SUPERSET),
    }
