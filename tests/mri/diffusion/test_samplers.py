"""Noise schedules and samplers against closed forms and reference chains."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from tests.mri.diffusion.golden import gaussian_x0, load
from zoo.errors import ConfigError
from zoo.mri.diffusion.process import (
    Level,
    NoiseSchedule,
    add_noise,
    min_snr_weight,
    predicted_noise,
    predicted_x0,
    training_target,
)
from zoo.mri.diffusion.samplers import DDIM, DDPM, DPMSolver, Heun, Sampler, SDEDPMSolver, posterior

COSINE = NoiseSchedule.create("cosine")


@pytest.mark.parametrize("name", ["linear", "scaled-linear", "cosine", "sigmoid"])
def test_schedules(name: str) -> None:
    golden = load("schedules")
    key = name.replace("-", "_")
    schedule = NoiseSchedule.create(name)  # type: ignore[arg-type]
    assert np.abs(schedule.alpha_bars - golden[f"{key}_1000.alphas_cumprod_f64"].numpy()).max() < 1e-12
    assert np.abs(schedule.alpha_bars - golden[f"{key}_1000.alphas_cumprod"].numpy()).max() < 2e-5
    assert np.abs(schedule.betas - golden[f"{key}_1000.betas"].numpy()).max() < 2e-7


def test_zero_terminal_snr() -> None:
    schedule = NoiseSchedule.create("cosine", zero_terminal_snr=True)
    assert np.abs(schedule.alpha_bars - load("schedules")["cosine_1000_zsnr.alphas_cumprod_f64"].numpy()).max() < 1e-12
    assert schedule.alpha_bars[-1] == 0
    x = torch.randn(2, 3, dtype=torch.float64)
    level = schedule.levels(schedule.timesteps(5, "trailing"))[0]
    for sampler in (DDIM(), DDPM(), DPMSolver()):
        assert sampler.step(x, 0.5 * x, level, lambda: torch.zeros_like(x)).isfinite().all()


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("count", [1, 4, 10, 13, 50])
def test_timesteps(spacing: str, count: int) -> None:
    schedule = NoiseSchedule.create("linear")
    assert schedule.timesteps(count, spacing) == load("schedules")[f"timesteps.{spacing}.{count}"].tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize("spacing", ["quadratic", "log-snr", "karras"])
@pytest.mark.parametrize("count", [1, 2, 10, 20, 50, 1000])
def test_own_spacings_fall_from_the_last_step_without_repetitions(spacing: str, count: int) -> None:
    steps = COSINE.timesteps(count, spacing)  # type: ignore[arg-type]
    assert steps[0] == 999
    assert steps == sorted(set(steps), reverse=True)
    assert len(steps) <= count
    assert count < 2 or steps[-1] <= 1
    assert len(steps) >= min(count, 10)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace", "quadratic", "log-snr", "karras"])
def test_timesteps_are_the_schedules_for_any_count(spacing: str) -> None:
    schedule = NoiseSchedule.create("cosine", 250)
    for count in range(1, 251):
        steps = schedule.timesteps(count, spacing)  # type: ignore[arg-type]
        assert 250 > steps[0] >= steps[-1] >= 0
        assert len(steps) <= count
    assert COSINE.timesteps(61, "trailing")[-1] == 15


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="a linear schedule of 10 steps would take more"):
        NoiseSchedule.create("linear", 10)
    for steps, zero_terminal_snr in ((0, False), (1, True)):
        with pytest.raises(ValueError, match=f"or more, not {steps}"):
            NoiseSchedule.create("cosine", steps, zero_terminal_snr)
    with pytest.raises(ConfigError, match=r"model\.diffusion_steps and model\.noise_schedule: a noise schedule needs"):
        zoo.create_model("mri/diffusion", diffusion_steps=0)


def test_log_snr_spacing_is_uniform() -> None:
    steps = COSINE.timesteps(10)
    values = [0.5 * math.log(COSINE.alpha_bars[t] / (1 - COSINE.alpha_bars[t])) for t in steps[1:]]
    gaps = np.diff(values)
    assert gaps.min() > 0.6 * gaps.mean()


def test_too_many_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="give 1 to 1000"):
        COSINE.timesteps(1001)


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_predictions_invert_each_other(prediction: str) -> None:
    x0, noise = torch.randn(2, 3, 2, 4, 4, dtype=torch.float64)
    alpha = 0.37
    x = add_noise(x0, noise, torch.tensor(alpha, dtype=torch.float64))
    target = training_target(x0, noise, torch.tensor(alpha, dtype=torch.float64), prediction)  # type: ignore[arg-type]
    back = predicted_x0(target, x, alpha, prediction)  # type: ignore[arg-type]
    torch.testing.assert_close(back, x0)
    torch.testing.assert_close(predicted_noise(back, x, alpha), noise)


def test_min_snr_weights_are_those_of_the_capped_loss_on_the_image() -> None:
    """An error of the output is one of x0 scaled by their slope; the paper's weight on that is min(SNR, gamma)."""
    alpha = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    x = torch.randn(9, dtype=torch.float64)
    for prediction in ("epsilon", "x0", "v"):
        outputs = torch.zeros(2, 9, dtype=torch.float64)
        outputs[1] = 1
        ends = [[float(predicted_x0(o[i], x[i], float(alpha[i]), prediction)) for i in range(9)] for o in outputs]  # type: ignore[arg-type]
        slope = torch.tensor(ends[1]) - torch.tensor(ends[0])
        expected = (alpha / (1 - alpha)).clamp(max=5) * slope.double() ** 2
        torch.testing.assert_close(min_snr_weight(alpha, prediction, 5.0), expected, rtol=1e-5, atol=0)  # type: ignore[arg-type]


