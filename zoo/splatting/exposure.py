"""Brightness and tint of each photograph, learned beside the scene."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Exposure(nn.Module):
    """An affine map of the colours per view, 3 x 4, at first the identity.

    Source: the public code of 3DGS, which learns it for photographs with automatic exposure or white balance; held-out
    views are rendered without. There all views may drift together, and with them the scene; here the maps of the
    training views are on average the identity.

    Args:
        views: of the scene.
        learned: those that are trained on.

    Attributes:
        matrices: (V, 3, 4), the factors and in the last column the offsets, before their mean is put right.
    """

    learned: Tensor

    def __init__(self, views: int, learned: Sequence[int]) -> None:
        super().__init__()
        self.matrices = nn.Parameter(torch.eye(3, 4).repeat(views, 1, 1))
        self.register_buffer("learned", torch.tensor(learned))

    def forward(self, image: Tensor, index: Tensor) -> Tensor:
        """Renders (B, H, W, 3) as the camera of the views `index` (B,) would have taken them."""
        drift = self.matrices.detach()[self.learned].mean(0) - torch.eye(3, 4, device=image.device)
        matrices = self.matrices[index] - drift
        return image @ matrices[:, None, :, :3].mT + matrices[:, None, None, :, 3]
