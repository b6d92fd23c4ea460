"""Which photographs a block needs, by how much the picture of a coarse model suffers without the block.

Source: Liu et al., "CityGaussian", 2024, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.blocks import BlockGrid
from zoo.ops.ssim import ssim
from zoo.splatting.scaffold_gs.footprint import visible_anchors
from zoo.splatting.scaffold_gs.network import AnchorModel

Camera = tuple[Tensor, Tensor, int, int]


@torch.no_grad()
def block_scores(network: AnchorModel, grid: BlockGrid, cameras: Sequence[Camera]) -> NDArray[np.float64]:
    """(n, B) 1 - SSIM of the whole render and the one without a block's anchors.

    Args:
        network: a coarse model of the whole scene, with one decoder.
        grid: the blocks.
        cameras: view matrix (4, 4), intrinsics (3, 3), width and height of each.
    """
    device = network.anchor.device
    blocks = torch.from_numpy(grid.block_of(network.anchor.double().cpu().numpy())).to(device)
    scores = np.zeros((len(cameras), len(grid)))
    for row, (viewmat, K, width, height) in zip(scores, cameras, strict=True):
        viewmat, K = viewmat.to(device), K.to(device)
        decoded = network.decode(viewmat, K, width, height)
        full, _, _ = network.render(decoded, viewmat, K, width, height)
        full = full.clamp(0, 1)
        seen = visible_anchors(network.rows(), viewmat, K, width, height, network.near_plane)
        owner = blocks[seen][decoded.selected // network.decoder(0).n_offsets]
        for block in range(len(grid)):
            rest = (owner != block).nonzero().squeeze(1)
            if len(rest) == len(owner):
                continue
            parts = {f: getattr(decoded, f)[rest] for f in ("means", "quats", "scales", "opacities", "colors")}
            image, _, _ = network.render(decoded._replace(**parts), viewmat, K, width, height)
            row[block] = 1 - float(ssim(image.clamp(0, 1), full))
    return scores
