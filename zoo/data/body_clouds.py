"""Point clouds of posed bodies, sampled anew each time: the embedded data of ArtEq."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo.data.loading import eval_loader, sample_generator, train_loader
from zoo.errors import ConfigError
from zoo.humans.arteq.parts import turn, turn_euler, without_hands
from zoo.humans.arteq.sampling import sample_surface
from zoo.humans.body import Body, load_body
from zoo.humans.people import mixed_poses
from zoo.registry import register_data

Array = NDArray[Any]
RotationKind = Literal["none", "haar", "euler"]

# What test bodies differ in from training: nothing, any global rotation, wider poses, both.
CONDITIONS = ("", "rotated", "wide", "rotated_wide")
_WIDE = 1.6
# Joints of SMPL that stay together when limbs are mixed.
_LIMBS = ((1,), (2,), (4, 7, 10), (5, 8, 11), (3, 6, 9), (12, 15), (13, 16), (14, 17), (18, 20, 22), (19, 21, 23))
_VALIDATION, _TEST = 2**31 + 4, 2**31 + 5


class CloudBatch(TypedDict):
    """Clouds of posed bodies without translation.

    Keys:
        points: (B, N, 3) float32 metres, y up unless turned.
        labels: (B, N) int64 body parts, see `zoo.humans.arteq.parts`.
        pose: (B, 72) float32 rotation vectors, hands zero.
        betas: (B, 10) float32.
        condition: (B,) int64, an index into `CONDITIONS`.
    """

    points: Tensor
    labels: Tensor
    pose: Tensor
    betas: Tensor
    condition: Tensor


class PosedBody(TypedDict):
    """A body before its cloud is sampled; `seed` of the sampling."""

    pose: Tensor
    betas: Tensor
    condition: int
    seed: int


class Bodies(Dataset[PosedBody]):
    """Poses and shapes, turned and sampled anew in each epoch.

    Args:
        pose: (M, 72) rotation vectors.
        betas: (M, 10).
        condition: (M,) indices into `CONDITIONS`.
        rotation: ``"none"``; ``"haar"``, any rotation with equal probability; ``"euler"``, the official three
            angles, which favour the poles.
        seed: of rotations and sampling.
        fixed: the same in every epoch, so that an evaluation after training sees what one of its own does.
    """

    def __init__(
        self,
        pose: Tensor,
        betas: Tensor,
        condition: Tensor,
        rotation: RotationKind = "none",
        seed: int = 0,
        fixed: bool = False,
    ) -> None:
        self.pose, self.betas, self.condition = without_hands(pose), betas, condition
        self.rotation, self.seed, self.fixed = rotation, seed, fixed

    def __len__(self) -> int:
        """Number of bodies."""
        return len(self.pose)

    def __getitem__(self, index: int) -> PosedBody:
        """One body."""
        rng = sample_generator(self.seed, int(index) if self.fixed else index)
        pose = self.pose[int(index)]
        if self.rotation == "haar":
            any_turn = torch.from_numpy(Rotation.random(random_state=rng).as_matrix()).float()
            pose = turn(pose[None], any_turn[None])[0]
        elif self.rotation == "euler":
            angles = torch.from_numpy(rng.uniform(-np.pi, np.pi, (1, 3))).float()
            pose = turn_euler(pose[None], angles)[0]
        return {
            "pose": pose,
            "betas": self.betas[int(index)],
            "condition": int(self.condition[int(index)]),
            "seed": int(rng.integers(2**62)),
        }


class CloudCollate:
    """Poses bodies and samples their surface.

    Args:
        body: the mesh model.
        count: points per cloud.
        noise: standard deviation of the points, metres.
        shared: one sampling for the whole batch, as the official code has it.
    """

    def __init__(self, body: Body, count: int, noise: float, shared: bool = False) -> None:
        self.body, self.count, self.noise, self.shared = body, count, noise, shared

    @torch.no_grad()
    def __call__(self, items: list[PosedBody]) -> CloudBatch:
        """A batch of the bodies."""
        pose, betas = (torch.stack([item[name] for item in items]) for name in ("pose", "betas"))
        vertices = self.body(pose[:, :3], pose[:, 3:], betas).vertices
        faces, skinning = self.body.faces.long(), self.body.lbs_weights
        groups = [vertices] if self.shared else list(vertices.split(1))
        samples = [
            sample_surface(
                group, faces, skinning, self.count, torch.Generator().manual_seed(item["seed"]), self.noise, self.shared
            )
            for group, item in zip(groups, items, strict=False)
        ]
        return {
            "points": torch.cat([sample.points for sample in samples]),
            "labels": torch.cat([sample.labels for sample in samples]),
            "pose": pose,
            "betas": betas,
            "condition": torch.tensor([item["condition"] for item in items]),
        }


def draw_bodies(count: int, rng: np.random.Generator, mocap: float, amplitude: float = 1.0) -> tuple[Tensor, Tensor]:
    """Random upright people, most of them facing about +z: poses (N, 72) and betas (N, 10).

    Args:
        count: how many.
        rng: the generator.
        mocap: share of the poses that are frames of real motion.
        amplitude: factor of all joint angles.
    """
    angles = rng.normal(size=(count, 3)) * np.deg2rad([8.0, 30.0, 6.0])
    root = Rotation.from_euler("XYZ", angles).as_rotvec()
    pose = np.concatenate([root, amplitude * mixed_poses(count, rng, mocap)], 1)
    betas = np.clip(rng.normal(size=(count, 10)), -2.5, 2.5)
    return torch.from_numpy(pose).float(), torch.from_numpy(betas).float()


def mix_limbs(pose: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Poses (N, 72) of which a share has each limb of another person; no joint's angles become wider for it.

    Args:
        pose: of the people.
        share: of the people that are mixed.
        rng: the generator.
    """
    joints = pose.unflatten(1, (24, 3))
    out, mixed = joints.clone(), torch.from_numpy(rng.random(len(pose)) < share)
    for limb in map(list, _LIMBS):
        others = torch.from_numpy(rng.permutation(len(pose)))
        out[:, limb] = torch.where(mixed[:, None, None], joints[others][:, limb], joints[:, limb])
    return out.flatten(1)


