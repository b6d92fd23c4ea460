"""RecurrentVarNet step by step as its formulas stand, for weights under their official names.

Nothing is fused or saved: every gate is a convolution of its own, all coils are shifted around each transform,
complex numbers are pairs of reals, the states are stacked in one tensor, and coil maps are refined coil by coil.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.mri.unet import UNet

Weights = dict[str, Tensor]


def _transform(x: Tensor, inverse: bool) -> Tensor:
    """Centred orthonormal FFT of pairs (..., H, W, 2)."""
    moved = torch.fft.ifftshift(torch.view_as_complex(x.contiguous()), dim=(-2, -1))
    result = torch.fft.ifft2(moved, norm="ortho") if inverse else torch.fft.fft2(moved, norm="ortho")
    return torch.view_as_real(torch.fft.fftshift(result, dim=(-2, -1)))


def _multiply(a: Tensor, b: Tensor, conjugate: bool = False) -> Tensor:
    """a times b, or conj(a) times b."""
    sign = -1 if conjugate else 1
    real = a[..., 0] * b[..., 0] - sign * a[..., 1] * b[..., 1]
    imaginary = a[..., 0] * b[..., 1] + sign * a[..., 1] * b[..., 0]
    return torch.stack((real, imaginary), dim=-1)


def _reduce(kspace: Tensor, maps: Tensor) -> Tensor:
    return _multiply(maps, _transform(kspace, inverse=True), conjugate=True).sum(1)


def _conv(x: Tensor, weights: Weights, name: str, dilation: int = 1) -> Tensor:
    weight = weights[f"{name}.weight"]
    margin = dilation * (weight.shape[-1] - 1) // 2
    padded = F.pad(x, (margin,) * 4, mode="replicate") if margin else x
    return F.conv2d(padded, weight, weights[f"{name}.bias"], dilation=dilation)


def _gru(x: Tensor, states: Tensor, weights: Weights, prefix: str) -> tuple[Tensor, Tensor]:
    layers, new = states.shape[-1], []
    for k in range(layers):
        x = torch.relu(_conv(x, weights, f"{prefix}conv_blocks.{k}.1", 2 if k == 1 else 1))
        h = states[..., k]
        both = torch.cat((x, h), dim=1)
        update = torch.sigmoid(_conv(both, weights, f"{prefix}update_gates.{k}.0"))
        reset = torch.sigmoid(_conv(both, weights, f"{prefix}reset_gates.{k}.0"))
        proposal = torch.tanh(_conv(torch.cat((x, reset * h), dim=1), weights, f"{prefix}out_gates.{k}.0"))
        h = h * (1 - update) + proposal * update
        new.append(h)
        x = torch.relu(h)
    return _conv(x, weights, f"{prefix}conv_blocks.{layers}.1", 2 if layers == 1 else 1), torch.stack(new, dim=-1)


def _initial_states(kspace: Tensor, weights: Weights, dilations: tuple[int, ...], multiscale: int) -> Tensor:
    x, features = kspace.permute(0, 3, 1, 2), []
    for k, dilation in enumerate(dilations):
        x = torch.relu(_conv(x, weights, f"initializer.conv_blocks.{k}.1", dilation))
        features.append(x)
    x = torch.cat(features[-multiscale:], dim=1)
    layers = sum(name.startswith("initializer.out_blocks.") and name.endswith(".bias") for name in weights)
    heads = [torch.relu(_conv(x, weights, f"initializer.out_blocks.{k}.0")) for k in range(layers)]
    return torch.stack(heads, dim=-1)


def _refine(maps: Tensor, refinement: UNet) -> Tensor:
    coils = [refinement(maps[:, c].permute(0, 3, 1, 2)).permute(0, 2, 3, 1) for c in range(maps.shape[1])]
    refined = torch.stack(coils, dim=1)
    return refined / refined.square().sum((1, -1), keepdim=True).sqrt()


def reconstruct(
    weights: Weights,
    refinement: UNet,
    masked_kspace: Tensor,
    sampling_mask: Tensor,
    sensitivity_map: Tensor,
    dilations: tuple[int, ...] = (1, 1, 2, 4),
    multiscale: int = 3,
) -> Tensor:
    """Reconstructed k-space, with the initialiser on the SENSE image's k-space.

    Args:
        weights: official name -> tensor.
        refinement: of the coil maps.
        masked_kspace, sensitivity_map: (B, C, H, W, 2).
        sampling_mask: (B, 1, H, W, 1) boolean.
        dilations, multiscale: of the initialiser.
    """
    maps = _refine(sensitivity_map, refinement)
    states = _initial_states(_transform(_reduce(masked_kspace, maps), False), weights, dilations, multiscale)
    kspace = masked_kspace
    steps = sum(name.endswith("learning_rate") for name in weights)
    for t in range(steps):
        residual = torch.where(sampling_mask, kspace - masked_kspace, 0.0)
        image = _reduce(kspace, maps).permute(0, 3, 1, 2)
        change, states = _gru(image, states, weights, f"block_list.{t}.regularizer.")
        correction = _transform(_multiply(maps, change.permute(0, 2, 3, 1).unsqueeze(1)), inverse=False)
        kspace = kspace - weights[f"block_list.{t}.learning_rate"] * residual + correction
    return kspace
