"""The dictionary of fits: for each training image the best body found so far."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DataError
from zoo.files import atomic_path, parsing
from zoo.humans.joints import flip_pose
from zoo.humans.rotations import rotate_in_image, rotmat_to_rotvec, rotvec_to_rotmat


class FitsDictionary:
    """Poses and shapes by image, as they are without augmentation.

    Args:
        table: (N, 82) float32: pose 72, betas 10.
    """

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def __len__(self) -> int:
        """Number of images."""
        return len(self.table)

    def get(self, index: Tensor, rotation: Tensor, flipped: Tensor) -> tuple[Tensor, Tensor]:
        """Fits as the augmented images show them.

        Args:
            index: (B,) of the images.
            rotation: (B,) degrees by which the image was turned.
            flipped: (B,) whether it was mirrored after that.

        Returns:
            Pose (B, 72) and betas (B, 10).
        """
        rows = self.table[index.cpu()].to(rotation.device)
        pose = torch.cat([rotate_in_image(rows[:, :3], rotation), rows[:, 3:72]], 1)
        pose = torch.where(flipped.bool().unsqueeze(1), flip_pose(pose), pose)
        return pose, rows[:, 72:]

    def set(
        self, index: Tensor, rotation: Tensor, flipped: Tensor, update: Tensor, pose: Tensor, betas: Tensor
    ) -> None:
        """Stores fits to augmented images where `update` (B,) holds; the augmentation is undone first."""
        pose = torch.where(flipped.bool().unsqueeze(1), flip_pose(pose), pose)
        pose = torch.cat([rotate_in_image(pose[:, :3], -rotation), pose[:, 3:]], 1)
        pose = rotmat_to_rotvec(rotvec_to_rotmat(pose.unflatten(1, (-1, 3)))).flatten(1)  # angles of at most pi
        rows = torch.cat([pose, betas], 1).detach().cpu().to(self.table.dtype)
        chosen = update.bool().cpu()
        self.table[index.cpu()[chosen]] = rows[chosen]

    def save(self, path: str | Path) -> None:
        """Writes the table as a .npy file, in the official layout."""
        with atomic_path(path) as temporary:
            np.save(temporary, self.table.numpy())


def load_fits(path: str | Path, count: int) -> FitsDictionary:
    """Official fits: ``<dataset>_fits.npy`` (N, 82), or npz with pose, shape and validity.

    Raises:
        DataError: absent, damaged, not of `count` images, or with rows that are not finite.
    """
    with parsing(path, "fits"):
        content = np.load(path, allow_pickle=False)
        table = (
            content
            if isinstance(content, np.ndarray)
            else np.concatenate([content["pose"], content["betas" if "betas" in content else "shape"]], 1)
        )
    if table.shape != (count, 82):
        raise DataError(f"{path} has the shape {table.shape}, expected {(count, 82)} for this training set.")
    table = np.array(table, np.float32)
    if not np.isfinite(table).all():
        raise DataError(f"{path} holds NaN or infinity: no better fit could ever take such a row's place.")
    return FitsDictionary(torch.from_numpy(table))
