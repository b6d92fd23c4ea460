"""Errors of joints and meshes in millimetres, after the alignments of the literature."""

from __future__ import annotations

from typing import Literal

import roma
import torch
from torch import Tensor
from torchmetrics import Metric

Alignment = Literal["none", "root", "procrustes"]


def procrustes(source: Tensor, target: Tensor) -> Tensor:
    """`source` moved, turned and scaled to lie as near to `target` as can be, (B, N, 3) twice -> (B, N, 3).

    No reflections: the rotation has determinant +1. Source: Umeyama 1991.
    """
    rotation, translation, scale = roma.rigid_points_registration(source, target, compute_scaling=True)
    return scale[:, None, None] * (source @ rotation.transpose(1, 2)) + translation.unsqueeze(1)


def point_errors(
    prediction: Tensor, target: Tensor, alignment: Alignment = "root", root: tuple[int, ...] = (0,)
) -> Tensor:
    """Distances between corresponding points, (B, N, 3) twice -> (B, N), in their unit.

    Args:
        prediction, target: points.
        alignment: ``"root"`` subtracts the mean of the points `root`; ``"procrustes"`` aligns by a similarity.
        root: indices of the root points.
    """
    if alignment == "procrustes":
        prediction = procrustes(prediction, target)
    elif alignment == "root":
        prediction, target = (p - p[:, list(root)].mean(1, keepdim=True) for p in (prediction, target))
    return (prediction - target).norm(dim=-1)


def acceleration_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean difference of second differences over time, (T, N, 3) twice -> scalar, in unit per frame squared."""
    return (prediction.diff(n=2, dim=0) - target.diff(n=2, dim=0)).norm(dim=-1).mean()


class MeanPointError(Metric):
    """Mean over samples of the mean point distance, times `scale`: MPJPE, PA-MPJPE, PVE, PA-PVE.

    Args:
        alignment, root: see `point_errors`.
        scale: 1000 for metres in, millimetres out.
    """

    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(self, alignment: Alignment = "root", root: tuple[int, ...] = (0,), scale: float = 1000.0) -> None:
        super().__init__()
        self.alignment, self.root, self.scale = alignment, root, scale
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds samples, (B, N, 3) twice."""
        errors = point_errors(prediction.float(), target.float(), self.alignment, self.root).mean(1)
        self.total += errors.double().sum() * self.scale
        self.count += len(errors)

    def compute(self) -> Tensor:
        """The mean so far."""
        return (self.total / self.count).float()


class PCK(Metric):
    """Share of points nearer than a threshold, or the mean share over 0 to that threshold (AUC).

    Args:
        threshold: in the points' unit: 0.15 for MPI-INF-3DHP's 150 mm.
        steps: 1 for the share at the threshold; 31 for the area under the curve of 31 thresholds from 0.
        alignment, root: see `point_errors`.
    """

    higher_is_better = True
    hits: Tensor
    count: Tensor

    def __init__(
        self,
        threshold: float = 0.15,
        steps: int = 1,
        alignment: Alignment = "root",
        root: tuple[int, ...] = (0,),
    ) -> None:
        super().__init__()
        self.alignment, self.root = alignment, root
        self.thresholds = torch.linspace(0, threshold, steps) if steps > 1 else torch.tensor([threshold])
        self.add_state("hits", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds samples, (B, N, 3) twice."""
        errors = point_errors(prediction, target, self.alignment, self.root)
        thresholds = self.thresholds.to(errors)
        self.hits += (errors.unsqueeze(-1) < thresholds).double().mean(-1).sum()
        self.count += errors.numel()

    def compute(self) -> Tensor:
        """The share so far, in [0, 1]."""
        return (self.hits / self.count).float()
