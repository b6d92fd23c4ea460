"""Image quality of magnitude images, as the two benchmarks of the field define it.

The protocols disagree, so their names are part of every number:

- fastMRI (Zbontar et al., arXiv 1811.08839): over a volume, data range = the maximum of the true volume;
- Calgary-Campinas: every slice divided by its own maximum, the mean over the slices of a volume.

Functions take prediction and target (B, H, W), real, in the units of the data. The torchmetrics classes
collect slices of volumes in any order and over any number of processes and average over volumes.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import visual_information_fidelity

WINDOW = 7
K1, K2 = 0.01, 0.03


def ssim(prediction: Tensor, target: Tensor, data_range: Tensor | float) -> Tensor:
    """Structural similarity with a uniform 7 x 7 window and unbiased covariances, without the border.

    Args:
        prediction, target: (B, H, W), at least 7 x 7.
        data_range: (B,) or a scalar.

    Returns:
        (B,) in the dtype of the images.
    """
    if min(target.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs images of at least {WINDOW} x {WINDOW}, not {tuple(target.shape[-2:])}")
    x, y = prediction.unsqueeze(1), target.unsqueeze(1)
    moments = torch.cat((x, y, x * x, y * y, x * y), dim=1)
    mx, my, mxx, myy, mxy = F.avg_pool2d(moments, WINDOW, stride=1).unbind(1)
    unbias = WINDOW**2 / (WINDOW**2 - 1)
    vx, vy, vxy = unbias * (mxx - mx * mx), unbias * (myy - my * my), unbias * (mxy - mx * my)
    span = torch.as_tensor(data_range).to(target).view(-1, 1, 1)
    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    quotient = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return quotient.mean((-2, -1))


def nmse(prediction: Tensor, target: Tensor) -> Tensor:
    """||target - prediction||^2 / ||target||^2 over everything given."""
    return (target - prediction).square().sum() / target.square().sum()


def nmae(prediction: Tensor, target: Tensor) -> Tensor:
    """||target - prediction||_1 / ||target||_1 over everything given."""
    return (target - prediction).abs().sum() / target.abs().sum()


def psnr(prediction: Tensor, target: Tensor, data_range: Tensor | float) -> Tensor:
    """10 log10(range^2 / mean squared error) in dB over everything given."""
    return 10 * torch.log10(data_range**2 / (target - prediction).square().mean())


def snr(prediction: Tensor, target: Tensor) -> Tensor:
    """10 log10(||target||^2 / ||target - prediction||^2) in dB of each slice, (B,)."""
    energy, error = target.square().sum((-2, -1)), (target - prediction).square().sum((-2, -1))
    return 10 * torch.log10(energy / error)


def hfen(prediction: Tensor, target: Tensor, sigma: float = 2.5, size: int = 15) -> Tensor:
    """High-frequency error norm: relative error of the Laplacian of Gaussian, over everything given.

    Source: Ravishankar and Bresler, IEEE TMI 30, 2011.

    Args:
        prediction, target: (B, H, W).
        sigma: of the Gaussian, in pixels.
        size: side of the filter.
    """
    axis = torch.arange(size, dtype=target.dtype, device=target.device) - size // 2
    square = axis[:, None] ** 2 + axis[None] ** 2
    gauss = torch.exp(-square / (2 * sigma**2))
    kernel = gauss / gauss.sum() * (square - 2 * sigma**2) / sigma**4
    kernel = (kernel - kernel.mean()).view(1, 1, size, size)
    error, truth = (F.conv2d(x.unsqueeze(1), kernel, padding=size // 2) for x in (target - prediction, target))
    return torch.linalg.vector_norm(error) / torch.linalg.vector_norm(truth)


class VolumeMetric(Metric):
    """A mean over volumes of what `per_volume` makes of the sums that `per_slice` gives.

    Slices of a volume may come in any order, in any batches and on any process.

    Attributes:
        groups: after `compute`, the mean over the volumes of each group.
        volumes: after `compute`, the metric of each (group, volume).
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.groups: dict[float, float] = {}
        self.volumes: dict[tuple[float, int], float] = {}

    def update(
        self,
        prediction: Tensor,
        target: Tensor,
        volume: Tensor,
        volume_max: Tensor,
        group: Tensor | None = None,
    ) -> None:
        """Adds slices.

        Args:
            prediction, target: (B, H, W), real.
            volume: (B,) integer, which volume a slice belongs to.
            volume_max: (B,) maximum of the target over that whole volume.
            group: (B,) a number that tells runs over the same volumes apart, such as the acceleration.
        """
        sums = self.per_slice(prediction.detach().double(), target.detach().double(), volume_max.double())
        group = torch.zeros_like(volume) if group is None else group
        self.rows.append(torch.cat((torch.stack((group, volume), 1).to(sums), sums), dim=1))

    def compute(self) -> Tensor:
        """The mean over all volumes of all groups; NaN without any."""
        rows = torch.cat(self.rows) if isinstance(self.rows, list) and self.rows else self.rows
        self.volumes, self.groups = {}, {}
        if isinstance(rows, Tensor):
            for group, volume in rows[:, :2].unique(dim=0).tolist():
                mine = (rows[:, 0] == group) & (rows[:, 1] == volume)
                self.volumes[group, int(volume)] = float(self.per_volume(rows[mine, 2:]))
        for group in {group for group, _ in self.volumes}:
            values = [value for (other, _), value in self.volumes.items() if other == group]
            self.groups[group] = sum(values) / len(values)
        values = list(self.volumes.values())
        return torch.tensor(sum(values) / len(values) if values else float("nan"), device=self.device)

    @abstractmethod
    def per_slice(self, prediction: Tensor, target: Tensor, volume_max: Tensor) -> Tensor:
        """(B, n) of float64."""

    def per_volume(self, rows: Tensor) -> Tensor:
        """What the (slices, n) rows of a volume amount to; their mean unless a class says otherwise."""
        return rows.mean()


