"""Trial functions for every finite square well of a range: the well's strength and box are inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.pinn.jets import JetMLP, kink, multiply


class ConditionalWellNetwork(nn.Module):
    """psi_0 ... psi_{K-1} of the finite square well of any strength g = V0 L^2 / (hbar^2/2m) in a box of D = d L.

    The trial functions are (1 - t^2) (N_k(t; g, d) + (-1)^k N_k(-t; g, d)) on the box t = 2x/D in [-1, 1]. Beside
    t the network gets a coordinate that spreads the well, arsinh(2 d t) / arsinh(2 d), interface features as in
    `QuantumWellNetwork` at the well's edges t = -1/d and 1/d, and the logarithms of g and d.

    Args:
        states: K.
        hidden: widths of the hidden layers.
        frequency: of the first layer, see `zoo.pinn.jets.JetMLP`.
        strength: range of g.
        box: range of d.
    """

    parity: Tensor

    def __init__(
        self,
        states: int,
        hidden: tuple[int, ...],
        frequency: float,
        strength: tuple[float, float],
        box: tuple[float, float],
    ) -> None:
        super().__init__()
        self.strength, self.box = strength, box
        self.mlp = JetMLP(6, hidden, states, "sin", frequency)
        first = self.mlp.layers[0]
        assert isinstance(first, nn.Linear)
        with torch.no_grad():
            first.weight[:, 4:] *= 0.5 / frequency  # the answer changes gently with the well
        self.register_buffer("parity", (-1.0) ** torch.arange(states), persistent=False)

    def inputs(self, t: Tensor, g: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """What `trial` needs of positions and wells, and what does not change in training.

        Args:
            t: (B, Q) in [-1, 1].
            g, d: (B,).

        Returns:
            Jets with respect to t of the walls' factor (3, B, Q, 1) and of the network's inputs (3, B, 2 Q, 6),
            the mirrored positions behind.
        """
        wall = torch.stack([1 - t * t, -2 * t, torch.full_like(t, -2.0)]).unsqueeze(-1)
        t, g, d = torch.cat([t, -t], 1), g.unsqueeze(1), d.unsqueeze(1)
        zero, one = torch.zeros_like(t), torch.ones_like(t)
        z, scale = 2 * d * t, torch.asinh(2 * d)
        root = torch.sqrt(1 + z * z)
        spread = torch.stack([torch.asinh(z), 2 * d / root, -4 * d * d * z / root**3]) / scale
        reach = torch.clamp(5 / (g.sqrt() * d / 2), max=2 / 3)
        columns = [torch.stack([t, one, zero]), spread]
        columns += [kink(t - place, reach) for place in (-1 / d, 1 / d)]
        for value, (low, high) in ((g, self.strength), (d, self.box)):
            fraction = (value / low).log() / math.log(high / low)
            columns.append(torch.stack([(2 * fraction - 1).expand_as(t), zero, zero]))
        return wall, torch.stack(columns, -1)

    def trial(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Jets of the trial functions with respect to t: (3, B, Q, K)."""
        wall, features = inputs
        here, mirrored = self.mlp.jet(features).chunk(2, dim=2)
        sign = torch.stack([self.parity, -self.parity, self.parity])[:, None, None]
        return multiply(wall, here + sign * mirrored)

    def forward(self, t: Tensor, g: Tensor, d: Tensor) -> Tensor:
        """Positions (B, Q) and wells (B,) -> trial functions (B, Q, K)."""
        wall, features = self.inputs(t, g, d)
        here, mirrored = self.mlp(features[0]).chunk(2, dim=1)
        return wall[0] * (here + self.parity * mirrored)