def people_under_conditions(each: int, seed: int, mocap: float) -> Bodies:
    """The same people under every one of the `CONDITIONS`, `each` people.

    Args:
        each: people; four times as many bodies.
        seed: of everything.
        mocap: see `draw_bodies`.
    """
    rng = np.random.default_rng(seed)
    pose, betas = draw_bodies(each, rng, mocap)
    wide = torch.cat([pose[:, :3], _WIDE * pose[:, 3:]], 1)
    rotation = torch.from_numpy(Rotation.random(each, random_state=rng).as_matrix()).float()
    poses = [pose, turn(pose, rotation), wide, turn(wide, rotation)]
    condition = torch.arange(len(CONDITIONS)).repeat_interleave(each)
    # Interleaved, so that the first batch shows every condition.
    order = torch.arange(len(CONDITIONS) * each).view(len(CONDITIONS), each).T.flatten()
    return Bodies(
        torch.cat(poses)[order], betas.repeat(len(CONDITIONS), 1)[order], condition[order], seed=seed, fixed=True
    )


@register_data("humans/body-clouds")
class BodyClouds(pl.LightningDataModule):
    """Clouds of people in random poses.

    Validation and test have the same people under four conditions: as in training without rotations, turned by any
    rotation, with all joint angles 1.6 times as wide, and both.

    Args:
        bodies: training poses; each is sampled anew in each epoch.
        val_size, test_size: people, each under four conditions.
        points: per cloud.
        batch_size: clouds per step.
        rotation: of training bodies, see `Bodies`.
        noise: standard deviation of the points, metres.
        shared_sampling: one sampling for a whole batch, as the official code has it, in training.
        mocap: share of the poses that are frames of real motion.
        mixed: share of the training poses whose limbs are of different people.
        body: model file or folder, see `zoo.humans.body.load_body`; None for the stand-in.
        gender: of the body.
        num_workers: worker processes.
        seed: of the training bodies; those of validation and test are fixed.
    """

    def __init__(
        self,
        bodies: int = 4000,
        val_size: int = 8,
        test_size: int = 32,
        points: int = 384,
        batch_size: int = 8,
        rotation: RotationKind = "haar",
        noise: float = 0.001,
        shared_sampling: bool = False,
        mocap: float = 0.25,
        mixed: float = 0.0,
        body: str | None = None,
        gender: str = "neutral",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if not 0 <= mixed <= 1:
            raise ConfigError(f"data.mixed is a share of the poses, from 0 to 1, not {mixed}.")
        self.body = load_body(body, gender)

    def _collate(self, shared: bool = False) -> CloudCollate:
        own = self.hparams
        return CloudCollate(self.body, own["points"], own["noise"], shared)

    def train_dataloader(self) -> DataLoader[CloudBatch]:
        """Training clouds."""
        own = self.hparams
        rng = np.random.default_rng([11, own["seed"]])
        pose, betas = draw_bodies(own["bodies"], rng, own["mocap"])
        pose = mix_limbs(pose, own["mixed"], rng)
        dataset = Bodies(pose, betas, torch.zeros(len(pose), dtype=torch.long), own["rotation"], own["seed"])
        collate = self._collate(own["shared_sampling"])
        return train_loader(dataset, own["batch_size"], self.trainer, own["seed"], own["num_workers"], collate)

    def _eval(self, each: int, seed: int) -> DataLoader[CloudBatch]:
        own = self.hparams
        bodies = people_under_conditions(each, seed, own["mocap"])
        return eval_loader(bodies, 4 * own["batch_size"], self.trainer, own["num_workers"], self._collate())

    def val_dataloader(self) -> DataLoader[CloudBatch]:
        """Clouds for validation."""
        return self._eval(self.hparams["val_size"], _VALIDATION)

    def test_dataloader(self) -> DataLoader[CloudBatch]:
        """Clouds for the test."""
        return self._eval(self.hparams["test_size"], _TEST)
