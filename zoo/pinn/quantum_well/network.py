"""The trial functions: a network, the walls' zeros, the parity, and the kinks of psi'' built in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.pinn.jets import Activation, JetMLP, kink, multiply


class QuantumWellNetwork(nn.Module):
    """psi_0 ... psi_{K-1} in a box, as the heads of one multilayer perceptron.

    Inside, everything is dimensionless. The position is the mass-weighted coordinate y = integral of m dx,
    scaled so that the box is [-1, 1]: psi and dpsi/dy = psi'/m are both continuous where the mass jumps, so that
    one kind of feature serves jumps of V and of m. At each of them psi'' jumps, which no smooth network can
    represent; the input therefore holds beside y, for each break b, the feature r^2 / (1 + r^2) with
    r = max(y - b, 0) / lambda: once continuously differentiable, with a jump in the second derivative at b alone.

    The trial functions are (1 - y^2) N_k(y), zero at the walls, or for a symmetric potential
    (1 - y^2) (N_k(y) + (-1)^k N_k(-y)): the state of k zeros has parity (-1)^k.

    The states are `mix` (a K x K matrix) times the trial functions: where the energies are eliminated
    (Rayleigh and Ritz), only the space that the trial functions span is trained.

    Source: the hard zeros are those of arXiv 2504.05367; features, parity and Ritz step are this project's.

    Args:
        walls: positions of the walls.
        breaks: positions between them where V or the mass jumps, ascending.
        masses: relative mass left of the first break, between the breaks, right of the last.
        states: K.
        symmetric: whether the potential is even about the middle of the box.
        hidden: widths of the hidden layers.
        activation: of the hidden layers.
        frequency: of the first layer, see `zoo.pinn.jets.JetMLP`.
        reach: lambda for each break; None: the network is told nothing of the breaks, as in the paper.
        train_energies: whether `E` is a parameter, as in the paper, or a buffer that the training step sets.
    """

    edges: Tensor
    coordinates: Tensor
    parity: Tensor
    mix: Tensor
    E: Tensor

    def __init__(
        self,
        walls: tuple[float, float],
        breaks: tuple[float, ...] = (),
        masses: tuple[float, ...] = (1.0,),
        states: int = 1,
        symmetric: bool = False,
        hidden: tuple[int, ...] = (32, 32),
        activation: Activation = "sin",
        frequency: float | None = 4.0,
        reach: tuple[float, ...] | None = None,
        train_energies: bool = False,
    ) -> None:
        super().__init__()
        edges = torch.tensor([walls[0], *breaks, walls[1]], dtype=torch.float64)
        # ratio: mass of each layer relative to the mean over the box, which is dy/dx up to the scale of x.
        weighted = torch.tensor(masses, dtype=torch.float64) * edges.diff()
        coordinates = torch.cat([edges.new_zeros(1), weighted.cumsum(0)]) / weighted.sum() * 2 - 1
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("coordinates", coordinates, persistent=False)
        self.symmetric, self.reach = symmetric, reach
        self.register_buffer("parity", (-1.0) ** torch.arange(states), persistent=False)
        in_features = 1 + len(reach or ())
        self.mlp = JetMLP(in_features, hidden, states, activation, frequency)
        self.register_buffer("mix", torch.eye(states))
        if train_energies:
            self.E = nn.Parameter(torch.zeros(states))
        else:
            self.register_buffer("E", torch.zeros(states))

    def coordinate(self, x: Tensor) -> Tensor:
        """Positions x (N,) -> y in [-1, 1]."""
        layer = torch.searchsorted(self.edges[1:-1].contiguous(), x, right=True)
        left, right = self.edges[layer], self.edges[layer + 1]
        start, end = self.coordinates[layer], self.coordinates[layer + 1]
        return start + (x - left) / (right - left) * (end - start)

    def features(self, y: Tensor) -> Tensor:
        """Jets of the network's inputs with respect to y: (N,) -> (3, N, features)."""
        columns = [torch.stack([y, torch.ones_like(y), torch.zeros_like(y)])]
        if self.reach is not None:
            columns += [kink(y - b, reach) for b, reach in zip(self.coordinates[1:-1], self.reach, strict=True)]
        return torch.stack(columns, -1)

    def inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What `trial` needs of positions x (N,) and what does not change in training.

        Returns:
            Jets with respect to y of the walls' factor (3, N, 1) and of the network's inputs (3, N, features),
            or (3, 2 N, features) with the mirrored positions behind for a symmetric potential.
        """
        y = self.coordinate(x)
        wall = torch.stack([1 - y * y, -2 * y, torch.full_like(y, -2.0)]).unsqueeze(-1)
        return wall, self.features(torch.cat([y, -y]) if self.symmetric else y)

    def trial(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Jets of the trial functions with respect to y: (3, N, K)."""
        wall, features = inputs
        values = self.mlp.jet(features)
        if self.symmetric:
            here, mirrored = values.chunk(2, dim=1)
            values = here + torch.stack([self.parity, -self.parity, self.parity]).unsqueeze(1) * mirrored
        return multiply(wall, values)

    def jets(self, x: Tensor) -> Tensor:
        """Jets of the states with respect to y at positions x (N,): (3, N, K)."""
        return self.trial(self.inputs(x)) @ self.mix

    def forward(self, x: Tensor) -> Tensor:
        """Positions x (N,) between the walls -> the states (N, K), integral psi_k^2 dx = 1.

        The plain way, for which autograd gives the derivatives.
        """
        y = self.coordinate(x)
        values = self.mlp(self.features(y)[0])
        if self.symmetric:
            values = values + self.parity * self.mlp(self.features(-y)[0])
        return (1 - y * y).unsqueeze(-1) * values @ self.mix
