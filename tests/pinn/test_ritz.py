"""The functionals, on states that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.data.potentials import gauss_legendre
from zoo.pinn.closed_forms import layered_energies
from zoo.pinn.observables import assess, count_nodes
from zoo.pinn.potentials import FiniteWell, Harmonic, InfiniteWell, Layers, Potential, TriangularWell
from zoo.pinn.reference import solve
from zoo.pinn.ritz import (
    Grid,
    Scales,
    gram,
    interface_reach,
    make_grid,
    ritz,
    ritz_of_frame,
    ritz_sum,
    space_residual,
    state_residuals,
    virial,
)

NODE, WEIGHT = gauss_legendre(48)


def exact_jets(potential: Potential, states: int, grid: Grid) -> Tensor:
    """Jets of the reference's states with respect to the mass-weighted coordinate, the second from the equation."""
    found, scales = solve(potential, states), Scales.of(potential)
    x, h = grid.x.numpy(), 1e-5 * scales.half
    psi = found.psi(x)
    slope = (found.psi(np.clip(x + h, *potential.walls)) - found.psi(np.clip(x - h, *potential.walls))) / (2 * h)
    E = torch.from_numpy(found.energies / scales.energy)
    u = torch.from_numpy(psi).T * scales.half**0.5
    flux = torch.from_numpy(slope).T * scales.half**1.5 / grid.rho.unsqueeze(1)
    return torch.stack([u, flux, (grid.v.unsqueeze(1) - E) * u / grid.rho.unsqueeze(1)])


POTENTIALS = [
    InfiniteWell(L=3.0),
    FiniteWell(),
    Harmonic(),
    TriangularWell(F=8.0, D=5.0),
    Layers(widths=(1.0, 2.0, 1.5), layer_V=(8.0, -1.0, 8.0), layer_m=(2.0, 1.0, 0.7), kinetic=0.6),
]


