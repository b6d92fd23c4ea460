"""Metrics, losses and schedules against the official numbers, scikit-image and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.mri.diffusion.golden import load as load_diffusion
from tests.mri.golden import error, load, meta
from zoo.mri import losses, metrics, schedule
from zoo.mri.metrics import PROTOCOLS, VolumeMetric

VALUES = meta("metrics")["values"]


@pytest.fixture
def volume() -> tuple[Tensor, Tensor]:
    golden = load("metrics")
    return golden["in/pred"], golden["in/gt"]


def fed(metric: VolumeMetric, prediction: Tensor, target: Tensor, chunks: int = 1, volume: int = 0) -> VolumeMetric:
    """The metric after the slices of one volume, in several batches."""
    peak = target.max()
    for x, y in zip(prediction.chunk(chunks), target.chunk(chunks), strict=True):
        count = len(x)
        metric.update(x, y, torch.full((count,), volume), peak.expand(count))
    return metric


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("name", ["ssim", "psnr", "nmse"])
def test_fastmri_protocol(volume: tuple[Tensor, Tensor], name: str, chunks: int) -> None:
    metric = fed(PROTOCOLS["fastmri"][name](), *volume, chunks)
    for official in ("fastmri", "direct_fastmri"):
        assert metric.compute().item() == pytest.approx(VALUES[f"{official}_{name}"], rel=1e-5)


@pytest.mark.parametrize("name", ["ssim", "psnr"])
def test_calgary_protocol(volume: tuple[Tensor, Tensor], name: str) -> None:
    metric = fed(PROTOCOLS["calgary"][name](), *volume)
    assert metric.compute().item() == pytest.approx(VALUES[f"calgary_{name}"], rel=1e-5)


def test_other_numbers(volume: tuple[Tensor, Tensor]) -> None:
    assert metrics.nmae(*volume).item() == pytest.approx(VALUES["nmae_loss"], rel=1e-5)
    assert metrics.nmse(*volume).item() == pytest.approx(VALUES["nmse_loss"], rel=1e-5)
    assert metrics.snr(*volume).mean().item() == pytest.approx(VALUES["snr_db_mean_over_slices"], rel=1e-5)
    prediction, target = volume
    mean_square = 10 * np.log10(float(target.max()) ** 2 / VALUES["fastmri_mse"])
    assert metrics.psnr(prediction, target, target.max()).item() == pytest.approx(mean_square, rel=1e-5)
    # DIRECT's loss takes the prediction's maximum; so does this with that for its range.
    slices = [metrics.psnr(x, y, x.max()) for x, y in zip(prediction, target, strict=True)]
    official = VALUES["direct_batch_psnr_uses_prediction_max"]
    assert torch.stack(slices).mean().item() == pytest.approx(official, rel=1e-5)


def test_ssim_loss_and_its_gradient(volume: tuple[Tensor, Tensor]) -> None:
    prediction, target = volume
    prediction.requires_grad_()
    loss = losses.ssim_loss(prediction, target)
    loss.backward()
    assert loss.item() == pytest.approx(VALUES["ssim_loss_global_range"], rel=1e-5)
    assert prediction.grad is not None
    assert error(prediction.grad.unsqueeze(1), load("metrics")["gin/ssim_loss_wrt_pred"]) < 1e-4


def test_ssim_loss_with_a_range_for_each_image() -> None:
    golden = load_diffusion("ssim_masks")
    prediction = golden["pred"][:, 0].requires_grad_()
    loss = losses.ssim_loss(prediction, golden["target"][:, 0], golden["data_range"])
    loss.backward()
    assert loss.item() == pytest.approx(float(golden["ssim_loss"]), abs=1e-5)
    assert prediction.grad is not None
    assert error(prediction.grad, golden["grad_pred"][:, 0]) < 1e-4


def test_ranges_of_a_volume_and_of_its_slices() -> None:
    golden = load_diffusion("stats_metrics")
    x, y = golden["vol.pred"], golden["vol.gt"]
    for name, key in {"psnr": "psnr", "ssim": "ssim_volume_max", "nmse": "nmse"}.items():
        assert fed(PROTOCOLS["fastmri"][name](), x, y).compute().item() == pytest.approx(
            float(golden[f"vol.{key}"]), rel=1e-5
        )
    by_slice = metrics.ssim(x, y, y.amax((1, 2))).mean()
    assert by_slice.item() == pytest.approx(float(golden["vol.ssim_slice_max"]), rel=1e-5)
    values = [float(metrics.psnr(a, b, b.max())) for a, b in zip(x, y, strict=True)]
    assert np.mean(values) == pytest.approx(float(golden["vol.psnr_slice_mean"]), rel=1e-5)


@given(height=st.integers(7, 12), width=st.integers(7, 12), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_ssim_by_its_definition(height: int, width: int, seed: int) -> None:
    x, y = np.random.default_rng(seed).random((2, height, width))
    c1, c2 = (0.01 * 0.9) ** 2, (0.03 * 0.9) ** 2
    windows = [
        (x[i : i + 7, j : j + 7].ravel(), y[i : i + 7, j : j + 7].ravel())
        for i in range(height - 6)
        for j in range(width - 6)
    ]
    expected = []
    for a, b in windows:
        (vx, vxy), (_, vy) = np.cov(a, b)
        means = a.mean(), b.mean()
        luminance = (2 * means[0] * means[1] + c1) / (means[0] ** 2 + means[1] ** 2 + c1)
        expected.append(luminance * (2 * vxy + c2) / (vx + vy + c2))
    ours = metrics.ssim(torch.from_numpy(x)[None], torch.from_numpy(y)[None], torch.tensor(0.9))
    assert ours.item() == pytest.approx(np.mean(expected), abs=1e-9)


def test_slices_may_come_in_any_order_and_volumes_count_equally() -> None:
    """A volume of one slice weighs as much as one of nine; groups have means of their own."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 10, 12, 12, generator=generator)
    number = torch.tensor([0] * 9 + [1])
    peak = torch.stack([y[:9].max(), y[9].max()])[number]
    expected = (
        fed(metrics.VolumePSNR(), x[:9], y[:9]).compute() + fed(metrics.VolumePSNR(), x[9:], y[9:]).compute()
    ) / 2
    metric = metrics.VolumePSNR()
    order = torch.randperm(10, generator=generator)
    for index in order.split(3):
        metric.update(x[index], y[index], number[index], peak[index])
    assert metric.compute().item() == pytest.approx(expected.item())
    assert len(metric.volumes) == 2
    other = metrics.VolumePSNR()
    for group in (4.0, 8.0):
        other.update(x + group, y, number, peak, torch.full((10,), group))
    mean = other.compute().item()
    assert other.groups.keys() == {4.0, 8.0}
    assert mean == pytest.approx(sum(other.groups.values()) / 2)
    assert other.groups[4.0] > other.groups[8.0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_perfection_and_scale(protocol: str, volume: tuple[Tensor, Tensor]) -> None:
    """A perfect image has the best value, and units do not matter."""
    prediction, target = (x.repeat(1, 2, 2) for x in volume)
    for kind in PROTOCOLS[protocol].values():
        perfect, real, scaled = (
            fed(kind(), *pair).compute().item()
            for pair in ((target, target), (prediction, target), (prediction * 1e5, target * 1e5))
        )
        assert scaled == pytest.approx(real, rel=1e-4)
        assert perfect > real if kind.higher_is_better else perfect < real


def test_hfen_is_a_relative_error_that_overlooks_slow_changes() -> None:
    target = torch.rand(1, 60, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert metrics.hfen(target * 0, target).item() == pytest.approx(1)
    assert metrics.hfen(1.5 * target, target).item() == pytest.approx(0.5)
    row = torch.arange(60, dtype=torch.float64)[:, None].expand(60, 60)
    slow, fast = (torch.sin(2 * np.pi * row / period)[None] for period in (60, 12))
    assert metrics.hfen(target + slow, target) < 0.3 * metrics.hfen(target + fast, target)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_without_any_volume_there_is_no_number() -> None:
    assert torch.isnan(metrics.VolumeSSIM().compute())


def test_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 7 x 7"):
        metrics.ssim(torch.zeros(1, 6, 9), torch.zeros(1, 6, 9), 1.0)


def test_a_range_may_be_a_number(volume: tuple[Tensor, Tensor]) -> None:
    for metric in (metrics.ssim, metrics.psnr):
        assert torch.equal(metric(*volume, 2.0), metric(*volume, torch.tensor(2.0)))


def test_relative_l1_does_not_depend_on_the_unit(volume: tuple[Tensor, Tensor]) -> None:
    x, y = volume
    assert losses.relative_l1(x * 3e-4, y * 3e-4).item() == pytest.approx(losses.relative_l1(x, y).item(), rel=1e-5)
    assert losses.relative_l1(1.5 * y, y).item() == pytest.approx(0.5, rel=1e-5)


def test_relative_l2_sees_phase() -> None:
    x = torch.randn(2, 5, 4, dtype=torch.complex64)
    assert losses.relative_l2(0.3 * x, x).item() == pytest.approx(0.7, rel=1e-5)
    assert losses.relative_l2(1j * x, x).item() == pytest.approx(2**0.5, rel=1e-5)
    assert losses.relative_l2(0 * x, 0 * x) == 0


class TestSchedules:
    def test_warm_up_and_steps(self) -> None:
        """The official values; their milestones are 20 and 40."""
        expected = load("data_misc")["lr/values"]
        ours = [5e-4 * schedule.factor(step, "step", 10, 60, decay_every=20) for step in range(60)]
        assert np.allclose(ours, expected.numpy(), rtol=1e-6)

    def test_cosine_begins_at_its_peak_and_ends_at_zero(self) -> None:
        values = [schedule.factor(step, "cosine", 10, 100) for step in range(101)]
        assert 0 < values[0] <= 0.1
        assert max(values) == values[10] == 1
        assert values[-1] == pytest.approx(0, abs=1e-12)
        assert values[10:] == sorted(values[10:], reverse=True)

    def test_inverse_square_root(self) -> None:
        values = [schedule.factor(step, "inverse-sqrt", 10, 100) for step in range(101)]
        assert values[10] == 1
        assert values[40] == pytest.approx(0.5)
