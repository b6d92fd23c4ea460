"""AMASS with the published sampling of pairs, and 3DPW or RICH to test on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset

from zoo.data.cards import require_files
from zoo.data.loading import eval_loader, sample_generator, train_loader
from zoo.data.motion_pairs import STRIDES, TEST_STRIDES, MotionPairBatch, TestPairs, make_pair, pairs_at_strides
from zoo.errors import ConfigError
from zoo.humans.motion.archives import read_3dpw, read_rich
from zoo.humans.motion.sequence import Motion, read_amass
from zoo.registry import register_data

TestSet = Literal["amass", "3dpw", "rich"]
LONGEST = 10  # frames; a clip that is no longer is left out
_FPS = 30.0
_PATTERNS = {"amass": "*/*/*.npz", "3dpw": "**/*.pkl", "rich": "**/*.pkl"}


def prepare(motion: Motion) -> Motion:
    """The middle 80 % of a recording at about 30 frames per second: every int(rate / 30)-th frame of a faster one."""
    count = len(motion)
    kept = slice(int(0.1 * count), int(0.9 * count), int(motion.fps / _FPS) if motion.fps > _FPS else 1)
    rate = motion.fps / (kept.step or 1)
    return replace(motion, poses=motion.poses[kept], trans=motion.trans[kept], fps=rate)


def split_files(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The first 70 % for training, the rest for the test; the published split is of files, not of people."""
    count = int(0.7 * len(files))
    return list(files[:count]), list(files[count:])


class StartFrames:
    """All frames of clips that a pair may start at, one after the other.

    Args:
        lengths: frames of each clip; those of at most `LONGEST` have none.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self.ends = np.cumsum([max(0, length - LONGEST) for length in lengths])

    def __len__(self) -> int:
        """Their number."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def locate(self, start: int) -> tuple[int, int]:
        """Clip and frame of a start."""
        clip = int(np.searchsorted(self.ends, start, side="right"))
        return clip, start - (int(self.ends[clip - 1]) if clip else 0)


def published_pair(frame: int, strides: tuple[int, ...] = STRIDES) -> tuple[int, int]:
    """First and last frame of a training pair, drawn from Python's and NumPy's generators as published."""
    other = frame + random.choice(strides)
    return (other, frame) if np.random.rand() > 0.5 else (frame, other)


class AMASSPairs(Dataset[MotionPairBatch]):
    """Training pairs of clips, drawn anew in each epoch.

    Args:
        motions: clips.
        length: pairs in an epoch; the published code has a tenth of the starts, always the same.
        seed: of the pairs.
    """

    def __init__(self, motions: Sequence[Motion], length: int | None, seed: int) -> None:
        self.motions, self.seed = motions, seed
        self.starts = StartFrames([len(motion) for motion in motions])
        if len(self.starts) == 0:
            raise ConfigError(f"No clip has more than {LONGEST} frames.")
        self.length = max(1, len(self.starts) // 10) if length is None else length

    def __len__(self) -> int:
        """Pairs in an epoch."""
        return self.length

    def __getitem__(self, index: int) -> MotionPairBatch:
        """One pair."""
        rng = sample_generator(self.seed, index)
        clip, frame = self.starts.locate(int(rng.integers(len(self.starts))))
        pair = [frame, frame + int(rng.choice(STRIDES))]
        if rng.random() > 0.5:
            pair.reverse()
        motion = self.motions[clip]
        return make_pair(motion.poses[pair], motion.trans[pair], motion.betas, 0)


@register_data("humans/amass")
class AMASS(pl.LightningDataModule):
    """Pairs of frames of AMASS; tested on its held-out files, on 3DPW or on RICH.

    Args:
        root: folder of AMASS, ``<data set>/<subject>/*_poses.npz`` (SMPL+H) or ``*_stageii.npz`` (SMPL-X).
        test_set: ``"amass"``, ``"3dpw"`` or ``"rich"``.
        test_root: folder of 3DPW's ``sequenceFiles/test`` or of RICH's sequences.
        pairs: in an epoch; None for the published tenth of all starts.
        val_size, test_size: about so many pairs at each stride (1, 5, 9).
        batch_size: pairs per step.
        num_workers: worker processes.
        seed: of the order of the files and of the pairs.

    Raises:
        DataError: the files are not there; the data card says where to get them.
    """

    def __init__(
        self,
        root: str | None = None,
        test_set: TestSet = "amass",
        test_root: str | None = None,
        pairs: int | None = None,
        val_size: int = 256,
        test_size: int = 2000,
        batch_size: int = 128,
        num_workers: int = 4,
        seed: int = 42,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        folder = require_files("amass", root, [_PATTERNS["amass"]])
        files = sorted(f for f in folder.glob(_PATTERNS["amass"]) if f.stem.endswith(("_poses", "_stageii")))
        order = np.random.default_rng(seed).permutation(len(files))
        train_files, self.test_files = split_files([files[k] for k in order])
        # The published code chooses its weights on the test set; here a twentieth of the training files is for that.
        held_out = max(1, len(train_files) // 20) if len(train_files) > 1 else 0
        self.train_files, self.val_files = train_files[: len(train_files) - held_out], train_files[-max(1, held_out) :]
        self.test_folder = (
            folder
            if test_set == "amass"
            else require_files(test_set, test_root, [_PATTERNS[test_set]], "data.test_root")
        )

    @staticmethod
    def _read(files: Sequence[Path]) -> list[Motion]:
        clips = [prepare(read_amass(file)) for file in files]
        return [clip for clip in clips if len(clip) > LONGEST]

    def test_motions(self) -> list[Motion]:
        """The clips of the test set."""
        own = self.hparams["test_set"]
        if own == "amass":
            return self._read(self.test_files)
        if own == "3dpw":
            motions = [motion for file in sorted(self.test_folder.glob("**/*.pkl")) for motion in read_3dpw(file)]
        else:
            folders = sorted({file.parent.parent for file in self.test_folder.glob("**/*.pkl")})
            motions = [motion for folder in folders for motion in read_rich(folder)]
        return [motion for motion in motions if len(motion) > LONGEST]

    def train_dataloader(self) -> DataLoader[MotionPairBatch]:
        """Training pairs."""
        own = self.hparams
        dataset = AMASSPairs(self._read(self.train_files), own["pairs"], own["seed"])
        return train_loader(dataset, own["batch_size"], self.trainer, own["seed"], own["num_workers"])

    def _eval(self, motions: list[Motion], each: int) -> DataLoader[MotionPairBatch]:
        pairs: TestPairs = pairs_at_strides(motions, each, TEST_STRIDES)
        return eval_loader(pairs, 4 * self.hparams["batch_size"], self.trainer)

    def val_dataloader(self) -> DataLoader[MotionPairBatch]:
        """Pairs of files of the training part that are not trained on."""
        return self._eval(self._read(self.val_files), self.hparams["val_size"])

    def test_dataloader(self) -> DataLoader[MotionPairBatch]:
        """Pairs of the test set."""
        return self._eval(self.test_motions(), self.hparams["test_size"])
