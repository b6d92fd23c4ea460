"""Sampling from an exactly known posterior, and the statistics of samples."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.mri.diffusion.golden import load
from zoo.mri.diffusion.conditional import Sampling, sample_posterior
from zoo.mri.diffusion.consistency import Consistency, ConsistencyName, Measurement
from zoo.mri.diffusion.posterior import (
    Posterior,
    coverage,
    crps,
    dispersion,
    rank_correlation,
    sparsification,
    sparsification_error,
    variance,
)
from zoo.mri.diffusion.problem import Frame, Problem
from zoo.mri.diffusion.process import Level, NoiseSchedule
from zoo.mri.diffusion.samplers import DDIM, DDPM, DPMSolver, Heun, Sampler, SamplerName, SDEDPMSolver
from zoo.mri.diffusion.sampling import Denoiser, Progress, SeededNoise, sample
from zoo.mri.fourier import fft2, ifft2
from zoo.mri.operators import SenseOperator, from_channels, to_channels

COSINE = NoiseSchedule.create("cosine")
SAMPLES = 400


def oracle(
    x: Tensor, level: Level, golden: dict[str, Tensor], conditional: bool = True, frame: Frame | None = None
) -> Tensor:
    """E[x0 | x_t, y], or E[x0 | x_t]: the prior's k-space is independent Gaussians, and so is the posterior's."""
    mean = golden["post_mean"] if conditional else golden["prior_mean"]
    variance = golden["post_var_k"] if conditional else golden["power"]
    if frame is not None:
        mean, variance = frame.diffused(mean), variance / frame.unit**2
    mean = fft2(mean)
    root = math.sqrt(level.alpha)
    gain = variance * root / (level.alpha * variance + 1 - level.alpha)
    return to_channels(ifft2(mean + gain * (fft2(from_channels(x)) - root * mean)))


def gaussian() -> tuple[dict[str, Tensor], Measurement]:
    golden = load("gaussian_posterior")
    ones = torch.ones(1, 1, 16, 16, dtype=torch.complex64)
    operator = SenseOperator(ones, golden["mask"].bool()[None, None])
    return golden, Measurement(operator, (golden["mask"] * golden["y"])[None, None], golden["sigma"][None])


def run(sampler: Sampler, steps: int, spacing: str, consistency: str = "none") -> tuple[dict[str, Tensor], Tensor]:
    golden, measurement = gaussian()
    levels = sampler.plan(COSINE, steps, spacing)  # type: ignore[arg-type]
    draw = SeededNoise([(0, k) for k in range(SAMPLES)], (2, 16, 16), torch.device("cpu"))
    rule = Consistency(consistency, data_std=float(golden["power"].mean().sqrt()))  # type: ignore[arg-type]
    samples = sample(partial(oracle, golden=golden), measurement.repeat(SAMPLES), levels, sampler, rule, draw)
    return golden, samples


def spread_ratios(golden: dict[str, Tensor], samples: Tensor) -> tuple[float, float]:
    """Standard deviation of the samples' k-space over the true one, unsampled and sampled."""
    kspace = torch.view_as_real(fft2(samples))
    ratio = (kspace.var(0).mean(-1) / golden["post_var_k"]).sqrt()
    mask = golden["mask"].bool()
    return float(ratio[~mask].mean()), float(ratio[mask].mean())


def test_oracle() -> None:
    golden, _ = gaussian()
    for index, alpha in enumerate(golden["abar"].tolist()):
        x = to_channels(golden["xt"][index][None])
        for conditional in (True, False):
            name = "denoiser_conditional" if conditional else "denoiser_unconditional"
            estimate = from_channels(oracle(x, Level(0, alpha, 1.0), golden, conditional))[0]
            assert (estimate - golden[name][index]).abs().max() < 1e-5 * golden[name][index].abs().max() + 1e-5


def test_the_default_sampler_samples_the_true_posterior() -> None:
    golden, samples = run(DPMSolver(), 20, "log-snr")
    unsampled, measured = spread_ratios(golden, samples)
    assert unsampled == pytest.approx(1, abs=0.03)
    assert measured == pytest.approx(1, abs=0.04)
    # The mean's error is Monte-Carlo's: its variance is the posterior's over the number of samples.
    deviation = torch.view_as_real(fft2(samples.mean(0) - golden["post_mean"])).square().mean(-1)
    normalized = (deviation / golden["post_var_k"] * SAMPLES).mean()
    assert float(normalized) == pytest.approx(1, abs=0.25)
    std = torch.view_as_real(samples).std(0).square().mean().sqrt()
    assert float(std) == pytest.approx(float(golden["post_std_per_component"]), rel=0.03)


