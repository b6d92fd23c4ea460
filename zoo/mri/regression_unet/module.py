"""The network of `mri/diffusion` as a regression of the image, for comparison."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.data.kspace import KSpaceBatch
from zoo.mri.baselines import BaselineName
from zoo.mri.diffusion.consistency import gradient, proximal
from zoo.mri.diffusion.network import DiffusionUNet
from zoo.mri.diffusion.problem import Problem, problem_of, true_image
from zoo.mri.diffusion.sizes import Size, resolve_size
from zoo.mri.fourier import Norm, fft2
from zoo.mri.operators import expand, from_channels, to_channels
from zoo.mri.reconstructor import Protocol, Reconstructor
from zoo.mri.schedule import Schedule
from zoo.registry import register_model


@register_model("mri/regression-unet")
class RegressionUNet(Reconstructor):
    """The image in one pass: zero-filled image plus what the network says, then one step of data consistency.

    The network is that of `mri/diffusion` without a noisy image: it sees zeros in its place, at timestep 0.

    Args:
        network_size, model_channels, norm_groups: see `zoo.mri.diffusion.module.DiffusionReconstructor`.
        signal_scale: likewise.
        error_std: standard deviation of the network's error in its units, against which the measurement's
            noise is weighed.
        lr, schedule, warmup_steps, decay_every, decay, protocol, baselines, real_slice: see
            `zoo.mri.reconstructor.Reconstructor`.
    """

    network: DiffusionUNet

    def __init__(
        self,
        network_size: Size = "tiny",
        model_channels: int | None = None,
        norm_groups: int = 32,
        signal_scale: float = 2.0,
        error_std: float = 0.1,
        lr: float = 1e-4,
        schedule: Schedule = "cosine",
        warmup_steps: int = 100,
        decay_every: int = 20_000,
        decay: float = 0.2,
        protocol: Protocol = "fastmri",
        baselines: tuple[BaselineName, ...] = (),
        real_slice: bool = False,
    ) -> None:
        sizes = resolve_size(network_size, model_channels=model_channels)
        network = DiffusionUNet(in_channels=5, norm_groups=norm_groups, **sizes)
        super().__init__(
            network, lr, schedule, warmup_steps, decay_every, decay, "relative", protocol, baselines, real_slice
        )
        self.save_hyperparameters()
        self.signal_scale, self.error_std = signal_scale, error_std

    @property
    def centered(self) -> bool:
        """Whether images have their origin at index n // 2."""
        return True

    @property
    def norm(self) -> Norm:
        """Normalisation of the Fourier transform."""
        return "ortho"

    def estimate(self, problem: Problem) -> Tensor:
        """The network's image (B, 2, H, W) in the sampler's units."""
        condition = problem.condition
        given = torch.cat((torch.zeros_like(condition[:, :2]), condition), dim=1)
        timesteps = torch.zeros(len(given), device=given.device)
        return condition[:, :2] + self.network(given, timesteps).float()

    def training_step(self, batch: KSpaceBatch, batch_idx: int) -> Tensor:
        """Mean squared error of the complex image, without data consistency."""
        problem = problem_of(batch, self.signal_scale)
        loss = (self.estimate(problem) - to_channels(true_image(batch, problem))).square().mean()
        self.train_loss(loss.detach(), weight=len(batch["image"]))
        self.log("train/loss", self.train_loss, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def complex_image(self, batch: KSpaceBatch) -> tuple[Tensor, Problem]:
        """The consistent image (B, H, W) in the batch's units."""
        problem = problem_of(batch, self.signal_scale)
        image, measurement = from_channels(self.estimate(problem)), problem.measurement
        ratio = (measurement.noise / self.error_std).square().view(-1, 1, 1)
        if measurement.coils == 1:
            image = gradient(image, measurement, 1 / (1 + ratio))
        else:
            image = proximal(image, measurement, ratio)
        return problem.to_data(image), problem

    def images(self, batch: KSpaceBatch) -> list[Tensor]:
        """Its magnitude."""
        return [self.complex_image(batch)[0].abs()]

    def kspace(self, batch: KSpaceBatch) -> Tensor:
        """Its k-space."""
        image, problem = self.complex_image(batch)
        return fft2(expand(image, problem.measurement.operator.maps))
