"""The trained network as one TorchScript function: faster for single frames, and usable without this package."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.files import atomic_path
from zoo.humans.learnable_smplify.bones import Bones, batch_first, batch_last
from zoo.humans.learnable_smplify.network import BoneNetwork, exponential


class _Pose(nn.Module):
    def __init__(self, network: BoneNetwork, bones: Bones) -> None:
        super().__init__()
        self.network, self.bones = network, bones

    def forward(self, pose: Tensor, betas: Tensor, target: Tensor) -> Tensor:
        rotmats = batch_first(exponential(batch_last(pose.unflatten(1, (-1, 3)))))
        found: Tensor = self.network(self.bones, rotmats, betas, target)
        return found


def script(network: BoneNetwork, bones: Bones) -> Any:
    """A frozen TorchScript function of pose (B, 72), betas (B, S) and exact joints (B, 25, 3) to (B, 24, 3, 3).

    Args:
        network: trained, with the passes it is to make.
        bones: of the body.
    """
    pose_of = _Pose(network, bones).eval()
    size = bones.num_betas
    # Two frames: a batch of one would be taken for a constant.
    example = (torch.zeros(2, 72), torch.zeros(2, size), torch.zeros(2, 25, 3))
    device = bones.rest_basis.device
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(pose_of, tuple(t.to(device) for t in example), check_trace=False)
        return torch.jit.freeze(traced)


def export(network: BoneNetwork, bones: Bones, path: Path) -> None:
    """Writes `script`'s function to a file that ``torch.jit.load`` reads."""
    with atomic_path(path) as temporary:
        torch.jit.save(script(network, bones), str(temporary))
