"""Data consistency against closed forms and dense solves, and its invariances."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.goldens import section
from tests.mri.diffusion.golden import load
from zoo.mri.diffusion.consistency import (
    Consistency,
    Measurement,
    error_variance,
    estimate_noise,
    gradient,
    hard,
    noisy_space,
    proximal,
    soft,
)
from zoo.mri.diffusion.process import Level, predicted_noise
from zoo.mri.diffusion.samplers import DDIM
from zoo.mri.fourier import fft2, ifft2
from zoo.mri.masks import MaskFunction
from zoo.mri.operators import SenseOperator, from_channels, normalize_maps, rss, to_channels
from zoo.mri.phantom import CONTRASTS, generate


def measured(kspace: Tensor, mask: Tensor, maps: Tensor | None = None, noise: float = 0.0) -> Measurement:
    """Of one sample: k-space (C, H, W) or (H, W)."""
    kspace = kspace if kspace.ndim == 3 else kspace[None]
    maps = torch.ones_like(kspace) if maps is None else maps
    return Measurement(SenseOperator(maps[None], mask.bool()[None, None]), kspace[None], torch.tensor([noise]))


@pytest.mark.parametrize("size", ["even", "odd"])
@pytest.mark.parametrize("pattern", ["m1d", "m2d"])
def test_single_coil(size: str, pattern: str) -> None:
    golden = load("dc_single")
    case = section(golden, f"{size}.{pattern}.")
    x = golden[f"{size}.x"][None]
    data = measured(case["y"], case["mask"])
    assert (fft2(x)[0] - golden[f"{size}.fft2c_x"]).abs().max() < 2e-6
    assert (data.operator.adjoint(data.kspace)[0] - case["zero_filled"]).abs().max() < 2e-6
    assert (hard(x, data)[0] - case["hard"]).abs().max() < 4e-6
    for strength in (0.1, 1.0, 7.5):
        assert (soft(x, data, strength)[0] - case[f"soft_lam{strength}"]).abs().max() < 4e-6
        prox = proximal(x, data, 1 / strength, iterations=8)
        assert (prox[0] - case[f"soft_lam{strength}"]).abs().max() < 4e-6
    for rate in (0.3, 1.0):
        assert (gradient(x, data, rate)[0] - case[f"grad_eta{rate}"]).abs().max() < 4e-6


@pytest.mark.parametrize("size", ["even", "odd"])
@pytest.mark.parametrize("pattern", ["m1d", "m2d"])
def test_a_step_with_consistency_in_both_forms(size: str, pattern: str) -> None:
    case = section(load("dc_single"), f"{size}.{pattern}.")
    step = section(case, "step.")
    before, after = step["ab"].tolist()
    level = Level(0, before, after)
    state, noise = step["xt"][None], step["eps"][None]
    data = measured(case["y"], case["mask"])
    x0 = (state - math.sqrt(1 - before) * noise) / math.sqrt(before)
    corrected = hard(x0, data)
    assert (corrected[0] - step["x0_dc"]).abs().max() < 1e-5
    moved = state + math.sqrt(before) * (corrected - x0)
    for begin, name in ((moved, "keep_eps"), (state, "rederived_eps")):
        result = DDIM().step(to_channels(begin), to_channels(corrected), level, lambda: state)
        assert (from_channels(result)[0] - step[name]).abs().max() < 1e-5
    torch.testing.assert_close(predicted_noise(corrected, moved, before), noise, rtol=1e-4, atol=1e-5)
    replaced = noisy_space(state, step["z"][None], data, before)
    assert (replaced[0] - step["noisy_space"]).abs().max() < 1e-5


@pytest.mark.parametrize("maps", ["raw", "norm"])
def test_many_coils(maps: str) -> None:
    golden = load("dc_multi")
    case = section(golden, f"{maps}.")
    x = golden["x"][None]
    data = measured(case["y"], golden["mask"], case["S"])
    operator = data.operator
    assert (operator.adjoint(data.kspace)[0] - case["AHy"]).abs().max() < 1e-5
    assert (operator.normal(x)[0] - case["AHAx"]).abs().max() < 1e-5
    assert (rss(ifft2(data.kspace))[0] - case["rss"]).abs().max() < 1e-5
    eigenvector = x
    for _ in range(200):
        eigenvector = operator.normal(eigenvector / eigenvector.norm())
    assert float(eigenvector.norm()) == pytest.approx(float(case["L"]), rel=1e-2)
    for rate in (0.5, 1.0):
        assert (gradient(x, data, rate)[0] - case[f"grad_eta{rate}"]).abs().max() < 1e-5
    for weight in (0.05, 1.0):
        for iterations in (1, 2, 3, 5, 12):
            result = proximal(x, data, weight, iterations)[0]
            assert (result - case[f"prox_mu{weight}.cg{iterations}"]).abs().max() < 1e-5
            rest = operator.adjoint(data.kspace) + weight * x - operator.normal(result[None]) - weight * result
            assert float(rest.norm()) == pytest.approx(float(case[f"prox_mu{weight}.cg_resnorm"][iterations]), abs=1e-5)
        exact = proximal(x, data, weight, 60)[0]
        assert (exact - case[f"prox_mu{weight}.exact"]).abs().max() < 1e-5


def problem(seed: int, coils: int, height: int, width: int, rate: float) -> tuple[Tensor, Measurement]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.complex128)

    mask = torch.rand(1, 1, height, width, generator=generator) < rate
    maps = normalize_maps(draw(1, coils, height, width)) if coils > 1 else torch.ones(1, 1, height, width).cdouble()
    operator = SenseOperator(maps, mask)
    return draw(1, height, width), Measurement(operator, operator.forward(draw(1, height, width)), torch.tensor([0.1]))


SIZES = {"height": st.integers(4, 12), "width": st.integers(4, 12), "rate": st.floats(0.2, 0.9)}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), **SIZES)
def test_hard_consistency_is_a_projection_onto_the_data(seed: int, height: int, width: int, rate: float) -> None:
    x, data = problem(seed, 1, height, width, rate)
    once = hard(x, data)
    assert data.residual(once).max() < 1e-20
    torch.testing.assert_close(hard(once, data), once)
    away = ~data.operator.mask[:, 0]
    torch.testing.assert_close(fft2(once)[away], fft2(x)[away])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), coils=st.integers(1, 4), **SIZES)
def test_coils_may_be_permuted_and_consistency_never_moves_away(
    seed: int, coils: int, height: int, width: int, rate: float
) -> None:
    x, data = problem(seed, coils, height, width, rate)
    order = torch.randperm(coils, generator=torch.Generator().manual_seed(seed))
    other = Measurement(
        SenseOperator(data.operator.maps[:, order], data.operator.mask), data.kspace[:, order], data.noise
    )
    for name in ("hard", "soft", "gradient", "cg", "auto"):
        rule = Consistency(name)  # type: ignore[arg-type]
        result = rule.correct(x, data, 0.5)
        torch.testing.assert_close(rule.correct(x, other, 0.5), result)
        assert data.residual(result) <= data.residual(x) + 1e-12
    for name in ("none", "noisy", "dps"):
        assert Consistency(name).correct(x, data, 0.5) is x  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_conjugate_gradients_stay_where_they_converged(seed: int) -> None:
    """Without noise and with one coil one step is enough, and A^H A is singular."""
    x, data = problem(seed, 1, 16, 16, 0.5)
    operator = SenseOperator(data.operator.maps.cfloat(), data.operator.mask)
    single = Measurement(operator, data.kspace.cfloat(), torch.zeros(1))
    expected = hard(x.cfloat(), single)
    assert (Consistency("cg", iterations=20).correct(x.cfloat(), single, 0.3) - expected).abs().max() < 1e-4


def test_soft_consistency_is_hard_without_noise_and_absent_with_infinite_noise() -> None:
    x, data = problem(0, 1, 8, 8, 0.5)
    for noise, expected in ((0.0, hard(x, data)), (1e6, x)):
        given_noise = Measurement(data.operator, data.kspace, torch.tensor([noise], dtype=torch.float64))
        for name in ("soft", "cg"):
            torch.testing.assert_close(Consistency(name, iterations=12).correct(x, given_noise, 0.3), expected)


def test_error_variance_is_that_of_a_gaussian() -> None:
    generator = torch.Generator().manual_seed(0)
    std, alpha = 0.5, 0.7
    x0 = std * torch.randn(200_000, generator=generator)
    x = math.sqrt(alpha) * x0 + math.sqrt(1 - alpha) * torch.randn(200_000, generator=generator)
    estimate = (x0 * x).mean() / x.square().mean() * x
    assert (x0 - estimate).var() == pytest.approx(error_variance(alpha, std), rel=0.02)


@pytest.mark.parametrize("coils", [1, 6])
@pytest.mark.parametrize("sigma", [0.01, 0.03])
@pytest.mark.parametrize("pattern", ["columns", "points"])
def test_noise_is_estimated_where_there_is_no_signal(coils: int, sigma: float, pattern: str) -> None:
    """With sharp edges from the air beside the object, with smooth ones from the periphery of k-space."""
    generator = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    radius = (x / 0.7) ** 2 + (y / 0.8) ** 2
    inside = (radius < 1).float() if pattern == "columns" else torch.exp(-4 * radius)
    image = inside * torch.polar(torch.ones(64, 64), x * y)
    maps = normalize_maps(torch.exp(-torch.rand(coils, 1, 1, generator=generator) * (x**2 + y)).cfloat())[None]
    mask = torch.rand(1, 1, 1 if pattern == "columns" else 64, 64, generator=generator) < 0.3
    mask[..., 28:36] = True
    noise = sigma * torch.view_as_complex(torch.randn(1, coils, 64, 64, 2, generator=generator))
    kspace = torch.where(mask, fft2(maps * image) + noise, 0)
    assert float(estimate_noise(kspace, mask)) == pytest.approx(sigma, rel=0.15)
    assert float(estimate_noise(torch.zeros_like(kspace), mask)) == 0


@pytest.mark.parametrize(("size", "coils", "bound"), [(64, 1, 1.4), (96, 6, 1.1)])
def test_noise_of_heads_that_fill_the_field_of_view(size: int, coils: int, bound: float) -> None:
    """Of lines, at a signal-to-noise ratio of 30: by how much the estimate is too large at most, on average."""
    ratios = []
    for number in range(16):
        scan = generate((1, 0, number), CONTRASTS[number % 4], (size, size), coils, 1, 30.0)
        mask = torch.from_numpy(MaskFunction("random", (4.0,), (0.08,))((size, size), number).mask)[None, None]
        ratios.append(float(estimate_noise(torch.where(mask, torch.from_numpy(scan.kspace), 0), mask)) / scan.noise)
    assert 0.9 < sum(ratios) / len(ratios) < bound
    assert min(ratios) > 0.7


def test_residual_of_the_truth_is_one() -> None:
    x, data = problem(3, 3, 40, 40, 0.5)
    noise = 0.1 * torch.randn(*data.kspace.shape, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kspace = data.operator.forward(x) + data.operator.mask * torch.view_as_complex(noise)
    noisy = Measurement(data.operator, kspace, data.noise)
    assert float(noisy.residual(x)) == pytest.approx(1, abs=0.05)


def test_repetition() -> None:
    _, data = problem(0, 2, 6, 6, 0.5)
    both = Measurement(
        SenseOperator(data.operator.maps.repeat(2, 1, 1, 1), data.operator.mask.repeat(2, 1, 1, 1)),
        torch.cat((data.kspace, 2 * data.kspace)),
        torch.tensor([0.1, 0.2]),
    )
    for one, count in ((both, 3), (data, 3)):
        repeated = one.repeat(count)
        assert len(repeated.kspace) == 3 * len(one.kspace)
        torch.testing.assert_close(repeated.kspace[::3], one.kspace)
        torch.testing.assert_close(repeated.noise[2::3], one.noise)
