"""Growing and pruning anchors, by the rules of Scaffold-GS, section 4.3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.splatting.scaffold_gs.anchors import AnchorState, anchor_rows

SHAPE_LIMIT = 0.05  # on the logarithms of the shapes' scales, at every adjustment


@dataclass(frozen=True)
class Growth:
    """When and how anchors are added and removed. Iterations are a block's own, from 1.

    Attributes:
        voxel_size: the unit of the cells.
        interval: iterations between two adjustments.
        start: iteration after which statistics are collected.
        stop: iteration from which nothing is done any more.
        gradient: of the image position, in half images per unit of loss, beyond which a slot asks for an anchor.
        success: part of the interval for which an anchor must have been seen to be judged.
        min_opacity: mean opacity below which an anchor is removed.
        levels: of cells, each finer than the one before.
        init_factor: cells of the first level are this many voxels wide.
        hierarchy_factor: by which each level is finer.
        cap: number of anchors at which growth stops; None for no limit.
    """

    voxel_size: float
    interval: int = 25
    start: int = 500
    stop: int = 30_000
    gradient: float = 2e-4
    success: float = 0.8
    min_opacity: float = 0.005
    levels: int = 3
    init_factor: int = 128
    hierarchy_factor: int = 4
    cap: int | None = None

    def collects(self, iteration: int) -> bool:
        """Whether an iteration counts for the statistics."""
        return self.start < iteration < self.stop

    def adjusts(self, iteration: int) -> bool:
        """Whether anchors are changed after an iteration."""
        return self.collects(iteration) and iteration % self.interval == 0


@torch.no_grad()
def collect(state: AnchorState, visible: Tensor, raw_opacities: Tensor, shown: Tensor, pull: Tensor) -> None:
    """Adds one view to the statistics.

    Args:
        state: the anchors.
        visible: (A,) indices of the anchors decoded.
        raw_opacities: (A k,) of their slots.
        shown: (S,) slots, of the A k, whose Gaussian is in the image.
        pull: (S,) lengths of the gradients of their image positions.
    """
    k, numbers = state.n_offsets, state.statistics
    numbers["opacity_accum"].index_add_(0, visible, raw_opacities.clamp_min(0).view(-1, k).sum(1))
    numbers["anchor_denom"].index_add_(0, visible, torch.ones_like(visible, dtype=torch.float32))
    slots = visible[shown // k] * k + shown % k
    numbers["gradient_accum"].index_add_(0, slots, pull)
    numbers["offset_denom"].index_add_(0, slots, torch.ones_like(pull))


@torch.no_grad()
def adjust(state: AnchorState, growth: Growth, draws: Sequence[Tensor]) -> None:
    """Adds anchors where slots are pulled at, removes transparent ones.

    Args:
        state: the anchors.
        growth: the rules.
        draws: for each level, uniform numbers (N k,).
    """
    eligible = state.statistics["offset_denom"] > 0.5 * growth.success * growth.interval
    if growth.cap is None or len(state) < growth.cap:
        _grow(state, growth, draws, eligible)
    numbers = state.statistics  # new ones, where anchors were added
    slots = torch.zeros_like(numbers["offset_denom"], dtype=torch.bool)
    slots[: len(eligible)] = eligible
    numbers["gradient_accum"][slots] = 0
    numbers["offset_denom"][slots] = 0
    judged = numbers["anchor_denom"] > growth.success * growth.interval
    faint = judged & (numbers["opacity_accum"] < growth.min_opacity * numbers["anchor_denom"])
    numbers["opacity_accum"][judged] = 0
    numbers["anchor_denom"][judged] = 0
    if faint.any():
        state.rearrange((~faint).nonzero().squeeze(1))
    state.rows["scaling"][:, 3:].clamp_(max=SHAPE_LIMIT)


def _grow(state: AnchorState, growth: Growth, draws: Sequence[Tensor], eligible: Tensor) -> None:
    numbers, k, count = state.statistics, state.n_offsets, len(state)
    pull = (numbers["gradient_accum"] / numbers["offset_denom"]).nan_to_num(0.0)
    places = state.rows["anchor"].unsqueeze(1) + state.rows["offset"] * state.rows["scaling"][:, None, :3].exp()
    for level in range(growth.levels):
        if level and len(state) == count:
            return
        chosen = eligible & (pull >= growth.gradient * 2**level) & (draws[level] > 0.5 ** (level + 1))
        wanted = chosen.nonzero().squeeze(1)
        if len(wanted) == 0:
            continue
        size = growth.voxel_size * (growth.init_factor // growth.hierarchy_factor**level)
        cells = torch.round(places.view(-1, 3)[wanted] / size).long()
        taken = torch.round(state.rows["anchor"] / size).long()
        numbered, occupied = _numbered(torch.cat([cells, taken])).split([len(cells), len(taken)])
        keys, owner = torch.unique(numbered, return_inverse=True)
        free = ~torch.isin(keys, occupied)
        if not free.any():
            continue
        features = state.rows["anchor_feat"]
        best = features.new_full((len(keys), features.shape[1]), -torch.inf)
        index = owner.unsqueeze(1).expand(-1, features.shape[1])
        best.scatter_reduce_(0, index, features[wanted // k], "amax")
        anchor = cells.new_empty(len(keys), 3).index_copy_(0, owner, cells)[free].to(features) * size
        rows = anchor_rows(anchor, anchor.new_full((len(anchor),), size).log(), features.shape[1], k)
        state.extend({**rows, "anchor_feat": best[free]})


def _numbered(cells: Tensor) -> Tensor:
    """A number (R,) for each cell (R, 3), the same for equal cells; numbers order as cells do lexicographically.

    Columns are numbered first: a fine grid over a wide scene has more cells than a 64-bit integer can count.
    """
    cells = cells - cells.amin(0)
    span = cells.amax(0) + 1
    column = torch.unique(cells[:, 0] * span[1] + cells[:, 1], return_inverse=True)[1]
    return column * span[2] + cells[:, 2]
