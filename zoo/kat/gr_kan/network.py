"""A fully connected network whose activations are learnable group-wise rationals.

Source: Yang and Wang, "Kolmogorov-Arnold Transformer", ICLR 2025 (arXiv 2409.10594), section 4: a linear
layer after a rational of its input is a group-rational KAN layer.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from zoo.kat.layers import Rational, variance_gain

Activation = Literal["rational", "gelu", "silu"]


class GRKANNetwork(nn.Module):
    """Linear layers with an activation between them.

    Args:
        features: channels of input, hidden layers and output.
        activation: ``"rational"`` for a GR-KAN; ``"gelu"`` or ``"silu"`` for the ordinary MLP it is compared to.
        act_init: function that the rationals start as.
        num_groups: channel groups of the rationals.

    Raises:
        ValueError: no two sizes, or groups that do not divide a hidden layer's channels.
    """

    def __init__(
        self,
        features: tuple[int, ...] = (2, 32, 32, 1),
        activation: Activation = "rational",
        act_init: str = "swish",
        num_groups: int = 8,
    ) -> None:
        super().__init__()
        if len(features) < 2 or min(features) < 1:
            raise ValueError(f"features should be two or more numbers of channels, not {tuple(features)}")
        hidden = tuple(features[1:-1])
        if activation == "rational" and (num_groups < 1 or any(width % num_groups for width in hidden)):
            raise ValueError(f"{num_groups} groups can't share hidden layers of {hidden} channels evenly")
        self.layers = nn.Sequential()
        gain = 1.0
        for index, (fan_in, fan_out) in enumerate(pairwise(features)):
            if index > 0:
                self.layers.append(_activation(activation, act_init, num_groups))
                gain = variance_gain(act_init)
            linear = nn.Linear(fan_in, fan_out)
            if activation == "rational":  # an ordinary MLP does better with PyTorch's own initialisation
                nn.init.normal_(linear.weight, std=math.sqrt(gain / fan_in))
                nn.init.zeros_(linear.bias)
            self.layers.append(linear)

    def forward(self, x: Tensor) -> Tensor:
        """(..., features[0]) -> (..., features[-1])."""
        return self.layers(x)


def _activation(name: Activation, act_init: str, num_groups: int) -> nn.Module:
    if name == "rational":
        return Rational(act_init, num_groups)
    return nn.GELU() if name == "gelu" else nn.SiLU()
