"""NO-VarNet as a LightningModule."""

from __future__ import annotations

from torch import Tensor

from zoo.data.kspace import KSpaceBatch
from zoo.errors import ConfigError
from zoo.mri.baselines import BaselineName
from zoo.mri.no_varnet.network import NOVarNet, Reduction, Skip
from zoo.mri.reconstructor import Loss, Protocol, Reconstructor
from zoo.mri.schedule import Schedule
from zoo.ops.disco import filter_basis
from zoo.registry import register_model


@register_model("mri/no-varnet")
class NOVarNetReconstructor(Reconstructor):
    """Multi-coil reconstruction with one network for all undersampling patterns and resolutions.

    Args:
        num_cascades, sens_chans, sens_pools, chans, pools, kno_chans, kno_pools, radius_cutoff, kernel_shape,
            kno_radius_cutoff, kno_kernel_shape, reduction_method, skip_method, published: see
            `zoo.mri.no_varnet.network.NOVarNet`.
        in_shape: (H, W) of the images, if known: filters too fine for them are then refused at once instead of
            with the first image. With `published` see `zoo.mri.no_varnet.network.NOVarNet`.
        lr, schedule, warmup_steps, decay_every, decay, loss, protocol, baselines, real_slice: see
            `zoo.mri.reconstructor.Reconstructor`.
    """

    network: NOVarNet

    def __init__(
        self,
        num_cascades: int = 6,
        sens_chans: int = 8,
        sens_pools: int = 4,
        chans: int = 18,
        pools: int = 4,
        kno_chans: int = 16,
        kno_pools: int = 4,
        radius_cutoff: float = 0.02,
        kernel_shape: tuple[int, ...] = (6, 7),
        kno_radius_cutoff: float | None = None,
        kno_kernel_shape: tuple[int, ...] | None = None,
        reduction_method: Reduction = "batch",
        skip_method: Skip = "replace",
        published: bool = False,
        in_shape: tuple[int, int] | None = None,
        lr: float = 3e-4,
        schedule: Schedule = "step",
        warmup_steps: int = 0,
        decay_every: int = 20_000,
        decay: float = 0.1,
        loss: Loss = "published",
        protocol: Protocol = "fastmri",
        baselines: tuple[BaselineName, ...] = (),
        real_slice: bool = False,
    ) -> None:
        if in_shape is not None and not published:
            try:
                filter_basis((in_shape[0], in_shape[1]), tuple(kernel_shape), radius_cutoff)
            except ValueError as error:
                raise ConfigError(
                    f"model.radius_cutoff and model.kernel_shape do not fit the images: {error}."
                ) from None
        network = NOVarNet(
            num_cascades,
            sens_chans,
            sens_pools,
            chans,
            pools,
            kno_chans,
            kno_pools,
            radius_cutoff,
            kernel_shape,
            kno_radius_cutoff,
            kno_kernel_shape,
            reduction_method,
            skip_method,
            published,
            in_shape,
        )
        super().__init__(network, lr, schedule, warmup_steps, decay_every, decay, loss, protocol, baselines, real_slice)
        self.save_hyperparameters()

    def kspace(self, batch: KSpaceBatch) -> Tensor:
        """The last step's k-space."""
        return self.network(batch["masked_kspace"], batch["sampling_mask"], batch["acs_mask"])

    def images(self, batch: KSpaceBatch) -> list[Tensor]:
        """The last step's image."""
        return [self.magnitude(self.kspace(batch), batch)]
