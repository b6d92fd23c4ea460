"""Human3.6M: eleven actors doing fifteen things, seen by four cameras."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.pose_sets.annotations import BODY_17_TO_SUPERSET, PersonRow, box, in_superset
from zoo.errors import ConfigError, DataError
from zoo.files import parsing

Array = NDArray[Any]
TRAINING, TEST = (1, 5, 6, 7, 8), (9, 11)
FRONTAL = "60457274"  # the camera of protocol 2
EVERY = 5  # frames
_MARGIN = 0.9  # of the silhouette's box
_OF_32 = (11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27)


def read_h36m(root: Path, subjects: Sequence[int] = TRAINING, camera: str | None = None) -> Iterator[PersonRow]:
    """Every fifth frame of some actors.

    Args:
        root: folder of ``S1/MyPoseFeatures/D3_Positions_mono/*.cdf``, ``S1/MyPoseFeatures/D2_Positions/*.cdf`` and
            ``S1/MySegmentsMat/ground_truth_bb/*.mat``. Pictures are ``S1_Directions_1.54138969_000001.jpg``, counted
            from 1, see `zoo.data.pose_sets.frames.extract_frames`.
        subjects: actors; 1, 5, 6, 7, 8 are for training, 9 and 11 for the test.
        camera: only this one.

    Raises:
        DataError: there are no recordings, or one is damaged or of another layout.
        ConfigError: cdflib, which reads them, is not installed.
    """
    found = False
    for subject in subjects:
        for file in sorted((root / f"S{subject}" / "MyPoseFeatures" / "D3_Positions_mono").glob("*.cdf")):
            action, filmed_by, _ = file.name.split(".")
            if action.startswith("_") or camera not in (None, filmed_by):  # _ALL is no recording
                continue
            found = True
            yield from _recording(root / f"S{subject}", file.name, f"S{subject}_{action.replace(' ', '_')}.{filmed_by}")
    if not found:
        names = ", ".join(f"S{subject}" for subject in subjects)
        raise DataError(
            f"{root} has no recording of {names}: unpack Human3.6M's Poses_D3_Positions_mono, Poses_D2_Positions and "
            "Segments_mat_gt_bb there."
        )


def _recording(subject: Path, file: str, name: str) -> Iterator[PersonRow]:
    import h5py

    features = subject / "MyPoseFeatures"
    points = _poses(features / "D3_Positions_mono" / file, 3)
    pixels = _poses(features / "D2_Positions" / file, 2)
    if len(points) != len(pixels):
        raise DataError(f"{features}: {file} has {len(points)} poses in space and {len(pixels)} in the picture.")
    boxes = (subject / "MySegmentsMat" / "ground_truth_bb" / file).with_suffix(".mat")
    with parsing(boxes, "boxes of Human3.6M"), h5py.File(boxes) as content:
        masks = content["Masks"]
        for frame in range(0, min(len(points), len(masks)), EVERY):
            covered = np.argwhere(np.array(content[masks[frame, 0]]) == 1)  # MATLAB's order: x, y
            if not len(covered):
                continue
            centre, scale = box(np.stack([covered.min(0), covered.max(0) + 1]), _MARGIN)
            yield {
                "imgname": f"{name}_{frame + 1:06d}.jpg",
                "center": centre,
                "scale": scale,
                "part": in_superset(pixels[frame], BODY_17_TO_SUPERSET),
                "S": in_superset((points[frame] - points[frame, 0]) / 1000, BODY_17_TO_SUPERSET),
            }


def _poses(path: Path, coordinates: int) -> Array:
    """(frames, 17, coordinates) of a CDF file."""
    try:
        import cdflib
    except ModuleNotFoundError:
        raise ConfigError("Human3.6M's poses are CDF files, which cdflib reads: pip install 'zoo[humans]'.") from None
    with parsing(path, "poses of Human3.6M"):
        poses: Array = np.asarray(cdflib.CDF(path).varget("Pose")).reshape(-1, 32, coordinates)
    return poses[:, list(_OF_32)]
