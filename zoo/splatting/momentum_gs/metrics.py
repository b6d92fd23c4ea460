"""How good a merged scene is, and where: at the borders of blocks or within them; and official evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.blocks import BlockGrid


class Measured(NamedTuple):
    """The quality of a block at some point of the training.

    Attributes:
        step: taken so far, by the whole training.
        block: which.
        when: 0 before a turn, 1 after it, 2 at the end of the training.
        psnr: dB.
        ssim: of the same views.
    """

    step: int
    block: int
    when: int
    psnr: float
    ssim: float


BEFORE, AFTER, FINAL = 0, 1, 2


def near_border(grid: BlockGrid, surface: NDArray[np.floating], margin: float = 0.5) -> NDArray[np.bool_]:
    """Whether surface points (H, W, 3) lie within `margin` of another block, along an axis; False for NaN."""
    points = surface.reshape(-1, 3).astype(np.float64)
    solid = np.isfinite(points).all(-1)
    own = grid.block_of(points[solid])
    near = np.zeros(len(own), dtype=bool)
    for axis in range(3):
        for side in (-margin, margin):
            moved = points[solid].copy()
            moved[:, axis] += side
            near |= grid.block_of(moved) != own
    mask = np.zeros(len(points), dtype=bool)
    mask[solid] = near
    return mask.reshape(surface.shape[:2])


def masked_psnr(image: Tensor, target: Tensor, mask: NDArray[np.bool_], fewest: int = 50) -> float | None:
    """PSNR in dB of the pixels of (H, W, 3) in a mask (H, W); None if there are no more than `fewest`."""
    if mask.sum() <= fewest:
        return None
    chosen = torch.from_numpy(mask).to(image.device)
    error = (image.clamp(0, 1) - target)[chosen].square().mean()
    return float(-10 * torch.log10(error.clamp_min(1e-12)))


def staleness(history: Sequence[Measured]) -> float:
    """Mean over blocks, but the last one trained, of the PSNR after its last turn minus that at the end (dB)."""
    after = {m.block: m for m in history if m.when == AFTER}
    final = {m.block: m.psnr for m in history if m.when == FINAL}
    newest = max((m.step for m in after.values()), default=0)
    drops = [m.psnr - final[block] for block, m in after.items() if block in final and m.step < newest]
    return float(np.mean(drops)) if drops else 0.0


def forgetting(history: Sequence[Measured]) -> float:
    """Mean over all turns but the first of the PSNR after the block's turn before minus that when it comes back."""
    last: dict[int, float] = {}
    drops = []
    for one in history:
        if one.when == BEFORE and one.block in last:
            drops.append(last[one.block] - one.psnr)
        elif one.when == AFTER:
            last[one.block] = one.psnr
    return float(np.mean(drops)) if drops else 0.0


def color_corrected(image: Tensor, target: Tensor, rounds: int = 5) -> Tensor:
    """An image (H, W, 3) with the colours that fit the target best, by quadratic maps of RGB, as papers report it.

    In each round every channel of the target is fitted by least squares to the products, values and a constant of the
    present colours; values within half a grey level of 0 or 1 do not count.
    """
    source = image.double().reshape(-1, 3)
    goal = target.double().reshape(-1, 3)
    present = source
    low, high = 0.5 / 255, 1 - 0.5 / 255

    def inside(values: Tensor) -> Tensor:
        return (values >= low) & (values <= high)

    for _ in range(rounds):
        products = [present[:, i : i + 1] * present[:, i:] for i in range(3)]
        features = torch.cat([*products, present, torch.ones_like(present[:, :1])], dim=1)
        fitted = []
        for channel in range(3):
            counts = inside(source[:, channel]) & inside(present[:, channel]) & inside(goal[:, channel])
            known = torch.where(counts, 1.0, 0.0).double().unsqueeze(1)
            solution = torch.linalg.lstsq(features * known, goal[:, channel : channel + 1] * known, driver="gelsd")
            fitted.append(features @ solution.solution)
        present = torch.cat(fitted, dim=1).clamp(0, 1)
    return present.to(image).reshape(image.shape)
