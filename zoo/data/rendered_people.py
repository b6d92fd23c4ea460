"""Rendered people: the embedded data of SPIN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo.data.bodies import HumanBatch, PeopleArrays, cached_people
from zoo.data.loading import eval_loader, sample_generator, train_loader
from zoo.humans.crops import Augmentation, Variation, crop_image, crop_keypoints
from zoo.registry import register_data

_TRAIN, _VALIDATION, _TEST = 0, 2**31 + 2, 2**31 + 3


class RenderedDataset(Dataset[HumanBatch]):
    """Drawn people as samples.

    Args:
        people: with pictures.
        labels: whether pose and shape are handed out, as for evaluation. Training sees pictures and keypoints only.
        augmentation: None for the pictures as they are.
        noise: standard deviation of pixel noise added in training.
        keypoint_noise: standard deviation of the keypoints, in units of the crop's half side.
        seed: of all of these.
    """

    def __init__(
        self,
        people: PeopleArrays,
        labels: bool,
        augmentation: Augmentation | None = None,
        noise: float = 0.0,
        keypoint_noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.people, self.labels, self.augmentation = people, labels, augmentation
        self.noise, self.keypoint_noise, self.seed = noise, keypoint_noise, seed

    def __len__(self) -> int:
        """Number of people."""
        return len(self.people.pose)

    def clean_keypoints(self) -> Tensor:
        """Keypoints (N, 49, 3) without augmentation, with each image's own noise."""
        return torch.stack([torch.from_numpy(self._keypoints(index)) for index in range(len(self))])

    def _keypoints(self, index: int) -> NDArray[Any]:
        keypoints = self.people.keypoints[index].copy()
        if self.keypoint_noise:
            rng = np.random.default_rng([self.seed, 1, index])  # of the annotation: the same in every epoch
            keypoints[:, :2] += self.keypoint_noise * rng.normal(size=(49, 2)).astype(np.float32)
        return keypoints

    def __getitem__(self, index: int) -> HumanBatch:
        """One person."""
        people = self.people
        picture = people.image[index]
        size = len(picture)
        varied = Variation()
        rng = sample_generator(self.seed, index)
        if self.augmentation is not None:
            varied = self.augmentation.draw(rng)
        keypoints = self._keypoints(int(index))
        if varied != Variation():
            middle, side = np.array([size / 2, size / 2]), varied.scale * size / 200
            picture = crop_image(picture, middle, side, size, varied.rotation)
            in_pixels = np.concatenate([(keypoints[:, :2] + 1) * size / 2, keypoints[:, 2:]], 1)
            keypoints = crop_keypoints(in_pixels, middle, side, varied.rotation, varied.flip)
            picture = picture[:, ::-1] if varied.flip else picture
        image = picture.astype(np.float32) / 255
        if varied.colour is not None:
            image = image * varied.colour.astype(np.float32)
        if self.noise and self.augmentation is not None:
            image = image + self.noise * rng.standard_normal(image.shape, np.float32)
        labels = int(self.labels)
        return {
            "image": torch.from_numpy(np.clip(image, 0, 1).transpose(2, 0, 1).copy()),
            "keypoints": torch.from_numpy(keypoints),
            "pose": torch.from_numpy(labels * people.pose[index]),
            "betas": torch.from_numpy(labels * people.betas[index]),
            "has_smpl": torch.tensor(labels),
            "pose_3d": torch.zeros(24, 4),
            "has_pose_3d": torch.tensor(0),
            "rotation": torch.tensor(varied.rotation, dtype=torch.float32),
            "flipped": torch.tensor(int(varied.flip)),
            "index": torch.tensor(int(index)),
        }


@register_data("humans/rendered-people")
class RenderedPeople(pl.LightningDataModule):
    """People drawn by the ray caster: random activities and real motion, shapes, clothes, cameras, backgrounds.

    Training hands out pictures and 2-D keypoints only; pose and shape are for evaluation. The pictures are drawn once
    and kept in the cache folder.

    Args:
        train_size, val_size, test_size: number of pictures.
        img_size: their side in pixels.
        batch_size: of training, over all processes.
        yaw: people are turned from the camera by at most so many degrees.
        mocap: share of poses that are frames of real motion.
        flip, rotation, scale, colour: see `zoo.humans.crops.Augmentation`; all 0 for no augmentation.
        noise: standard deviation of pixel noise in training.
        keypoint_noise: of the training keypoints, in units of the crop's half side.
        labels: hands out pose and shape in training too: the ceiling that supervision could reach.
        seed: of order, augmentation and noise; the pictures are the same for every seed, as a real set's are.
        num_workers: loader processes.
    """

    def __init__(
        self,
        train_size: int = 6000,
        val_size: int = 100,
        test_size: int = 300,
        img_size: int = 64,
        batch_size: int = 64,
        yaw: float = 90.0,
        mocap: float = 0.25,
        flip: float = 0.5,
        rotation: float = 15.0,
        scale: float = 0.1,
        colour: float = 0.1,
        noise: float = 0.05,
        keypoint_noise: float = 0.0,
        labels: bool = False,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.sizes = (train_size, val_size, test_size)
        self.img_size, self.batch_size, self.yaw, self.mocap = img_size, batch_size, yaw, mocap
        self.augmentation = None
        if flip or rotation or scale or colour:
            self.augmentation = Augmentation(flip, rotation, scale, colour)
        self.noise, self.keypoint_noise, self.labels = noise, keypoint_noise, labels
        self.seed, self.num_workers = seed, num_workers

    def _people(self, count: int, seed: int) -> PeopleArrays:
        return cached_people(count, seed, self.img_size, self.yaw, self.mocap)

    def setup(self, stage: str) -> None:
        """Draws the people, or reads them from the cache."""
        train, val, test = self.sizes
        if stage == "fit":
            self.train = RenderedDataset(
                self._people(train, _TRAIN),
                self.labels,
                self.augmentation,
                self.noise,
                self.keypoint_noise,
                self.seed,
            )
        if stage in ("fit", "validate"):
            self.val = RenderedDataset(self._people(val, _VALIDATION), True)
        if stage in ("test", "predict"):
            self.test = RenderedDataset(self._people(test, _TEST), True)

    def training_keypoints(self) -> Tensor:
        """Keypoints (N, 49, 3) of the training pictures without augmentation, to start fits from."""
        return self.train.clean_keypoints()

    def initial_fits(self) -> Tensor | None:
        """Fits that come with the data: none."""
        return None

    def training_truth(self) -> tuple[Tensor, Tensor]:
        """Pose (N, 72) and betas (N, 10) of the training pictures, to judge fits by; no training step sees them."""
        people = self.train.people
        return torch.from_numpy(people.pose), torch.from_numpy(people.betas)

    def train_dataloader(self) -> DataLoader[HumanBatch]:
        """Shuffled, augmented pictures."""
        return train_loader(self.train, self.batch_size, self.trainer, self.seed, self.num_workers)

    def val_dataloader(self) -> DataLoader[HumanBatch]:
        """Validation pictures with their truth."""
        return eval_loader(self.val, 100, self.trainer, self.num_workers)

    def test_dataloader(self) -> DataLoader[HumanBatch]:
        """Test pictures with their truth."""
        return eval_loader(self.test, 100, self.trainer, self.num_workers)
