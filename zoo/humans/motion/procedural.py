"""Motions made up from random numbers: sums of sines about each joint, and paths between poses of activities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from zoo.humans.joints import SMPL_24
from zoo.humans.motion.sequence import Motion
from zoo.humans.people import random_poses

Array = NDArray[Any]
FPS = 30.0

# Amplitudes in radians about x, y, z; knees bend one way only.
_AMPLITUDES = {
    **{"hip": (0.5, 0.2, 0.2), "knee": (0.6, 0.05, 0.05), "ankle": (0.25, 0.1, 0.1), "shoulder": (0.4, 0.5, 0.6)},
    **{"elbow": (0.2, 0.6, 0.2), "collar": (0.1, 0.1, 0.15), "wrist": (0.2, 0.2, 0.2), "neck": (0.2, 0.2, 0.1)},
    **{"head": (0.2, 0.2, 0.1)},
}
_OTHERS = (0.12, 0.12, 0.12)
_HANDS = ("left_hand", "right_hand")
_KNEES = [SMPL_24.index(f"{side}_knee") for side in ("left", "right")]


def _root(frames: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Orientation (T, 3) as rotation vectors and translation (T, 3): a wandering walk, y up."""
    yaw = rng.uniform(-np.pi, np.pi) + np.cumsum(_smooth(rng.normal(0, 0.03, frames)))
    times = np.arange(frames) / FPS
    tilt = [_sines(times, 0.08, rng) for _ in range(2)]
    turn = Rotation.from_euler("YXZ", np.stack([yaw, *tilt], 1))
    step = 0.03 * np.stack([np.sin(yaw), np.zeros(frames), np.cos(yaw)], 1)
    bounce = np.stack([np.zeros(frames), _sines(times, 0.04, rng), np.zeros(frames)], 1)
    return turn.as_rotvec(), np.cumsum(step, 0) + bounce


def _smooth(values: Array) -> Array:
    return np.convolve(values, np.ones(7) / np.sqrt(7), mode="same")


def _sines(times: Array, amplitude: float, rng: np.random.Generator) -> Array:
    """A constant and three sines of 0.15 to 1.3 Hz."""
    value = np.full(len(times), rng.normal(0, 0.6))
    for _ in range(3):
        frequency, phase = rng.uniform(0.15, 1.3), rng.uniform(0, 2 * np.pi)
        value += rng.normal(0, 0.5) * np.sin(2 * np.pi * frequency * times + phase)
    return amplitude * value


def sine_motion(frames: int, rng: np.random.Generator, amplitude: float = 1.0) -> Motion:
    """A motion whose joint angles are sums of sines, 30 frames per second, y up.

    Args:
        frames: its length.
        rng: the generator.
        amplitude: factor of the angles; 1.6 for motion wider than any that was trained on.
    """
    times = np.arange(frames) / FPS
    poses = np.zeros((frames, 24, 3))
    for k, name in enumerate(SMPL_24):
        if k == 0 or name in _HANDS:
            continue
        for axis, size in enumerate(_AMPLITUDES.get(name.split("_")[-1], _OTHERS)):
            poses[:, k, axis] = amplitude * _sines(times, size, rng)
    poses[:, _KNEES, 0] = np.abs(poses[:, _KNEES, 0])
    return _with_root(poses, rng, "sines")


def activity_motion(frames: int, rng: np.random.Generator) -> Motion:
    """A motion through poses of activities, one every half to one and a half seconds, 30 frames per second, y up."""
    gaps = rng.uniform(0.5, 1.5, size=int(2 * frames / FPS) + 4)
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    poses = random_poses(len(times), rng).reshape(-1, 69)
    path = CubicSpline(times, poses)(np.arange(frames) / FPS)
    whole = np.concatenate([np.zeros((frames, 3)), path], 1).reshape(frames, 24, 3)
    whole[:, 22:] = 0
    return _with_root(whole, rng, "activities")


def _with_root(poses: Array, rng: np.random.Generator, name: str) -> Motion:
    poses[:, 0], trans = _root(len(poses), rng)
    betas = np.clip(rng.normal(size=10), -2.5, 2.5).astype(np.float32)
    return Motion(poses.reshape(-1, 72).astype(np.float32), trans.astype(np.float32), betas, FPS, name=name)
