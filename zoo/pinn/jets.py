"""Networks of one variable that carry their first two derivatives along.

A jet is a tensor (3, ...) of a function's value, first and second derivative with respect to one variable. Pushing
jets through a network costs three small matrix products where differentiating its graph twice costs some dozen
passes.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["sin", "tanh"]


class _SinJet(torch.autograd.Function):
    """sin(z): (sin z, z' cos z, z'' cos z - z'^2 sin z)."""

    @staticmethod
    def forward(ctx, jet: Tensor, bias: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        z0, z1, z2 = jet[0] + bias, jet[1], jet[2]
        sin, cos, square = z0.sin(), z0.cos(), z1 * z1
        ctx.save_for_backward(jet, sin, cos, square)
        return torch.stack([sin, cos * z1, cos * z2 - sin * square])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        jet, sin, cos, square = ctx.saved_tensors
        (_, z1, z2), (g0, g1, g2) = jet, grad
        grad0 = g0 * cos - g1 * sin * z1 - g2 * (sin * z2 + cos * square)
        return torch.stack([grad0, g1 * cos - 2 * g2 * sin * z1, g2 * cos]), _sum_to_bias(grad0)


class _TanhJet(torch.autograd.Function):
    """h = tanh(z), s = 1 - h^2: (h, s z', s (z'' - 2 h z'^2))."""

    @staticmethod
    def forward(ctx, jet: Tensor, bias: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        z1, z2 = jet[1], jet[2]
        h = torch.tanh(jet[0] + bias)
        slope, square = 1 - h * h, z1 * z1
        curved = z2 - 2 * h * square
        ctx.save_for_backward(z1, h, slope, square, curved)
        return torch.stack([h, slope * z1, slope * curved])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        z1, h, slope, square, curved = ctx.saved_tensors
        g0, g1, g2 = grad
        grad0 = slope * (g0 - 2 * h * (g1 * z1 + g2 * curved) - 2 * slope * g2 * square)
        return torch.stack([grad0, slope * (g1 - 4 * h * z1 * g2), slope * g2]), _sum_to_bias(grad0)


def _sum_to_bias(grad: Tensor) -> Tensor:
    return grad.flatten(0, -2).sum(0)


_JETS = {"sin": _SinJet, "tanh": _TanhJet}
_PLAIN = {"sin": torch.sin, "tanh": torch.tanh}


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """The jet of a product (Leibniz)."""
    return torch.stack([a[0] * b[0], a[1] * b[0] + a[0] * b[1], a[2] * b[0] + 2 * a[1] * b[1] + a[0] * b[2]])


def kink(distance: Tensor, reach: Tensor | float) -> Tensor:
    """The jet of r^2 / (1 + r^2), r = max(distance, 0) / reach: smooth but for its second derivative's jump at 0."""
    r = torch.relu(distance) / reach
    d = 1 + r * r
    return torch.stack([r * r / d, 2 * r / d**2 / reach, (r > 0) * (2 - 6 * r * r) / d**3 / reach**2])


class JetMLP(nn.Module):
    """A fully connected network with smooth activations, for values and for jets.

    Args:
        in_features: inputs.
        hidden: widths of the hidden layers.
        out_features: outputs.
        activation: of the hidden layers.
        frequency: standard deviation of the first layer's weights, whose units are centred all over [-1, 1] of
            the first input; deeper weights are normal of variance 1/fan-in. None: Glorot's initialisation with
            zero biases, as in the paper.
    """

    def __init__(
        self,
        in_features: int,
        hidden: tuple[int, ...],
        out_features: int,
        activation: Activation,
        frequency: float | None,
    ) -> None:
        super().__init__()
        self.activation = activation
        sizes = [in_features, *hidden, out_features]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        for depth, layer in enumerate(self._linear()):
            nn.init.zeros_(layer.bias)
            if frequency is None:
                nn.init.xavier_normal_(layer.weight)
            elif depth == 0:
                nn.init.normal_(layer.weight, std=frequency)
                with torch.no_grad():
                    layer.bias.copy_(-layer.weight[:, 0] * (2 * torch.rand(layer.out_features) - 1))
            else:
                nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features))

    def _linear(self) -> list[nn.Linear]:
        return list(self.layers)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (..., in_features) -> outputs (..., out_features)."""
        *hidden, last = self._linear()
        for layer in hidden:
            x = _PLAIN[self.activation](layer(x))
        return last(x)

    def jet(self, x: Tensor) -> Tensor:
        """Jets of the inputs (3, ..., in_features) -> jets of the outputs (3, ..., out_features)."""
        *hidden, last = self._linear()
        for layer in hidden:
            x = _JETS[self.activation].apply(F.linear(x, layer.weight), layer.bias)
        x = F.linear(x, last.weight)
        return torch.cat([x[:1] + last.bias, x[1:]])
