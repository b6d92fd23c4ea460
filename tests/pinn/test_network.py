"""The trial functions: derivatives, parity, walls, interfaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import grad, gradcheck

from zoo.pinn import jets
from zoo.pinn.conditional_well.network import ConditionalWellNetwork
from zoo.pinn.quantum_well.network import QuantumWellNetwork

torch.manual_seed(0)


def random_network(**arguments: Any) -> QuantumWellNetwork:
    torch.manual_seed(1)
    network = QuantumWellNetwork(**{"walls": (-2.0, 3.0), "states": 3, "hidden": (9, 7), **arguments}).double()
    network.mix.copy_(torch.randn(3, 3, dtype=torch.float64))
    return network


def derivatives(f: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values (N, K) of a function of x (N,) and two derivatives, by plain autograd."""
    x = x.clone().requires_grad_()
    values = f(x)
    first, second = [], []
    for column in values.unbind(1):
        slope = grad(column.sum(), x, create_graph=True)[0]
        first.append(slope)
        second.append(grad(slope.sum(), x, retain_graph=True)[0])
    return values.detach(), torch.stack(first, 1).detach(), torch.stack(second, 1)


@pytest.mark.parametrize("activation", ["sin", "tanh"])
def test_backward_of_the_activations(activation: str) -> None:
    jet = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(jets._JETS[activation].apply, (jet, bias))


@pytest.mark.parametrize("activation", ["sin", "tanh"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("breaks", [(), (-0.3, 1.1)])
def test_jets_are_what_autograd_gives(activation: str, symmetric: bool, breaks: tuple[float, ...]) -> None:
    masses = (1.0,) * (len(breaks) + 1)
    network = random_network(
        activation=activation, symmetric=symmetric, breaks=breaks, masses=masses, reach=tuple(0.4 for _ in breaks)
    )
    x = torch.linspace(-1.9, 2.9, 23, dtype=torch.float64)
    scale = 2.5  # dx/dy: the box is 5 long, y runs over 2
    for order, expected in enumerate(derivatives(network, x)):
        torch.testing.assert_close(network.jets(x)[order], expected * scale**order, rtol=1e-9, atol=1e-9)


def test_parameter_gradients_through_jets_are_those_of_autograd() -> None:
    network = random_network(breaks=(0.5,), masses=(1.0, 1.0), reach=(0.4,), symmetric=True)
    x = torch.linspace(-1.9, 2.9, 23, dtype=torch.float64)
    fast = grad(network.jets(x)[2].square().sum(), list(network.mlp.parameters()))
    point = x.clone().requires_grad_()
    slow_sum = torch.zeros((), dtype=torch.float64)
    for column in network(point).unbind(1):
        slope = grad(column.sum(), point, create_graph=True)[0]
        slow_sum = slow_sum + (grad(slope.sum(), point, create_graph=True)[0] * 2.5**2).square().sum()
    for a, b in zip(fast, grad(slow_sum, list(network.mlp.parameters())), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_jets_against_finite_differences() -> None:
    network = random_network(breaks=(0.5,), masses=(1.0, 1.0), reach=(0.4,))
    x = torch.tensor([-1.7, -0.2, 0.49, 0.51, 2.2], dtype=torch.float64)
    h = 1e-4
    with torch.no_grad():
        below, here, above = network(x - h), network(x), network(x + h)
        _, first, second = network.jets(x)
    torch.testing.assert_close(first / 2.5, (above - below) / (2 * h), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(second / 2.5**2, (above - 2 * here + below) / h**2, rtol=1e-4, atol=1e-4)


def test_walls_and_parity_hold_for_any_weights() -> None:
    network = random_network(symmetric=True)
    network.mix.copy_(torch.eye(3))
    offset = torch.linspace(0, 2.5, 11, dtype=torch.float64)
    with torch.no_grad():
        assert network(torch.tensor([-2.0, 3.0], dtype=torch.float64)).abs().max() < 1e-15
        right, left = network(0.5 + offset), network(0.5 - offset)
    torch.testing.assert_close(left, right * torch.tensor([1.0, -1.0, 1.0]), atol=1e-13, rtol=0)


def test_interface_features_let_only_the_second_derivative_jump() -> None:
    network = random_network(breaks=(0.5,), masses=(1.0, 1.0), reach=(0.4,))
    sides = torch.tensor([0.5 - 1e-9, 0.5 + 1e-9], dtype=torch.float64)
    with torch.no_grad():
        jump = (network.jets(sides)[:, 1] - network.jets(sides)[:, 0]).abs()
        plain = random_network(breaks=(0.5,), masses=(1.0, 1.0)).jets(sides)
    assert jump[:2].max() < 1e-6
    assert jump[2].min() > 1e-2
    assert (plain[2, 1] - plain[2, 0]).abs().max() < 1e-5


def test_where_the_mass_jumps_the_flux_is_continuous() -> None:
    """psi'/m, not psi', is the same on both sides."""
    network = random_network(breaks=(0.5,), masses=(1.0, 3.0), reach=(0.4,))
    h = 1e-6
    place = torch.tensor([0.5 - 2 * h, 0.5 - h, 0.5 + h, 0.5 + 2 * h], dtype=torch.float64)
    with torch.no_grad():
        psi = network(place)
    before, after = (psi[1] - psi[0]) / h, (psi[3] - psi[2]) / h
    torch.testing.assert_close(after, 3 * before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(psi[1], psi[2], rtol=0, atol=1e-4)


def test_float32_follows_float64() -> None:
    network = random_network(symmetric=True)
    x = torch.linspace(-2, 3, 9, dtype=torch.float64)
    double = network(x)
    torch.testing.assert_close(network.float()(x.float()).double(), double, rtol=1e-3, atol=1e-4)


def test_conditional_jets_are_what_autograd_gives() -> None:
    torch.manual_seed(2)
    network = ConditionalWellNetwork(3, (8, 8), 4.0, strength=(2.0, 200.0), box=(3.0, 12.0)).double()
    g, d = torch.tensor([5.0, 90.0], dtype=torch.float64), torch.tensor([3.5, 7.0], dtype=torch.float64)
    t = torch.linspace(-0.97, 0.95, 31, dtype=torch.float64)
    found = network.trial(network.inputs(t.expand(2, -1), g, d))
    for well in range(2):
        expected = derivatives(lambda x, w=well: network(x.unsqueeze(0), g[w : w + 1], d[w : w + 1])[0], t)
        for order in range(3):
            torch.testing.assert_close(found[order, well], expected[order], rtol=1e-8, atol=1e-8)
    sign = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    mirrored = network(-t.expand(2, -1), g, d)
    torch.testing.assert_close(mirrored, network(t.expand(2, -1), g, d) * sign, rtol=0, atol=1e-13)


def test_initial_units_are_spread_over_the_box() -> None:
    torch.manual_seed(0)
    first = jets.JetMLP(1, (400,), 1, "sin", 4.0).layers[0]
    assert isinstance(first, torch.nn.Linear)
    centres = (-first.bias / first.weight[:, 0]).detach().numpy()
    assert np.abs(centres).max() <= 1 + 1e-6
    np.testing.assert_allclose(np.histogram(centres, 4, (-1, 1))[0], 100, atol=35)