def test_ten_steps_of_the_solver_spread_better_than_fifty_of_ddim() -> None:
    golden, few = run(DPMSolver(), 10, "log-snr")
    _, many = run(DDIM(), 50, "linspace")
    assert spread_ratios(golden, few)[1] > 0.85
    assert spread_ratios(golden, many)[1] < 0.82


def test_ancestral_sampling_of_the_posterior() -> None:
    golden, samples = run(DDPM(), 100, "log-snr")
    for ratio in spread_ratios(golden, samples):
        assert ratio == pytest.approx(1, abs=0.08)


def test_the_other_second_order_samplers() -> None:
    for sampler, steps, tolerance in ((Heun(), 39, 0.04), (SDEDPMSolver(), 20, 0.04)):
        for ratio in spread_ratios(*run(sampler, steps, "log-snr")):
            assert ratio == pytest.approx(1, abs=tolerance)


@pytest.mark.parametrize("weakness", [1.0, 0.9])
@pytest.mark.parametrize("diffuse", ["image", "residual"])
def test_samples_explain_the_data_as_the_truth_does(weakness: float, diffuse: str) -> None:
    """Towards a measurement drawn anew the residual is 1 and the spread right, even if the denoiser is 10 % off."""
    golden, measurement = gaussian()
    zero_filled = measurement.operator.adjoint(measurement.kspace)
    problem = Problem(measurement, zero_filled, torch.ones(1))
    frame = Frame(zero_filled, 0.5) if diffuse == "residual" else Frame(torch.zeros_like(zero_filled))

    def denoiser(problem: Problem, repeats: int) -> Denoiser:
        missing = weakness * frame.origin - frame.origin  # so that the image, not the residual, is weak
        return lambda x, level: weakness * oracle(x, level, golden, frame=frame) + to_channels(missing) / frame.unit

    def residual(name: ConsistencyName) -> float:
        how = Sampling(steps=20, consistency=name)
        std = float(golden["power"].mean().sqrt())
        posterior = sample_posterior(denoiser, COSINE, problem, frame, 200, [(0,)], how, std)
        if name == "auto":
            assert spread_ratios(golden, posterior.samples[0])[1] == pytest.approx(1, abs=0.1)
        return float(posterior.residual.mean())

    assert residual("auto") == pytest.approx(1, abs=0.05)
    assert abs(residual("soft") - 1) > 0.5
    assert residual("none") == pytest.approx(1, abs=0.05) if weakness == 1 else residual("none") > 2


@pytest.mark.parametrize("sampler", ["dpm++", "ddpm"])
def test_pairs_of_opposite_noise(sampler: SamplerName) -> None:
    """Their mean is the posterior's, of two samples or many, and their spread is that of independent ones."""
    golden, measurement = gaussian()
    problem = Problem(measurement, measurement.operator.adjoint(measurement.kspace), torch.ones(1))
    frame = Frame(problem.zero_filled, 0.5)

    def drawn(count: int, antithetic: bool) -> Posterior:
        how = Sampling(sampler=sampler, steps=20, consistency="none", antithetic=antithetic)
        return sample_posterior(
            lambda problem, repeats: partial(oracle, golden=golden, frame=frame),
            COSINE, problem, frame, count, [(0,)], how, 0.5,
        )  # fmt: skip

    def off(posterior: Posterior) -> float:
        return float((posterior.mean[0] - golden["post_mean"]).abs().max())

    assert off(drawn(2, True)) < 1e-4 < 0.1 < off(drawn(2, False))
    paired, independent = drawn(100, True), drawn(100, False)
    assert paired.paired
    assert not independent.paired
    spreads = [float(posterior.complex_std.square().mean()) for posterior in (paired, independent)]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.05)


