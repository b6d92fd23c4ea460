"""Conditional diffusion as a LightningModule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import MeanMetric

from zoo.data.kspace import KSpaceBatch
from zoo.errors import ConfigError
from zoo.mri.baselines import BaselineName
from zoo.mri.diffusion import figures
from zoo.mri.diffusion.conditional import Sampling, sample_posterior
from zoo.mri.diffusion.consistency import ConsistencyName
from zoo.mri.diffusion.network import DiffusionUNet
from zoo.mri.diffusion.operator_network import DiffusionUDNO
from zoo.mri.diffusion.posterior import Posterior
from zoo.mri.diffusion.problem import Diffused, Frame, MapsName, Problem, problem_of, scan_of, true_image
from zoo.mri.diffusion.process import (
    Level,
    NoiseSchedule,
    Prediction,
    Spacing,
    add_noise,
    min_snr_weight,
    predicted_x0,
    training_target,
)
from zoo.mri.diffusion.process import Schedule as NoiseScheduleName
from zoo.mri.diffusion.samplers import SamplerName
from zoo.mri.diffusion.sampling import Denoiser
from zoo.mri.diffusion.scores import SINGLE, PosteriorScores
from zoo.mri.diffusion.sizes import Size, resolve_size
from zoo.mri.diffusion.volume import FORMATS, predict_posterior
from zoo.mri.fourier import Norm, fft2
from zoo.mri.operators import expand, to_channels
from zoo.mri.prediction import Undersampled, require_format
from zoo.mri.reconstructor import Protocol, Reconstruction, Reconstructor, _metrics
from zoo.mri.schedule import Schedule
from zoo.registry import register_model

# Where samples of files that start from another model's image begin: their mean was best there (the card's table).
START_TIMESTEP = 300


class Sampled(Reconstruction):
    """What a test step gives, in the units of the data.

    Keys:
        posterior: the samples behind `image`, which is the magnitude of their mean.
    """

    posterior: Posterior


@register_model("mri/diffusion")
class DiffusionReconstructor(Reconstructor):
    """Samples from the posterior of the image given undersampled k-space.

    The network sees the noisy image, the zero-filled image and the mask; every step of the sampler is brought
    into agreement with the measurement.

    Args:
        network_size: "tiny" (1.1 M parameters), "small" (3.9 M) or "paper" (86 M); the next arguments replace parts
            of it.
        model_channels, num_res_blocks, channel_mult, attention_resolutions, use_scale_shift_norm,
            resblock_updown, in_channels, out_channels, num_heads, num_head_channels, use_new_attention_order,
            dropout, norm_groups, use_checkpoint: see `zoo.mri.diffusion.network.DiffusionUNet`.
        architecture: "unet", or "udno" for a neural operator with as many levels and channels.
        radius_cutoff, kernel_shape: of that, see `zoo.ops.udno.UDNO`.
        prediction: what the network says: the noise, the image or v.
        noise_schedule, diffusion_steps, zero_terminal_snr: see `zoo.mri.diffusion.process.NoiseSchedule`.
        signal_scale: images are scaled so that the zero-filled one has this largest magnitude.
        diffuse: the image, or its residual, which is what the zero-filled one lacks over `residual_std`. From pure
            noise the network then has the task of a regression that begins at the zero-filled image.
        residual_std: standard deviation of real and imaginary part of what the zero-filled images lack, after
            scaling.
        noise_emphasis: p, training timesteps being T (1 - u^p) with u uniform: those of most noise are the hardest.
        min_snr_gamma: see `zoo.mri.diffusion.process.min_snr_weight`; None for equal weights.
        condition_dropout: probability with which a training sample is not told the condition.
        sampler, steps, spacing, consistency, n_samples, start_timestep: how to sample unless a call says otherwise, see
            `reconstruct`.
        lr, schedule, warmup_steps, decay_every, decay, protocol, baselines, real_slice: see
            `zoo.mri.reconstructor.Reconstructor`.
        lpips_backbone, lpips_heads: see `zoo.lpips.LPIPS`; without them LPIPS is not reported.
    """

    network: DiffusionUNet | DiffusionUDNO

    def __init__(
        self,
        network_size: Size = "tiny",
        model_channels: int | None = None,
        num_res_blocks: int | None = None,
        channel_mult: tuple[int, ...] | None = None,
        attention_resolutions: tuple[int, ...] | None = None,
        use_scale_shift_norm: bool | None = None,
        resblock_updown: bool | None = None,
        in_channels: int = 5,
        out_channels: int = 2,
        num_heads: int = 4,
        num_head_channels: int | None = None,
        use_new_attention_order: bool = False,
        dropout: float = 0.0,
        norm_groups: int = 32,
        use_checkpoint: bool = False,
        architecture: Literal["unet", "udno"] = "unet",
        radius_cutoff: float = 0.1,
        kernel_shape: tuple[int, ...] = (3, 4),
        prediction: Prediction = "v",
        noise_schedule: NoiseScheduleName = "cosine",
        diffusion_steps: int = 1000,
        zero_terminal_snr: bool = False,
        signal_scale: float = 2.0,
        diffuse: Diffused = "image",
        residual_std: float = 0.22,
        noise_emphasis: float = 1.0,
        min_snr_gamma: float | None = None,
        condition_dropout: float = 0.0,
        sampler: SamplerName = "dpm++",
        steps: int = 10,
        spacing: Spacing = "log-snr",
        consistency: ConsistencyName = "auto",
        n_samples: int = 8,
        start_timestep: int | None = None,
        lr: float = 1e-4,
        schedule: Schedule = "cosine",
        warmup_steps: int = 100,
        decay_every: int = 20_000,
        decay: float = 0.2,
        protocol: Protocol = "fastmri",
        baselines: tuple[BaselineName, ...] = (),
        real_slice: bool = False,
        lpips_backbone: str | None = None,
        lpips_heads: str | None = None,
    ) -> None:
        if zero_terminal_snr and prediction == "epsilon":
            raise ConfigError(
                "model.zero_terminal_snr leaves nothing to predict the noise from at the last step: "
                "use model.prediction=v or x0."
            )
        positive = {
            "residual_std": residual_std,
            "noise_emphasis": noise_emphasis,
            "signal_scale": signal_scale,
            "n_samples": n_samples,
            "min_snr_gamma": 1.0 if min_snr_gamma is None else min_snr_gamma,
        }
        for name, value in positive.items():
            if not value > 0:
                raise ConfigError(f"model.{name} should be positive, not {value}.")
        if not 0 <= condition_dropout <= 1:
            raise ConfigError(f"model.condition_dropout should be from 0 to 1, not {condition_dropout}.")
        sizes = resolve_size(
            network_size,
            model_channels=model_channels,
            num_res_blocks=num_res_blocks,
            channel_mult=channel_mult,
            attention_resolutions=attention_resolutions,
            use_scale_shift_norm=use_scale_shift_norm,
            resblock_updown=resblock_updown,
        )
        network: DiffusionUNet | DiffusionUDNO
        if architecture == "udno":
            levels = len(sizes["channel_mult"]) - 1
            channels = sizes["model_channels"]
            network = DiffusionUDNO(in_channels, channels, out_channels, levels, radius_cutoff, kernel_shape, dropout)
        else:
            network = DiffusionUNet(
                in_channels=in_channels,
                out_channels=out_channels,
                num_heads=num_heads,
                num_head_channels=num_head_channels,
                use_new_attention_order=use_new_attention_order,
                dropout=dropout,
                norm_groups=norm_groups,
                use_checkpoint=use_checkpoint,
                **sizes,
            )
        super().__init__(
            network, lr, schedule, warmup_steps, decay_every, decay, "relative", protocol, baselines, real_slice
        )
        self.save_hyperparameters()
        self.prediction, self.signal_scale = prediction, signal_scale
        self.diffuse, self.residual_std = diffuse, residual_std
        self.noise_emphasis = noise_emphasis
        self.min_snr_gamma, self.condition_dropout = min_snr_gamma, condition_dropout
        try:
            self.process = NoiseSchedule.create(noise_schedule, diffusion_steps, zero_terminal_snr)
        except ValueError as error:
            raise ConfigError(f"model.diffusion_steps and model.noise_schedule: {error}.") from None
        self.sampling = Sampling(sampler, steps, spacing, consistency, start_timestep=start_timestep)
        self.n_samples = n_samples
        self.val_loss = MeanMetric()
        self.scores = PosteriorScores(lpips_backbone, lpips_heads)
        self.test_metrics[SINGLE] = _metrics(protocol, tuple(self.test_metrics["network"]))  # type: ignore[arg-type]

    @property
    def centered(self) -> bool:
        """Whether images have their origin at index n // 2."""
        return True

    @property
    def norm(self) -> Norm:
        """Normalisation of the Fourier transform."""
        return "ortho"

    def problem(self, batch: KSpaceBatch) -> Problem:
        """The batch in the sampler's units."""
        return problem_of(batch, self.signal_scale)

    def frame(self, problem: Problem) -> Frame:
        """What of the images is diffused."""
        if self.diffuse == "residual":
            return Frame(problem.zero_filled, self.residual_std)
        return Frame(torch.zeros_like(problem.zero_filled))

    def denoiser(self, problem: Problem, repeats: int = 1) -> Denoiser:
        """The estimate of what is diffused, by state and level, for each sample `repeats` times in a row."""
        condition = problem.condition.repeat_interleave(repeats, dim=0)

        def denoise(state: Tensor, level: Level) -> Tensor:
            timesteps = torch.full((len(state),), level.timestep, device=state.device)
            output = self.network(torch.cat((self._seen(state, level.alpha), condition), dim=1), timesteps)
            return predicted_x0(output.float(), state, level.alpha, self.prediction)

        return denoise

    def _seen(self, state: Tensor, alpha: Tensor | float) -> Tensor:
        """What the network sees of a state: of a residual's all the less the noisier it is."""
        if self.diffuse == "image":
            return state
        return torch.as_tensor(alpha).sqrt().to(state) * state

    def loss_of(self, batch: KSpaceBatch, timesteps: Tensor, noise: Tensor, dropped: Tensor | None = None) -> Tensor:
        """Squared error of the prediction, mean over the batch.

        Args:
            batch: B slices.
            timesteps: (B,).
            noise: (B, 2, H, W).
            dropped: (B,) boolean, samples that are not told the condition.
        """
        problem = self.problem(batch)
        x0 = to_channels(self.frame(problem).diffused(true_image(batch, problem)))
        alpha = self.process.at(timesteps)
        condition = problem.condition
        if dropped is not None:
            condition = condition * ~dropped.view(-1, 1, 1, 1)
        seen = self._seen(add_noise(x0, noise, alpha), alpha)
        output = self.network(torch.cat((seen, condition), dim=1), timesteps)
        error = (output - training_target(x0, noise, alpha, self.prediction)).square()
        if self.min_snr_gamma is not None:
            error = error * min_snr_weight(alpha, self.prediction, self.min_snr_gamma).to(error)
        return error.mean()

    def training_step(self, batch: KSpaceBatch, batch_idx: int) -> Tensor:
        """The loss at random timesteps."""
        image = batch["image"]
        less = torch.rand(len(image), device=image.device) ** self.noise_emphasis
        timesteps = ((1 - less) * self.process.steps).long().clamp(0, self.process.steps - 1)
        noise = torch.randn(len(image), 2, *image.shape[-2:], device=image.device)
        dropped = None
        if self.condition_dropout > 0:
            dropped = torch.rand(len(image), device=image.device) < self.condition_dropout
        loss = self.loss_of(batch, timesteps, noise, dropped)
        self.train_loss(loss.detach(), weight=len(image))
        self.log("train/loss", self.train_loss, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: KSpaceBatch, batch_idx: int) -> None:
        """The loss at fixed timesteps with fixed noise, and the metrics of one sample."""
        image = batch["image"]
        generator = torch.Generator().manual_seed(batch_idx)
        timesteps = torch.randint(self.process.steps, (len(image),), generator=generator).to(image.device)
        noise = torch.randn(len(image), 2, *image.shape[-2:], generator=generator).to(image.device)
        self.val_loss(self.loss_of(batch, timesteps, noise), weight=len(image))
        self._update(self.val_metrics, self.sample_batch(batch, 1).image, batch)

    def on_validation_epoch_end(self) -> None:
        """Logs loss and metrics."""
        super().on_validation_epoch_end()
        self.log("val/loss", self.val_loss.compute())
        self.val_loss.reset()

    def sample_batch(self, batch: KSpaceBatch, n_samples: int, **sampling: Any) -> Posterior:
        """Samples for a batch in its scaled units; `sampling` as of `reconstruct`."""
        return self._sample(self.problem(batch), n_samples, _keys(batch), replace(self.sampling, **sampling))

    def images(self, batch: KSpaceBatch) -> list[Tensor]:
        """Magnitude of the mean of the samples."""
        return [self.sample_batch(batch, self.n_samples).image]

    def kspace(self, batch: KSpaceBatch) -> Tensor:
        """k-space of the mean of the samples."""
        mean = self.sample_batch(batch, self.n_samples).mean
        return fft2(expand(mean, self.problem(batch).measurement.operator.maps))

    def test_step(self, batch: KSpaceBatch, batch_idx: int) -> Sampled:
        """Metrics of the mean, of one sample and of the baselines, and how far the spread can be trusted."""
        posterior = self.sample_batch(batch, self.n_samples)
        images = {"network": posterior.image, **self.baseline_images(batch), SINGLE: posterior.samples[:, 0].abs()}
        for method, image in images.items():
            self._update(self.test_metrics[method], image, batch)
        height, width = batch["crop"][0].tolist()
        self.scores.update(posterior, batch["target"], batch["sampling_mask"][:, 0], (height, width))
        scale = batch["scaling_factor"].view(-1, 1, 1)
        scaled = {method: image * scale for method, image in images.items() if method != "network"}
        in_data_units = replace(posterior, samples=posterior.samples * scale.unsqueeze(1))
        return {"image": in_data_units.image, "baselines": scaled, "posterior": in_data_units}

    def predict_step(self, batch: KSpaceBatch, batch_idx: int) -> Sampled:
        """Samples and the magnitude of their mean."""
        posterior = self.sample_batch(batch, self.n_samples)
        scale = batch["scaling_factor"].view(-1, 1, 1)
        scaled = replace(posterior, samples=posterior.samples * scale.unsqueeze(1))
        return {"image": scaled.image, "baselines": {}, "posterior": scaled}

    def on_test_epoch_end(self) -> None:
        """Logs images' metrics and the statistics of the posterior."""
        super().on_test_epoch_end()
        for name, value in self.scores.compute():
            self.log(f"test/{name}", value)

    def reconstruct(
        self,
        kspace: Tensor,
        mask: Tensor,
        sensitivity_maps: Tensor | MapsName | None = None,
        n_samples: int | None = None,
        sampler: SamplerName | None = None,
        steps: int | None = None,
        consistency: ConsistencyName | None = None,
        spacing: Spacing | None = None,
        eta: float = 0.0,
        noise: float | Tensor | None = None,
        start: Tensor | None = None,
        start_timestep: int | None = None,
        rederive: bool = False,
        rate: float = 1.0,
        seed: int = 0,
        antithetic: bool = True,
        keys: Sequence[tuple[int, ...]] | None = None,
        progress: bool = False,
    ) -> Posterior:
        """Samples images that explain undersampled k-space.

        Args:
            kspace: (B, C, H, W) complex, or (B, H, W) or (H, W) of one coil, 0 where not sampled, with its
                origin at index n // 2, in any units.
            mask: boolean, broadcastable to (B, 1, H, W), True where sampled.
            sensitivity_maps: (B, C, H, W) complex, or how to make them from the fully sampled centre: "acs" for
                maps of its low resolution, which is the default, or "espirit"; those of one coil are 1.
            n_samples: K.
            sampler: "ddpm", "ddim", "dpm++", "sde-dpm++" or "heun".
            steps: network evaluations for each sample.
            consistency: see `zoo.mri.diffusion.consistency.Consistency`.
            spacing: of the steps, see `zoo.mri.diffusion.process.NoiseSchedule.timesteps`.
            eta: of DDIM.
            noise: standard deviation of real and imaginary part of the samples of k-space, in its units; by
                default it is estimated. 0 makes the default consistency exact.
            start: (B, H, W) complex image in the units of the data to start from, with noise on it; by default
                pure noise.
            start_timestep: skip the steps of higher noise (Chung et al., "Come-Closer-Diffuse-Faster", CVPR
                2022); by default the model's. Without `start` they are made in one, from pure noise: samples then vary
                about the network's first estimate.
            rederive: see `zoo.mri.diffusion.sampling.sample`.
            rate: of the consistencies "gradient" and "dps".
            seed: of the samples.
            antithetic: every second sample is made of the negative of the noise of the one before. Each is a sample
                of the posterior as before, but the error of their mean is less (Jia et al., arXiv 2506.06185); without
                it they are independent.
            keys: a tuple for each slice that, with the seed, makes its samples independent of the batch; its
                number in the batch by default.
            progress: show a bar with the time left.

        Raises:
            ValueError: the shapes do not fit, k-space is not finite, or the noise negative.
            ConfigError: there is no such sampler, spacing or consistency, or numbers with which nothing can be sampled.
        """
        scan = scan_of(kspace.to(self.device), mask.to(self.device), sensitivity_maps)
        problem = Problem.create(*scan, self.signal_scale, noise)
        given: dict[str, Any] = {
            "sampler": sampler,
            "steps": steps,
            "consistency": consistency,
            "spacing": spacing,
            "start_timestep": start_timestep,
        }
        how = replace(
            self.sampling,
            eta=eta,
            start=None if start is None else start.to(self.device) / problem.scale.view(-1, 1, 1),
            rederive=rederive,
            rate=rate,
            seed=seed,
            antithetic=antithetic,
            progress=progress,
            **{key: value for key, value in given.items() if value is not None},
        )
        keys = [(index,) for index in range(len(problem.scale))] if keys is None else keys
        return self._sample(problem, self.n_samples if n_samples is None else n_samples, keys, how)

    def _sample(self, problem: Problem, n_samples: int, keys: Sequence[tuple[int, ...]], how: Sampling) -> Posterior:
        frame, data_std = self.frame(problem), self.signal_scale / 4
        return sample_posterior(self.denoiser, self.process, problem, frame, n_samples, keys, how, data_std)

    def predict_file(
        self,
        input: Path,
        output: Path,
        layout: str | None = None,
        key: str = "kspace",
        acceleration: float | None = None,
        center_fraction: float = 0.08,
        margin: int = 0,
        n_samples: int | None = None,
        sampler: SamplerName | None = None,
        steps: int | None = None,
        consistency: ConsistencyName | None = None,
        noise: float | None = None,
        maps: MapsName = "acs",
        spacing: Spacing | None = None,
        start: str | None = None,
        start_timestep: int | None = None,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Samples images for a file of k-space; stopped, it goes on with the next slice when run again.

        Args:
            input, layout, key, acceleration, center_fraction, margin: see
                `zoo.mri.reconstructor.Reconstructor.predict_file`.
            output: .npz or .h5 with the magnitude of the mean ("image" or "reconstruction", (slices, H, W)),
                "std", complex "samples" (slices, K, H, W), "residual" (slices, K) and "noise" (slices,), in the
                units of the input; .npy, .nii, .nii.gz or .png with the mean alone.
            n_samples, sampler, steps, consistency, noise, spacing, start_timestep, seed: see `reconstruct`; maps:
                its `sensitivity_maps`.
            start: weights (a name, a file or a run folder) of a model that reconstructs, such as
                ``mri/diffusion-regression``. Samples then start from its image, unless told otherwise at timestep 300
                with steps even in log-SNR. Their mean is better than that image and than the mean of samples from
                noise, their spread less than the posterior's.

        Raises:
            DataError: the input can't be read, is not undersampled, or the output's format is unknown.
            ConfigError: `start` does not reconstruct k-space, or in another Fourier convention.
            UnknownNameError, WeightsError: `start` can't be loaded.
        """
        require_format(output, FORMATS)
        if start is not None:
            start_timestep = START_TIMESTEP if start_timestep is None else start_timestep
            spacing = spacing or "log-snr"
        scan = Undersampled.open(input, layout, key, acceleration, center_fraction, margin)
        return predict_posterior(
            self,
            scan,
            input,
            output,
            start,
            n_samples=n_samples,
            sampler=sampler,
            steps=steps,
            consistency=consistency,
            noise=noise,
            maps=maps,
            spacing=spacing,
            start_timestep=start_timestep,
            seed=seed,
        )

    def figures(self, batch: KSpaceBatch, output: Sampled) -> dict[str, Figure]:  # type: ignore[override]
        """Samples, mean, spread and error; calibration; quality by number of steps; comparison with others."""
        return {**super().figures(batch, output), **figures.of_test_batch(self, batch, output["posterior"])}


def _keys(batch: KSpaceBatch) -> list[tuple[int, ...]]:
    """What names a slice and its acceleration, whatever batch it is in."""
    rates = (10 * batch["acceleration"]).round().long()
    return list(zip(batch["volume"].tolist(), batch["slice_no"].tolist(), rates.tolist(), strict=True))
