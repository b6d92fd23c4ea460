"""Random people: poses of ten activities and of real motion, shapes, views, clothes.

Everything is drawn from an explicit generator. Angles are in degrees inside, radians outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from zoo import assets
from zoo.humans.body import load_body
from zoo.humans.body_set import load_body_set
from zoo.humans.joint_body import JointBody
from zoo.humans.joints import SMPL_24, flip_pose

Array = NDArray[Any]
Generator = np.random.Generator
_J = {name: k for k, name in enumerate(SMPL_24)}


class _Pose:
    """Euler angles (N, 24, 3) in degrees, R = R_y R_x R_z, set by name; right limbs mirror left ones."""

    def __init__(self, rng: Generator, count: int) -> None:
        self.rng, self.count = rng, count
        self.angles = np.zeros((count, 24, 3))

    def u(self, low: float, high: float) -> Array:
        return self.rng.uniform(low, high, self.count)

    def set(self, joint: str, x: Any = 0.0, y: Any = 0.0, z: Any = 0.0) -> None:
        sign = -1.0 if joint.startswith("right") else 1.0
        self.angles[:, _J[joint]] = np.stack(np.broadcast_arrays(x + np.zeros(self.count), sign * y, sign * z), 1)

    def arms_hang(self, low: float = 50, high: float = 75) -> None:
        for side in ("left", "right"):
            self.set(f"{side}_shoulder", x=-self.u(-10, 20), z=-self.u(low, high))
            self.set(f"{side}_elbow", y=-self.u(0, 35))

    def lean(self, low: float, high: float) -> None:
        for joint in ("spine1", "spine2", "spine3"):
            self.set(joint, x=self.u(low, high), y=self.u(-8, 8))


def _stand(p: _Pose) -> None:
    p.arms_hang()
    for side in ("left", "right"):
        p.set(f"{side}_hip", x=-p.u(-5, 12), z=p.u(0, 10))
        p.set(f"{side}_knee", x=p.u(0, 12))


def _stride(p: _Pose, amplitude: Array, bend: Array, elbow: tuple[float, float]) -> None:
    phase = p.u(0, 2 * np.pi)
    for side, shift in (("left", 0.0), ("right", np.pi)):
        swing = np.sin(phase + shift)
        p.set(f"{side}_hip", x=-amplitude * swing, z=p.u(0, 4))
        p.set(f"{side}_knee", x=5 + bend * np.clip(np.cos(phase + shift), 0, 1))
        p.set(f"{side}_shoulder", x=amplitude * swing, z=-p.u(60, 75))
        p.set(f"{side}_elbow", y=-p.u(*elbow))


def _walk(p: _Pose) -> None:
    _stride(p, p.u(18, 34), p.u(35, 60), (5, 40))


def _run(p: _Pose) -> None:
    _stride(p, p.u(32, 58), p.u(70, 115), (65, 110))
    p.lean(2, 8)


def _sit(p: _Pose) -> None:
    for side in ("left", "right"):
        p.set(f"{side}_hip", x=-p.u(75, 105), y=p.u(-10, 10), z=p.u(0, 18))
        p.set(f"{side}_knee", x=p.u(65, 110))
        p.set(f"{side}_shoulder", x=-p.u(0, 50), z=-p.u(50, 75))
        p.set(f"{side}_elbow", y=-p.u(10, 95))
    p.lean(-3, 10)


def _reach(p: _Pose) -> None:
    _stand(p)
    p.set("left_shoulder", x=-p.u(-20, 60), y=-p.u(-20, 60), z=p.u(-40, 65))
    p.set("left_elbow", y=-p.u(0, 50))
    p.lean(-5, 8)


def _gesture(p: _Pose) -> None:
    _stand(p)
    for side in ("left", "right"):
        p.set(f"{side}_shoulder", x=-p.u(0, 50), y=-p.u(-20, 30), z=-p.u(35, 75))
        p.set(f"{side}_elbow", y=-p.u(40, 135))


def _squat(p: _Pose) -> None:
    depth = p.u(0.5, 1.0)
    for side in ("left", "right"):
        p.set(f"{side}_hip", x=-110 * depth + p.u(-8, 8), z=p.u(5, 25))
        p.set(f"{side}_knee", x=135 * depth + p.u(-8, 8))
        p.set(f"{side}_ankle", x=-25 * depth)
        p.set(f"{side}_shoulder", x=-p.u(10, 80), z=-p.u(55, 80))
        p.set(f"{side}_elbow", y=-p.u(0, 70))
    p.lean(5, 16)


def _kick(p: _Pose) -> None:
    _stand(p)
    p.set("left_hip", x=-p.u(35, 95), z=p.u(0, 20))
    p.set("left_knee", x=p.u(0, 70))
    for side in ("left", "right"):
        p.set(f"{side}_shoulder", x=-p.u(-20, 30), z=-p.u(15, 65))
        p.set(f"{side}_elbow", y=-p.u(10, 90))


def _bend(p: _Pose) -> None:
    _stand(p)
    p.lean(12, 32)
    for side in ("left", "right"):
        p.set(f"{side}_hip", x=-p.u(10, 50))
        p.set(f"{side}_shoulder", x=-p.u(20, 90), z=-p.u(60, 80))


def _star(p: _Pose) -> None:
    for side in ("left", "right"):
        p.set(f"{side}_shoulder", x=-p.u(-15, 15), z=p.u(-30, 60))
        p.set(f"{side}_elbow", y=-p.u(0, 25))
        p.set(f"{side}_hip", x=-p.u(-10, 15), z=p.u(12, 38))
        p.set(f"{side}_knee", x=p.u(0, 20))


_ACTIVITIES: dict[Callable[[_Pose], None], float] = {
    **{_stand: 0.12, _walk: 0.16, _run: 0.12, _sit: 0.10, _reach: 0.12},
    **{_gesture: 0.12, _squat: 0.08, _kick: 0.08, _bend: 0.05, _star: 0.05},
}
_JITTER = {
    **{"hip": 5.0, "knee": 5.0, "ankle": 6.0, "foot": 3.0, "collar": 4.0, "shoulder": 9.0, "elbow": 8.0},
    **{"wrist": 8.0, "hand": 3.0, "neck": 9.0, "head": 9.0, "pelvis": 0.0},
}


def random_poses(count: int, rng: Generator) -> Array:
    """Body poses (N, 69), rotation vectors in radians, of random activities, half of them mirrored."""
    shares = np.array(list(_ACTIVITIES.values()))
    kinds = rng.choice(len(shares), count, p=shares / shares.sum())
    angles = np.zeros((count, 24, 3))
    for number, activity in enumerate(_ACTIVITIES):
        pose = _Pose(rng, int((kinds == number).sum()))
        activity(pose)
        angles[kinds == number] = pose.angles
    jitter = np.array([_JITTER.get(name.split("_")[-1], 3.0) for name in SMPL_24])
    angles += rng.normal(size=angles.shape) * jitter[:, None]
    for side, sign in (("left", -1.0), ("right", 1.0)):
        elbow, knee = angles[:, _J[f"{side}_elbow"]], angles[:, _J[f"{side}_knee"]]
        elbow[:, 1] = sign * np.clip(sign * elbow[:, 1], 0, 145)
        elbow[:, [0, 2]] *= 0.3
        knee[:, 0] = np.clip(knee[:, 0], 0, 150)
        knee[:, 1:] *= 0.3
    rotations = Rotation.from_euler("YXZ", angles.reshape(-1, 3)[:, [1, 0, 2]], degrees=True)
    poses = torch.from_numpy(rotations.as_rotvec().reshape(count, 72).astype(np.float32))
    mirrored = torch.from_numpy(rng.random(count) < 0.5)
    return torch.where(mirrored[:, None], flip_pose(poses), poses)[:, 3:].numpy()


@cache
def _sample_motions() -> Array:
    """Body poses (N, 69) of the motion-capture sample that ships, at 30 frames per second."""
    from zoo.humans.motion.retarget import read_mocap_folder

    motions = read_mocap_folder(assets.path("data", "samples", "mocap"), load_body())
    return np.concatenate([motion.poses[:, 3:] for motion in motions])


def mixed_poses(count: int, rng: Generator, mocap: float = 0.25) -> Array:
    """Body poses (N, 69), a share `mocap` of which are frames of real motion."""
    poses = random_poses(count, rng)
    real = rng.random(count) < mocap
    if real.any():
        frames = _sample_motions()
        poses[real] = frames[rng.integers(len(frames), size=int(real.sum()))]
    return poses


@dataclass(frozen=True)
class People:
    """Posed people before their cameras.

    Attributes:
        pose: (N, 72) with the orientation in the camera's frame.
        betas: (N, 10).
        focal: (N,) focal length over the crop's side.
        translation: (N, 3) in the camera's frame, metres.
    """

    pose: Array
    betas: Array
    focal: Array
    translation: Array


def random_views(body_pose: Array, rng: Generator, yaw: float = 90.0) -> People:
    """People of random shape in front of true perspective cameras that their joints fill by 70 to 85 %.

    Args:
        body_pose: (N, 69).
        rng: the generator.
        yaw: turned away from the camera by at most so many degrees.
    """
    count = len(body_pose)
    betas = np.clip(rng.normal(size=(count, 10)), -2.5, 2.5)
    angles = np.stack([rng.normal(0, 8, count), rng.uniform(-yaw, yaw, count), rng.normal(0, 6, count)], 1)
    orient = Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_euler("XYZ", angles, degrees=True)
    pose = np.concatenate([orient.as_rotvec(), body_pose], 1).astype(np.float32)
    joints = _extent_joints(pose, betas)
    middle = 0.5 * (joints.min(1) + joints.max(1))
    extent = np.maximum(np.ptp(joints[..., :2], axis=1).max(1) + 0.08, 1.0)  # joints lie inside the body
    focal = rng.uniform(1.5, 4.0, count)
    depth = focal * extent / rng.uniform(0.70, 0.85, count)
    shift = np.concatenate([rng.normal(0, 0.03, (count, 2)), np.zeros((count, 1))], 1)
    translation = np.stack([np.zeros(count), np.zeros(count), depth], 1) - middle + shift
    return People(pose, betas.astype(np.float32), focal.astype(np.float32), translation.astype(np.float32))


@cache
def _joints() -> JointBody:
    return load_body_set().spin


def _extent_joints(pose: Array, betas: Array) -> Array:
    """SPIN's joints (N, 49, 3), which reach from the toes to the top of the head."""
    posed, shape = torch.from_numpy(pose), torch.from_numpy(betas).float()
    joints: Array = _joints()(posed[:, :3], posed[:, 3:], shape).numpy()
    return joints


