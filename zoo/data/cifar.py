"""CIFAR-10 and CIFAR-100 in their binary format."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from zoo.data.cards import require_files
from zoo.data.images import ImageArray, ImageBatch
from zoo.data.loading import eval_loader, train_loader
from zoo.errors import DataError
from zoo.registry import register_data

Variant = Literal["cifar10", "cifar100"]

# variant -> (label bytes per record, training files, test file); the last label byte is the (fine) class.
_LAYOUT = {
    "cifar10": (1, [f"data_batch_{k}.bin" for k in range(1, 6)], "test_batch.bin"),
    "cifar100": (2, ["train.bin"], "test.bin"),
}
_PIXELS = 3 * 32 * 32


def read_cifar(file: Path, label_bytes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The images (N, 3, 32, 32) in [0, 1] and labels (N,) of a binary CIFAR file.

    Args:
        file: records of label bytes and 3072 pixel bytes, red plane first.
        label_bytes: 1 for CIFAR-10, 2 for CIFAR-100 (coarse, then fine class).

    Raises:
        DataError: the file is no whole number of records.
    """
    content = np.fromfile(file, dtype=np.uint8)
    record = label_bytes + _PIXELS
    if len(content) == 0 or len(content) % record:
        raise DataError(f"{file} has {len(content)} bytes, no multiple of {record}: it is truncated or another format.")
    records = content.reshape(-1, record)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).astype(np.float32) / 255.0
    return images, records[:, label_bytes - 1].astype(np.int64)


@register_data("kat/cifar")
class CIFAR(pl.LightningDataModule):
    """CIFAR-10 or CIFAR-100: 50,000 training and 10,000 test images of 32 x 32 pixels.

    Args:
        root: folder of the binary files.
        variant: ``"cifar10"`` or ``"cifar100"`` (100 fine classes).
        batch_size: training images per optimiser step, over all processes.
        augment: strength of the training images' random affine distortion, see `zoo.data.images.ImageArray`.
        flip: mirror training images with probability 1/2.
        seed: of order and augmentation.
        num_workers: loader processes.
    """

    def __init__(
        self,
        root: Path | None = None,
        variant: Variant = "cifar10",
        batch_size: int = 128,
        augment: float = 1.0,
        flip: bool = True,
        seed: int = 0,
        num_workers: int = 2,
    ) -> None:
        super().__init__()
        self.label_bytes, self.train_files, self.test_file = _LAYOUT[variant]
        self.root = require_files("cifar", root, [*self.train_files, self.test_file])
        self.batch_size, self.augment, self.flip = batch_size, augment, flip
        self.seed, self.num_workers = seed, num_workers

    def setup(self, stage: str) -> None:
        """Reads the files."""
        parts = [read_cifar(self.root / name, self.label_bytes) for name in self.train_files]
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        self.train = ImageArray(images, labels, self.augment, self.seed, self.flip)
        self.test = ImageArray(*read_cifar(self.root / self.test_file, self.label_bytes))

    def train_dataloader(self) -> DataLoader[ImageBatch]:
        """Shuffled, augmented training images."""
        return train_loader(self.train, self.batch_size, self.trainer, self.seed, self.num_workers)

    def val_dataloader(self) -> DataLoader[ImageBatch]:
        """The test images."""
        return self.test_dataloader()

    def test_dataloader(self) -> DataLoader[ImageBatch]:
        """The test images."""
        return eval_loader(self.test, 500, self.trainer, self.num_workers)
