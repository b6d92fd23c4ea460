"""NO-VarNet (Jatyani et al., A Unified Model for Compressed Sensing MRI, CVPR 2025, arXiv 2410.16290).

The end-to-end VarNet with U-shaped DISCO neural operators instead of U-Nets, and one more of them on k-space
before the first step. Images and k-space have their origin at index n // 2, and the transform is orthonormal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.mri.fourier import Norm, fft2, ifft2
from zoo.mri.operators import expand, from_channels, normalize_maps, reduce, safe_divide, to_channels
from zoo.ops.disco import Sampling
from zoo.ops.udno import UDNO

Reduction = Literal["rss", "batch"]
Skip = Literal["add", "replace"]


class NormUDNO(nn.Module):
    """A `UDNO` on complex images of mean 0 and standard deviation 1, zero-padded to multiples of 16.

    Args:
        chans, num_pool_layers, radius_cutoff, kernel_shape, sampling, in_shape: see `UDNO`.
    """

    def __init__(
        self,
        chans: int,
        num_pool_layers: int,
        radius_cutoff: float,
        kernel_shape: Sequence[int],
        sampling: Sampling,
        in_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.udno = UDNO(
            2, 2, chans, num_pool_layers, radius_cutoff, kernel_shape, sampling=sampling, in_shape=in_shape
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, H, W) complex -> (B, H, W) complex."""
        x = to_channels(image)
        std, mean = torch.std_mean(x, dim=(2, 3), keepdim=True)
        (left, right), (top, bottom) = (((-n % 16) // 2, (-n % 16 + 1) // 2) for n in (x.shape[-1], x.shape[-2]))
        y = self.udno(F.pad(safe_divide(x - mean, std), (left, right, top, bottom)))
        y = y[..., top : y.shape[-2] - bottom, left : y.shape[-1] - right]
        return from_channels(y * std + mean)


class SensitivityModel(nn.Module):
    """Coil maps from the coil images of the centre of k-space, coil by coil with common weights.

    Args:
        operator: for the maps.
    """

    def __init__(self, operator: NormUDNO) -> None:
        super().__init__()
        self.norm_udno = operator

    def forward(self, masked_kspace: Tensor, acs_mask: Tensor) -> Tensor:
        """(B, C, H, W) complex k-space and its fully sampled centre -> maps with sum_c |S_c|^2 = 1."""
        coil_images = ifft2(acs_mask * masked_kspace)
        maps = self.norm_udno(coil_images.flatten(0, 1))
        return normalize_maps(maps.unflatten(0, coil_images.shape[:2]))


class VarNetBlock(nn.Module):
    """One step, k <- k - eta M (k - y) - F E(UDNO(R F^-1 k)).

    Args:
        model: the operator.
    """

    def __init__(self, model: NormUDNO) -> None:
        super().__init__()
        self.dc_weight = nn.Parameter(torch.ones(1))
        self.model = model

    def forward(self, kspace: Tensor, measured: Tensor, mask: Tensor, maps: Tensor) -> Tensor:
        """The next k, (B, C, H, W) complex."""
        residual = torch.where(mask, kspace - measured, 0)
        correction = fft2(expand(self.model(reduce(ifft2(kspace), maps)), maps))
        return kspace - self.dc_weight * residual - correction


class NOVarNet(nn.Module):
    """The unrolled network; sizes of the released model.

    Args:
        num_cascades: number of steps.
        sens_chans, sens_pools: channels and levels of the operator for coil maps.
        chans, pools: of each step's operator.
        kno_chans, kno_pools: of the operator on k-space.
        radius_cutoff, kernel_shape: of all filters, see `zoo.ops.disco.filter_basis`.
        kno_radius_cutoff, kno_kernel_shape: of the operator on k-space, if others.
        reduction_method: "batch" gives the operator on k-space one coil after the other; "rss" the k-space of
            the image that the coils combine to.
        skip_method: "replace" goes on with what the operator on k-space gives, "add" with the sum of that and
            what it was given.
        published: for released weights: sample the filters as the released code does, and let "rss" take the
            combined k-space for an image when it is given back to the coils, as that code does too.
        in_shape: (H, W) of the images for which the released code made the filters, with `published`; by default they
            are made for the padded images. The two differ if a side is no multiple of 16.
    """

    fft_centered = True
    fft_norm: Norm = "ortho"

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
        kernel_shape: Sequence[int] = (6, 7),
        kno_radius_cutoff: float | None = None,
        kno_kernel_shape: Sequence[int] | None = None,
        reduction_method: Reduction = "batch",
        skip_method: Skip = "replace",
        published: bool = False,
        in_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.reduction_method, self.skip_method, self.published = reduction_method, skip_method, published
        sampling: Sampling = "published" if published else "pixels"
        made_for = in_shape if published else None

        def operator(
            channels: int, levels: int, radius: float = radius_cutoff, shape: Sequence[int] = kernel_shape
        ) -> NormUDNO:
            return NormUDNO(channels, levels, radius, shape, sampling, made_for)

        self.sens_net = SensitivityModel(operator(sens_chans, sens_pools))
        self.kno = operator(kno_chans, kno_pools, kno_radius_cutoff or radius_cutoff, kno_kernel_shape or kernel_shape)
        self.cascades = nn.ModuleList(VarNetBlock(operator(chans, pools)) for _ in range(num_cascades))

    def initial(self, masked_kspace: Tensor, maps: Tensor) -> Tensor:
        """What the operator on k-space makes of the measured samples, (B, C, H, W) complex."""
        if self.reduction_method == "batch":
            given = masked_kspace.flatten(0, 1)
        else:
            given = fft2(reduce(ifft2(masked_kspace), maps))
        answer = self.kno(given)
        if self.skip_method == "add":
            answer = answer + given
        if self.reduction_method == "batch":
            return answer.unflatten(0, masked_kspace.shape[:2])
        return fft2(expand(answer if self.published else ifft2(answer), maps))

    def forward(self, masked_kspace: Tensor, sampling_mask: Tensor, acs_mask: Tensor) -> Tensor:
        """Reconstructed k-space (B, C, H, W).

        Args:
            masked_kspace: (B, C, H, W) complex, 0 where not sampled.
            sampling_mask: boolean, broadcastable to (B, 1, H, W).
            acs_mask: likewise, the fully sampled centre.
        """
        maps = self.sens_net(masked_kspace, acs_mask)
        kspace = self.initial(masked_kspace, maps)
        for cascade in self.cascades:
            kspace = cascade(kspace, masked_kspace, sampling_mask.bool(), maps)
        return kspace
