"""RIM as a LightningModule."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from zoo.data.kspace import KSpaceBatch
from zoo.errors import ConfigError
from zoo.mri.baselines import BaselineName
from zoo.mri.fourier import Norm, fft2
from zoo.mri.operators import expand
from zoo.mri.reconstructor import Loss, Protocol, Reconstructor, require_pairs
from zoo.mri.rim.network import RIM, EfficientRIM, ImageInitialization
from zoo.mri.schedule import Schedule
from zoo.ranges import check_positive
from zoo.registry import register_model

Cell = Literal["conv-gru", "gru", "mgu", "indrnn"]


@register_model("mri/rim")
class RIMReconstructor(Reconstructor):
    """Multi-coil reconstruction with a recurrent inference machine.

    Args:
        cell: "conv-gru" is the network of the Calgary-Campinas challenge, with the GRU of RecurrentVarNet;
            the others are the efficient RIM with GRU, minimal gated unit or independently recurrent cells.
        hidden_channels, length: see `zoo.mri.rim.network`.
        depth, no_parameter_sharing, instance_norm, dense_connect, skip_connections, normalized, learned_initializer,
            initializer_channels, initializer_dilations, initializer_multiscale: of "conv-gru" only, see
            `zoo.mri.rim.network.RIM`.
        conv_kernels, conv_dilations, recurrent_kernels, sigma: of the other cells only, see
            `zoo.mri.rim.network.EfficientRIM`.
        image_initialization, fft_centered, fft_norm, checkpoint_steps, sensitivity_filters,
            sensitivity_pools: see `zoo.mri.rim.network`.
        step_weights: of the steps' losses; "uniform" is their mean, "log" weights them from 0.1 to 1.
        lr, schedule, warmup_steps, decay_every, decay, loss, protocol, baselines, real_slice: see
            `zoo.mri.reconstructor.Reconstructor`.
    """

    network: RIM | EfficientRIM

    def __init__(
        self,
        cell: Cell = "conv-gru",
        hidden_channels: int = 128,
        length: int = 16,
        depth: int = 2,
        no_parameter_sharing: bool = False,
        instance_norm: bool = False,
        dense_connect: bool = False,
        skip_connections: bool = True,
        normalized: bool = False,
        learned_initializer: bool = False,
        initializer_channels: tuple[int, ...] = (32, 32, 64, 64),
        initializer_dilations: tuple[int, ...] = (1, 1, 2, 4),
        initializer_multiscale: int = 1,
        conv_kernels: tuple[int, int, int] = (5, 3, 3),
        conv_dilations: tuple[int, int, int] = (1, 2, 1),
        recurrent_kernels: tuple[int, int] = (1, 1),
        sigma: float = 1.0,
        image_initialization: ImageInitialization = "sense",
        fft_centered: bool = True,
        fft_norm: Norm = "ortho",
        checkpoint_steps: bool = False,
        sensitivity_filters: int | None = None,
        sensitivity_pools: int = 4,
        step_weights: Literal["uniform", "log"] = "uniform",
        lr: float = 5e-4,
        schedule: Schedule = "step",
        warmup_steps: int = 1000,
        decay_every: int = 20_000,
        decay: float = 0.2,
        loss: Loss = "published",
        protocol: Protocol = "fastmri",
        baselines: tuple[BaselineName, ...] = (),
        real_slice: bool = False,
    ) -> None:
        check_positive(
            "model",
            hidden_channels=hidden_channels,
            length=length,
            depth=depth,
            initializer_multiscale=initializer_multiscale,
            sigma=sigma,
            sensitivity_filters=sensitivity_filters or None,
            sensitivity_pools=sensitivity_pools,
        )
        if learned_initializer:
            require_pairs(initializer_channels, initializer_dilations)
        if any(kernel % 2 == 0 for kernel in (*conv_kernels, *recurrent_kernels)):
            raise ConfigError(
                f"model.conv_kernels {list(conv_kernels)} and model.recurrent_kernels {list(recurrent_kernels)} should "
                "be odd."
            )
        network: RIM | EfficientRIM
        if cell == "conv-gru":
            network = RIM(
                hidden_channels,
                length,
                depth,
                no_parameter_sharing,
                instance_norm,
                dense_connect,
                skip_connections,
                normalized,
                image_initialization,
                learned_initializer,
                initializer_channels,
                initializer_dilations,
                initializer_multiscale,
                fft_centered,
                fft_norm,
                checkpoint_steps,
                sensitivity_filters,
                sensitivity_pools,
            )
        else:
            network = EfficientRIM(
                cell,
                hidden_channels,
                length,
                conv_kernels,
                conv_dilations,
                recurrent_kernels,
                sigma,
                image_initialization,
                fft_centered,
                fft_norm,
                checkpoint_steps,
                sensitivity_filters,
                sensitivity_pools,
            )
        super().__init__(network, lr, schedule, warmup_steps, decay_every, decay, loss, protocol, baselines, real_slice)
        self.save_hyperparameters()
        self.step_weights = step_weights

    def _steps(self, batch: KSpaceBatch) -> list[Tensor]:
        images, _ = self.network(batch["masked_kspace"], batch["sampling_mask"], batch["sensitivity_map"])
        return images

    def images(self, batch: KSpaceBatch) -> list[Tensor]:
        """The image after every step."""
        return [image.abs() for image in self._steps(batch)]

    def _weighted(self, batch: KSpaceBatch) -> list[tuple[Tensor, float]]:
        images = self.images(batch)
        if self.step_weights == "uniform":
            return [(image, 1 / len(images)) for image in images]
        weights = (torch.logspace(-1, 0, len(images)) / len(images)).tolist()
        return list(zip(images, weights, strict=True))

    def kspace(self, batch: KSpaceBatch) -> Tensor:
        """What each coil would measure of the last image."""
        maps = self.network.refine(batch["sensitivity_map"])
        return fft2(expand(self._steps(batch)[-1], maps), self.centered, self.norm)
