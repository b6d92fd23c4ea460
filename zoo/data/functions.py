"""Points of a known function, for regression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypedDict

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.data.loading import full_batch_loader
from zoo.registry import register_data

FunctionName = Literal["exp-sin", "bessel", "product"]


class PointBatch(TypedDict):
    """Points and values.

    Keys:
        x: (B, d) float32 in [-1, 1].
        y: (B, 1) float32, the function's values.
    """

    x: Tensor
    y: Tensor


# The first examples of the KAN literature (Liu et al., "KAN", 2024, arXiv 2404.19756, sections 2 and 3).
FUNCTIONS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "exp-sin": (2, lambda x: torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:] ** 2)),
    "bessel": (1, lambda x: torch.special.bessel_j0(20 * x)),
    "product": (2, lambda x: x[:, :1] * x[:, 1:]),
}


@register_data("kat/function")
class FunctionPoints(pl.LightningDataModule):
    """Values of a function at uniformly random points of [-1, 1]^d.

    Args:
        function: ``"exp-sin"``, exp(sin(pi x) + y^2); ``"bessel"``, J_0(20 x); ``"product"``, x y.
        train_points: all of them make each training batch.
        test_points: for validation and for test, each its own.
        steps_per_epoch: optimiser steps that count as an epoch.
        seed: of the training points; those of validation and test are fixed.
    """

    def __init__(
        self,
        function: FunctionName = "exp-sin",
        train_points: int = 1000,
        test_points: int = 10_000,
        steps_per_epoch: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.function, self.seed = function, seed
        self.train_points, self.test_points, self.steps_per_epoch = train_points, test_points, steps_per_epoch

    def _draw(self, count: int, seed: int) -> PointBatch:
        dim, evaluate = FUNCTIONS[self.function]
        x = 2 * torch.rand(count, dim, generator=torch.Generator().manual_seed(seed)) - 1
        return {"x": x, "y": evaluate(x)}

    def train_dataloader(self) -> DataLoader[PointBatch]:
        """All training points, again and again."""
        batch = self._draw(self.train_points, self.seed)
        return full_batch_loader(batch, self.steps_per_epoch)

    def val_dataloader(self) -> DataLoader[PointBatch]:
        """Validation points, in one batch."""
        return full_batch_loader(self._draw(self.test_points, 2**31))

    def test_dataloader(self) -> DataLoader[PointBatch]:
        """Test points, in one batch."""
        return full_batch_loader(self._draw(self.test_points, 2**31 + 1))
