"""F-FNO as a LightningModule."""

from __future__ import annotations

from zoo.operators.ffno.network import FFNO
from zoo.operators.operator import FieldOperator, IntegrationOrder, Loss, Schedule
from zoo.registry import register_model


@register_model("operators/ffno")
class FFNOOperator(FieldOperator):
    """The factorised Fourier neural operator.

    Args:
        modes, width, n_layers, factor, dims: see `zoo.operators.ffno.network.FFNO`.
        grid: for periodic fields, points per side of a coarser grid on which to work.
        in_channels, out_channels, lr, weight_decay, schedule, schedule_period, schedule_factor, loss,
            integration_order, noise, input_mean, input_std, target_mean, target_std: see
            `zoo.operators.operator.FieldOperator`.
    """

    network: FFNO

    def __init__(
        self,
        modes: int = 32,
        width: int = 82,
        in_channels: int = 1,
        out_channels: int = 1,
        n_layers: int = 4,
        factor: int = 2,
        dims: int = 2,
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
        self._build(FFNO(modes, width, in_channels, out_channels, n_layers, factor, dims), dims, grid)
