"""The vision transformer with a GELU MLP.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021 (arXiv 2010.11929).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from torch import Tensor, nn

from zoo.kat.layers import MLPInit
from zoo.kat.transformer import VisionTransformer

# 1 / E[gelu(x)^2] for x ~ N(0, 1): the gain that GR-KAN's variance-preserving initialisation has for it.
_GELU_GAIN = 2.35172


class MLP(nn.Module):
    """Linear, GELU, linear.

    Args:
        in_features: channels in and out.
        hidden_features: channels between.
        drop: dropout after the GELU and after the second linear layer.
        init: as `zoo.kat.layers.GRKAN`, so that the two start alike.
    """

    def __init__(
        self, in_features: int, hidden_features: int, drop: float = 0.0, init: MLPInit = "variance_preserving"
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_features, in_features)
        self.drop = nn.Dropout(drop)
        for linear, gain in ((self.fc1, 1.0), (self.fc2, _GELU_GAIN)):
            if init == "variance_preserving":
                nn.init.normal_(linear.weight, std=math.sqrt(gain / linear.in_features))
            else:
                nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., in_features)."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class ViT(VisionTransformer):
    """Vision transformer.

    Args:
        drop_rate: dropout in the MLPs.
        mlp_init: see `MLP`.
        transformer: arguments of `VisionTransformer`.
    """

    def __init__(self, drop_rate: float = 0.0, mlp_init: MLPInit = "variance_preserving", **transformer: Any) -> None:
        super().__init__(partial(MLP, drop=drop_rate, init=mlp_init), **transformer)
