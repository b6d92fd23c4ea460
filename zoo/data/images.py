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
        augment: strength of a random affine distortion of each image: 1 turns by up to 15 degrees, scales by
            up to 15 % and shifts by up to 5 % of the image's size; 0 leaves images as they are.
        seed: of the distortions.
        flip: mirror each image with probability 1/2.
    """

    def __init__(
        self,
        images: NDArray[np.float32],
        labels: NDArray[np.int64],
        augment: float = 0.0,
        seed: int = 0,
        flip: bool = False,
    ) -> None:
        self.images, self.labels, self.augment, self.seed, self.flip = images, labels, augment, seed, flip

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> ImageBatch:
        """One image, (C, H, W), and its label."""
        image = self.images[index]
        generator = sample_generator(self.seed, index)
        if self.flip and generator.random() < 0.5:
            image = image[..., ::-1].copy()
        if self.augment:
            image = _distort(image, self.augment, generator)
        return {"image": torch.from_numpy(image), "label": torch.tensor(self.labels[index])}


def _distort(image: NDArray[np.float32], strength: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """A random rotation, scaling and shift about the centre, bilinear, zero outside; (C, H, W)."""
    from scipy.ndimage import affine_transform

    turn, scale, *shift = generator.uniform(-strength, strength, 4)
    angle = np.deg2rad(15.0) * turn
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * (1 + 0.15 * scale)
    size = np.array(image.shape[-2:])
    centre = (size - 1) / 2
    offset = centre - matrix @ centre + 0.05 * np.array(shift) * size
    return np.stack([affine_transform(channel, matrix, offset, order=1) for channel in image])


@register_data("kat/digits")
class Digits(pl.LightningDataModule):
    """The 1,797 handwritten digits that ship with scikit-learn: 8 x 8 grey images of 10 classes.

    A fixed stratified 20 % (360 images) is the test set, whatever the seed; validation images are taken from
    the rest.

    Args:
        batch_size: training images per optimiser step, over all processes.
        val_size: images held out for validation.
        augment: strength of the training images' distortion, see `ImageArray`.
        seed: of order and augmentation.
        num_workers: loader processes.
    """

    def __init__(
        self, batch_size: int = 128, val_size: int = 137, augment: float = 1.0, seed: int = 0, num_workers: int = 0
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.batch_size, self.val_size, self.augment = batch_size, val_size, augment
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
        self.train = ImageArray(images[train], labels[train], self.augment, self.seed)
        self.val = ImageArray(images[val], labels[val])
        self.test = ImageArray(images[test], labels[test])

    def train_dataloader(self) -> DataLoader[ImageBatch]:
        """Shuffled, distorted training images."""
        return train_loader(self.train, self.batch_size, self.trainer, self.seed, self.num_workers)

    def val_dataloader(self) -> DataLoader[ImageBatch]:
        """Validation images."""
        return eval_loader(self.val, len(self.val), self.trainer, self.num_workers)

    def test_dataloader(self) -> DataLoader[ImageBatch]:
        """Test images, in one batch."""
        return eval_loader(self.test, len(self.test), self.trainer, self.num_workers)
