"""RecurrentVarNet as a LightningModule."""

from __future__ import annotations

from torch import Tensor

from zoo.data.kspace import KSpaceBatch
from zoo.errors import ConfigError
from zoo.mri.baselines import BaselineName
from zoo.mri.fourier import Norm
from zoo.mri.reconstructor import Loss, Protocol, Reconstructor, require_pairs
from zoo.mri.recurrentvarnet.network import Domain, Initialization, RecurrentVarNet
from zoo.mri.schedule import Schedule
from zoo.mri.sensitivity import network_maps
from zoo.ranges import check_positive
from zoo.registry import register_model


@register_model("mri/recurrentvarnet")
class RecurrentVarNetReconstructor(Reconstructor):
    """Multi-coil reconstruction with RecurrentVarNet.

    Args:
        num_steps, recurrent_hidden_channels, recurrent_num_layers, no_parameter_sharing, learned_initializer,
            initializer_initialization, initializer_channels, initializer_dilations, initializer_multiscale,
            normalized, fft_centered, fft_norm, sensitivity_filters, sensitivity_pools, data_gradient,
            rms_scaling, initializer_domain, checkpoint_steps, opening_iterations, closing_iterations: see
            `zoo.mri.recurrentvarnet.network.RecurrentVarNet`.
        espirit: the coil maps that the network gets are ESPIRiT's where the fully sampled centre is large enough for
            them, see `zoo.mri.sensitivity.network_maps`; otherwise always those of low resolution, as published.
        lr, schedule, warmup_steps, decay_every, decay, loss, protocol, baselines, real_slice: see
            `zoo.mri.reconstructor.Reconstructor`.
    """

    network: RecurrentVarNet

    def __init__(
        self,
        num_steps: int = 8,
        recurrent_hidden_channels: int = 128,
        recurrent_num_layers: int = 4,
        no_parameter_sharing: bool = True,
        learned_initializer: bool = True,
        initializer_initialization: Initialization | None = "sense",
        initializer_channels: tuple[int, ...] = (32, 32, 64, 64),
        initializer_dilations: tuple[int, ...] = (1, 1, 2, 4),
        initializer_multiscale: int = 3,
        normalized: bool = False,
        fft_centered: bool = True,
        fft_norm: Norm = "ortho",
        sensitivity_filters: int | None = None,
        sensitivity_pools: int = 4,
        data_gradient: bool = False,
        rms_scaling: bool = False,
        initializer_domain: Domain = "kspace",
        checkpoint_steps: bool = False,
        opening_iterations: int = 0,
        closing_iterations: int = 0,
        espirit: bool = False,
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
            num_steps=num_steps,
            recurrent_hidden_channels=recurrent_hidden_channels,
            recurrent_num_layers=recurrent_num_layers,
            initializer_multiscale=initializer_multiscale,
            sensitivity_filters=sensitivity_filters or None,
            sensitivity_pools=sensitivity_pools,
        )
        if learned_initializer:
            require_pairs(initializer_channels, initializer_dilations)
        if opening_iterations < 0 or closing_iterations < 0:
            raise ConfigError(
                f"model.opening_iterations ({opening_iterations}) and model.closing_iterations ({closing_iterations}) "
                "should be 0 or more."
            )
        network = RecurrentVarNet(
            num_steps,
            recurrent_hidden_channels,
            recurrent_num_layers,
            no_parameter_sharing,
            learned_initializer,
            initializer_initialization,
            initializer_channels,
            initializer_dilations,
            initializer_multiscale,
            normalized,
            fft_centered,
            fft_norm,
            sensitivity_filters,
            sensitivity_pools,
            data_gradient,
            rms_scaling,
            initializer_domain,
            checkpoint_steps,
            opening_iterations,
            closing_iterations,
        )
        super().__init__(network, lr, schedule, warmup_steps, decay_every, decay, loss, protocol, baselines, real_slice)
        self.save_hyperparameters()
        self.espirit = espirit

    def kspace(self, batch: KSpaceBatch) -> Tensor:
        """The last step's k-space."""
        maps = batch["sensitivity_map"]
        if self.espirit:
            maps = network_maps(batch["masked_kspace"], batch["acs_mask"], maps, self.centered)
        return self.network(batch["masked_kspace"], batch["sampling_mask"], maps)

    def images(self, batch: KSpaceBatch) -> list[Tensor]:
        """The last step's image."""
        return [self.magnitude(self.kspace(batch), batch)]
