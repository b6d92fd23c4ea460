"""What a test run says of samples: perceptual distances of images, and whether the spread can be trusted."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from zoo.errors import ConfigError
from zoo.mri.diffusion.posterior import Posterior, coverage, crps, dispersion, rank_correlation, sparsification_error
from zoo.mri.operators import center_crop
from zoo.mri.perceptual import LPIPS, gmsd, haarpsi

SINGLE = "one-sample"
STATISTICS = (
    "residual",
    "coverage",
    "rank-correlation",
    "sparsification-error",
    "crps",
    "measured-dispersion",
    "unmeasured-dispersion",
)


class PosteriorScores(nn.Module):
    """Means over the slices of a test set.

    Args:
        lpips_backbone, lpips_heads: see `zoo.lpips.LPIPS`; without them LPIPS is not reported.

    Raises:
        ConfigError: one of them is missing.
        WeightsError: they can't be read.
    """

    def __init__(self, lpips_backbone: str | None = None, lpips_heads: str | None = None) -> None:
        super().__init__()
        if bool(lpips_backbone) != bool(lpips_heads):
            raise ConfigError(
                "LPIPS is unavailable: give both model.lpips_backbone=/path and model.lpips_heads=/path, or neither."
            )
        # Not a part of the module, whose weights are its own.
        self._lpips = [LPIPS(lpips_backbone, lpips_heads)] if lpips_backbone and lpips_heads else []
        self.statistics = nn.ModuleDict({name: MeanMetric() for name in STATISTICS})
        self.perceptual = nn.ModuleDict(
            {f"{method}{name}": MeanMetric() for method in ("", f"{SINGLE}/") for name in ("gmsd", "haarpsi", "lpips")}
        )

    def update(self, posterior: Posterior, target: Tensor, mask: Tensor, crop: tuple[int, int]) -> None:
        """Adds slices.

        Args:
            posterior: of B slices.
            target: (B, H, W) magnitudes in the same units.
            mask: (B, H, W) boolean, what was sampled.
            crop: (height, width) around the centre over which images are compared.
        """

        def cropped(x: Tensor) -> Tensor:
            return center_crop(x, *crop)

        truth, image, magnitudes = cropped(target), cropped(posterior.image), cropped(posterior.samples.abs())
        self._update(self.statistics, "residual", posterior.residual)
        if magnitudes.shape[1] > 1:
            std, error = cropped(posterior.std), (image - truth).abs()
            measured, unmeasured = dispersion(posterior.samples, mask, posterior.paired)
            values = {
                "coverage": coverage(image, std, truth),
                "rank-correlation": rank_correlation(std, error),
                "sparsification-error": sparsification_error(std, error),
                "crps": crps(magnitudes, truth, posterior.paired),
                "measured-dispersion": measured,
                "unmeasured-dispersion": unmeasured,
            }
            for name, value in values.items():
                self._update(self.statistics, name, value)
        for method, prediction in (("", image), (f"{SINGLE}/", magnitudes[:, 0])):
            self._update(self.perceptual, f"{method}gmsd", gmsd(prediction, truth))
            self._update(self.perceptual, f"{method}haarpsi", haarpsi(prediction, truth))
            for network in self._lpips:
                self._update(self.perceptual, f"{method}lpips", network.to(target.device)(prediction, truth))

    @staticmethod
    def _update(metrics: nn.ModuleDict, name: str, value: Tensor) -> None:
        metric = metrics[name]
        assert isinstance(metric, MeanMetric)
        metric.update(value)

    def compute(self) -> Iterator[tuple[str, Tensor]]:
        """(name, value) of what there is, and begins anew."""
        for prefix, metrics in (("posterior/", self.statistics), ("", self.perceptual)):
            for name, metric in metrics.items():
                assert isinstance(metric, MeanMetric)
                if metric.update_called:
                    yield f"{prefix}{name}", torch.as_tensor(metric.compute())
                metric.reset()
