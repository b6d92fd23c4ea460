"""End-to-end VarNet (Sriram et al., MICCAI 2020, arXiv 2004.06688).

Unrolled gradient descent on k-space as in RecurrentVarNet, with a U-Net of its own and no memory in every
step, and coil maps estimated by a network from the centre of k-space.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.mri.fourier import Norm, fft2, ifft2, shift, unshift
from zoo.mri.operators import expand, normalize_maps, reduce
from zoo.mri.unet import NormUNet


class SensitivityModel(nn.Module):
    """Coil maps from the coil images of the centre of k-space, coil by coil with common weights.

    Args:
        chans, num_pools: see `NormUNet`.
    """

    def __init__(self, chans: int, num_pools: int) -> None:
        super().__init__()
        self.norm_unet = NormUNet(chans, num_pools)

    def forward(self, coil_images: Tensor) -> Tensor:
        """(B, C, H, W) complex -> maps (B, C, H, W) with sum_c |S_c|^2 = 1."""
        maps = self.norm_unet(coil_images.flatten(0, 1))
        return normalize_maps(maps.unflatten(0, coil_images.shape[:2]))


class VarNetBlock(nn.Module):
    """One step, k <- k - eta M (k - y) - F E(U-Net(R F^-1 k)).

    Args:
        chans, pools: see `NormUNet`.
    """

    def __init__(self, chans: int, pools: int) -> None:
        super().__init__()
        self.dc_weight = nn.Parameter(torch.ones(1))
        self.model = NormUNet(chans, pools)

    def forward(
        self, kspace: Tensor, measured: Tensor, mask: Tensor, maps: Tensor, centered: bool, norm: Norm
    ) -> Tensor:
        """The next k; everything has its origin at index 0 and, if `centered`, the U-Net's image at n // 2."""
        residual = torch.where(mask, kspace - measured, 0)
        image = reduce(ifft2(kspace, centered=False, norm=norm), maps)
        image = unshift(self.model(shift(image))) if centered else self.model(image)
        correction = fft2(expand(image, maps), centered=False, norm=norm)
        return kspace - self.dc_weight * residual - correction


class VarNet(nn.Module):
    """The unrolled network; the defaults are fastMRI's.

    Args:
        num_cascades: number of steps.
        sens_chans, sens_pools: filters and levels of the network for coil maps.
        chans, pools: filters and levels of each step's U-Net.
        fft_centered, fft_norm: convention of the Fourier transform, see `zoo.mri.fourier`.
        checkpoint_steps: keep only k-space between the steps for the backward pass.
    """

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
    ) -> None:
        super().__init__()
        self.fft_centered, self.fft_norm, self.checkpoint_steps = fft_centered, fft_norm, checkpoint_steps
        self.sens_net = SensitivityModel(sens_chans, sens_pools)
        self.cascades = nn.ModuleList(VarNetBlock(chans, pools) for _ in range(num_cascades))

    def forward(self, masked_kspace: Tensor, sampling_mask: Tensor, acs_mask: Tensor) -> Tensor:
        """Reconstructed k-space (B, C, H, W).

        Args:
            masked_kspace: (B, C, H, W) complex, 0 where not sampled.
            sampling_mask: boolean, broadcastable to (B, 1, H, W).
            acs_mask: likewise, the fully sampled centre.
        """
        maps = self.sens_net(ifft2(acs_mask * masked_kspace, self.fft_centered, self.fft_norm))
        mask, measured = sampling_mask.bool(), masked_kspace
        if self.fft_centered:
            mask = unshift(mask.expand(*mask.shape[:-2], *maps.shape[-2:]))
            maps, measured = unshift(maps), unshift(measured)
        kspace = measured
        for cascade in self.cascades:
            arguments = (kspace, measured, mask, maps, self.fft_centered, self.fft_norm)
            if self.checkpoint_steps and torch.is_grad_enabled():
                kspace = checkpoint(cascade, *arguments, use_reentrant=False)
            else:
                kspace = cascade(*arguments)
        return shift(kspace) if self.fft_centered else kspace
