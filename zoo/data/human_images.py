"""Pictures of people in the layout of SPIN's annotations: Human3.6M, MPI-INF-3DHP, LSP, MPII, COCO, 3DPW."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo.data.bodies import HumanBatch
from zoo.data.cards import require_files
from zoo.data.loading import EpochIndex, eval_loader, sample_generator, train_loader
from zoo.errors import ConfigError, DataError
from zoo.files import parsing
from zoo.humans.crops import Augmentation, CropMode, Variation, crop_keypoints, take_crop, turn_points
from zoo.humans.joints import H36M_TO_J14, J24_TO_J14, flip_pose
from zoo.humans.results import read_picture
from zoo.humans.rotations import rotate_in_image
from zoo.humans.segmentation import PARTS, Segmentation
from zoo.humans.smpl_file import GENDER_LETTERS
from zoo.humans.spin.fits import load_fits
from zoo.registry import register_data

Array = NDArray[Any]

# Set -> annotation file and folder of pictures.
SETS = {
    "h36m": ("h36m_train", "h36m"),
    "mpi-inf-3dhp": ("mpi_inf_3dhp_train", "mpi_inf_3dhp"),
    "lsp": ("lsp_dataset_original_train", "lsp_dataset_original"),
    "lspet": ("hr-lspet_train", "hr-lspet"),
    "mpii": ("mpii_train", "mpii"),
    "coco": ("coco_2014_train", "coco_2014"),
    "h36m-p1": ("h36m_valid_protocol1", "h36m"),
    "h36m-p2": ("h36m_valid_protocol2", "h36m"),
    "3dpw": ("3dpw_test", "3dpw"),
    "mpi-inf-3dhp-test": ("mpi_inf_3dhp_valid", "mpi_inf_3dhp"),
    "lsp-test": ("lsp_dataset_test", "lsp_dataset"),
}
_UNLABELLED = 255  # in pictures of parts
_ROW_SHAPES: dict[str, tuple[int, ...]] = {
    **{"center": (2,), "scale": (), "part": (24, 3), "openpose": (25, 3), "S": (24, 4), "pose": (72,)},
    **{"shape": (10,)},
}
_CONTROLLED = {"h36m": 0.3, "mpi-inf-3dhp": 0.1}  # shares of an epoch; the others divide the rest by their sizes


class AnnotatedImages(Dataset[HumanBatch]):
    """One annotation file with its pictures.

    Args:
        annotations: the npz file.
        pictures: folder that imgname is relative to.
        img_size: side of the crops, pixels.
        augmentation: None for the box as annotated.
        seed: of the augmentation.
        offset: added to the index that samples carry.
        crop_mode: see `zoo.humans.crops.take_crop`.
        truth_joints: (N, 14, 3) evaluation joints about the pelvis, handed out in pose_3d instead of S.
        segmentations: folder that maskname and partname are relative to.

    Raises:
        DataError: the file lacks a key or its rows do not fit together.
    """

    def __init__(
        self,
        annotations: Path,
        pictures: Path,
        img_size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        offset: int = 0,
        crop_mode: CropMode = "exact",
        truth_joints: Array | None = None,
        segmentations: Path | None = None,
    ) -> None:
        self.crop_mode, self.segmentations = crop_mode, segmentations
        self.pictures, self.img_size, self.augmentation = pictures, img_size, augmentation
        self.seed, self.offset, self.truth_joints = seed, offset, truth_joints
        with parsing(annotations, "annotations"), np.load(annotations, allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in arrays.files}
        missing = [key for key in ("imgname", "center", "scale") if key not in content]
        if missing:
            raise DataError(
                f"{annotations} has no {', '.join(missing)}: it is not in the layout of SPIN's annotations."
            )
        count = len(content["imgname"])
        uneven = [key for key, value in content.items() if value.ndim and len(value) != count]
        if uneven:
            raise DataError(f"{annotations}: {', '.join(uneven)} does not have the {count} rows of imgname.")
        if "shape" in content:
            content["shape"] = content["shape"][..., :10]
        for key, shape in _ROW_SHAPES.items():
            if key in content and content[key].shape[1:] != shape:
                raise DataError(
                    f"{annotations}: {key} has rows of the shape {content[key].shape[1:]}, expected {shape}."
                )
        broken = [key for key in _ROW_SHAPES if key in content and not np.isfinite(content[key]).all()]
        if broken or not (content["scale"] > 0).all():
            what = f"{', '.join(broken)} with NaN or infinity" if broken else "boxes without a size (scale)"
            raise DataError(f"{annotations} has {what}: leave such rows out.")
        self.names = content["imgname"].astype(str)
        self.centre = content["center"].astype(np.float64)
        self.scale = content["scale"].astype(np.float64)
        keypoints = np.zeros((count, 49, 3), np.float32)
        keypoints[:, :25] = content.get("openpose", 0.0)
        keypoints[:, 25:] = content.get("part", 0.0)
        self.keypoints = keypoints
        self.has_pose_3d = int("S" in content or truth_joints is not None)
        self.pose_3d = content.get("S")
        known = "pose" in content and "shape" in content
        self.pose = content["pose"].astype(np.float32) if known else None
        self.betas = content["shape"].astype(np.float32) if known else None
        self.has_smpl = content.get("has_smpl", np.ones(count) if known else np.zeros(count)).astype(np.int64)
        self.gender = content.get("gender")
        self.mask_names, self.part_names = content.get("maskname"), content.get("partname")

    def __len__(self) -> int:
        """Number of people."""
        return len(self.names)

    def segmentation(self, row: int) -> Segmentation | None:
        """The labelled picture of a person; None where the set has none.

        Raises:
            DataError: a file is absent, unreadable or not of its partner's size.
        """
        if self.segmentations is None or self.mask_names is None or self.part_names is None:
            return None
        mask, parts = (
            self._labels(self.segmentations / str(names[row])) for names in (self.mask_names, self.part_names)
        )
        if mask.shape != parts.shape:
            raise DataError(f"{self.segmentations}: {self.mask_names[row]} and {self.part_names[row]} differ in size.")
        parts = np.where(parts == _UNLABELLED, 0, parts)
        if parts.max() >= len(PARTS):
            raise DataError(f"{self.segmentations / str(self.part_names[row])} has a part {parts.max()}, beyond 6.")
        return Segmentation((mask > 0).astype(np.uint8), parts, self.centre[row], float(self.scale[row]))

    @staticmethod
    def _labels(path: Path) -> Array:
        with parsing(path, "a segmentation"), Image.open(path) as opened:
            labels = np.asarray(opened)
        return labels if labels.ndim == 2 else labels[..., 0]

    def unaugmented_keypoints(self) -> Tensor:
        """Keypoints (N, 49, 3) in [-1, 1] across the boxes."""
        return torch.stack([self._keypoints(index, Variation()) for index in range(len(self))])

    def _keypoints(self, index: int, varied: Variation) -> Tensor:
        scale = self.scale[index] * varied.scale
        placed = crop_keypoints(self.keypoints[index], self.centre[index], scale, varied.rotation, varied.flip)
        placed[placed[:, 2] == 0, :2] = 0.0
        return torch.from_numpy(placed)

    def __getitem__(self, index: int) -> HumanBatch:
        """One person's crop.

        Raises:
            DataError: the picture is absent or unreadable.
        """
        row = int(index)
        varied = Variation()
        if self.augmentation is not None:
            varied = self.augmentation.draw(sample_generator(self.seed, index))
        picture, scale = read_picture(self.pictures / self.names[row]), self.scale[row] * varied.scale
        crop = take_crop(picture, self.centre[row], scale, self.img_size, varied.rotation, self.crop_mode)
        image = (crop[:, ::-1] if varied.flip else crop).astype(np.float32) / 255
        if varied.colour is not None:
            image = np.clip(image * varied.colour.astype(np.float32), 0, 1)
        pose, betas = torch.zeros(72), torch.zeros(10)
        if self.pose is not None and self.betas is not None and self.has_smpl[row]:
            pose, betas = torch.from_numpy(self.pose[row]).clone(), torch.from_numpy(self.betas[row]).clone()
            if varied.rotation:
                pose[:3] = rotate_in_image(pose[None, :3], torch.tensor([varied.rotation]))[0]
            pose = flip_pose(pose) if varied.flip else pose
        return {
            "image": torch.from_numpy(image.transpose(2, 0, 1).copy()),
            "keypoints": self._keypoints(row, varied),
            "pose": pose,
            "betas": betas,
            "has_smpl": torch.tensor(0 if self.truth_joints is not None else int(self.has_smpl[row])),
            "pose_3d": self._pose_3d(row, varied),
            "has_pose_3d": torch.tensor(self.has_pose_3d),
            "rotation": torch.tensor(varied.rotation, dtype=torch.float32),
            "flipped": torch.tensor(int(varied.flip)),
            "index": torch.tensor(row + self.offset),
        }

    def _pose_3d(self, row: int, varied: Variation) -> Tensor:
        out = np.zeros((24, 4), np.float32)
        if self.truth_joints is not None:
            out[list(J24_TO_J14), :3], out[list(J24_TO_J14), 3] = self.truth_joints[row], 1.0
        elif self.pose_3d is not None:
            out = turn_points(self.pose_3d[row].astype(np.float32), varied.rotation, varied.flip).astype(np.float32)
        return torch.from_numpy(out)


class Mixture(Dataset[HumanBatch]):
    """Draws the set first, then goes through it: an epoch is as long as the longest set.

    Args:
        parts: set name -> data set.
        seed: of the draws.
    """

    def __init__(self, parts: dict[str, AnnotatedImages], seed: int) -> None:
        self.parts, self.seed = list(parts.values()), seed
        rest = {name: len(part) for name, part in parts.items() if name not in _CONTROLLED}
        free = 1 - sum(share for name, share in _CONTROLLED.items() if name in parts)
        shares = [_CONTROLLED.get(name) or free * rest[name] / sum(rest.values()) for name in parts]
        self.shares = np.array(shares) / sum(shares)

    def __len__(self) -> int:
        """Length of the longest set."""
        return max(len(part) for part in self.parts)

    def __getitem__(self, index: int) -> HumanBatch:
        """A person of a randomly drawn set."""
        epoch = getattr(index, "epoch", 0)
        rng = np.random.default_rng([self.seed, 2, epoch, int(index)])
        part = self.parts[rng.choice(len(self.parts), p=self.shares)]
        return part[EpochIndex(int(index) % len(part), epoch)]


@register_data("humans/images")
class HumanImages(pl.LightningDataModule):
    """SPIN's training mixture and its test sets.

    Args:
        root: folder with ``dataset_extras/`` and ``images/``, see the data card.
        sets: training sets: h36m, mpi-inf-3dhp, lsp, lspet, mpii, coco.
        test_set: 3dpw, h36m-p1, h36m-p2, mpi-inf-3dhp-test, or lsp-test for silhouettes and parts; validation takes
            its first `val_size` rows.
        val_size: people in validation.
        images: set -> folder of its pictures, where that is not ``images/<set>``; ``upi-s1h`` for LSP's segmentations.
        body: folder of gendered body models and regressors for 3DPW's truth; None for the stand-in.
        img_size: side of the crops, pixels.
        batch_size: over all processes.
        flip, rotation, scale, colour: see `zoo.humans.crops.Augmentation`.
        crop_mode: ``"exact"``; ``"legacy"`` for the official weights, see `zoo.humans.crops.legacy_crop`; or
            ``"skimage"``, see `zoo.humans.crops.skimage_crop`.
        seed: of order, mixture and augmentation.
        num_workers: loader processes.
    """

    def __init__(
        self,
        root: Path | None = None,
        sets: tuple[str, ...] = ("h36m", "mpi-inf-3dhp", "lsp", "lspet", "mpii", "coco"),
        test_set: str = "3dpw",
        val_size: int = 1000,
        images: dict[str, str] | None = None,
        body: str | None = None,
        img_size: int = 224,
        batch_size: int = 64,
        flip: float = 0.5,
        rotation: float = 30.0,
        scale: float = 0.25,
        colour: float = 0.4,
        crop_mode: CropMode = "exact",
        seed: int = 0,
        num_workers: int = 8,
    ) -> None:
        super().__init__()
        unknown = [name for name in (*sets, test_set) if name not in SETS]
        if unknown:
            raise ConfigError(f"There is no set '{unknown[0]}'. Known: {', '.join(SETS)}.")
        files = [f"dataset_extras/{SETS[name][0]}.npz" for name in (*sets, test_set)]
        self.root = require_files("human-pose", root, files)
        self.sets, self.test_set, self.val_size, self.body = sets, test_set, val_size, body
        self.images = images or {}
        self.img_size, self.batch_size, self.seed, self.num_workers = img_size, batch_size, seed, num_workers
        self.augmentation, self.crop_mode = Augmentation(flip, rotation, scale, colour), crop_mode

    def _open(self, name: str, training: bool, offset: int = 0, truth: Array | None = None) -> AnnotatedImages:
        file, folder = SETS[name]
        return AnnotatedImages(
            self.root / "dataset_extras" / f"{file}.npz",
            Path(self.images.get(name, self.root / "images" / folder)),
            self.img_size,
            self.augmentation if training else None,
            self.seed,
            offset,
            self.crop_mode,
            truth,
            Path(self.images.get("upi-s1h", self.root / "images" / "upi-s1h" / "data" / "lsp")),
        )

    @cached_property
    def parts(self) -> dict[str, AnnotatedImages]:
        """Training sets; their samples' indices follow one another in the table of fits."""
        parts: dict[str, AnnotatedImages] = {}
        for name in self.sets:
            parts[name] = self._open(name, True, sum(map(len, parts.values())))
        return parts

    @cached_property
    def test(self) -> AnnotatedImages:
        """The test set, with its evaluation joints where they come from gendered bodies."""
        plain = self._open(self.test_set, False)
        if plain.gender is None or plain.pose is None or plain.betas is None:
            return plain
        return self._open(self.test_set, False, truth=gendered_joints(plain, self.body))

    def segmentation(self, index: int) -> Segmentation | None:
        """The labelled picture of a test person, see `AnnotatedImages.segmentation`."""
        return self.test.segmentation(index)

    def training_keypoints(self) -> Tensor:
        """Keypoints (N, 49, 3) of all training sets in their order."""
        return torch.cat([part.unaugmented_keypoints() for part in self.parts.values()])

    def initial_fits(self) -> Tensor | None:
        """``static_fits/<name>_fits.npy`` of all sets, if every one is there."""
        files = [self.root / "static_fits" / f"{SETS[name][0]}_fits.npy" for name in self.sets]
        if not all(file.is_file() for file in files):
            return None
        pairs = zip(files, self.parts.values(), strict=True)
        return torch.cat([load_fits(file, len(part)).table for file, part in pairs])

    def train_dataloader(self) -> DataLoader[HumanBatch]:
        """Augmented crops of the mixture."""
        return train_loader(Mixture(self.parts, self.seed), self.batch_size, self.trainer, self.seed, self.num_workers)

    def val_dataloader(self) -> DataLoader[HumanBatch]:
        """The first rows of the test set."""
        few = torch.utils.data.Subset(self.test, range(min(self.val_size, len(self.test))))
        return eval_loader(few, self.batch_size, self.trainer, self.num_workers)

    def test_dataloader(self) -> DataLoader[HumanBatch]:
        """The test set."""
        return eval_loader(self.test, self.batch_size, self.trainer, self.num_workers)


@torch.no_grad()
def gendered_joints(people: AnnotatedImages, folder: str | None) -> Array:
    """Evaluation joints (N, 14, 3) about the pelvis, of gendered bodies, as 3DPW is evaluated.

    Raises:
        DataError: a person's gender is neither m, f nor n.
    """
    from zoo.humans.body_set import load_body_set

    assert people.gender is not None
    assert people.pose is not None
    assert people.betas is not None
    out = np.zeros((len(people), 14, 3), np.float32)
    letters = np.array([gender[:1].lower() for gender in people.gender.astype(str)])
    unknown = sorted({*letters.tolist()} - GENDER_LETTERS.keys())
    if unknown:
        raise DataError(f"The annotations have the gender '{unknown[0]}', expected one of m, f, n.")
    for letter, gender in GENDER_LETTERS.items():
        rows = np.flatnonzero(letters == letter)
        if len(rows):
            joints = load_body_set(folder, gender).h36m
            pose, betas = torch.from_numpy(people.pose[rows]), torch.from_numpy(people.betas[rows])
            found = joints(pose[:, :3], pose[:, 3:], betas)
            out[rows] = (found - found[:, :1])[:, list(H36M_TO_J14)].numpy()
    return out