def chain(sampler: Sampler, levels: list[Level], golden: dict[str, Tensor]) -> list[Tensor]:
    """States after each step with the closed-form denoiser and the recorded noise."""
    mean, variance = golden["mu"].double(), float(golden["s2"])
    x = golden["xT"].double()
    states = []
    sampler.reset()
    for index, level in enumerate(levels):
        x0 = gaussian_x0(x, level.alpha, mean, variance)
        x = sampler.step(x, x0, level, lambda index=index: golden["noise"][index].double())  # type: ignore[misc]
        states.append(x)
    return states


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim(spacing: str, eta: float) -> None:
    golden = load("samplers")
    steps = COSINE.timesteps(10, spacing)  # type: ignore[arg-type]
    assert steps == golden[f"ddim.{spacing}.timesteps"].tolist()
    states = chain(DDIM(eta), COSINE.levels(steps), golden)
    expected = golden[f"ddim.{spacing}.eta{eta:g}.chain"]
    assert (torch.stack(states) - expected).abs().max() < 2e-5


def test_ddim_to_a_first_level_that_is_not_clean() -> None:
    golden = load("samplers")
    levels = COSINE.levels(COSINE.timesteps(10, "leading"))
    levels[-1] = Level(levels[-1].timestep, levels[-1].alpha, float(COSINE.alpha_bars[0]))
    states = chain(DDIM(), levels, golden)
    assert (torch.stack(states) - golden["ddim.leading.final_alpha0.chain"]).abs().max() < 2e-5


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("large", [False, True])
def test_ddpm(large: bool, spacing: str) -> None:
    golden = load("samplers")
    steps = golden[f"ddpm.{spacing}.timesteps"].tolist()
    assert steps == COSINE.timesteps(10, spacing)  # type: ignore[arg-type]
    states = chain(DDPM(large), COSINE.levels(steps), golden)
    expected = golden[f"ddpm.fixed_{'large' if large else 'small'}.{spacing}.chain"]
    assert (torch.stack(states) - expected).abs().max() < 1e-3


def test_posterior_of_one_step() -> None:
    golden = load("samplers")
    for index, t in enumerate(golden["post.t"].tolist()):
        before = COSINE.alpha_bars[t - 1] if t else 1.0
        level = Level(t, float(COSINE.alpha_bars[t]), float(before))
        mean, variance = posterior(golden["post.xt"][index].double(), golden["post.x0"][index].double(), level)
        assert (mean - golden["post.mean"][index]).abs().max() < 1e-5
        assert abs(variance - float(golden["post.var"][index])) < 1e-5


