"""FNO, in the form of the neuraloperator library and of the T1 repository, as LightningModules."""

from __future__ import annotations

from zoo.operators.fno.kairos import KairosFNO
from zoo.operators.fno.network import FNO, Embedding
from zoo.operators.initialisation import InitRule
from zoo.operators.operator import FieldOperator, IntegrationOrder, Loss, Schedule
from zoo.registry import register_model


@register_model("operators/fno")
class FNOOperator(FieldOperator):
    """neuraloperator's Fourier neural operator.

    Args:
        n_modes, hidden_channels, n_layers, positional_embedding: see `zoo.operators.fno.network.FNO`.
        grid: for periodic fields, points per side of the coarser grid on which to work: the smallest that holds
            the modes (32 for 24) loses no accuracy and costs a quarter of 64 x 64. None: the fields' own grid.
        in_channels, out_channels, lr, weight_decay, schedule, schedule_period, schedule_factor, loss,
            integration_order, noise, input_mean, input_std, target_mean, target_std: see
            `zoo.operators.operator.FieldOperator`.
    """

    network: FNO

    def __init__(
        self,
        n_modes: tuple[int, ...] = (24, 24),
        in_channels: int = 1,
        out_channels: int = 1,
        hidden_channels: int = 32,
        n_layers: int = 4,
        positional_embedding: Embedding = "grid",
        grid: int | None = None,
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
        network = FNO(n_modes, in_channels, out_channels, hidden_channels, n_layers, positional_embedding)
        self._build(network, len(n_modes), grid)


@register_model("operators/fno-kairos")
class KairosFNOOperator(FieldOperator):
    """The FNO that the Transform Once repository compares with.

    Args:
        modes, width, signal_resolution, nlayers, weight_init, drop_imaginary: see
            `zoo.operators.fno.kairos.KairosFNO`.
        in_channels, out_channels, lr, weight_decay, schedule, schedule_period, schedule_factor, loss,
            integration_order, noise, input_mean, input_std, target_mean, target_std: see
            `zoo.operators.operator.FieldOperator`.
    """

    network: KairosFNO

    def __init__(
        self,
        modes: int = 24,
        width: int = 32,
        signal_resolution: tuple[int, ...] = (64, 64),
        in_channels: int = 1,
        out_channels: int = 1,
        nlayers: int = 4,
        weight_init: InitRule = 1,
        drop_imaginary: bool = False,
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
        network = KairosFNO(
            modes, width, signal_resolution, in_channels, out_channels, nlayers, weight_init, drop_imaginary
        )
        self._build(network, 2)
