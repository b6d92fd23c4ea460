"""One view of one block: the losses, their gradients, and what densification learns from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.ops.ssim import ssim
from zoo.splatting.momentum_gs.distillation import consistency
from zoo.splatting.scaffold_gs.anchors import TRAINED, AnchorState
from zoo.splatting.scaffold_gs.decoder import Decoded, GaussianDecoder
from zoo.splatting.scaffold_gs.footprint import visible_anchors
from zoo.splatting.scaffold_gs.network import AnchorModel

REVIVAL = 0.01  # on the mean raw opacity of a view without any Gaussian


@dataclass(frozen=True)
class View:
    """A photograph and its camera.

    Attributes:
        image: (1, H, W, 3) in [0, 1].
        viewmat: (4, 4) world to camera.
        K: (3, 3) intrinsics.
        index: its number in the scene.
    """

    image: Tensor
    viewmat: Tensor
    K: Tensor
    index: int


@dataclass(frozen=True)
class Weights:
    """Of the parts of the loss.

    Attributes:
        ssim: of 1 - SSIM; L1 has the rest.
        volume: of the mean volume of the Gaussians.
        consistency: of the differences between student and teacher.
        detach: keep the teacher's gradients from the anchors.
    """

    ssim: float = 0.2
    volume: float = 0.01
    consistency: float = 0.0
    detach: bool = False


class Outcome(NamedTuple):
    """What a view gave.

    Attributes:
        losses: l1, one_minus_ssim, volume, consistency and total, detached.
        rows: name -> gradient of the block's trained rows.
        decoder: gradients of the decoder's parameters, in their order; empty if it rests.
        visible: (A,) indices of the anchors decoded.
        decoded: their Gaussians, detached where it matters: selected and raw opacities.
        shown: (M,) bool, Gaussians that are in the image.
        pull: (M, 2) gradients of their image positions, in half images.
        image: (1, H, W, 3) the render.
    """

    losses: dict[str, Tensor]
    rows: dict[str, Tensor]
    decoder: tuple[Tensor, ...]
    visible: Tensor
    decoded: Decoded
    shown: Tensor
    pull: Tensor
    image: Tensor


def view_gradients(
    network: AnchorModel,
    decoder: GaussianDecoder,
    teacher: GaussianDecoder | None,
    state: AnchorState,
    view: View,
    weights: Weights,
    block_weight: float = 1.0,
    learn_decoder: bool = True,
) -> Outcome:
    """Renders a block as a camera sees it and differentiates the loss.

    Nothing is accumulated in ``.grad``: the caller decides what to do with the gradients.

    Args:
        network: says how to render, and the background.
        decoder: of the block.
        teacher: its average; None for no consistency loss.
        state: the block.
        view: what to compare with.
        weights: of the losses.
        block_weight: factor on the whole loss.
        learn_decoder: differentiate by the decoder's parameters, too.
    """
    height, width = view.image.shape[1:3]
    visible = visible_anchors(state.rows, view.viewmat, view.K, width, height, network.near_plane)
    leaves = {name: state.rows[name].detach().requires_grad_() for name in TRAINED}
    rows = {name: leaves.get(name, state.rows[name])[visible] for name in ("anchor", *TRAINED)}
    centre = -(view.viewmat[:3, :3].mT @ view.viewmat[:3, 3])
    inputs = decoder.inputs(rows["anchor"], rows["anchor_feat"], centre, view.index)
    decoded = decoder.decode(inputs, rows)
    image, _, meta = network.render(decoded, view.viewmat, view.K, width, height)
    losses = {
        "l1": (image - view.image).abs().mean(),
        "one_minus_ssim": 1 - ssim(image, view.image),
        "volume": decoded.scales.prod(1).mean() if len(decoded.scales) else image.new_zeros(()),
        "consistency": image.new_zeros(()),
    }
    if teacher is not None and weights.consistency:
        parts = consistency(teacher, inputs, rows, decoded, weights.detach)
        losses["consistency"] = torch.stack(list(parts.values())).sum()
    total = block_weight * (
        (1 - weights.ssim) * losses["l1"]
        + weights.ssim * losses["one_minus_ssim"]
        + weights.volume * losses["volume"]
        + weights.consistency * losses["consistency"]
    )
    if len(decoded.selected) == 0 and len(visible):
        # A decoder that makes no Gaussian at all learns nothing from the image and would stay like that.
        total = total - REVIVAL * decoded.raw_opacities.mean()
    parameters = list(decoder.parameters()) if learn_decoder else []
    wanted = [*leaves.values(), *parameters, meta["means2d"]]
    gradients: list[Tensor] = [torch.zeros_like(one) for one in wanted]
    if total.requires_grad:
        found = torch.autograd.grad(total, wanted, allow_unused=True)
        gradients = [zero if one is None else one for zero, one in zip(gradients, found, strict=True)]
    pull = gradients[-1].reshape(-1, 2) * gradients[-1].new_tensor([0.5 * width, 0.5 * height])
    return Outcome(
        {name: value.detach() for name, value in {**losses, "total": total}.items()},
        dict(zip(leaves, gradients, strict=False)),
        tuple(gradients[len(leaves) : -1]),
        visible,
        decoded._replace(raw_opacities=decoded.raw_opacities.detach()),
        (meta["radii"].reshape(-1, 2) > 0).all(-1),
        pull,
        image.detach(),
    )


def exponential(first: float, last: float, part: float) -> float:
    """A value that goes from `first` to `last` exponentially as `part` goes from 0 to 1, and stays there."""
    part = min(max(part, 0.0), 1.0)
    return float(first ** (1 - part) * last**part)
