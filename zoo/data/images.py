"""Labelled images for classification, and points of a function for regression."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo.data.loading import eval_loader, sample_generator, train_loader
from zoo.registry import register_data


class ImageBatch(TypedDict):
    """Images and their classes.

    Keys:
        image: (B, C, H, W) float32 in [0, 1].
        label: (B,) int64.
    """

    image: Tensor
    label: Tensor


class ImageArray(Dataset[ImageBatch]):
    """Images held in memory.

    Args:
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64.
        shift: shift each image by up to so many pixels in either direction, filling with 0.
        seed: of the shifts.
    """

    def __init__(self, images: NDArray[np.float32], labels: NDArray[np.int64], shift: int = 0, seed: int = 0) -> None:
        self.images, self.labels, self.shift, self.seed = images, labels, shift, seed

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> ImageBatch:
        """One image, (C, H, W), and its label."""
        image = self.images[index]
        if self.shift:
            height, width = image.shape[-2:]
            down, right = sample_generator(self.seed, index).integers(0, 2 * self.shift + 1, 2)
            padded = np.pad(image, ((0, 0), (self.shift, self.shift), (self.shift, self.shift)))
            image = padded[:, down : down + height, right : right + width]
        return {"image": torch.from_numpy(image), "label": torch.tensor(self.labels[index])}


@register_data("kat/digits")
class Digits(pl.LightningDataModule):
    """The 1,797 handwritten digits that ship with scikit-learn: 8 x 8 grey images of 10 classes.

    A fixed stratified 20 % (360 images) is the test set, whatever the seed; validation images are taken from
    the rest.

    Args:
        batch_size: training images per optimiser step, over all processes.
        val_size: images held out for validation.
        shift: augmentation of the training images: a random shift by up to so many pixels.
        seed: of order and augmentation.
        num_workers: loader processes.
    """

    def __init__(
        self, batch_size: int = 128, val_size: int = 137, shift: int = 1, seed: int = 0, num_workers: int = 0
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.batch_size, self.val_size, self.shift = batch_size, val_size, shift
        self.seed, self.num_workers = seed, num_workers

    def setup(self, stage: str) -> None:
        """Reads and splits the images."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        images = (digits.images[:, None] / 16.0).astype(np.float32)
        labels = digits.target.astype(np.int64)
        rest, test = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
        train, val = train_test_split(rest, test_size=self.val_size, stratify=labels[rest], random_state=0)
        self.train = ImageArray(images[train], labels[train], self.shift, self.seed)
        self.val = ImageArray(images[val], labels[val])
        self.test = ImageArray(images[test], labels[test])

    def train_dataloader(self) -> DataLoader[ImageBatch]:
        """Shuffled, shifted training images."""
        return train_loader(self.train, self.batch_size, self.trainer, self.seed, self.num_workers)

    def val_dataloader(self) -> DataLoader[ImageBatch]:
        """Validation images."""
        return eval_loader(self.val, len(self.val), self.trainer, self.num_workers)

    def test_dataloader(self) -> DataLoader[ImageBatch]:
        """Test images, in one batch."""
        return eval_loader(self.test, len(self.test), self.trainer, self.num_workers)
