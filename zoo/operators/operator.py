"""The LightningModule that the family's models share: training, roll-out, metrics, pictures, files.

A model works on a representation of fields in which its output is complete: the kept modes of T1, a coarse grid
that holds all modes of a band-limited model, or the field itself. A roll-out stays in the representation: fields
are transformed once at its beginning and once at its end. The training loss is taken there too. Since the maps
to it are orthogonal projections (up to a constant), what the representation can't hold of the target is known
beforehand, and the loss equals the one between fields (Parseval).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from matplotlib.animation import Animation
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import (
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanMetric,
    MetricCollection,
    SymmetricMeanAbsolutePercentageError,
)

from zoo.data.fields import FieldBatch
from zoo.errors import ConfigError
from zoo.module import ZooModule
from zoo.operators import figures, files
from zoo.operators.metrics import PDEBenchErrors, PeakSignalToNoise, normalised_mse, relative_l2, spectral_distance
from zoo.operators.transforms import resample

Loss = Literal["relative_l2", "mse"]
Schedule = Literal["one-cycle", "step", "restarts"]
IntegrationOrder = Literal[0, 1, 2]

_EPSILON = 1e-8
_QUOTED_STEPS = (1, 3, 5, 10)


class RolledOut(TypedDict):
    """What a test or predict step gives: prediction (B, S, C_out, *space)."""

    prediction: Tensor


class FieldOperator(ZooModule):
    """Learns the map from given fields to the field that follows.

    A subclass saves its hyper-parameters, among them those below, and then calls `_build` with its network.

    Hyper-parameters:
        in_channels, out_channels: of the fields. For roll-outs the input is in_channels / out_channels frames.
        lr: peak learning rate of AdamW.
        weight_decay: of all parameters.
        schedule: ``"one-cycle"``: 10 % warm-up, then a cosine to zero; ``"step"``: times `schedule_factor` every
            `schedule_period` epochs; ``"restarts"``: a cosine to zero every `schedule_period` steps.
        schedule_period, schedule_factor: of the schedule.
        loss: ``"relative_l2"``, mean over samples of the relative L2 error of all predicted steps together; or
            ``"mse"``.
        integration_order: the next state is the network's output (0), the last state plus it (1), or twice the
            last minus the one before plus it (2).
        noise: standard deviation of noise added to the input in training, in units of the normalised fields.
        input_mean, input_std, target_mean, target_std: per channel (or one for all), of the fields; the network
            sees and gives normalised ones. For roll-outs input and target should share theirs.
    """

    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def _build(self, network: nn.Module, dims: int, grid: int | None = None) -> None:
        """Takes the network.

        Args:
            network: the operator on the representation, (B, in_channels, ...) -> (B, out_channels, ...).
            dims: spatial axes.
            grid: points per side of a coarser grid to work on, for periodic fields whose model keeps few modes;
                None for the fields' own.
        """
        own = self.hparams
        self.network, self.dims, self.grid = network, dims, grid
        self.in_channels, self.out_channels = own["in_channels"], own["out_channels"]
        order = own["integration_order"]
        if order and self.in_channels < order * self.out_channels:
            raise ConfigError(
                f"model.integration_order={order} needs the last {order} states as input, but there are "
                f"{self.in_channels} input channels for {self.out_channels} output channels."
            )
        if grid is not None and grid < 1:
            raise ConfigError(f"model.grid should be a number of points, not {grid}.")
        if own["noise"] < 0 or not all(std > 0 for std in (*own["input_std"], *own["target_std"])):
            raise ConfigError(
                f"model.noise ({own['noise']}) should not be negative, model.input_std ({own['input_std']}) and "
                f"model.target_std ({own['target_std']}) should be positive."
            )
        for name, channels in (
            ("input_mean", self.in_channels),
            ("input_std", self.in_channels),
            ("target_mean", self.out_channels),
            ("target_std", self.out_channels),
        ):
            if len(own[name]) not in (1, channels):
                raise ConfigError(f"model.{name} should have 1 or {channels} values, not {len(own[name])}.")
            tensor = torch.tensor(own[name]).expand(channels).clone()
            self.register_buffer(name, tensor.view(-1, *[1] * dims), persistent=False)
        self.train_loss = MeanMetric()
        self.val_metrics = MetricCollection({"relative_l2": MeanMetric()}, prefix="val/")
        names = ("relative_l2", "nmse", "spectral_distance", "floor", "final_relative_l2")
        self.test_metrics = MetricCollection(
            {name: MeanMetric() for name in names}, prefix="test/", compute_groups=False
        )
        self.test_pointwise = MetricCollection(
            {
                "mae": MeanAbsoluteError(),
                "mape": MeanAbsolutePercentageError(),
                "smape": SymmetricMeanAbsolutePercentageError(),
                "psnr": PeakSignalToNoise(),
            },
            prefix="test/",
            compute_groups=False,
        )
        # Of roll-outs, after the steps that the paper of Transform Once quotes.
        self.test_psnr_after = MetricCollection(
            {f"psnr_after_{step}": PeakSignalToNoise() for step in _QUOTED_STEPS}, prefix="test/", compute_groups=False
        )
        self.test_pdebench = PDEBenchErrors()

    # The representation; T1 has others.

    def encode(self, field: Tensor) -> Tensor:
        """Fields (..., *space) in the representation (..., *inner)."""
        return field if self.grid is None else resample(field, (self.grid,) * self.dims)

    def decode(self, z: Tensor, space: Sequence[int]) -> Tensor:
        """`encode` backwards."""
        return z if self.grid is None else resample(z, space)

    def energy_ratio(self, space: Sequence[int]) -> float:
        """Sum of squares of a field over that of its representation, for a field that the latter holds."""
        return 1.0 if self.grid is None else math.prod(space) / self.grid**self.dims

    def apply_network(self, z: Tensor, space: Sequence[int]) -> Tensor:
        """The network, representation to representation."""
        output: Tensor = self.network(z)
        return output

    # Roll-out and loss.

    def exportable(self) -> nn.Module:
        """Fields to the states that follow: some networks of the family see but a representation of fields."""
        return self

    def forward(self, x: Tensor, steps: int = 1) -> Tensor:
        """Fields (B, in_channels, *space) -> the states that follow, (B, steps, out_channels, *space).

        Raises:
            ConfigError: fields of another number of channels or axes.
        """
        self._check_fields("in_channels", x, 1)
        space = x.shape[2:]
        z = self.encode((x - self.input_mean) / self.input_std)
        states = self.roll_out(z, steps, space)
        return self.decode(states, space) * self.target_std + self.target_mean

    def roll_out(self, z: Tensor, steps: int, space: Sequence[int]) -> Tensor:
        """`steps` applications in the representation: (B, in_channels, *inner) -> (B, steps, out_channels, *inner).

        Raises:
            ConfigError: the output can't be fed back as input.
        """
        if steps > 1 and self.in_channels % self.out_channels:
            raise ConfigError(
                f"A model of {self.in_channels} input and {self.out_channels} output channels can't be rolled out."
            )
        states = []
        for _ in range(steps):
            state = self.apply_network(z, space)
            last, before = self._last_states(z)
            if self.hparams["integration_order"] == 1:
                state = last + state
            elif self.hparams["integration_order"] == 2:
                state = 2 * last - before + state
            states.append(state)
            z = torch.cat((z[:, self.out_channels :], state), 1)
        return torch.stack(states, 1)

    def _check_fields(self, name: str, fields: Tensor, axis: int) -> None:
        """Fields whose channels lie along `axis`, before those of space; fewer would be repeated silently."""
        channels = self.hparams[name]
        if fields.ndim != axis + 1 + self.dims or fields.shape[axis] != channels:
            raise ConfigError(
                f"model.{name}={channels}, for {self.dims} spatial axes, does not fit fields "
                f"{tuple(fields.shape[axis:])} (channels, points along each axis)."
            )

    def normalise(self, batch: FieldBatch) -> tuple[Tensor, Tensor]:
        """Input (B, C_in, *space) and target (B, S, C_out, *space) in the network's units.

        Raises:
            ConfigError: fields of another number of channels or axes.
        """
        self._check_fields("in_channels", batch["input"], 1)
        self._check_fields("out_channels", batch["target"], 2)
        given = (batch["input"] - self.input_mean.to(batch["input"])) / self.input_std.to(batch["input"])
        target = (batch["target"] - self.target_mean.to(batch["target"])) / self.target_std.to(batch["target"])
        return given, target

    def increment(self, given: Tensor, state: Tensor) -> Tensor:
        """What the network has to give so that `state` (B, C_out, ...) follows `given` (B, C_in, ...)."""
        last, before = self._last_states(given)
        if self.hparams["integration_order"] == 1:
            return state - last
        if self.hparams["integration_order"] == 2:
            return state - 2 * last + before
        return state

    def _last_states(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z[:, -self.out_channels :], z[:, -2 * self.out_channels : -self.out_channels]

    def objective(self, batch: FieldBatch) -> Tensor:
        """The training loss of a batch, taken in the representation."""
        given, target = self.normalise(batch)
        space = given.shape[2:]
        z = self.encode(given)
        if self.hparams["noise"]:
            z = z + self.hparams["noise"] * torch.randn_like(z)
        ratio = self.energy_ratio(space)
        with torch.no_grad():  # what the representation loses of the target
            wanted = self.encode(target)
            lost = (_energy(target * self.target_std) - ratio * _energy(wanted * self.target_std)).clamp_min(0)
        predicted = self.roll_out(z, target.shape[1], space)
        error = ratio * _energy((predicted - wanted) * self.target_std) + lost
        if self.hparams["loss"] == "mse":
            return error.mean() / target[0].numel()
        return (error.sqrt() / (batch["target"].flatten(1).norm(dim=1) + _EPSILON)).mean()

    def training_step(self, batch: FieldBatch, batch_idx: int) -> Tensor:
        """The objective."""
        loss = self.objective(batch)
        self.train_loss(loss.detach(), weight=len(batch["input"]))
        self.log("train/loss", self.train_loss, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: FieldBatch, batch_idx: int) -> None:
        """Relative L2 error of the roll-out."""
        self._check_fields("out_channels", batch["target"], 2)
        prediction = self(batch["input"], batch["target"].shape[1])
        self.val_metrics["relative_l2"].update(relative_l2(prediction, batch["target"]))
        self.log_dict(dict(self.val_metrics.items()), prog_bar=True, batch_size=len(prediction))

    def test_step(self, batch: FieldBatch, batch_idx: int) -> RolledOut:
        """All metrics of the roll-out; the prediction is for the figures.

        ``floor`` is the relative L2 error of the targets' projections: no prediction of this model can be better.
        """
        target = batch["target"]
        self._check_fields("out_channels", target, 2)
        prediction = self(batch["input"], target.shape[1])
        projection = self.decode(self.encode(target), target.shape[3:])
        values = {
            "relative_l2": relative_l2(prediction, target),
            "nmse": normalised_mse(prediction, target),
            "spectral_distance": spectral_distance(prediction, target, self.dims),
            "floor": relative_l2(projection, target),
            "final_relative_l2": relative_l2(prediction[:, -1], target[:, -1]),
        }
        for name, value in values.items():
            self.test_metrics[name].update(value)
        self.test_pointwise.update(prediction.contiguous(), target.contiguous())
        for metrics in (self.test_metrics, self.test_pointwise):
            self.log_dict(dict(metrics.items()), batch_size=len(target))
        if target.shape[1] > 1:
            for step in _QUOTED_STEPS:
                if step <= target.shape[1]:
                    metric = self.test_psnr_after[f"psnr_after_{step}"]
                    metric.update(prediction[:, step - 1], target[:, step - 1])
                    self.log(f"test/psnr_after_{step}", metric, batch_size=len(target))
        self.test_pdebench.update(prediction, target)
        return {"prediction": prediction}

    def on_test_epoch_end(self) -> None:
        """The measures that do not average over batches."""
        self.log_dict({f"test/{name}": value for name, value in self.test_pdebench.compute().items()})
        self.test_pdebench.reset()

    def predict_step(self, batch: FieldBatch, batch_idx: int) -> RolledOut:
        """The roll-out."""
        return {"prediction": self(batch["input"], batch["target"].shape[1])}

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule."""
        own, parameters = self.hparams, self.network.parameters()
        optimizer = torch.optim.AdamW(parameters, own["lr"], weight_decay=own["weight_decay"])
        scheduler: torch.optim.lr_scheduler.LRScheduler
        interval = "epoch" if own["schedule"] == "step" else "step"
        if own["schedule"] == "one-cycle":
            steps = int(self.trainer.estimated_stepping_batches)
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, own["lr"], max(steps, 2), pct_start=0.1)
        elif own["schedule"] == "step":
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, own["schedule_period"], own["schedule_factor"])
        else:
            scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, own["schedule_period"])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}

    # Pictures and files.

    def figures(self, batch: FieldBatch, output: RolledOut) -> dict[str, Figure]:
        """Film strip, energy spectra, error over time, and what the representation can hold."""
        given, target, prediction = (
            x.detach().float().cpu() for x in (batch["input"], batch["target"], output["prediction"])
        )
        return {
            "film_strip": figures.film_strip(given, target, prediction),
            "spectra": figures.spectra(target, prediction, self.dims),
            "errors": figures.errors(target, prediction),
        }

    def animations(self, batch: FieldBatch, output: RolledOut) -> dict[str, Animation]:
        """The roll-out as a film, where there is one."""
        target, prediction = batch["target"], output["prediction"]
        if target.shape[1] == 1 or self.dims != 2:
            return {}
        return {"roll_out": figures.animation(target.detach().cpu(), prediction.detach().cpu())}

    def predict_file(self, input: Path, output: Path, steps: int = 1) -> dict[str, Any]:
        """Applies the operator to fields in a file.

        Args:
            input: .npy array (N, in_channels, *space); the channel axis may be left out where there is one
                channel, and N too. Periodic fields may have any resolution.
            output: .npy array (N, steps, out_channels, *space).
            steps: states to predict, each from the ones before.

        Raises:
            DataError: the input can't be read or has the wrong shape, or the output is no .npy file.
        """
        fields = files.read_fields(input, self.in_channels, self.dims)
        with torch.no_grad():
            prediction = torch.cat([self(part.to(self.device), steps).cpu() for part in fields.split(32)])
        files.write_fields(output, prediction)
        return {"fields": len(fields), "shape": tuple(prediction.shape), "written": output}


def _energy(x: Tensor) -> Tensor:
    """Sum of squares over all axes but the first."""
    return x.flatten(1).square().sum(1)
