"""Photographs of changing exposure; LPIPS of renders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.mri.test_perceptual import files
from tests.splatting.test_training import QUIET, SMALL
from zoo.config import compose
from zoo.data import scene_views
from zoo.engine.run import train
from zoo.errors import WeightsError
from zoo.lpips import LPIPS
from zoo.splatting.exposure import Exposure
from zoo.splatting.metrics import ViewQuality


def test_an_exposure_is_an_affine_map_of_the_colours_of_its_view() -> None:
    exposure = Exposure(4, [1, 2, 3])
    image = torch.rand(2, 5, 6, 3)
    assert torch.equal(exposure(image, torch.tensor([3, 1])), image)
    with torch.no_grad():
        exposure.matrices.add_(torch.randn(4, 3, 4))
    tinted = exposure(image, torch.tensor([3, 1]))
    own = exposure.matrices[3] - exposure.matrices[1:].mean(0) + torch.eye(3, 4)
    torch.testing.assert_close(tinted[0, 2, 4], own[:, :3] @ image[0, 2, 4] + own[:, 3])
    tinted[0].sum().backward()
    assert exposure.matrices.grad is not None
    assert exposure.matrices.grad.abs().amax((1, 2)).gt(0).tolist() == [False, False, False, True]


@pytest.mark.slow
def test_photographs_of_changing_exposure(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning it recovers what the changes cost on the views held out, which keep their exposure."""
    plain = scene_views.view_batch

    def developed(scene: Any, indices: list[int]) -> Any:
        batch = plain(scene, indices)
        for row, index in enumerate(indices):
            if index % 8:
                batch["image"][row] *= (0.6, 1.0, 0.8, 1.2, 0.7, 1.3, 1.4)[index % 7]
        return batch

    monkeypatch.setattr(scene_views, "view_batch", developed)
    psnr = {}
    for learned in (False, True):
        # A view is seen seven times only, so at a high rate.
        options = ["trainer.max_steps=150", "model.budget=3000", "model.lr_exposure=0.03", f"model.exposure={learned}"]
        run = compose("splatting/edgs", [*QUIET, *SMALL, *options, f"run_dir=run{learned}"])
        psnr[learned] = train(run)["metrics"]["test/psnr"]
    assert psnr[True] > psnr[False] + 0.3


@pytest.mark.parametrize("vgg", [False, True])
def test_lpips_of_renders(tmp_path: Path, vgg: bool) -> None:
    lpips = LPIPS(*files(tmp_path, vgg))
    target = torch.rand(2, 32, 40, 3)
    metrics = ViewQuality("test/", lpips)
    metrics.measure(target, target)
    name = "test/lpips_vgg" if vgg else "test/lpips_alex"
    assert metrics.compute()[name] == 0
    metrics.reset()
    image = (target + 0.1 * torch.randn_like(target)).clamp(0, 1)
    metrics.measure(image, target)
    expected = lpips(2 * image.permute(0, 3, 1, 2) - 1, 2 * target.permute(0, 3, 1, 2) - 1).mean()
    torch.testing.assert_close(metrics.compute()[name], expected)
    assert expected > 0
    assert not metrics.state_dict()
    assert set(ViewQuality("val/")) == {"val/psnr", "val/ssim", "val/l1"}


def test_lpips_without_its_weights_says_so() -> None:
    import zoo

    with pytest.raises(WeightsError, match="unavailable: there is no file"):
        zoo.create_model("splatting/edgs", lpips_backbone="none.pth", lpips_heads="none.pth")
