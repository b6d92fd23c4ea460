"""What the rest of the package expects of a model's LightningModule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from matplotlib.animation import Animation
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import Metric

from zoo.viz.space import Space


class ZooModule(pl.LightningModule):
    """A LightningModule of the registry: an ordinary one, with a plain network and pictures.

    Its constructor arguments are plain values (they come from YAML and go into weights files) and are kept by
    ``self.save_hyperparameters()``. A model that works on files has a method
    ``predict_file(self, input: Path, output: Path, ...) -> dict[str, Any]``, which ``python -m zoo.predict``
    calls and whose result it prints.

    Attributes:
        zoo_name: registry name, set by ``@register_model``.
        network: the plain torch network; its state dict is what weights files hold.
    """

    zoo_name: ClassVar[str]
    network: nn.Module

    def adapt_weights(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fits a state dict from which training is to start, of another image size say, to this network."""
        return tensors

    def log_seen(self, metrics: Mapping[str, Metric], prefix: str = "") -> None:
        """Logs at the end of an epoch those metrics that had any data, and resets them all.

        For metrics of some kinds of examples, of which a process may see none: logged in the step, the metric of one
        kind would be averaged with that of another kind which the other process happened to meet.

        Args:
            metrics: by name; each process updates those it has data for.
            prefix: of their names, such as ``"test/"``.
        """
        updated = torch.tensor([metric.update_called for metric in metrics.values()], device=self.device)
        anywhere = self.all_gather(updated).view(-1, len(metrics)).any(0)  # type: ignore[union-attr]
        for seen, (name, metric) in zip(anywhere.tolist(), metrics.items(), strict=True):
            if seen:
                self.log(f"{prefix}{name}", metric.compute())
            metric.reset()

    def exportable(self) -> nn.Module:
        """What ``tools.export`` makes a program of: a module that a test calls as a whole, by default the network."""
        return self.network

    def figures(self, batch: Any, output: Any) -> dict[str, Figure]:
        """Pictures of a test batch and what ``test_step`` gave for it, by name."""
        return {}

    def space(self, batch: Any, output: Any) -> Space | None:
        """What to turn about of a test batch and what ``test_step`` gave for it, if anything; for ``tools.gallery``."""
        return None

    def animations(self, batch: Any, output: Any) -> dict[str, Animation]:
        """Films of a test batch and what ``test_step`` gave for it, by name; ``tools.visualize`` writes them."""
        return {}
