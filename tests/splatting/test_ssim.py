"""Structural similarity and its gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.goldens import load, relative_error
from zoo.ops.ssim import ssim
from zoo.splatting.metrics import psnr, total_variation


@pytest.mark.parametrize("implementation", ["compiled", "reference"])
def test_losses_are_the_official_ones(implementation: Any) -> None:
    golden = load("splatting-edgs", "losses")
    render = golden["render"].permute(1, 2, 0).unsqueeze(0).requires_grad_()
    target = golden["target"].permute(1, 2, 0).unsqueeze(0)
    value, l1 = ssim(render, target, implementation=implementation), (render - target).abs().mean()
    loss = 0.8 * l1 + 0.2 * (1 - value)
    loss.backward()
    assert value.item() == pytest.approx(golden["ssim"].item(), rel=1e-5)
    assert l1.item() == pytest.approx(golden["l1"].item(), rel=1e-5)
    assert loss.item() == pytest.approx(golden["loss"].item(), rel=1e-5)
    assert psnr(render, target).item() == pytest.approx(golden["psnr"].item(), rel=1e-5)
    assert total_variation(render).item() == pytest.approx(golden["tv"].item(), rel=1e-5)
    grad = render.grad
    assert grad is not None
    assert relative_error(grad[0].permute(2, 0, 1), golden["grad_render"]) < 5e-5


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2), st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.integers(0, 10**6))
def test_kernel_agrees_with_the_reference(batch: int, height: int, width: int, channels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    image, target = torch.rand(2, batch, height, width, channels, generator=generator)
    image.requires_grad_()
    (fast_grad,) = torch.autograd.grad(fast := ssim(image, target, implementation="compiled"), image)
    (grad,) = torch.autograd.grad(slow := ssim(image, target, implementation="reference"), image)
    assert fast.item() == pytest.approx(slow.item(), abs=2e-5)
    assert relative_error(fast_grad, grad) < 1e-3


def test_equal_images_have_one_and_no_gradient() -> None:
    image = torch.rand(1, 30, 20, 3).requires_grad_()
    value = ssim(image, image.detach().clone())
    value.backward()
    assert value.item() == pytest.approx(1.0, abs=1e-5)
    assert image.grad is not None
    assert image.grad.abs().max() < 1e-4


def test_shapes_must_match() -> None:
    with pytest.raises(ValueError, match="two images"):
        ssim(torch.rand(1, 4, 4, 3), torch.rand(1, 4, 5, 3))
