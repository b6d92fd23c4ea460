"""DFaust and PosePrior in the official ArtEq files: poses to train on, clouds to evaluate on."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from joblib.numpy_pickle import NumpyArrayWrapper, NumpyUnpickler  # type: ignore[import-untyped]
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo.data.body_clouds import Bodies, CloudBatch, CloudCollate, RotationKind
from zoo.data.cards import require_files
from zoo.data.loading import eval_loader, train_loader
from zoo.files import parsing
from zoo.humans.arteq.parts import without_hands
from zoo.humans.body import load_body
from zoo.pickles import array_class, safe_globals
from zoo.registry import register_data

Array = NDArray[Any]
TestSet = Literal["DFaust_67_val", "MPI_Limits"]
TRAINING_FILE = "DFaust_67_train.pth.tar"
_POSE = 72


class _Wrapper(NumpyArrayWrapper):
    """An array of numbers in a joblib file; one of objects would be read by an ordinary unpickler."""

    def read_array(self, unpickler: Any, *arguments: Any, **named: Any) -> Any:
        if self.dtype.hasobject:
            raise pickle.UnpicklingError("an array of objects is not allowed in a motion file")
        return super().read_array(unpickler, *arguments, **named)


class _Unpickler(NumpyUnpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
            return _Wrapper
        if (found := array_class(module, name)) is not None:
            return found
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a motion file")


def _decompressed(path: Path) -> IO[bytes]:
    """A file that joblib wrote, with or without ``compress``; a pickle itself begins with the byte 0x80."""
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x78"):
        return io.BytesIO(zlib.decompress(path.read_bytes()))
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open, b"]\0\0": lzma.open}
    opened: IO[bytes] = next((o for magic, o in openers.items() if start.startswith(magic)), open)(path, "rb")
    return opened


def read_training_file(path: Path) -> tuple[Tensor, Tensor]:
    """Poses (M, 72) and betas (M, 10) of all frames of ``DFaust_67_train.pth.tar``.

    It is a joblib file: a list of sequences with ``poses`` (T, >= 72) and ``betas`` (>= 10,), and more.

    Raises:
        DataError: it is absent, damaged, of another layout, or names anything but arrays.
    """
    with parsing(path, "ArtEq's training file"):
        with _decompressed(path) as file:
            sequences = _Unpickler(str(path), file, True).load()
        poses = [np.asarray(s["poses"], np.float32).reshape(len(s["poses"]), -1)[:, :_POSE] for s in sequences]
        betas = [np.asarray(s["betas"], np.float32)[:10] for s in sequences]
        pose = torch.from_numpy(np.concatenate(poses))
        if pose.shape[1] != _POSE or any(b.shape != (10,) for b in betas):
            raise ValueError("a sequence has less than 72 pose numbers or 10 betas")
    repeats = torch.tensor([len(p) for p in poses])
    return pose, torch.from_numpy(np.stack(betas)).repeat_interleave(repeats, 0)


def read_evaluation_file(path: Path, count: int) -> Iterator[CloudBatch]:
    """The frames of an evaluation tar, one by one, without the batch dimension.

    Args:
        path: a WebDataset with members ``*.input.pth``: dictionaries of ``pcl_data`` (>= N, 3), ``label_data``,
            ``betas``, ``trans`` and ``poses`` (>= 24, 3).
        count: the first so many points are used.

    Raises:
        DataError: it is damaged or of another layout.
    """
    with (
        parsing(path, "an ArtEq evaluation file"),
        tarfile.open(path) as archive,
        torch.serialization.safe_globals(safe_globals()),
    ):
        for member in archive:
            opened = archive.extractfile(member) if member.name.endswith("input.pth") else None
            if opened is None:
                continue
            frame = torch.load(io.BytesIO(opened.read()), weights_only=True)
            pose = torch.as_tensor(frame["poses"]).float().reshape(1, -1)[:, :_POSE]
            yield {
                "points": torch.as_tensor(frame["pcl_data"]).float()[:count],
                "labels": torch.as_tensor(frame["label_data"]).long().flatten()[:count],
                "pose": without_hands(pose)[0],
                "betas": torch.as_tensor(frame["betas"]).float().flatten()[:10],
                "condition": torch.tensor(0),
            }


class _Frames(Dataset[CloudBatch]):
    def __init__(self, frames: list[CloudBatch]) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> CloudBatch:
        return self.frames[int(index)]


@register_data("humans/dfaust")
class DFaust(pl.LightningDataModule):
    """The official data of ArtEq: clouds are sampled from DFaust's poses, and read for evaluation.

    Args:
        root: folder with ``DFaust_67_train.pth.tar``, ``DFaust_67_val/*.tar`` and ``MPI_Limits/*.tar``.
        body: folder with ``SMPL_MALE.pkl``.
        test_set: ``"DFaust_67_val"``, or ``"MPI_Limits"`` of poses unlike those of training.
        val_sequences: of ``DFaust_67_val`` for validation.
        points, batch_size, rotation, noise, shared_sampling, num_workers, seed: see
            `zoo.data.body_clouds.BodyClouds`; the defaults are the official protocol.
        gender: of the body.

    Raises:
        DataError: the files are not there; the data card says where to get them.
    """

    def __init__(
        self,
        root: str | None = None,
        body: str | None = None,
        test_set: TestSet = "MPI_Limits",
        val_sequences: int = 2,
        points: int = 5000,
        batch_size: int = 2,
        rotation: RotationKind = "euler",
        noise: float = 0.001,
        shared_sampling: bool = True,
        gender: str = "male",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.root = require_files("dfaust", root, [TRAINING_FILE, "DFaust_67_val/*.tar", f"{test_set}/*.tar"])
        self.body = load_body(body, gender)

    def train_dataloader(self) -> DataLoader[CloudBatch]:
        """Clouds of the training poses."""
        own = self.hparams
        pose, betas = read_training_file(self.root / TRAINING_FILE)
        dataset = Bodies(pose, betas, torch.zeros(len(pose), dtype=torch.long), own["rotation"], own["seed"])
        collate = CloudCollate(self.body, own["points"], own["noise"], own["shared_sampling"])
        return train_loader(dataset, own["batch_size"], self.trainer, own["seed"], own["num_workers"], collate)

    def _frames(self, folder: str, sequences: int | None = None) -> DataLoader[CloudBatch]:
        files = sorted((self.root / folder).glob("*.tar"))[:sequences]
        frames = [frame for file in files for frame in read_evaluation_file(file, self.hparams["points"])]
        return eval_loader(_Frames(frames), self.hparams["batch_size"], self.trainer)

    def val_dataloader(self) -> DataLoader[CloudBatch]:
        """The first sequences of ``DFaust_67_val``."""
        return self._frames("DFaust_67_val", self.hparams["val_sequences"])

    def test_dataloader(self) -> DataLoader[CloudBatch]:
        """The test set."""
        return self._frames(self.hparams["test_set"])
