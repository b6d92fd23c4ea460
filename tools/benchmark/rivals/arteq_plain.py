"""ArtEq's official mathematics in plain torch: kernel weights of all rotations, points and neighbours at once."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.humans.arteq.convolution import SeparableBlock, find_neighbourhood, normalise, take
from zoo.humans.arteq.network import ArtEqNetwork


@torch.no_grad()
def encode(network: ArtEqNetwork, points: Tensor) -> tuple[Tensor, Tensor]:
    """What ``network.encoder`` gives, for a network with the official kernel, (B, N, 3) -> (B, P, 3), (B, P, A, C)."""
    encoder = network.encoder
    features = points.new_ones(*points.shape[:2], len(encoder.rotations), 1)
    for block in encoder.blocks:
        assert isinstance(block, SeparableBlock)
        points, features = _block(block, points, features, encoder.rotations, encoder.neighbours)
    return points, features


def _block(
    block: SeparableBlock, points: Tensor, features: Tensor, rotations: Tensor, neighbours: Tensor
) -> tuple[Tensor, Tensor]:
    setting = block.inter.setting
    around = find_neighbourhood(points, setting, "epn")
    near = take(features, around.neighbours.flatten(1)).unflatten(1, around.neighbours.shape[1:])  # (B, P, n, A, C)
    kernel = torch.einsum("aij,kj->aki", rotations, block.inter.points)
    difference = around.offsets[:, :, None, None] - kernel.unsqueeze(2)  # (B, P, A, K, n, 3)
    weights = (1 - difference.square().sum(-1) / setting.sigma).clamp_min(0)
    gathered = torch.einsum("bpakn,bpnac->bpack", weights, near)
    out = normalise(torch.einsum("bpack,ock->bpao", gathered, block.inter.weight) + block.inter.bias)
    mixed = out[:, :, neighbours]  # (B, P, A, K, C)
    out = normalise(torch.einsum("bpakc,ock->bpao", mixed, block.intra.weight) + block.intra.bias)
    kept = features if around.chosen is None else take(features, around.chosen)
    return around.xyz, out + normalise(block.skip(kept))
