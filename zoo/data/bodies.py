"""People: poses with keypoints for fitting, and rendered pictures with keypoints for learning.

Both are procedural: poses of ten activities and frames of real motion capture, on the stand-in body.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypedDict

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo.cache import kept_arrays
from zoo.data.loading import eval_loader, full_batch_loader
from zoo.humans.body import Body, load_body
from zoo.humans.cameras import perspective_projection
from zoo.humans.joint_body import spin_joints
from zoo.humans.people import mixed_poses, random_background, random_clothes, random_views
from zoo.registry import register_data

Array = NDArray[Any]
_PART = 500
_VERSION = "people-1"  # a change of what is drawn needs a new name


class PoseBatch(TypedDict):
    """Body poses.

    Keys:
        body_pose: (B, 69) float32 rotation vectors.
    """

    body_pose: Tensor


class KeypointBatch(TypedDict):
    """Keypoints in a crop, with the truth for evaluation.

    Keys:
        keypoints: (B, 49, 3) float32: x, y in [-1, 1] across the crop, confidence.
        pose: (B, 72) float32 rotation vectors in the camera's frame.
        betas: (B, 10) float32.
    """

    keypoints: Tensor
    pose: Tensor
    betas: Tensor


class HumanBatch(TypedDict):
    """Crops of people.

    Keys:
        image: (B, 3, H, W) float32 in [0, 1].
        keypoints: (B, 49, 3) float32: x, y in [-1, 1] across the crop, confidence.
        pose: (B, 72) float32 rotation vectors in the crop's camera frame; zero where has_smpl is 0.
        betas: (B, 10) float32; likewise.
        has_smpl: (B,) int64, 1 where pose and betas are known.
        pose_3d: (B, 24, 4) float32: the superset's joints in metres, validity; zero where has_pose_3d is 0.
        has_pose_3d: (B,) int64.
        rotation: (B,) float32, degrees by which the crop was turned.
        flipped: (B,) int64, 1 where it was mirrored after that.
        index: (B,) int64, of the image among the training images.
    """

    image: Tensor
    keypoints: Tensor
    pose: Tensor
    betas: Tensor
    has_smpl: Tensor
    pose_3d: Tensor
    has_pose_3d: Tensor
    rotation: Tensor
    flipped: Tensor
    index: Tensor


@dataclass(frozen=True)
class PeopleArrays:
    """Drawn people.

    Attributes:
        pose: (N, 72), betas: (N, 10), the truth.
        keypoints: (N, 49, 3) in [-1, 1] with confidence.
        focal: (N,) true focal length over the crop's side.
        translation: (N, 3) true camera.
        image: (N, H, W, 3) uint8; an empty picture where none was wanted.
    """

    pose: Array
    betas: Array
    keypoints: Array
    focal: Array
    translation: Array
    image: Array


def draw_people(
    count: int, seed: int | tuple[int, ...], img_size: int = 0, yaw: float = 90.0, mocap: float = 0.25
) -> PeopleArrays:
    """Random people and, if `img_size` is not 0, their pictures.

    Args:
        count: how many.
        seed: of everything.
        img_size: side of the pictures.
        yaw, mocap: see `zoo.humans.people.random_views` and `mixed_poses`.
    """
    from zoo.humans.standin import extra_regressor

    seeds = seed if isinstance(seed, tuple) else (seed,)
    rng = np.random.default_rng(seeds)
    people = random_views(mixed_poses(count, rng, mocap), rng, yaw)
    body = load_body()
    joints = spin_joints(body, extra_regressor())
    pose, betas = torch.from_numpy(people.pose), torch.from_numpy(people.betas)
    translation = torch.from_numpy(people.translation)
    placed = perspective_projection(
        joints(pose[:, :3], pose[:, 3:], betas),
        None,
        translation,
        2 * torch.from_numpy(people.focal),  # [-1, 1] across the crop
        torch.zeros(2),
    )
    keypoints = torch.cat([placed, torch.ones(count, 49, 1)], -1).numpy()
    image = _render(body, people, img_size, seeds) if img_size else np.zeros((count, 0, 0, 3), np.uint8)
    return PeopleArrays(people.pose, people.betas, keypoints, people.focal, people.translation, image)


@torch.no_grad()
def _render(body: Body, people: Any, size: int, seeds: tuple[int, ...]) -> Array:
    from zoo.humans.render import render

    count = len(people.pose)
    images = np.empty((count, size, size, 3), np.uint8)
    weights, rest, faces = body.lbs_weights.numpy(), body.v_template.numpy(), body.faces.numpy()
    for start in range(0, count, 64):
        part = slice(start, start + 64)
        pose, betas, shift = (torch.from_numpy(a[part]) for a in (people.pose, people.betas, people.translation))
        vertices = body(pose[:, :3], pose[:, 3:], betas, shift).vertices.numpy()
        for k, mesh in enumerate(vertices, start):
            rng = np.random.default_rng([*seeds, k])
            light = rng.normal(size=3) * [1, 0.6, 0.6] + [0, -0.5, -0.8]
            picture, _ = render(
                mesh,
                faces,
                float(people.focal[k]) * size,
                (size, size),
                colours=random_clothes(weights, rest, rng),
                background=random_background(size, rng),
                light=tuple(light),
            )
            noisy = picture + rng.normal(0, 0.03, picture.shape)
            images[k] = (np.clip(noisy, 0, 1) * 255).astype(np.uint8)
    return images


def cached_people(count: int, seed: int, img_size: int, yaw: float, mocap: float) -> PeopleArrays:
    """People as `draw_people` draws them, kept in the cache folder in parts: drawing that is broken off goes on."""
    parts = [
        _cached_part(min(_PART, count - start), seed, start // _PART, img_size, yaw, mocap)
        for start in range(0, count, _PART)
    ]
    joined = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(PeopleArrays)
    }
    return PeopleArrays(**joined)


def _cached_part(count: int, seed: int, number: int, img_size: int, yaw: float, mocap: float) -> PeopleArrays:
    def draw() -> dict[str, NDArray[Any]]:
        drawn = draw_people(count, (seed, number), img_size, yaw, mocap)
        return {field.name: getattr(drawn, field.name) for field in fields(drawn)}

    place = f"people/{_VERSION}-{seed}-{img_size}-{yaw:g}-{mocap:g}/{number}-{count}.npz"
    return PeopleArrays(**kept_arrays(place, draw))


class _Keypoints(Dataset[KeypointBatch]):
    def __init__(self, people: PeopleArrays) -> None:
        self.people = people

    def __len__(self) -> int:
        return len(self.people.pose)

    def __getitem__(self, index: int) -> KeypointBatch:
        own = self.people
        return {
            "keypoints": torch.from_numpy(own.keypoints[index]),
            "pose": torch.from_numpy(own.pose[index]),
            "betas": torch.from_numpy(own.betas[index]),
        }


@register_data("humans/keypoints")
class Keypoints(pl.LightningDataModule):
    """Poses to fit a prior to, and keypoints of other people to fit bodies to.

    Args:
        poses: number of training poses; all of them make each batch.
        val_size, test_size: people with keypoints.
        batch_size: people per batch in validation and test.
        mocap: share of the poses that are frames of real motion.
        yaw: people are turned from the camera by at most so many degrees.
        seed: of the training poses; those of validation and test are fixed.
    """

    def __init__(
        self,
        poses: int = 6000,
        val_size: int = 64,
        test_size: int = 128,
        batch_size: int = 64,
        mocap: float = 0.25,
        yaw: float = 90.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.poses, self.val_size, self.test_size, self.batch_size = poses, val_size, test_size, batch_size
        self.mocap, self.yaw, self.seed = mocap, yaw, seed

    def train_dataloader(self) -> DataLoader[PoseBatch]:
        """All poses, as one batch per epoch."""
        drawn = mixed_poses(self.poses, np.random.default_rng([7, self.seed]), self.mocap)
        return full_batch_loader({"body_pose": torch.from_numpy(drawn)})

    def _people(self, count: int, seed: int) -> DataLoader[KeypointBatch]:
        people = draw_people(count, seed, yaw=self.yaw, mocap=self.mocap)
        return eval_loader(_Keypoints(people), self.batch_size, self.trainer)

    def val_dataloader(self) -> DataLoader[KeypointBatch]:
        """People for validation."""
        return self._people(self.val_size, 2**31)

    def test_dataloader(self) -> DataLoader[KeypointBatch]:
        """People for the test."""
        return self._people(self.test_size, 2**31 + 1)