_SHIRT = ("spine1", "spine2", "spine3", "left_collar", "right_collar")


def random_clothes(weights: Array, rest: Array, rng: Generator) -> Array:
    """Colours (V, 3) of a person: skin, shirt, trousers, shoes, hair.

    Args:
        weights: (V, 24) skinning weights, whose largest says which part a vertex belongs to.
        rest: (V, 3) rest mesh, which says where hair grows.
        rng: the generator.
    """
    part = weights.argmax(1)

    def of(*names: str) -> Array:
        return np.isin(part, [_J[name] for name in names])

    def sides(*names: str) -> Array:
        return of(*(f"{side}_{name}" for side in ("left", "right") for name in names))

    colour = np.tile(np.array([0.87, 0.67, 0.54]) * rng.uniform(0.35, 1.05), (len(part), 1))
    shirt, trousers = rng.uniform(0.05, 0.95, 3), rng.uniform(0.03, 0.7, 3)
    colour[of(*_SHIRT)] = shirt
    if rng.random() < 0.8:
        colour[sides("shoulder")] = shirt
        if rng.random() < 0.4:
            colour[sides("elbow")] = shirt
    colour[of("pelvis") | sides("hip")] = trousers
    if rng.random() < 0.7:
        colour[sides("knee")] = trousers
    colour[sides("ankle", "foot")] = rng.uniform(0.02, 0.5) * np.ones(3)
    hair = of("head") & ((rest[:, 1] > 0.515) | ((rest[:, 2] < -0.01) & (rest[:, 1] > 0.41)))
    colour[hair] = rng.uniform(0.02, 0.35) * np.array([1.0, 0.8, 0.6])
    return np.clip(colour, 0, 1)


def random_background(size: int, rng: Generator) -> Array:
    """A smooth picture (size, size, 3): random colours on a 4 x 4 grid, interpolated."""
    from PIL import Image

    grid = (rng.uniform(0, 1, (4, 4, 3)) * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BILINEAR), np.float32) / 255