def test_samples_about_the_first_estimate() -> None:
    """Steps of most noise are made in one; from half the noise on there is less than half of the spread left."""
    golden, measurement = gaussian()
    problem = Problem(measurement, measurement.operator.adjoint(measurement.kspace), torch.ones(1))
    frame = Frame(problem.zero_filled, 0.5)
    seen: list[int] = []

    def denoise(x: Tensor, level: Level) -> Tensor:
        seen.append(level.timestep)
        return oracle(x, level, golden, frame=frame)

    def drawn(start_timestep: int | None) -> Posterior:
        how = Sampling(consistency="none", start_timestep=start_timestep)
        return sample_posterior(lambda problem, repeats: denoise, COSINE, problem, frame, 16, [(0,)], how, 0.5)

    all_steps, whole = drawn(None), seen.copy()
    seen.clear()
    late = drawn(300)
    assert seen == [whole[0], *(t for t in whole if t <= 300)]
    assert 0 < late.complex_std.mean() < 0.8 * all_steps.complex_std.mean()
    torch.testing.assert_close(drawn(COSINE.steps - 1).samples, all_steps.samples)
    assert (late.mean[0] - golden["post_mean"]).abs().max() < 1e-3


def test_consistency_leaves_what_was_not_measured() -> None:
    golden, free = run(DPMSolver(), 10, "log-snr")
    away = ~golden["mask"].bool()
    for name in ("hard", "soft", "cg"):
        _, samples = run(DPMSolver(), 10, "log-snr", name)
        torch.testing.assert_close(fft2(samples)[:, away], fft2(free)[:, away], rtol=1e-3, atol=1e-3)


def test_hard_consistency_takes_the_spread_of_what_was_measured_and_soft_does_not() -> None:
    golden, hard = run(DPMSolver(), 20, "log-snr", "hard")
    _, soft = run(DPMSolver(), 20, "log-snr", "soft")
    assert spread_ratios(golden, hard)[1] < 1e-3
    assert spread_ratios(golden, soft)[1] > 0.05


def test_noisy_space_and_dps_bring_an_unconditional_prior_to_the_data() -> None:
    golden, measurement = gaussian()
    levels = COSINE.levels(COSINE.timesteps(40))
    repeated = measurement.repeat(32)

    def misfit(rule: Consistency) -> float:
        draw = SeededNoise([(k,) for k in range(32)], (2, 16, 16), torch.device("cpu"))
        prior = partial(oracle, golden=golden, conditional=False)
        return float(repeated.residual(sample(prior, repeated, levels, DDIM(), rule, draw)).mean())

    free = misfit(Consistency("none"))
    assert misfit(Consistency("noisy")) < 1e-3 * free
    assert misfit(Consistency("dps", rate=0.5)) < 0.2 * free


def test_a_sample_does_not_depend_on_its_batch() -> None:
    golden, measurement = gaussian()
    levels = COSINE.levels(COSINE.timesteps(6))
    rule = Consistency("soft")

    def samples(seeds: list[int]) -> Tensor:
        draw = SeededNoise([(7, k) for k in seeds], (2, 16, 16), torch.device("cpu"))
        repeated = measurement.repeat(len(seeds))
        return sample(partial(oracle, golden=golden), repeated, levels, DDPM(), rule, draw)

    together = samples([0, 1, 2])
    torch.testing.assert_close(together, torch.cat((samples([0]), samples([1, 2]))))
    assert (together[0] - together[1]).abs().max() > 0.1


def test_progress_and_a_start_from_an_image() -> None:
    golden, measurement = gaussian()
    levels = COSINE.levels(COSINE.timesteps(12)[6:])
    seen: list[Progress] = []
    draw = SeededNoise([(0,)], (2, 16, 16), torch.device("cpu"))
    start = golden["x_true"][None]
    image = sample(
        partial(oracle, golden=golden), measurement, levels, DPMSolver(), Consistency("none"), draw, start,
        callback=seen.append,
    )  # fmt: skip
    assert [p.step for p in seen] == list(range(1, 7))
    assert torch.equal(seen[-1].image, image)
    far = (image - golden["post_mean"]).abs().mean() + (start - golden["post_mean"]).abs().mean()
    assert (image - start).abs().mean() < far


