"""T1U, published and improved, as LightningModules."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, Dataset

from zoo.data.fields import FieldBatch
from zoo.operators.operator import IntegrationOrder, Loss, Schedule
from zoo.operators.spectral import SpectralOperator
from zoo.operators.t1.network import Activation
from zoo.operators.t1u.network import T1U
from zoo.operators.t1u.plus import Domain, T1UPlus
from zoo.operators.transforms import Basis
from zoo.registry import register_model


@register_model("operators/t1u")
class T1UOperator(SpectralOperator):
    """The published U-Net in the spectrum, after one T1 layer.

    Args:
        modes, signal_resolution, channel_exponent, act, perform_inverse, basis: see
            `zoo.operators.t1u.network.T1U`. perform_inverse concerns ``network(x)``; this module's own calls give
            fields.
        in_channels, out_channels, lr, weight_decay, schedule, schedule_period, schedule_factor, loss,
            integration_order, noise, input_mean, input_std, target_mean, target_std: see
            `zoo.operators.operator.FieldOperator`.
    """

    network: T1U

    def __init__(
        self,
        modes: int = 24,
        signal_resolution: tuple[int, ...] = (64, 64),
        channel_exponent: int = 6,
        in_channels: int = 1,
        out_channels: int = 1,
        act: Activation = "gelu",
        perform_inverse: bool = False,
        basis: Basis = "dct",
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        schedule: Schedule = "one-cycle",
        schedule_period: int = 100,
        schedule_factor: float = 0.5,
        loss: Loss = "relative_l2",
        integration_order: IntegrationOrder = 0,
        noise: float = 0.0,
        input_mean: tuple[float, ...] = (0.0,),
        input_std: tuple[float, ...] = (1.0,),
        target_mean: tuple[float, ...] = (0.0,),
        target_std: tuple[float, ...] = (1.0,),
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        network = T1U(
            modes=modes,
            signal_resolution=signal_resolution,
            channel_exponent=channel_exponent,
            in_channels=in_channels,
            out_channels=out_channels,
            act=act,
            perform_inverse=perform_inverse,
            basis=basis,
        )
        self._build(network, 2)


@register_model("operators/t1u-plus")
class T1UPlusOperator(SpectralOperator):
    """T1U+: a residual U-Net on the kept modes, each in units of its own spread.

    Args:
        modes, signal_resolution, width, domain, scaling, perform_inverse, basis: see `zoo.operators.t1u.plus.T1UPlus`.
            perform_inverse concerns ``network(x)``; this module's own calls give fields.
        in_channels, out_channels, lr, weight_decay, schedule, schedule_period, schedule_factor, loss,
            integration_order, noise, input_mean, input_std, target_mean, target_std: see
            `zoo.operators.operator.FieldOperator`.
    """

    network: T1UPlus

    def __init__(
        self,
        modes: int = 24,
        signal_resolution: tuple[int, ...] = (64, 64),
        width: int = 24,
        domain: Domain = "modes",
        in_channels: int = 1,
        out_channels: int = 1,
        scaling: float = 0.5,
        perform_inverse: bool = False,
        basis: Basis = "fourier",
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        schedule: Schedule = "one-cycle",
        schedule_period: int = 100,
        schedule_factor: float = 0.5,
        loss: Loss = "relative_l2",
        integration_order: IntegrationOrder = 0,
        noise: float = 0.0,
        input_mean: tuple[float, ...] = (0.0,),
        input_std: tuple[float, ...] = (1.0,),
        target_mean: tuple[float, ...] = (0.0,),
        target_std: tuple[float, ...] = (1.0,),
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        network = T1UPlus(
            modes, signal_resolution, width, domain, in_channels, out_channels, scaling, perform_inverse, basis
        )
        self._build(network, 2)

    def on_fit_start(self) -> None:
        """Measures the spread of each mode over the training set, the same on every process.

        Pretrained weights keep the spread that they were trained with.
        """
        if not self.network.fitted:
            self.measure(self.trainer.datamodule.train)  # type: ignore[attr-defined]

    def measure(self, dataset: Dataset[FieldBatch]) -> None:
        """Gives the network mean and spread of each mode over a training set."""
        inputs, outputs = [], []
        for batch in DataLoader(dataset, 100):
            given, target = self.normalise(batch)
            space = given.shape[2:]
            inputs.append(self.encode(given))
            outputs.append(self.encode(self.increment(given, target[:, 0])))
        self.network.fit(torch.cat(inputs).to(self.device), torch.cat(outputs).to(self.device), space)
