"""3D Poses in the Wild: the people of its sequences, in their cameras' frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.data.pose_sets.annotations import PersonRow, box
from zoo.errors import DataError
from zoo.files import parsing
from zoo.humans.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from zoo.humans.smpl_file import read_pickle

Array = NDArray[Any]
_NEEDED = ("sequence", "poses", "betas", "poses2d", "cam_poses", "campose_valid", "genders")
_TO_BODY_25 = (*range(8), *range(9, 19))  # from OpenPose's 18 joints, which lack the middle of the hips and the feet
_MARGIN = 1.2


def read_3dpw_pictures(root: Path) -> Iterator[PersonRow]:
    """Everybody in the frames of the test sequences whose camera is known and in which somebody was detected.

    Args:
        root: folder of ``sequenceFiles/test/*.pkl`` and ``imageFiles/<sequence>/image_00000.jpg``.

    Raises:
        DataError: there are no sequences, or one is damaged or of another layout.
    """
    files = sorted((root / "sequenceFiles" / "test").glob("*.pkl"))
    if not files:
        raise DataError(f"{root} has no sequenceFiles/test/*.pkl: unpack 3DPW's sequenceFiles.zip there.")
    for file in files:
        content = read_pickle(file)
        missing = [name for name in _NEEDED if name not in content]
        if missing:
            raise DataError(f"{file} is no sequence of 3DPW: it has no {', '.join(missing)}.")
        with parsing(file, "a sequence of 3DPW"):
            for person in range(len(content["poses"])):
                yield from _person(content, person)


def _person(content: dict[str, Any], person: int) -> Iterator[PersonRow]:
    poses = np.asarray(content["poses"][person], np.float32)
    detected = np.asarray(content["poses2d"][person], np.float32).transpose(0, 2, 1)  # (frames, 18, 3)
    turns = torch.from_numpy(np.asarray(content["cam_poses"], np.float32)[: len(poses), :3, :3])
    # The poses are in the world's frame.
    poses = poses.copy()
    poses[:, :3] = rotmat_to_rotvec(turns @ rotvec_to_rotmat(torch.from_numpy(poses[:, :3]))).numpy()
    for frame in np.flatnonzero(np.asarray(content["campose_valid"][person])[: len(poses)]):
        seen = detected[frame][detected[frame, :, 0] > 0, :2]
        if len(seen) < 2:
            continue
        centre, scale = box(seen, _MARGIN)
        openpose = np.zeros((25, 3), np.float32)
        openpose[list(_TO_BODY_25)] = detected[frame]
        yield {
            "imgname": f"imageFiles/{content['sequence']}/image_{frame:05d}.jpg",
            "center": centre,
            "scale": scale,
            "openpose": openpose,
            "pose": poses[frame],
            "shape": np.asarray(content["betas"][person], np.float32).ravel()[:10],
            "gender": str(content["genders"][person])[:1],
        }
