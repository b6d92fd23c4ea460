"""The LightningModule that KAT and its rival ViT share: an image classifier."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from zoo.data.images import ImageBatch
from zoo.errors import DataError
from zoo.files import write_text
from zoo.kat import figures
from zoo.kat.layers import Rational
from zoo.kat.transformer import VisionTransformer
from zoo.module import ZooModule


class Prediction(TypedDict):
    """What a test or predict step gives: logits (B, num_classes)."""

    logits: Tensor


class ImageClassifier(ZooModule):
    """Cross-entropy training of a `VisionTransformer` with AdamW, linear warm-up and a cosine to zero.

    Args:
        network: the transformer.
        num_classes: its outputs.
        pixel_mean, pixel_std: per channel (or one for all), of images in [0, 1].
        lr: peak learning rate.
        weight_decay: of matrices and kernels; biases, norms, class token and positions are not decayed.
        coef_weight_decay: of the rationals' coefficients.
        warmup_epochs: linear from 1 % of `lr`.
        label_smoothing: of the training targets.
    """

    network: VisionTransformer
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        network: VisionTransformer,
        num_classes: int,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        lr: float,
        weight_decay: float,
        coef_weight_decay: float,
        warmup_epochs: float,
        label_smoothing: float,
    ) -> None:
        super().__init__()
        self.network = network
        self.lr, self.weight_decay, self.coef_weight_decay = lr, weight_decay, coef_weight_decay
        self.warmup_epochs, self.label_smoothing = warmup_epochs, label_smoothing
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(1, -1, 1, 1), persistent=False)
        self.train_loss = MeanMetric()
        self.val_metrics = _metrics(num_classes).clone(prefix="val/")
        self.test_metrics = _metrics(num_classes).clone(prefix="test/")

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> logits (B, num_classes)."""
        return self.network((image - self.pixel_mean) / self.pixel_std)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Cross-entropy with label smoothing."""
        loss = F.cross_entropy(self(batch["image"]), batch["label"], label_smoothing=self.label_smoothing)
        self.train_loss(loss.detach(), weight=len(batch["label"]))
        self.log("train/loss", self.train_loss, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Accuracy and loss."""
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: ImageBatch, batch_idx: int) -> Prediction:
        """Accuracy and loss; the logits are for the figures."""
        return {"logits": self._evaluate(batch, self.test_metrics)}

    def _evaluate(self, batch: ImageBatch, metrics: MetricCollection) -> Tensor:
        logits = self(batch["image"])
        losses = F.cross_entropy(logits, batch["label"], reduction="none")
        for name, metric in metrics.items(keep_base=True):
            if name == "loss":
                metric.update(losses)
            else:
                metric.update(logits, batch["label"])
        self.log_dict(dict(metrics.items()), prog_bar=True, batch_size=len(batch["label"]))
        return logits

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> Prediction:
        """Logits."""
        return {"logits": self(batch["image"])}

    def configure_optimizers(self) -> Any:
        """AdamW in three groups, and its schedule per step."""
        decayed, kept, coefficients = [], [], []
        rational = {id(p) for m in self.network.modules() if isinstance(m, Rational) for p in m.parameters()}
        for name, parameter in self.network.named_parameters():
            if id(parameter) in rational:
                coefficients.append(parameter)
            elif parameter.ndim <= 1 or name in ("cls_token", "pos_embed"):
                kept.append(parameter)
            else:
                decayed.append(parameter)
        optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": self.weight_decay},
                {"params": kept, "weight_decay": 0.0},
                {"params": coefficients, "weight_decay": self.coef_weight_decay},
            ],
            lr=self.lr,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = int(self.warmup_epochs * steps / max(self.trainer.max_epochs or 1, 1))

        def factor(step: int) -> float:
            if step < warmup:
                return max(step / warmup, 0.01)
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def figures(self, batch: ImageBatch, output: Prediction) -> dict[str, Figure]:
        """Confusion matrix, attention maps, and where there are any the learned rational functions."""
        image = ((batch["image"] - self.pixel_mean) / self.pixel_std).to(self.dtype)
        drawn = {
            "confusion_matrix": figures.confusion_matrix(output["logits"].argmax(-1), batch["label"]),
            "attention": figures.attention(batch["image"], self.network.attention_maps(image[:6]), batch["label"]),
        }
        if any(isinstance(module, Rational) for module in self.network.modules()):
            drawn["rationals"] = figures.rationals(self.network, image)
        return drawn

    def predict_file(self, input: Path, output: Path) -> dict[str, Any]:
        """Classifies pictures.

        Args:
            input: an image file (PNG, JPEG, ...), or a .npy array (N, H, W) or (N, C, H, W), floats in [0, 1]
                or uint8.
            output: .json or .csv with the class and the probabilities of each picture.

        Raises:
            DataError: the input can't be read or has the wrong shape.
        """
        if output.suffix not in (".json", ".csv"):
            raise DataError(f"The output {output} should end in .json or .csv.")
        patch = self.network.patch_embed
        images = _read_images(input, patch.proj.in_channels, patch.img_size)
        with torch.no_grad():
            probabilities = self(images.to(self.device)).softmax(-1).cpu()
        classes = probabilities.argmax(-1)
        if output.suffix == ".json":
            rows = [{"class": int(c), "probabilities": p.tolist()} for c, p in zip(classes, probabilities, strict=True)]
            write_text(output, json.dumps(rows, indent=2) + "\n")
        else:
            header = "class," + ",".join(f"p{k}" for k in range(probabilities.shape[1]))
            rows_text = [
                f"{int(c)}," + ",".join(f"{v:.6g}" for v in p) for c, p in zip(classes, probabilities, strict=True)
            ]
            write_text(output, "\n".join([header, *rows_text]) + "\n")
        return {"class": classes.tolist()[:20], "written": output}


def _metrics(num_classes: int) -> MetricCollection:
    metrics: dict[str, Any] = {"loss": MeanMetric(), "accuracy": MulticlassAccuracy(num_classes, average="micro")}
    if num_classes > 10:
        metrics["accuracy_top5"] = MulticlassAccuracy(num_classes, average="micro", top_k=5)
    return MetricCollection(metrics, compute_groups=False)


def _read_images(path: Path, channels: int, size: int) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    if path.suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{path} is no readable .npy file ({error}).") from None
        if array.ndim == 3:
            array = array[:, None]
        if array.ndim != 4 or array.shape[1:] != (channels, size, size) or len(array) == 0:
            raise DataError(f"{path} holds an array {array.shape}; the model takes (N, {channels}, {size}, {size}).")
        images = torch.from_numpy(array / 255.0 if array.dtype == np.uint8 else array.astype(np.float64)).float()
        if not images.isfinite().all():
            raise DataError(f"{path} holds NaN or infinity.")
        return images
    try:
        with Image.open(path) as picture:
            picture = picture.convert("L" if channels == 1 else "RGB").resize((size, size), Image.Resampling.BICUBIC)
            pixels = np.asarray(picture, dtype=np.float32) / 255.0
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise DataError(f"{path} is no readable image ({error}).") from None
    return torch.from_numpy(pixels).view(size, size, channels).permute(2, 0, 1).unsqueeze(0)
