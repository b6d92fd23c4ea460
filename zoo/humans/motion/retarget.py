"""Motion-capture skeletons -> SMPL poses.

Each SMPL bone takes the direction of its counterpart: with A the smallest rotation from SMPL's rest direction to the
skeleton's and G the skeleton bone's global rotation, SMPL's global rotation is G A.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from zoo.errors import DataError
from zoo.humans.body import Body
from zoo.humans.joints import SMPL_24, SMPL_PARENTS
from zoo.humans.motion.sequence import Motion
from zoo.humans.motion.skeletons import SkeletonMotion, read_acclaim, read_bvh

Array = NDArray[Any]

# SMPL joint -> bone of CMU's ASF files and joint of their BVH conversion.
_ACCLAIM = {
    **{"pelvis": "root", "spine1": "lowerback", "spine2": "upperback", "spine3": "thorax", "neck": "upperneck"},
    **{"head": "head"},
    **{
        f"{side}_{ours}": side[0] + theirs
        for side in ("left", "right")
        for ours, theirs in {
            **{"hip": "femur", "knee": "tibia", "ankle": "foot", "foot": "toes", "collar": "clavicle"},
            **{"shoulder": "humerus", "elbow": "radius", "wrist": "hand"},
        }.items()
    },
}
_BVH = {
    **{"pelvis": "Hips", "spine1": "LowerBack", "spine2": "Spine", "spine3": "Spine1", "neck": "Neck1", "head": "Head"},
    **{
        f"{side}_{ours}": side.capitalize() + theirs
        for side in ("left", "right")
        for ours, theirs in {
            **{"hip": "UpLeg", "knee": "Leg", "ankle": "Foot", "foot": "ToeBase", "collar": "Shoulder"},
            **{"shoulder": "Arm", "elbow": "ForeArm", "wrist": "Hand"},
        }.items()
    },
}
# The joint a bone points to; spine3 has three children.
_CHILD = {SMPL_24[parent]: name for name, parent in reversed(list(zip(SMPL_24, SMPL_PARENTS, strict=True)))}
_CHILD |= {"spine3": "neck", "pelvis": "spine1"}
_LEAVES = {"head": (0.0, 1.0, 0.0), "left_foot": (0.0, 0.0, 1.0), "right_foot": (0.0, 0.0, 1.0)}


def smpl_directions(body: Body) -> dict[str, Array]:
    """Rest direction of each SMPL bone that a skeleton can drive."""
    joints = body.joint_template.double().numpy()
    place = {name: k for k, name in enumerate(SMPL_24)}
    directions = {}
    for name in _ACCLAIM:
        vector = np.array(_LEAVES[name]) if name in _LEAVES else joints[place[_CHILD[name]]] - joints[place[name]]
        directions[name] = vector / np.linalg.norm(vector)
    return directions


def smallest_rotation(source: Array, target: Array) -> Array:
    """The rotation (3, 3) of smallest angle that takes one unit vector to another."""
    axis = np.cross(source, target)
    sine, cosine = float(np.linalg.norm(axis)), float(source @ target)
    if sine < 1e-12:
        if cosine > 0:
            return np.eye(3)
        axis, sine = np.cross(source, np.eye(3)[np.abs(source).argmin()]), 1.0
        axis /= np.linalg.norm(axis)
    return Rotation.from_rotvec(
        axis / np.linalg.norm(axis) * np.arctan2(sine if cosine > -1 else 0.0, cosine)
    ).as_matrix()


def retarget(motion: SkeletonMotion, body: Body, fps: float = 30.0) -> Motion:
    """A skeleton's motion as SMPL poses of the mean shape.

    Args:
        motion: of a CMU skeleton (ASF names) or its BVH conversion.
        body: gives the rest directions and the leg length that scales the root's path.
        fps: wanted frame rate; the nearest whole fraction of the recording's is taken.

    Raises:
        DataError: the skeleton has other bones.
    """
    names = _ACCLAIM if "lfemur" in motion.rotations else _BVH
    absent = [bone for bone in names.values() if bone not in motion.rotations]
    if absent:
        raise DataError(f"The skeleton of '{motion.name}' has no {', '.join(absent[:4])}: it is not CMU's.")
    step = max(1, round(motion.fps / fps))
    ours = smpl_directions(body)
    frames = len(motion.root[::step])
    world = np.empty((24, frames, 3, 3))
    poses = np.zeros((frames, 24, 3), np.float32)
    for k, name in enumerate(SMPL_24):
        parent = world[SMPL_PARENTS[k]] if k else None
        if name not in names:  # the hands follow the wrists
            assert parent is not None
            world[k] = parent
            continue
        bone = names[name]
        align = np.eye(3)
        if k and bone in motion.directions:
            align = smallest_rotation(ours[name], motion.directions[bone])
        world[k] = motion.rotations[bone][::step] @ align
        local = world[k] if parent is None else parent.transpose(0, 2, 1) @ world[k]
        poses[:, k] = Rotation.from_matrix(local).as_rotvec()
    rest = body.joint_template.double().numpy()
    leg = np.linalg.norm(rest[4] - rest[1]) + np.linalg.norm(rest[7] - rest[4])
    theirs = motion.lengths[names["left_hip"]] + motion.lengths[names["left_knee"]]
    trans = motion.root[::step] * (leg / theirs) - rest[0]
    return Motion(
        poses.reshape(frames, 72),
        trans.astype(np.float32),
        np.zeros(10, np.float32),
        motion.fps / step,
        name=motion.name,
    )


def read_mocap_folder(folder: str | Path, body: Body, fps: float = 30.0) -> list[Motion]:
    """All recordings of a folder: ``<subject>.asf`` with ``<subject>_*.amc[.gz]``, and ``*.bvh``.

    Raises:
        DataError: there are none, or one is damaged.
    """
    folder = Path(folder).expanduser()
    recordings = [
        read_acclaim(asf, amc)
        for asf in sorted(folder.glob("*.asf"))
        for amc in sorted(folder.glob(f"{asf.stem}_*.amc*"))
    ]
    recordings += [read_bvh(path) for path in sorted(folder.glob("*.bvh"))]
    if not recordings:
        raise DataError(f"{folder} has no motions: neither <subject>.asf with <subject>_*.amc nor *.bvh.")
    return [retarget(recording, body, fps) for recording in recordings]


def posed_directions(poses: Array, body: Body) -> dict[str, Array]:
    """Directions of the SMPL bones in motion, (T, 3) each: what retargeting preserves."""
    from zoo.humans.body import pose_matrices

    pose = torch.from_numpy(poses).double()
    rotmats = pose_matrices(pose[:, :3], pose[:, 3:])
    rest = body.joint_template.double().expand(len(pose), -1, -1)
    world = body.transforms(rotmats, rest)[..., :3, :3].numpy()
    return {name: world[:, SMPL_24.index(name)] @ vector for name, vector in smpl_directions(body).items()}
