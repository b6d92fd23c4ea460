"""GR-KAN regression as a LightningModule."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import MeanMetric, MeanSquaredError, MetricCollection

from zoo.data.functions import PointBatch
from zoo.errors import ConfigError, DataError
from zoo.files import atomic_path, parsing
from zoo.kat import figures
from zoo.kat.gr_kan.network import Activation, GRKANNetwork
from zoo.kat.layers import Rational
from zoo.module import ZooModule
from zoo.registry import register_model


class Approximation(TypedDict):
    """What a test or predict step gives: y (B, outputs)."""

    y: Tensor


@register_model("kat/gr-kan")
class GRKANRegressor(ZooModule):
    """Least-squares regression with Adam and a cosine to zero.

    Args:
        features, activation, act_init, num_groups: see `zoo.kat.gr_kan.network.GRKANNetwork`.
        lr: learning rate at the start.

    Raises:
        ConfigError: numbers of which no network can be made.
    """

    network: GRKANNetwork

    def __init__(
        self,
        features: tuple[int, ...] = (2, 32, 32, 1),
        activation: Activation = "rational",
        act_init: str = "swish",
        num_groups: int = 8,
        lr: float = 1e-2,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        try:
            self.network = GRKANNetwork(features, activation, act_init, num_groups)
        except ValueError as error:
            raise ConfigError(f"kat/gr-kan can't be built: {error}.") from None
        self.train_loss = MeanMetric()
        self.val_metrics = MetricCollection({"rmse": MeanSquaredError(squared=False)}, prefix="val/")
        self.test_metrics = MetricCollection({"rmse": MeanSquaredError(squared=False)}, prefix="test/")

    def forward(self, x: Tensor) -> Tensor:
        """(B, features[0]) -> (B, features[-1])."""
        return self.network(x)

    def training_step(self, batch: PointBatch, batch_idx: int) -> Tensor:
        """Mean squared error."""
        loss = F.mse_loss(self(batch["x"]), batch["y"])
        self.train_loss(loss.detach(), len(batch["x"]))
        self.log("train/loss", self.train_loss, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: PointBatch, batch_idx: int) -> None:
        """RMSE."""
        self.val_metrics.update(self(batch["x"]), batch["y"])
        self.log_dict(self.val_metrics, prog_bar=True)

    def test_step(self, batch: PointBatch, batch_idx: int) -> Approximation:
        """RMSE; the values are for the figures."""
        y = self(batch["x"])
        self.test_metrics.update(y, batch["y"])
        self.log_dict(self.test_metrics)
        return {"y": y}

    def predict_step(self, batch: PointBatch, batch_idx: int) -> Approximation:
        """Values."""
        return {"y": self(batch["x"])}

    def configure_optimizers(self) -> Any:
        """Adam with a cosine per step."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def figures(self, batch: PointBatch, output: Approximation) -> dict[str, Figure]:
        """Truth, approximation and error; the learned rationals."""
        drawn = {"fit": figures.function_fit(batch["x"], batch["y"], output["y"])}
        if any(isinstance(module, Rational) for module in self.network.modules()):
            drawn["rationals"] = figures.rationals(self.network, batch["x"])
        return drawn

    def predict_file(self, input: Path, output: Path) -> dict[str, Any]:
        """Evaluates the function at given points.

        Args:
            input: .npy array (N, features[0]).
            output: .npy array (N, features[-1]).

        Raises:
            DataError: the input can't be read or has the wrong shape, or the output is no .npy file.
        """
        dim = self.network.layers[0].in_features
        if output.suffix != ".npy":
            raise DataError(f"The output {output} should end in .npy.")
        with parsing(input, "a .npy file of points"):
            x = np.asarray(np.load(input, allow_pickle=False), np.float64)
        if x.ndim != 2 or x.shape[1] != dim or not np.isfinite(x).all():
            raise DataError(f"{input} should hold finite points (N, {dim}), not an array {x.shape}.")
        with torch.no_grad():
            y = self(torch.from_numpy(x).to(self.device, torch.float32)).cpu().numpy()
        with atomic_path(output) as path:
            np.save(path, y)
        return {"points": len(x), "written": output}
