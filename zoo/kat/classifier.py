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
from zoo.errors import ConfigError, DataError
from zoo.files import parsing, write_text
from zoo.kat import figures
from zoo.kat.checkpoints import adapt
from zoo.kat.layers import Rational
from zoo.kat.mixing import mix
from zoo.kat.transformer import VisionTransformer
from zoo.module import ZooModule


class Prediction(TypedDict):
    """What a test or predict step gives: logits (B, num_classes)."""

    logits: Tensor


class ImageClassifier(ZooModule):
    """Cross-entropy training of a `VisionTransformer` with AdamW, linear warm-up and a cosine to zero.

    A subclass saves its hyper-parameters, among them those below, and then calls `_build`.

    Hyper-parameters:
        num_classes: outputs of the network.
        pixel_mean, pixel_std: per channel (or one for all), of images in [0, 1].
        lr: peak learning rate.
        weight_decay: of matrices and kernels; biases, norms, class token and positions are not decayed.
        coef_weight_decay: of the rationals' coefficients, where there are any.
        warmup_epochs: linear from 1 % of `lr`.
        label_smoothing: of the training targets.
        mixup, cutmix: see `zoo.kat.mixing.mix`; 0 for off.
        layer_decay: the learning rate of each block is that of the next times this (1: all alike), as when a
            pretrained model is fine-tuned.
    """

    network: VisionTransformer
    pixel_mean: Tensor
    pixel_std: Tensor

    def _build(self, network: type[VisionTransformer], **arguments: Any) -> None:
        """Makes the network and what depends on the hyper-parameters.

        Raises:
            ConfigError: numbers of which no network can be made.
        """
        try:
            self.network = network(**arguments)
            self.val_metrics = _metrics(self.hparams["num_classes"]).clone(prefix="val/")
            self.test_metrics = _metrics(self.hparams["num_classes"]).clone(prefix="test/")
        except ValueError as error:
            raise ConfigError(f"{self.zoo_name} can't be built: {error}.") from None
        for name in ("pixel_mean", "pixel_std"):
            self.register_buffer(name, torch.tensor(self.hparams[name]).view(1, -1, 1, 1), persistent=False)
        self.train_loss = MeanMetric()

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> logits (B, num_classes)."""
        return self.network((image - self.pixel_mean) / self.pixel_std)

    def adapt_weights(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Resizes positions for another image size; another number of classes gets a fresh head."""
        return adapt(tensors, self.network)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Cross-entropy with label smoothing, mixup and CutMix."""
        own = self.hparams
        image, target = mix(batch["image"], batch["label"], own["num_classes"], own["mixup"], own["cutmix"])
        loss = F.cross_entropy(self(image), target, label_smoothing=own["label_smoothing"])
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
        """AdamW with its groups of weight decay and learning rate, and the schedule per step."""
        own = self.hparams
        rational = {id(p) for m in self.network.modules() if isinstance(m, Rational) for p in m.parameters()}
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, parameter in self.network.named_parameters():
            if id(parameter) in rational:
                decay = own["coef_weight_decay"]
            elif parameter.ndim <= 1 or name in ("cls_token", "pos_embed"):
                decay = 0.0
            else:
                decay = own["weight_decay"]
            groups.setdefault((decay, own["lr"] * self._layer_scale(name)), []).append(parameter)
        optimizer = torch.optim.AdamW(
            [{"params": params, "weight_decay": decay, "lr": lr} for (decay, lr), params in groups.items()],
            lr=own["lr"],
        )
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = int(own["warmup_epochs"] * steps / max(self.trainer.max_epochs or 1, 1))

        def factor(step: int) -> float:
            if step < warmup:
                return max(step / warmup, 0.01)
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _layer_scale(self, name: str) -> float:
        """`layer_decay` to the number of layers above the parameter's: the head is the top."""
        depth = len(self.network.blocks)
        if name.startswith("blocks."):
            above = depth - int(name.split(".")[1])
        else:
            above = depth + 1 if name.startswith(("patch_embed", "cls_token", "pos_embed")) else 0
        return float(self.hparams["layer_decay"] ** above)

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
    from PIL import Image

    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    if path.suffix == ".npy":
        with parsing(path, "a .npy file of images"):
            array = np.load(path, allow_pickle=False)
        if array.ndim == 3:
            array = array[:, None]
        if array.ndim != 4 or array.shape[1:] != (channels, size, size) or len(array) == 0:
            raise DataError(f"{path} holds an array {array.shape}; the model takes (N, {channels}, {size}, {size}).")
        images = torch.from_numpy(array / 255.0 if array.dtype == np.uint8 else array.astype(np.float64)).float()
        if not images.isfinite().all():
            raise DataError(f"{path} holds NaN or infinity.")
        return images
    with parsing(path, "an image"), Image.open(path) as picture:
        picture = picture.convert("L" if channels == 1 else "RGB").resize((size, size), Image.Resampling.BICUBIC)
        pixels = np.asarray(picture, dtype=np.float32) / 255.0
    return torch.from_numpy(pixels).view(size, size, channels).permute(2, 0, 1).unsqueeze(0)
