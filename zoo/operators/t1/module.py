"""T1 as a LightningModule."""

from __future__ import annotations

from zoo.operators.initialisation import InitRule
from zoo.operators.operator import IntegrationOrder, Loss, Schedule
from zoo.operators.spectral import SpectralOperator
from zoo.operators.t1.network import T1, Activation, HeadInit
from zoo.operators.transforms import Basis
from zoo.registry import register_model


@register_model("operators/t1")
class T1Operator(SpectralOperator):
    """Transform Once: one transform, a network on the kept modes, one inverse transform or none.

    Args:
        modes, width, signal_resolution, nlayers, padding, perform_forward, perform_inverse, residual, keep_high,
            act, weight_init, first_layer_init_only, head_init, basis: see `zoo.operators.t1.network.T1`. The
            perform_ ones concern ``network(x)``; this module's own calls take and give fields.
        in_channels, out_channels, lr, weight_decay, schedule, schedule_period, schedule_factor, loss,
            integration_order, noise, input_mean, input_std, target_mean, target_std: see
            `zoo.operators.operator.FieldOperator`.
    """

    network: T1

    def __init__(
        self,
        modes: int | tuple[int, ...] = 24,
        width: int = 48,
        signal_resolution: tuple[int, ...] = (64, 64),
        in_channels: int = 1,
        out_channels: int = 1,
        nlayers: int = 4,
        padding: int = 0,
        perform_forward: bool = True,
        perform_inverse: bool = False,
        residual: bool = True,
        keep_high: bool = False,
        act: Activation = "sin",
        weight_init: InitRule = 2,
        first_layer_init_only: bool = False,
        head_init: HeadInit = "published",
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
        network = T1(
            modes=modes,
            width=width,
            signal_resolution=signal_resolution,
            in_channels=in_channels,
            out_channels=out_channels,
            nlayers=nlayers,
            padding=padding,
            perform_forward=perform_forward,
            perform_inverse=perform_inverse,
            residual=residual,
            keep_high=keep_high,
            act=act,
            weight_init=weight_init,
            first_layer_init_only=first_layer_init_only,
            head_init=head_init,
            basis=basis,
        )
        self._build(network, len(signal_resolution))