class VolumePSNR(VolumeMetric):
    """fastMRI's PSNR in dB: mean squared error and maximum over the volume."""

    higher_is_better = True

    def per_slice(self, prediction: Tensor, target: Tensor, volume_max: Tensor) -> Tensor:
        """Sum of squared errors, number of pixels, maximum."""
        error = (prediction - target).square().sum((-2, -1))
        return torch.stack((error, torch.full_like(error, target[0].numel()), volume_max), dim=1)

    def per_volume(self, rows: Tensor) -> Tensor:
        """PSNR."""
        return 10 * torch.log10(rows[:, 2].max() ** 2 * rows[:, 1].sum() / rows[:, 0].sum())


class VolumeNMSE(VolumeMetric):
    """fastMRI's NMSE: squared error over squared norm of the volume."""

    higher_is_better = False

    def per_slice(self, prediction: Tensor, target: Tensor, volume_max: Tensor) -> Tensor:
        """Sum of squared errors, sum of squares."""
        return torch.stack(((prediction - target).square().sum((-2, -1)), target.square().sum((-2, -1))), dim=1)

    def per_volume(self, rows: Tensor) -> Tensor:
        """NMSE."""
        return rows[:, 0].sum() / rows[:, 1].sum()


class VolumeSSIM(VolumeMetric):
    """fastMRI's SSIM: mean over slices with the volume's maximum as data range."""

    higher_is_better = True

    def per_slice(self, prediction: Tensor, target: Tensor, volume_max: Tensor) -> Tensor:
        """SSIM."""
        return ssim(prediction, target, volume_max).unsqueeze(1)


def _by_own_maximum(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Calgary-Campinas scaling: both slices over the target's maximum, and the range of the two."""
    peak = target.amax((-2, -1), keepdim=True)
    x, y = prediction / peak, target / peak
    both = torch.stack((x, y))
    return x, y, both.amax((0, -2, -1)) - both.amin((0, -2, -1))


class CalgarySSIM(VolumeMetric):
    """Calgary-Campinas' SSIM."""

    higher_is_better = True

    def per_slice(self, prediction: Tensor, target: Tensor, volume_max: Tensor) -> Tensor:
        """SSIM."""
        x, y, span = _by_own_maximum(prediction, target)
        return ssim(x, y, span).unsqueeze(1)


class CalgaryPSNR(VolumeMetric):
    """Calgary-Campinas' PSNR in dB."""

    higher_is_better = True

    def per_slice(self, prediction: Tensor, target: Tensor, volume_max: Tensor) -> Tensor:
        """PSNR."""
        x, y, span = _by_own_maximum(prediction, target)
        return (10 * torch.log10(span**2 / (x - y).square().mean((-2, -1)))).unsqueeze(1)


class CalgaryVIF(VolumeMetric):
    """Calgary-Campinas' visual information fidelity, in the pixel domain with noise variance 0.4.

    Images smaller than 41 x 41 have none: NaN.
    """

    higher_is_better = True

    def per_slice(self, prediction: Tensor, target: Tensor, volume_max: Tensor) -> Tensor:
        """VIF-p."""
        x, y, _ = _by_own_maximum(prediction, target)
        if min(x.shape[-2:]) < 41:
            return torch.full((len(x), 1), float("nan"), dtype=x.dtype, device=x.device)
        pairs = zip(x[:, None, None], y[:, None, None], strict=True)
        return torch.stack([visual_information_fidelity(a, b, sigma_n_sq=0.4) for a, b in pairs]).view(-1, 1)


class VolumeHFEN(VolumeMetric):
    """High-frequency error norm of the slices of a volume."""

    higher_is_better = False

    def per_slice(self, prediction: Tensor, target: Tensor, volume_max: Tensor) -> Tensor:
        """HFEN."""
        return torch.stack([hfen(x[None], y[None]) for x, y in zip(prediction, target, strict=True)]).view(-1, 1)


PROTOCOLS: dict[str, dict[str, type[VolumeMetric]]] = {
    "fastmri": {"psnr": VolumePSNR, "ssim": VolumeSSIM, "nmse": VolumeNMSE, "hfen": VolumeHFEN},
    "calgary": {"psnr": CalgaryPSNR, "ssim": CalgarySSIM, "vif": CalgaryVIF, "hfen": VolumeHFEN},
}