@pytest.mark.parametrize("order", [1, 2, 3])
def test_dpm_solver(order: int) -> None:
    golden = load("samplers")
    steps = golden[f"dpmpp.o{order}.timesteps"].tolist()
    states = chain(DPMSolver(order), COSINE.levels(steps), golden)
    expected = golden[f"dpmpp.o{order}.chain"]
    assert (torch.stack(states) - expected).abs().max() < 1e-3


def test_third_order_falls_at_the_end_of_few_steps_only() -> None:
    assert [level.max_order for level in COSINE.levels(COSINE.timesteps(5, "trailing"))] == [3, 3, 3, 2, 1]
    assert {level.max_order for level in COSINE.levels(COSINE.timesteps(15, "trailing"))} == {3}


def test_dpm_solver_between_the_schedules_steps() -> None:
    """There the reference asks its denoiser for the noise at the nearest step of the schedule."""
    golden = load("samplers")
    sigmas = golden["dpmpp.o2.karras.sigmas"].double()
    alphas = (1 / (1 + sigmas**2)).tolist()
    steps = golden["dpmpp.o2.karras.timesteps"].tolist()
    levels = [Level(t, a, b) for t, a, b in zip(steps, alphas, alphas[1:], strict=False)]
    mean, variance = golden["mu"].double(), float(golden["s2"])
    x, sampler = golden["xT"].double(), DPMSolver()
    for level, expected in zip(levels, golden["dpmpp.o2.karras.chain"], strict=True):
        nearest = float(COSINE.alpha_bars[level.timestep])
        noise = predicted_noise(gaussian_x0(x, nearest, mean, variance), x, nearest)
        x = sampler.step(x, predicted_x0(noise, x, level.alpha, "epsilon"), level, mean.clone)
        assert (x - expected).abs().max() < 1e-4


def test_first_order_solver_is_ddim() -> None:
    golden = load("samplers")
    levels = COSINE.levels(COSINE.timesteps(12))
    first, second = chain(DPMSolver(1), levels, golden), chain(DDIM(), levels, golden)
    torch.testing.assert_close(torch.stack(first), torch.stack(second))


def test_errors_fall_with_the_number_of_steps() -> None:
    """To the exact end of the probability-flow ODE: DDIM like 1 / N, the second order faster."""
    golden = load("samplers")
    exact = golden["pf_ode_exact_x0"].double()

    def error(sampler: Sampler, count: int, spacing: str) -> float:
        levels = COSINE.levels(COSINE.timesteps(count, spacing))  # type: ignore[arg-type]
        return float((chain(sampler, levels, golden)[-1] - exact).abs().max())

    ddim = [error(DDIM(), n, "linspace") for n in (5, 10, 20, 50, 200)]
    for measured, reference in zip(ddim, (0.567, 0.276, 0.137, 0.055, 0.0139), strict=True):
        assert measured == pytest.approx(reference, rel=0.02)
    assert error(DPMSolver(), 20, "log-snr") < 0.2 * error(DDIM(), 20, "log-snr")


def test_heun_is_of_second_order() -> None:
    """Twice the evaluations divide its error by more than 3, and those of DDIM by 2."""
    golden = load("samplers")
    exact = golden["pf_ode_exact_x0"].double()

    def error(sampler: Sampler, evaluations: int) -> float:
        levels = sampler.plan(COSINE, evaluations, "log-snr")
        assert evaluations - 4 < len(levels) <= evaluations
        return float((chain(sampler, levels, golden)[-1] - exact).abs().max())

    errors = [error(Heun(), n) for n in (17, 33, 65)]
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 3
    assert errors[2] < 0.3 * error(DDIM(), 65)
    assert [(x.timestep, x.is_last) for x in Heun().plan(COSINE, 3, "log-snr")] == [(999, False), (0, False), (0, True)]


def test_first_step_of_the_sde_solver_is_that_of_ddpm() -> None:
    golden = load("samplers")
    x, x0 = golden["xT"].double(), golden["mu"].double()
    noise = golden["noise"][0].double()
    for level in COSINE.levels([999, 600, 200, 30]):
        ours, theirs = (sampler.step(x, x0, level, lambda: noise) for sampler in (SDEDPMSolver(), DDPM()))
        torch.testing.assert_close(ours, theirs)
