"""End-to-end VarNet as a LightningModule."""

from __future__ import annotations

from torch import Tensor

from zoo.data.kspace import KSpaceBatch
from zoo.mri.baselines import BaselineName
from zoo.mri.fourier import Norm
from zoo.mri.reconstructor import Loss, Protocol, Reconstructor
from zoo.mri.schedule import Schedule
from zoo.mri.varnet.network import VarNet
from zoo.ranges import check_positive
from zoo.registry import register_model


@register_model("mri/varnet")
class VarNetReconstructor(Reconstructor):
    """Multi-coil reconstruction with the end-to-end VarNet.

    Args:
        num_cascades, sens_chans, sens_pools, chans, pools, fft_centered, fft_norm, checkpoint_steps: see
            `zoo.mri.varnet.network.VarNet`.
        lr, schedule, warmup_steps, decay_every, decay, loss, protocol, baselines, real_slice: see
            `zoo.mri.reconstructor.Reconstructor`.
    """

    network: VarNet

    def __init__(
        self,
        num_cascades: int = 12,
        sens_chans: int = 8,
        sens_pools: int = 4,
        chans: int = 18,
        pools: int = 4,
        fft_centered: bool = True,
        fft_norm: Norm = "ortho",
        checkpoint_steps: bool = False,
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
            "model", num_cascades=num_cascades, sens_chans=sens_chans, sens_pools=sens_pools, chans=chans, pools=pools
        )
        network = VarNet(num_cascades, sens_chans, sens_pools, chans, pools, fft_centered, fft_norm, checkpoint_steps)
        super().__init__(network, lr, schedule, warmup_steps, decay_every, decay, loss, protocol, baselines, real_slice)
        self.save_hyperparameters()

    def kspace(self, batch: KSpaceBatch) -> Tensor:
        """The last step's k-space."""
        return self.network(batch["masked_kspace"], batch["sampling_mask"], batch["acs_mask"])

    def images(self, batch: KSpaceBatch) -> list[Tensor]:
        """The last step's image."""
        return [self.magnitude(self.kspace(batch), batch)]
