"""Two frames of a motion, some frames apart: what Learnable SMPLify is trained and tested on.

The embedded data is real motion capture, split by recording, with procedural motion beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo import assets
from zoo.data.loading import eval_loader, sample_generator, train_loader
from zoo.errors import ConfigError
from zoo.humans.joints import SMPL_FLIP
from zoo.humans.motion.procedural import activity_motion, sine_motion
from zoo.humans.motion.sequence import Motion
from zoo.registry import register_data

Array = NDArray[Any]

STRIDES = (1, 3, 5, 7, 9)
# What is tested: real motion at three strides, and procedural motion 1.6 times as wide as that of training.
GROUPS = ("s1", "s5", "s9", "wide_s5")
TEST_STRIDES = (1, 5, 9)
_WIDE = 1.6
_VALIDATION, _TEST = 2**31 + 6, 2**31 + 7
VALIDATION_RECORDINGS = ("02_04",)
TEST_RECORDINGS = ("01_08", "02_03", "02_05")


class MotionPairBatch(TypedDict):
    """Pairs of frames of a motion, in a world whose vertical axis is anything.

    Keys:
        start_pose, end_pose: (B, 72) float32 rotation vectors of the 24 SMPL joints, hands zero.
        betas: (B, 10) float32.
        start_trans, end_trans: (B, 3) float32 metres.
        group: (B,) int64, an index into `GROUPS` in tests.
    """

    start_pose: Tensor
    end_pose: Tensor
    betas: Tensor
    start_trans: Tensor
    end_trans: Tensor
    group: Tensor


def mirror(poses: Array) -> Array:
    """Poses of the mirror image, rotation vectors (T, 72)."""
    joints = poses.reshape(-1, 24, 3)[:, list(SMPL_FLIP)] * np.array([1, -1, -1], poses.dtype)
    return joints.reshape(-1, 72)


class TrainingPairs(Dataset[MotionPairBatch]):
    """Pairs drawn anew in each epoch: a stride, either order, and for real motion another body and a bent pose.

    Args:
        motions: 30 frames per second.
        real: how many of them, at the beginning, are recordings.
        share: of pairs that are from recordings.
        length: pairs in an epoch.
        strides: frames between start and end.
        bend: radians; the joints of both frames of a recording are turned alike by random rotations so wide.
        far: share of the pairs that are any two frames of a motion, with the start turned as the end is.
        seed: of everything.
    """

    def __init__(
        self,
        motions: Sequence[Motion],
        real: int,
        share: float,
        length: int,
        strides: tuple[int, ...] = STRIDES,
        bend: float = 0.0,
        far: float = 0.0,
        seed: int = 0,
    ) -> None:
        long = [k for k, motion in enumerate(motions) if len(motion) > max(strides)]
        if not long:
            raise ConfigError(f"No motion has more than {max(strides)} frames.")
        self.motions = [motions[k] for k in long]
        self.real = sum(k < real for k in long)
        self.share = share if 0 < self.real < len(self.motions) else float(self.real > 0)
        self.length, self.strides, self.bend, self.far, self.seed = length, strides, bend, far, seed
        self.weights = [np.array([len(m) for m in part], float) for part in self._parts()]

    def _parts(self) -> tuple[list[Motion], list[Motion]]:
        return self.motions[: self.real], self.motions[self.real :]

    def __len__(self) -> int:
        """Pairs in an epoch."""
        return self.length

    def __getitem__(self, index: int) -> MotionPairBatch:
        """One pair."""
        rng = sample_generator(self.seed, index)
        real = rng.random() < self.share
        part, weights = self._parts()[0 if real else 1], self.weights[0 if real else 1]
        motion = part[int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum()))]
        stride = int(rng.choice(self.strides))
        start = int(rng.integers(len(motion) - stride))
        pair = [start, start + stride]
        if rng.random() < 0.5:
            pair.reverse()
        apart = rng.random() < self.far
        if apart:
            pair[0] = int(rng.integers(len(motion)))
        poses, trans = motion.poses[pair], motion.trans[pair]
        if apart:
            poses[0, :3] = poses[1, :3]
        betas = motion.betas
        if real:
            betas = np.clip(rng.normal(size=10), -2.5, 2.5).astype(np.float32)
            if rng.random() < 0.5:
                poses = mirror(poses)
                trans = trans * np.array([-1, 1, 1], np.float32)
            poses = poses + np.concatenate([np.zeros(3), rng.normal(0, self.bend, 63), np.zeros(6)]).astype(np.float32)
        return make_pair(poses, trans, betas, 0)


class TestPairs(Dataset[MotionPairBatch]):
    """Given pairs of frames.

    Args:
        items: motion, first frame, last frame, group of each.
    """

    __test__ = False  # pytest: this is no test class

    def __init__(self, items: list[tuple[Motion, int, int, int]]) -> None:
        self.items = items

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.items)

    def __getitem__(self, index: int) -> MotionPairBatch:
        """One pair."""
        motion, start, end, group = self.items[int(index)]
        return make_pair(motion.poses[[start, end]], motion.trans[[start, end]], motion.betas, group)


def make_pair(poses: Array, trans: Array, betas: Array, group: int) -> MotionPairBatch:
    """A pair as tensors, from poses (2, 72), translations (2, 3), betas (10,)."""
    numbers = torch.from_numpy(np.ascontiguousarray(poses, np.float32))
    places = torch.from_numpy(np.ascontiguousarray(trans, np.float32))
    return {
        "start_pose": numbers[0],
        "end_pose": numbers[1],
        "betas": torch.from_numpy(np.ascontiguousarray(betas, np.float32)),
        "start_trans": places[0],
        "end_trans": places[1],
        "group": torch.tensor(group),
    }


def pairs_at_strides(motions: Sequence[Motion], each: int, strides: tuple[int, ...] = TEST_STRIDES) -> TestPairs:
    """Pairs at fixed strides, evenly spread over motions in proportion to their length; group k has stride k.

    Args:
        motions: to take them from.
        each: about so many pairs of each stride.
        strides: frames between start and end.
    """
    total = sum(len(motion) for motion in motions)
    items = []
    for motion in motions:
        count = max(1, round(each * len(motion) / total))
        for group, stride in enumerate(strides):
            if len(motion) > stride:
                starts = np.linspace(0, len(motion) - 1 - stride, count).round().astype(int)
                items += [(motion, int(start), int(start) + stride, group) for start in np.unique(starts)]
    return TestPairs(items)


def with_shape(motion: Motion, seed: int) -> Motion:
    """The motion on a body of random shape."""
    betas = np.clip(np.random.default_rng([23, seed]).normal(size=10), -2.5, 2.5)
    return replace(motion, betas=betas.astype(np.float32))


def sample_recordings() -> dict[str, Motion]:
    """The motion capture that ships, by name, 30 frames per second, each on a body of its own shape."""
    from zoo.humans.body import load_body
    from zoo.humans.motion.retarget import read_mocap_folder

    motions = read_mocap_folder(assets.path("data", "samples", "mocap"), load_body())
    return {motion.name: with_shape(motion, k) for k, motion in enumerate(motions)}


@register_data("humans/motion-pairs")
class MotionPairs(pl.LightningDataModule):
    """Pairs of frames of motion capture and of procedural motion.

    Without `root`, the recordings are the seven of CMU's data base that ship, of which three are held out for the
    test and one for validation. The test has pairs 1, 5 and 9 frames apart of the held-out recordings, and procedural
    ones 5 frames apart, wider than any in training.

    Args:
        root: folder of further CMU recordings (``*.asf`` with ``*.amc``) or BVH files, for training.
        pairs: in an epoch.
        motions: procedural motions of 120 frames, half sums of sines, half through poses of activities.
        mocap: share of the training pairs that are from recordings.
        bend, far: see `TrainingPairs`.
        val_size, test_size: about so many pairs at each stride.
        batch_size: pairs per step; four times as many in validation and test.
        num_workers: worker processes.
        seed: of the training pairs; those of validation and test are fixed.
    """

    def __init__(
        self,
        root: str | None = None,
        pairs: int = 64000,
        motions: int = 300,
        mocap: float = 0.5,
        bend: float = 0.12,
        far: float = 0.1,
        val_size: int = 64,
        test_size: int = 256,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.recordings = sample_recordings()
        self.further = [] if root is None else _further(Path(root))

    def _some(self, names: tuple[str, ...]) -> list[Motion]:
        return [self.recordings[name] for name in names]

    def test_motions(self) -> list[Motion]:
        """The held-out recordings, whole."""
        return self._some(TEST_RECORDINGS)

    def train_dataloader(self) -> DataLoader[MotionPairBatch]:
        """Training pairs."""
        own = self.hparams
        held_out = {*VALIDATION_RECORDINGS, *TEST_RECORDINGS}
        real = [motion for name, motion in self.recordings.items() if name not in held_out] + self.further
        rng = np.random.default_rng([13, own["seed"]])
        made = [sine_motion(120, rng) if k % 2 else activity_motion(120, rng) for k in range(own["motions"])]
        everything = [*real, *made]
        dataset = TrainingPairs(
            everything, len(real), own["mocap"], own["pairs"], STRIDES, own["bend"], own["far"], own["seed"]
        )
        return train_loader(dataset, own["batch_size"], self.trainer, own["seed"], own["num_workers"])

    def _eval(self, names: tuple[str, ...], each: int, seed: int) -> DataLoader[MotionPairBatch]:
        pairs = pairs_at_strides(self._some(names), each)
        rng = np.random.default_rng(seed)
        wide = [sine_motion(60, rng, _WIDE) for _ in range(max(1, each // 8))]
        pairs.items += [(motion, k, k + 5, GROUPS.index("wide_s5")) for motion in wide for k in range(0, 48, 6)]
        return eval_loader(pairs, 4 * self.hparams["batch_size"], self.trainer, self.hparams["num_workers"])

    def val_dataloader(self) -> DataLoader[MotionPairBatch]:
        """Pairs for validation."""
        return self._eval(VALIDATION_RECORDINGS, self.hparams["val_size"], _VALIDATION)

    def test_dataloader(self) -> DataLoader[MotionPairBatch]:
        """Pairs for the test."""
        return self._eval(TEST_RECORDINGS, self.hparams["test_size"], _TEST)


def _further(root: Path) -> list[Motion]:
    from zoo.humans.body import load_body
    from zoo.humans.motion.retarget import read_mocap_folder

    return read_mocap_folder(root, load_body())