@pytest.mark.parametrize("potential", POTENTIALS, ids=lambda p: type(p).__name__)
def test_exact_states_satisfy_everything(potential: Potential) -> None:
    grid = make_grid(potential, NODE, WEIGHT)
    u, ones = exact_jets(potential, 3, grid), torch.ones(3, 3, dtype=torch.float64)
    exact = torch.from_numpy(solve(potential, 3).energies / Scales.of(potential).energy)
    overlap, energy = gram(u, grid, ones)
    torch.testing.assert_close(overlap, torch.eye(3, dtype=torch.float64), atol=1e-8, rtol=0)
    torch.testing.assert_close(ritz(overlap, energy)[0], exact, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(ritz_sum(overlap, energy), exact.sum(), rtol=1e-7, atol=0)
    assert space_residual(u, grid, ones) < 1e-10 * exact.sum()
    assert state_residuals(u, grid, exact).max() < 1e-10
    assert virial(u, grid).max() < 1e-6
    quality = assess(u, exact, grid, solve(potential, 3), Scales.of(potential))
    assert quality.energy_error.max() < 1e-12
    assert quality.psi_error.max() < 1e-8
    assert quality.residual.max() < 1e-8
    assert quality.nodes.tolist() == [0, 1, 2]


def test_wrong_states_are_told() -> None:
    potential = FiniteWell()
    grid, reference = make_grid(potential, NODE, WEIGHT), solve(potential, 2)
    u = exact_jets(potential, 2, grid)
    E = torch.from_numpy(reference.energies / Scales.of(potential).energy)
    swapped = assess(u.flip(-1), E.flip(0), grid, reference, Scales.of(potential))
    assert swapped.nodes.tolist() == [1, 0]
    assert swapped.energy_error.min() > 0.5
    np.testing.assert_allclose(swapped.psi_error, np.sqrt(2), rtol=1e-6)
    turned = assess(-u, E, grid, reference, Scales.of(potential))
    assert turned.psi_error.max() < 1e-8  # the sign of psi has no meaning
    squeezed = u * torch.tensor([1.0, 1.1, 1.2], dtype=torch.float64)[:, None, None]
    assert virial(squeezed, grid).min() > 0.05


def test_half_a_symmetric_box_is_enough() -> None:
    potential = FiniteWell(V0=30.0, L=1.5, D=4.0)
    whole, half = (make_grid(potential, NODE, WEIGHT, half=half) for half in (False, True))
    assert len(half.x) * 2 == len(whole.x)
    block = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    for a, b in zip(
        gram(exact_jets(potential, 2, whole), whole, block),
        gram(exact_jets(potential, 2, half), half, block),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_middle_node_of_an_odd_rule_counts_once() -> None:
    node, weight = gauss_legendre(7)
    assert make_grid(FiniteWell(), node, weight, half=True).weight.sum() == pytest.approx(2.0)
    assert make_grid(InfiniteWell(), node, weight, half=True).weight.sum() == pytest.approx(2.0)


def test_functionals_do_not_change_when_the_functions_are_mixed() -> None:
    torch.manual_seed(0)
    grid = make_grid(FiniteWell(), NODE, WEIGHT)
    y = grid.t
    u = torch.stack([torch.sin(k * np.pi * (y + 1) / 2 + 0.1 * k) for k in (1, 2, 3)], 1)
    u = torch.stack([u, 0.7 * u.roll(1, 1), u * u])  # jets of nothing in particular
    ones, mixer = torch.ones(3, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    torch.testing.assert_close(ritz_sum(*gram(u @ mixer, grid, ones)), ritz_sum(*gram(u, grid, ones)))
    torch.testing.assert_close(space_residual(u @ mixer, grid, ones), space_residual(u, grid, ones))


def test_the_residual_of_a_space_is_the_sum_over_its_ritz_states() -> None:
    torch.manual_seed(0)
    potential = FiniteWell()
    grid, ones = make_grid(potential, NODE, WEIGHT), torch.ones(2, 2, dtype=torch.float64)
    y = grid.t.unsqueeze(1)
    a = torch.tensor([1.3, 2.1], dtype=torch.float64)
    f = torch.stack([torch.cos(a * y), -a * torch.sin(a * y), -(a**2) * torch.cos(a * y)])
    E, C = ritz(*gram(f, grid, ones))
    expected = (state_residuals(f @ C, grid, E) / (E - grid.v_min)).sum()
    torch.testing.assert_close(space_residual(f, grid, ones), expected, rtol=1e-9, atol=0)


def test_linearly_dependent_functions_do_no_harm() -> None:
    """Twice the same functions, mixed: the states of the space, and no others."""
    torch.manual_seed(0)
    potential = FiniteWell()
    grid = make_grid(potential, NODE, WEIGHT)
    u = exact_jets(potential, 3, grid)
    expected, _ = ritz(*gram(u, grid, torch.ones(3, 3, dtype=torch.float64)))
    doubled = torch.cat([u, u @ torch.randn(3, 3, dtype=torch.float64)], -1)
    energies, vectors = ritz_of_frame(*gram(doubled, grid, torch.ones(6, 6, dtype=torch.float64)))
    torch.testing.assert_close(energies[:3], expected, rtol=1e-9, atol=0)
    assert energies[3:].isinf().all()
    psi = doubled[0] @ vectors[:, :3]
    overlap = psi.T @ (grid.weight.unsqueeze(1) * psi)
    torch.testing.assert_close(overlap, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-8)
    torch.testing.assert_close(ritz_of_frame(*gram(u, grid, torch.ones(3, 3).double()))[0], expected)


def test_ritz_energies_lie_above_the_exact_ones() -> None:
    potential, scales = FiniteWell(), Scales.of(FiniteWell())
    grid, ones = make_grid(potential, NODE, WEIGHT), torch.ones(4, 4, dtype=torch.float64)
    k = torch.arange(1, 5, dtype=torch.float64) * np.pi / 2
    phase = k * (grid.t.unsqueeze(1) + 1)
    u = torch.stack([torch.sin(phase), k * torch.cos(phase), -(k**2) * torch.sin(phase)])
    energies = ritz(*gram(u, grid, ones))[0].numpy() * scales.energy
    assert (energies > layered_energies(potential, 4)).all()


def test_nodes_are_counted_in_spite_of_noise() -> None:
    x = np.linspace(0, np.pi, 400)
    noise = 1e-6 * np.random.default_rng(0).standard_normal((3, 400))
    states = np.stack([np.sin(x) * np.exp(-((x - 1.5) ** 2) * 8), np.sin(2 * x), np.sin(5 * x)])
    assert count_nodes(states + noise).tolist() == [0, 1, 4]


def test_reach_of_the_interface_features() -> None:
    assert interface_reach(InfiniteWell()) == ()
    shallow, deep = interface_reach(FiniteWell(V0=0.1)), interface_reach(FiniteWell(V0=500.0))
    assert shallow == (2 / 3, 2 / 3)
    assert deep == pytest.approx((5 / np.sqrt(500 * 2.5**2),) * 2)
