"""Readers of 3DPW's and RICH's SMPL fits over time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError
from zoo.files import parsing
from zoo.humans.motion.sequence import Motion, require_finite
from zoo.humans.smpl_file import GENDER_LETTERS, read_pickle

Array = NDArray[Any]
_FPS = 30.0


def read_3dpw(path: str | Path) -> list[Motion]:
    """The people of a sequence of 3DPW, ``sequenceFiles/<split>/<sequence>.pkl``; frames without a valid camera go.

    Raises:
        DataError: it is absent, damaged or of another layout.
    """
    path = Path(path)
    content = read_pickle(path)
    missing = [name for name in ("poses", "betas", "trans") if name not in content]
    if missing:
        raise DataError(f"{path} is no sequence of 3DPW: it has no {', '.join(missing)}.")
    with parsing(path, "a sequence of 3DPW"):
        return _people(path, content)


def _people(path: Path, content: dict[str, Any]) -> list[Motion]:
    people = []
    for number, (pose, betas, trans) in enumerate(
        zip(content["poses"], content["betas"], content["trans"], strict=True)
    ):
        poses = np.asarray(pose, np.float32)
        if poses.ndim != 2 or poses.shape[1] != 72 or len(trans) != len(poses):
            raise DataError(f"{path}: the poses of person {number} have the shape {poses.shape}, expected (T, 72).")
        poses = poses.copy()
        poses[:, 66:] = 0  # hands
        valid = np.asarray(content["campose_valid"][number] if "campose_valid" in content else np.ones(len(poses)))
        gender = str(content["genders"][number]) if "genders" in content else "neutral"
        whole = Motion(
            poses,
            np.asarray(trans, np.float32),
            np.asarray(betas, np.float32).ravel()[:10],
            _FPS,
            "y",
            GENDER_LETTERS.get(gender[:1], "neutral"),
            f"{path.stem}_{number}",
        )
        people += _runs(require_finite(whole, path), np.flatnonzero(valid[: len(poses)].astype(bool)))
    return people


def _runs(motion: Motion, frames: Array) -> list[Motion]:
    """The motion cut into runs of consecutive frames."""
    parts = np.split(frames, np.flatnonzero(np.diff(frames) != 1) + 1)
    return [
        Motion(motion.poses[part], motion.trans[part], motion.betas, motion.fps, motion.up, motion.gender, motion.name)
        for part in parts
        if len(part)
    ]


def read_rich(folder: str | Path) -> list[Motion]:
    """The people of a sequence of RICH: ``<folder>/<frame>/<subject>.pkl`` of SMPL-X parameters.

    Root, the 21 body joints and the translation are taken as they are, as the published evaluation does: SMPL-X's rest
    body differs from SMPL's by some millimetres. Betas of SMPL-X mean nothing to SMPL, so the mean shape is used.

    Raises:
        DataError: there are none, or one is damaged or of another layout.
    """
    folder = Path(folder)
    frames: dict[str, dict[int, Path]] = {}
    for file in sorted(folder.glob("*/*.pkl")):
        if re.fullmatch(r"\d+", file.parent.name):
            frames.setdefault(file.stem, {})[int(file.parent.name)] = file
    if not frames:
        raise DataError(f"{folder} is no sequence of RICH: it has no <frame>/<subject>.pkl.")
    people = []
    for subject, files in frames.items():
        numbers = np.array(sorted(files))
        poses, trans = np.zeros((len(numbers), 72), np.float32), np.zeros((len(numbers), 3), np.float32)
        for row, number in enumerate(numbers):
            file = files[int(number)]
            content = read_pickle(file)
            with parsing(file, "a file of RICH"):
                poses[row, :3] = np.asarray(content["global_orient"]).ravel()
                poses[row, 3:66] = np.asarray(content["body_pose"]).ravel()
                trans[row] = np.asarray(content["transl"]).ravel()
        whole = Motion(poses, trans, np.zeros(10, np.float32), _FPS, "y", name=f"{folder.name}_{subject}")
        gaps = np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers) != 1) + 1)
        require_finite(whole, folder)
        people += [run for gap in gaps for run in _runs(whole, gap)]
    return people