class TestStatistics:
    golden = load("stats_metrics")

    def test_moments(self) -> None:
        samples = self.golden["samples"][None]
        posterior = Posterior(samples, torch.zeros(1, 7), torch.zeros(1))
        for name, value in {
            "mean_complex": posterior.mean,
            "abs_of_mean": posterior.image,
            "mean_of_abs": posterior.mean_magnitude,
            "std_of_abs": posterior.std,
            "std_complex": posterior.complex_std,
        }.items():
            torch.testing.assert_close(value[0], self.golden[name], rtol=1e-5, atol=1e-6)
        assert Posterior(samples[:, :1], torch.zeros(1, 1), torch.zeros(1)).std.eq(0).all()

    def test_dispersion(self) -> None:
        measured, unmeasured = dispersion(self.golden["samples"][None], self.golden["mask"].bool()[None])
        assert float(measured) == pytest.approx(float(self.golden["measured_dispersion"]), rel=1e-5)
        assert float(unmeasured) == pytest.approx(float(self.golden["unmeasured_dispersion"]), rel=1e-5)

    def test_a_calibrated_spread(self) -> None:
        generator = torch.Generator().manual_seed(0)
        std = torch.rand(2, 128, 128, generator=generator) + 0.1
        error = std * torch.randn(2, 128, 128, generator=generator)
        image = torch.zeros(2, 128, 128)
        assert coverage(image, std, error).tolist() == pytest.approx([0.954, 0.954], abs=0.01)
        assert float(coverage(image, std / 2, error).mean()) == pytest.approx(0.683, abs=0.01)
        assert 0.3 < float(rank_correlation(std, error.abs()).mean()) < 0.7
        assert rank_correlation(std, std**2).tolist() == pytest.approx([1, 1])
        assert rank_correlation(std, -std).tolist() == pytest.approx([-1, -1])

    @pytest.mark.parametrize("correlation", [-1.0, -0.6, 0.5])
    def test_statistics_of_pairs(self, correlation: float) -> None:
        """Unbiased whatever the correlation within the pairs; as of independent samples they are not."""
        generator = torch.Generator().manual_seed(0)
        first, other = torch.randn(2, 1, 3, 200, 200, generator=generator, dtype=torch.float64)
        second = correlation * first + math.sqrt(1 - correlation**2) * other
        samples = torch.stack((first, second), dim=2).flatten(1, 2)
        assert float(variance(samples, paired=True).mean()) == pytest.approx(1, abs=0.02)
        assert abs(float(variance(samples).mean()) - 1) > 0.05
        target = torch.zeros(1, 200, 200, dtype=torch.float64)
        expected = (math.sqrt(2) - 1) / math.sqrt(math.pi)
        assert float(crps(samples, target, paired=True)) == pytest.approx(expected, abs=0.01)
        odd = torch.cat((samples, 9 * first[:, :1]), dim=1)
        assert torch.equal(variance(odd, paired=True), variance(samples, paired=True))
        assert torch.equal(crps(odd, target, paired=True), crps(samples, target, paired=True))
        assert torch.equal(variance(samples[:, :3], paired=True), variance(samples[:, :3]))

    def test_sparsification(self) -> None:
        error = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0))
        assert float(sparsification_error(error, error)) == 0
        unrelated = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(1))
        assert sparsification_error(unrelated, error) > sparsification_error(error + 0.1 * unrelated, error) > 0
        by_std, by_error = sparsification(unrelated, error)
        assert by_std[0, 0] == 1
        assert (by_error.diff(dim=1) <= 0).all()
        expected = error.flatten().sort().values[:200].square().mean().sqrt() / error.square().mean().sqrt()
        assert float(by_error[0, 10]) == pytest.approx(float(expected), rel=1e-5)

    def test_crps(self) -> None:
        """Of a Gaussian the closed form of Gneiting and Raftery, JASA 102, 2007."""
        generator = torch.Generator().manual_seed(0)
        samples = torch.randn(1, 2000, 8, 8, generator=generator, dtype=torch.float64)
        target = torch.linspace(-2, 2, 64, dtype=torch.float64).view(1, 8, 8)
        normal = torch.distributions.Normal(0.0, 1.0)
        density = normal.log_prob(target).exp()
        expected = (target * (2 * normal.cdf(target) - 1) + 2 * density - 1 / math.sqrt(math.pi)).mean()
        assert float(crps(samples, target)) == pytest.approx(float(expected), abs=0.01)
        few = torch.randn(500, 3, 8, 8, generator=generator, dtype=torch.float64)
        fair = crps(few, target.expand(500, 8, 8)).mean()
        assert float(fair) == pytest.approx(float(expected), abs=0.01)
