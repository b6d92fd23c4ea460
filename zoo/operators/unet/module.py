"""The convolutional U-Net baseline as a LightningModule."""

from __future__ import annotations

from zoo.operators.convolutions import UNet
from zoo.operators.operator import FieldOperator, IntegrationOrder, Loss, Schedule
from zoo.registry import register_model


@register_model("operators/unet")
class UNetOperator(FieldOperator):
    """The U-Net that T1U runs in the spectrum, here in space.

    Args:
        size, channel_exponent: see `zoo.operators.convolutions.UNet`; the fields have `size` points per side.
        in_channels, out_channels, lr, weight_decay, schedule, schedule_period, schedule_factor, loss,
            integration_order, noise, input_mean, input_std, target_mean, target_std: see
            `zoo.operators.operator.FieldOperator`.
    """

    network: UNet

    def __init__(
        self,
        size: int = 64,
        in_channels: int = 1,
        out_channels: int = 1,
        channel_exponent: int = 6,
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
        self._build(UNet(size, in_channels, out_channels, channel_exponent), 2)
