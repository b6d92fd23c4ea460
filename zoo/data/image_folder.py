"""Pictures in one folder per class, as ImageNet is usually kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from zoo.data.augment import rand_augment, random_erase, random_resized_crop, resize_and_crop
from zoo.data.cards import require_files
from zoo.data.images import ImageBatch
from zoo.data.loading import eval_loader, sample_generator, train_loader
from zoo.errors import DataError
from zoo.files import parsing
from zoo.registry import register_data

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


@dataclass(frozen=True)
class Augmentation:
    """How training pictures are varied; the defaults are KAT's (and DeiT's) recipe.

    Attributes:
        scale: area of the random crop over the picture's.
        flip: probability of mirroring.
        rand_augment: number of RandAugment operations; 0 for none.
        magnitude: their strength, 0 to 10.
        erase: probability of random erasing.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    flip: float = 0.5
    rand_augment: int = 2
    magnitude: float = 9.0
    erase: float = 0.25


class ImageFolder(Dataset[ImageBatch]):
    """``<root>/<class>/*.JPEG``; classes are numbered in the order of their sorted names.

    Args:
        root: the folder.
        img_size: height and width of what is dealt.
        augmentation: None for the evaluation view.
        seed: of the augmentation.
        classes: names of the classes in order, from the training folder; None to take them from `root`.

    Raises:
        DataError: there are no class folders, no pictures, or classes that training does not have.
    """

    def __init__(
        self,
        root: Path,
        img_size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        classes: list[str] | None = None,
    ) -> None:
        self.img_size, self.augmentation, self.seed = img_size, augmentation, seed
        found = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
        self.classes = classes or found
        if unknown := set(found) - set(self.classes):
            raise DataError(f"{root} has classes that the training folder lacks: {', '.join(sorted(unknown)[:5])}.")
        self.samples = [
            (file, label)
            for label, name in enumerate(self.classes)
            for file in sorted((root / name).glob("*"))
            if file.suffix.lower() in _SUFFIXES
        ]
        if not self.samples:
            raise DataError(f"{root} has no pictures ({', '.join(sorted(_SUFFIXES))}) in class folders.")

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.samples)

    def __getitem__(self, index: int) -> ImageBatch:
        """One picture, (3, img_size, img_size) in [0, 1], and its label.

        Raises:
            DataError: the file can't be read as a picture.
        """
        file, label = self.samples[index]
        with parsing(file, "a picture"), Image.open(file) as opened:
            image = opened.convert("RGB")
        if self.augmentation is None:
            pixels = _to_array(resize_and_crop(image, self.img_size))
        else:
            pixels = self._augment(image, self.augmentation, sample_generator(self.seed, index))
        return {"image": torch.from_numpy(pixels), "label": torch.tensor(label)}

    def _augment(self, image: Image.Image, how: Augmentation, generator: np.random.Generator) -> np.ndarray:
        image = random_resized_crop(image, self.img_size, generator, how.scale)
        if generator.random() < how.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if how.rand_augment:
            image = rand_augment(image, generator, how.rand_augment, how.magnitude)
        return random_erase(_to_array(image), generator, how.erase)


def _to_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255.0


@register_data("kat/imagefolder")
class ImageFolderData(pl.LightningDataModule):
    """ImageNet, or any pictures in ``train/<class>/`` and ``val/<class>/``; val is the test set too.

    Args:
        root: the folder that holds train/ and val/.
        img_size: height and width of the pictures dealt.
        batch_size: training pictures per optimiser step, over all processes.
        num_workers: loader processes.
        seed: of order and augmentation.
        scale, flip, rand_augment, magnitude, erase: see `Augmentation`.
    """

    def __init__(
        self,
        root: Path | None = None,
        img_size: int = 224,
        batch_size: int = 1024,
        num_workers: int = 8,
        seed: int = 0,
        scale: tuple[float, float] = (0.08, 1.0),
        flip: float = 0.5,
        rand_augment: int = 2,
        magnitude: float = 9.0,
        erase: float = 0.25,
    ) -> None:
        super().__init__()
        self.root = require_files("imagenet", root, ["train/*/*", "val/*/*"])
        self.img_size, self.batch_size, self.num_workers, self.seed = img_size, batch_size, num_workers, seed
        self.augmentation = Augmentation(scale, flip, rand_augment, magnitude, erase)

    def setup(self, stage: str) -> None:
        """Lists the pictures."""
        self.train = ImageFolder(self.root / "train", self.img_size, self.augmentation, self.seed)
        self.val = ImageFolder(self.root / "val", self.img_size, classes=self.train.classes)

    def train_dataloader(self) -> DataLoader[ImageBatch]:
        """Shuffled, augmented training pictures."""
        return train_loader(self.train, self.batch_size, self.trainer, self.seed, self.num_workers)

    def val_dataloader(self) -> DataLoader[ImageBatch]:
        """The evaluation view of val."""
        return eval_loader(self.val, self.batch_size, self.trainer, self.num_workers)

    def test_dataloader(self) -> DataLoader[ImageBatch]:
        """The evaluation view of val: ImageNet's test labels are not public."""
        return self.val_dataloader()
