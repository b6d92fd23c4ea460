"""A motion as SMPL poses over time, and its AMASS files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.errors import DataError
from zoo.files import atomic_path, parsing
from zoo.humans.rotations import rotmat_to_rotvec, rotvec_to_rotmat

Array = NDArray[Any]


@dataclass(frozen=True)
class Motion:
    """A sequence of SMPL poses.

    Attributes:
        poses: (T, 72) rotation vectors of the 24 SMPL joints, radians, float32; hands are zero.
        trans: (T, 3) translation in metres, float32.
        betas: (10,) shape.
        fps: frames per second.
        up: the world's vertical axis: ``"y"`` as SMPL's own, ``"z"`` as AMASS'.
        gender: ``"neutral"``, ``"male"`` or ``"female"``.
        name: where it comes from.
    """

    poses: Array
    trans: Array
    betas: Array
    fps: float
    up: Literal["y", "z"] = "y"
    gender: str = "neutral"
    name: str = ""

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.poses)

    def resample(self, fps: float) -> Motion:
        """Every n-th frame, with the smallest n that gives at least about `fps`."""
        step = max(1, round(self.fps / fps))
        return replace(self, poses=self.poses[::step], trans=self.trans[::step], fps=self.fps / step)

    def with_up(self, up: Literal["y", "z"], pelvis: Array | None = None) -> Motion:
        """The same motion in a world with another vertical axis.

        Args:
            up: the wanted axis.
            pelvis: (3,) the shaped body's rest pelvis: SMPL turns about it, so the translation has to make up.
        """
        if up == self.up:
            return self
        sign = 1.0 if up == "z" else -1.0
        turn = rotvec_to_rotmat(torch.tensor([sign * np.pi / 2, 0.0, 0.0], dtype=torch.float64))
        root = turn @ rotvec_to_rotmat(torch.from_numpy(self.poses[:, :3]).double())
        poses = self.poses.copy()
        poses[:, :3] = rotmat_to_rotvec(root).numpy()
        centre = np.zeros(3) if pelvis is None else np.asarray(pelvis, float)
        trans = (self.trans + centre) @ turn.numpy().T - centre
        return replace(self, poses=poses, trans=trans.astype(np.float32), up=up)


def require_finite(motion: Motion, path: Path) -> Motion:
    """The motion, if all its numbers are finite and it has a frame rate.

    Raises:
        DataError: they are not, and `path` is where they are from.
    """
    finite = all(np.isfinite(values).all() for values in (motion.poses, motion.trans, motion.betas))
    if not finite or not 0 < motion.fps < np.inf:
        raise DataError(f"{path} holds NaN or infinity, or a frame rate of {motion.fps}.")
    return motion


def read_amass(path: str | Path) -> Motion:
    """An AMASS file of the SMPL+H or of the SMPL-X release (``*_stageii.npz``); fingers are left out.

    Raises:
        DataError: it is absent, damaged or of neither layout.
    """
    path = Path(path)
    with parsing(path, "an AMASS file"), np.load(path, allow_pickle=False) as arrays:
        content = {name: arrays[name] for name in arrays.files if name in _AMASS_KEYS}
        gender = _gender(arrays)
        if "poses" in content:
            body = content["poses"][:, :66]
        elif {"root_orient", "pose_body"} <= content.keys():
            body = np.concatenate([content["root_orient"], content["pose_body"]], 1)
        else:
            raise DataError(f"{path} has neither 'poses' nor 'root_orient' and 'pose_body': it is no AMASS motion.")
        rate = content.get("mocap_framerate", content.get("mocap_frame_rate"))
        if rate is None or "trans" not in content:
            raise DataError(f"{path} lacks its frame rate or translation (AMASS' shape.npz files hold no motion).")
        poses = np.zeros((len(body), 72), np.float32)
        poses[:, :66] = body
        motion = Motion(
            poses=poses,
            trans=content["trans"].astype(np.float32).reshape(len(body), 3),
            betas=_first_betas(content.get("betas", np.zeros(10))),
            fps=float(np.asarray(rate).item()),
            up="z",
            gender=gender,
            name=path.stem,
        )
    return require_finite(motion, path)


def _first_betas(betas: Array) -> Array:
    """(10,) of a body, whose betas may be fewer or repeated for every frame."""
    row = np.atleast_2d(betas)[0, :10]
    out: Array = np.zeros(10, np.float32)
    out[: len(row)] = row
    return out


def _gender(arrays: Any) -> str:
    """As the file says; where it is a pickled string, which is not read, its bytes are searched for the word."""
    if "gender" not in arrays.files:
        return "neutral"
    try:
        gender = arrays["gender"].item()
    except ValueError:  # an array of objects, which only a pickle can hold
        with arrays.zip.open("gender.npy") as file:
            content = file.read()
        return next((name for name in ("female", "male") if name.encode() in content), "neutral")
    return gender.decode() if isinstance(gender, bytes) else str(gender)


_AMASS_KEYS = frozenset({"poses", "root_orient", "pose_body", "trans", "betas", "mocap_framerate", "mocap_frame_rate"})


def write_amass(motion: Motion, path: str | Path) -> None:
    """Writes a motion as AMASS' SMPL+H release does: float64, z up, 156 pose numbers."""
    turned = motion.with_up("z")
    poses = np.zeros((len(motion), 156))
    poses[:, :66] = turned.poses[:, :66]
    betas = np.zeros(16)
    betas[: len(motion.betas)] = motion.betas
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            poses=poses,
            trans=turned.trans.astype(np.float64),
            betas=betas,
            gender=np.array(motion.gender),
            mocap_framerate=np.array(motion.fps),
            dmpls=np.zeros((len(motion), 8)),
        )
