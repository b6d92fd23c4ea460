"""The LightningModule that the family's networks share: multi-coil reconstruction of magnitude images."""

from __future__ import annotations

import csv
import io
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import MeanMetric

from zoo.data.kspace import KSpaceBatch
from zoo.errors import ConfigError
from zoo.files import write_text
from zoo.module import ZooModule
from zoo.mri import figures, losses, schedule
from zoo.mri.baselines import BaselineName, tuned
from zoo.mri.fourier import Norm, ifft2
from zoo.mri.metrics import PROTOCOLS, VolumeMetric
from zoo.mri.operators import center_crop, reduce, rss
from zoo.mri.pipeline import Preparation
from zoo.mri.prediction import OUTPUTS, Undersampled, predict_volume, require_format
from zoo.mri.refinement import Refinement
from zoo.mri.sensitivity import calibration_maps
from zoo.ops.precision import full_precision

Loss = Literal["published", "relative", "complex"]
Protocol = Literal["fastmri", "calgary"]


class Reconstruction(TypedDict):
    """What a test or predict step gives, in the units of the data.

    Keys:
        image: (B, H, W) the network's.
        baselines: the same of each classical method, by name.
    """

    image: Tensor
    baselines: dict[str, Tensor]


class Reconstructor(ZooModule):
    """Training and evaluation of a network that reconstructs slices.

    Args:
        network: the network; ``network.fft_centered`` and ``network.fft_norm`` say its convention.
        lr: peak learning rate of Adam.
        schedule, warmup_steps, decay_every, decay: see `zoo.mri.schedule.factor`.
        loss: "published" is the mean absolute error plus 1 - SSIM with the batch's maximum as range;
            "relative" is 0.3 times the mean absolute error relative to the target's mean plus 1 - SSIM with
            each slice's maximum, which does not depend on the data's scale; "complex" adds to it, of the last step
            alone, the relative L2 error of the complex image that the coil maps of the data combine, so that k-space
            is learned and not the magnitude only.
        protocol: of the metrics, see `zoo.mri.metrics`.
        baselines: classical methods to test beside the network.
        real_slice: also test on the shipped real brain slice: predict some of its acquired samples from the
            others.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float,
        schedule: schedule.Schedule,
        warmup_steps: int,
        decay_every: int,
        decay: float,
        loss: Loss,
        protocol: Protocol,
        baselines: tuple[BaselineName, ...],
        real_slice: bool,
    ) -> None:
        super().__init__()
        self.network = network
        self.lr, self.schedule, self.warmup_steps = lr, schedule, warmup_steps
        self.decay_every, self.decay = decay_every, decay
        self.loss, self.protocol, self.baselines, self.real_slice = loss, protocol, baselines, real_slice
        if real_slice and not self.centered:
            raise ConfigError("model.real_slice needs a centred Fourier transform (model.fft_centered=true).")
        self.train_loss = MeanMetric()
        self.val_metrics = _metrics(protocol, ("psnr", "ssim"))
        names = tuple(PROTOCOLS[protocol])
        self.test_metrics = nn.ModuleDict({method: _metrics(protocol, names) for method in ("network", *baselines)})

    @property
    def centered(self) -> bool:
        """Whether images have their origin at index n // 2."""
        return bool(self.network.fft_centered)

    @property
    def norm(self) -> Norm:
        """Normalisation of the Fourier transform."""
        norm: Norm = self.network.fft_norm  # type: ignore[assignment]
        return norm

    def setup(self, stage: str) -> None:
        """Compares the convention of the data with that of the network.

        Raises:
            ConfigError: they differ: targets and reconstructions would not lie on each other.
        """
        data = getattr(getattr(self.trainer, "datamodule", None), "preparation", None)
        if isinstance(data, Preparation) and (data.centered, data.norm) != (self.centered, self.norm):
            raise ConfigError(
                f"The data need model.fft_centered={str(data.centered).lower()} and model.fft_norm={data.norm}, "
                f"and the network has {str(self.centered).lower()} and {self.norm}."
            )

    @abstractmethod
    def images(self, batch: KSpaceBatch) -> list[Tensor]:
        """Magnitude images (B, H, W) in scaled units, after each step that the loss sees; the last one counts."""

    @abstractmethod
    def kspace(self, batch: KSpaceBatch) -> Tensor:
        """What the network says of all of k-space, (B, C, H, W) complex, in scaled units."""

    def magnitude(self, kspace: Tensor, batch: KSpaceBatch) -> Tensor:
        """Root of the sum of squares, with what the scanner never measures set to 0."""
        return rss(ifft2(torch.where(batch["padding"], 0, kspace), self.centered, self.norm))

    def forward(self, batch: KSpaceBatch) -> Tensor:
        """Magnitude images (B, H, W) in scaled units."""
        return self.images(batch)[-1]

    def training_step(self, batch: KSpaceBatch, batch_idx: int) -> Tensor:
        """`objective`, logged."""
        loss = self.objective(batch)
        self.train_loss(loss.detach(), weight=len(batch["target"]))
        self.log("train/loss", self.train_loss, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def objective(self, batch: KSpaceBatch) -> Tensor:
        """The loss, mean over the images that count."""
        target = _cropped(batch["target"], batch)
        if self.loss == "complex":
            kspace = torch.where(batch["padding"], 0, self.kspace(batch))
            combined = reduce(ifft2(kspace, self.centered, self.norm), batch["sensitivity_map"])
            difference = losses.relative_l2(_cropped(combined, batch), _cropped(batch["image"], batch))
            return self._loss(_cropped(self.magnitude(kspace, batch), batch), target) + difference
        parts = [self._loss(_cropped(image, batch), target) * weight for image, weight in self._weighted(batch)]
        return torch.stack(parts).sum()

    def _weighted(self, batch: KSpaceBatch) -> list[tuple[Tensor, float]]:
        images = self.images(batch)
        return [(image, 1 / len(images)) for image in images]

    def _loss(self, image: Tensor, target: Tensor) -> Tensor:
        if self.loss == "published":
            return (image - target).abs().mean() + losses.ssim_loss(image, target)
        return 0.3 * losses.relative_l1(image, target) + losses.ssim_loss(image, target, target.amax((-2, -1)))

    def validation_step(self, batch: KSpaceBatch, batch_idx: int) -> None:
        """Metrics of the protocol."""
        self._update(self.val_metrics, self(batch), batch)

    def on_validation_epoch_end(self) -> None:
        """Logs the mean over volumes and rates."""
        for name, metric in _volume_metrics(self.val_metrics):
            self.log(f"val/{name}", metric.compute(), prog_bar=True)
            metric.reset()

    def test_step(self, batch: KSpaceBatch, batch_idx: int) -> Reconstruction:
        """Metrics of the network and of the baselines."""
        images = {"network": self(batch), **self.baseline_images(batch)}
        for method, image in images.items():
            self._update(self.test_metrics[method], image, batch)
        scale = batch["scaling_factor"].view(-1, 1, 1)
        scaled = {method: image * scale for method, image in images.items()}
        return {"image": scaled.pop("network"), "baselines": scaled}

    def predict_step(self, batch: KSpaceBatch, batch_idx: int) -> Reconstruction:
        """Images."""
        return {"image": self(batch) * batch["scaling_factor"].view(-1, 1, 1), "baselines": {}}

    @torch.no_grad()
    def baseline_images(self, batch: KSpaceBatch) -> dict[str, Tensor]:
        """Magnitude images of the classical methods in scaled units, each at its tuned weight for the rate."""
        if not self.baselines:
            return {}
        maps = calibration_maps(batch["masked_kspace"], batch["acs_mask"], self.centered)
        images: dict[str, list[Tensor]] = {name: [] for name in self.baselines}
        with full_precision(maps):  # their iterations diverge in half precision
            for index, acceleration in enumerate(batch["acceleration"].tolist()):
                one = slice(index, index + 1)
                for name in self.baselines:
                    method = tuned(name, acceleration)
                    image = method(batch["masked_kspace"][one], batch["sampling_mask"][one], maps[one], self.centered)
                    images[name].append(image.abs())
        return {name: torch.cat(parts) for name, parts in images.items()}

    def _update(self, metrics: nn.Module, image: Tensor, batch: KSpaceBatch) -> None:
        if self.protocol == "fastmri" and batch["volume_max"].isnan().any():
            raise ConfigError("These data do not tell the maximum of a volume: set model.protocol=calgary.")
        scale = batch["scaling_factor"].view(-1, 1, 1)
        prediction, target = (_cropped(x * scale, batch) for x in (image, batch["target"]))
        for _, metric in _volume_metrics(metrics):
            metric.update(prediction, target, batch["volume"], batch["volume_max"], batch["acceleration"])

    def on_test_epoch_end(self) -> None:
        """Logs every method at every rate, and writes the metrics of every volume to test_volumes.csv."""
        rows: dict[tuple[str, float, int], dict[str, float]] = {}
        for method, metrics in self.test_metrics.items():
            for name, metric in _volume_metrics(metrics):
                mean = metric.compute()
                if method == "network":
                    self.log(f"test/{name}", mean)
                for rate, value in sorted(metric.groups.items()):
                    label = "" if method == "network" else f"{method}/"
                    self.log(f"test/{rate:g}x/{label}{name}", value)
                for (rate, volume), value in metric.volumes.items():
                    rows.setdefault((method, rate, volume), {})[name] = value
                metric.reset()
        if self.real_slice:
            from zoo.mri.real_slice import evaluate

            for method, error in evaluate(self).errors.items():
                self.log(f"test/real-slice/{method}/held-out-nmse", error)
        if self.trainer.is_global_zero:
            write_text(Path(self.trainer.default_root_dir) / "test_volumes.csv", self._table(rows))

    def _table(self, rows: dict[tuple[str, float, int], dict[str, float]]) -> str:
        volumes = getattr(self.trainer.datamodule, "volumes", {}).get("test", [])  # type: ignore[attr-defined]
        text = io.StringIO()
        names = list(PROTOCOLS[self.protocol])
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["protocol", "method", "acceleration", "volume", *names])
        for (method, rate, volume), values in rows.items():
            label = volumes[volume].name if volume < len(volumes) else volume
            writer.writerow([self.protocol, method, rate, label, *(values[name] for name in names)])
        return text.getvalue()

    def configure_optimizers(self) -> Any:
        """Adam with a schedule per step."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        total = int(self.trainer.estimated_stepping_batches)

        def factor(step: int) -> float:
            return schedule.factor(step, self.schedule, self.warmup_steps, total, self.decay_every, self.decay)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def figures(self, batch: KSpaceBatch, output: Reconstruction) -> dict[str, Figure]:
        """Reconstructions side by side with their errors; the shipped real slice."""
        scale = batch["scaling_factor"].view(-1, 1, 1)
        images = {**output["baselines"], "network": output["image"]}
        drawn = {
            "reconstruction": figures.side_by_side(
                _cropped(batch["target"] * scale, batch),
                {name: _cropped(image, batch) for name, image in images.items()},
                batch["sampling_mask"][:, 0],
                [f"{name}\n{rate:g}x" for name, rate in zip(batch["filename"], batch["acceleration"], strict=True)],
            )
        }
        if self.real_slice:
            from zoo.mri.real_slice import draw, evaluate

            drawn["real_slice"] = draw(evaluate(self))
        return drawn

    def predict_file(
        self,
        input: Path,
        output: Path,
        layout: str | None = None,
        key: str = "kspace",
        acceleration: float | None = None,
        center_fraction: float = 0.08,
        margin: int = 0,
        refine_steps: int | None = None,
    ) -> dict[str, Any]:
        """Reconstructs a file of k-space.

        Args:
            input: .h5 of fastMRI, Calgary-Campinas or another layout, or .npy.
            output: .h5 or .npy with the images (slices, H, W) in the units of the input, .nii or .nii.gz, or
                .png with the slices side by side.
            layout: which axis is what, see `zoo.mri.volumes.Layout`; by default what the file looks like.
            key: name of the array in an .h5 file.
            acceleration: undersample a fully sampled input at this rate first, with equispaced lines; by
                default the input is taken to be undersampled, and its mask is found in it.
            center_fraction: of those lines.
            margin: slices to leave out at either end.
            refine_steps: for data unlike those of the training, improve each slice by what is known of it alone,
                see `zoo.mri.refinement`, with so many steps of training on its samples; 200 is a good number, 0
                leaves the network's weights as they are, and by default its reconstruction is not improved.

        Raises:
            DataError: the input can't be read, is not undersampled, or the output's format is unknown.
        """
        preparation = Preparation(centered=self.centered, norm=self.norm)
        if refine_steps is not None and refine_steps < 0:
            raise ConfigError(f"refine_steps should be 0 or more, not {refine_steps}.")
        refinement = None if refine_steps is None else Refinement(refine_steps)
        require_format(output, OUTPUTS)
        scan = Undersampled.open(input, layout, key, acceleration, center_fraction, margin)
        return predict_volume(self, preparation, scan, output, refinement)


def require_pairs(channels: Sequence[int], dilations: Sequence[int]) -> None:
    """Refuses convolutions of a state initialiser of which some have no dilation, or none at all.

    Raises:
        ConfigError: says how many there are of each.
    """
    if len(channels) != len(dilations) or not channels or min(*channels, *dilations) < 1:
        raise ConfigError(
            f"model.initializer_channels {list(channels)} and model.initializer_dilations {list(dilations)} should be "
            "as many positive numbers, at least one of each."
        )


def _metrics(protocol: Protocol, names: tuple[str, ...]) -> nn.ModuleDict:
    return nn.ModuleDict({name: PROTOCOLS[protocol][name]() for name in names})


def _volume_metrics(metrics: nn.Module) -> Iterator[tuple[str, VolumeMetric]]:
    for name, metric in metrics.named_children():
        assert isinstance(metric, VolumeMetric)
        yield name, metric


def _cropped(image: Tensor, batch: KSpaceBatch) -> Tensor:
    """The part of (B, H, W) over which images are compared; all slices of a batch have the same."""
    height, width = batch["crop"][0].tolist()
    return center_crop(image, height, width)
