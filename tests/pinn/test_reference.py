from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import trapezoid

from tests.pinn.goldens import KEYS, goldens
from zoo.errors import ConfigError
from zoo.pinn.closed_forms import (
    bound_states,
    finite_well_energies,
    harmonic_energies,
    infinite_well_psi,
    layered_energies,
    triangular_well_energies,
)
from zoo.pinn.observables import count_nodes
from zoo.pinn.potentials import (
    Barrier,
    DoubleWell,
    FiniteWell,
    Function,
    Harmonic,
    InfiniteWell,
    Layers,
    TriangularWell,
)
from zoo.pinn.reference import coarse_energies, solve


@pytest.mark.parametrize("key", KEYS)
def test_reference_solver_agrees_with_the_goldens(key: str) -> None:
    golden = goldens()[key]
    found = solve(golden.potential, len(golden.energies))
    np.testing.assert_allclose(found.energies, golden.energies, rtol=1e-11)
    np.testing.assert_allclose(found.psi(golden.x), golden.psi, atol=1e-8)


@pytest.mark.parametrize("key", KEYS)
def test_transcendental_equation_agrees_with_the_goldens(key: str) -> None:
    golden = goldens()[key]
    np.testing.assert_allclose(layered_energies(golden.potential, len(golden.energies)), golden.energies, rtol=2e-12)
    if golden.energies_infinite_line is not None:
        V0, L = golden.parameters["V0"], golden.parameters["L"]
        assert bound_states(V0, L) == len(golden.energies_infinite_line)
        line = finite_well_energies(V0, L, len(golden.energies_infinite_line))
        np.testing.assert_allclose(line, golden.energies_infinite_line, rtol=1e-13)


def test_infinite_well() -> None:
    found = solve(InfiniteWell(L=2.5), 8)
    x = np.linspace(0, 2.5, 77)
    np.testing.assert_allclose(found.energies, (np.arange(1, 9) * np.pi / 2.5) ** 2, rtol=1e-11)
    np.testing.assert_allclose(found.psi(x), infinite_well_psi(2.5, 8, x), atol=1e-9)
    assert count_nodes(found.psi(np.linspace(0, 2.5, 1001))).tolist() == list(range(8))


def test_oscillator_and_triangular_well_in_a_wide_box() -> None:
    np.testing.assert_allclose(solve(Harmonic(omega=2.0, D=14.0), 4).energies, harmonic_energies(2.0, 4), rtol=1e-10)
    np.testing.assert_allclose(
        solve(TriangularWell(F=8.0, D=7.0, kinetic=0.7), 3).energies,
        triangular_well_energies(8.0, 3, kinetic=0.7),
        rtol=1e-10,
    )


layers = st.lists(st.tuples(st.floats(0.2, 2.0), st.floats(-20.0, 40.0), st.floats(0.3, 3.0)), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(layers)
def test_both_exact_methods_agree_for_any_layers(layers: list[tuple[float, float, float]]) -> None:
    widths, heights, masses = zip(*layers, strict=True)
    potential = Layers(widths=widths, layer_V=heights, layer_m=masses)
    found, exact = solve(potential, 4), layered_energies(potential, 4)
    np.testing.assert_allclose(found.energies - potential.minimum, exact - potential.minimum, rtol=1e-9)


def test_tunnel_splitting_of_a_nearly_degenerate_pair() -> None:
    potential = DoubleWell(V0=200.0, L=1.0, w=1.5, D=6.0)
    exact = layered_energies(potential, 2)
    splitting = np.diff(solve(potential, 2).energies)[0]
    assert exact[0] < exact[1]
    np.testing.assert_allclose(splitting, exact[1] - exact[0], rtol=1e-4)  # 3.4e-9 of 7.56


@pytest.mark.parametrize("states", [1, 2, 5])
def test_states_that_an_opaque_barrier_splits_keep_their_parity(states: int) -> None:
    """A splitting of 2e-12: looked for together, rounding would mix the two."""
    potential = Barrier(V0=2000.0, w=0.6, D=3.0)
    found = solve(potential, states)
    psi = found.psi(np.linspace(-1.5, 1.5, 401))
    parity = (-1.0) ** np.arange(states)
    np.testing.assert_allclose(psi[:, ::-1], parity[:, None] * psi, atol=1e-9)
    np.testing.assert_allclose(found.energies, layered_energies(potential, states), rtol=1e-11)


def test_many_states_end_where_rounding_begins() -> None:
    np.testing.assert_allclose(solve(InfiniteWell(), 60).energies, (np.arange(1, 61) * np.pi) ** 2, rtol=1e-9)


def test_bad_number_of_states() -> None:
    with pytest.raises(ConfigError, match="1 state or more, not 0"):
        solve(FiniteWell(), 0)


def test_limits_of_the_finite_well() -> None:
    deep = finite_well_energies(1e10, 1.0, 3)
    np.testing.assert_allclose(deep, (np.arange(1, 4) * np.pi) ** 2, rtol=1e-4)
    shallow = finite_well_energies(1e-3, 1.0, 1)[0]
    np.testing.assert_allclose(1e-3 - shallow, (1e-3 / 2) ** 2, rtol=1e-3)  # kappa = V0 L / 2
    with pytest.raises(ConfigError, match=r"binds 2 states; 3 were asked for"):
        finite_well_energies(20.0, 1.0, 3)


def test_orthonormality_of_the_reference() -> None:
    found = solve(Barrier(V0=50.0, w=0.4, D=2.0), 6)
    x = np.linspace(-1, 1, 20001)
    psi = found.psi(x)
    np.testing.assert_allclose(trapezoid(psi[:, None] * psi, x), np.eye(6), atol=1e-7)


def test_scaling_law() -> None:
    """E(V0/s^2, s L, s D) = E / s^2."""
    one, three = solve(FiniteWell(20.0, 1.0, 5.0), 3), solve(FiniteWell(20.0 / 9, 3.0, 15.0), 3)
    np.testing.assert_allclose(three.energies * 9, one.energies, rtol=1e-11)


def test_coarse_scan_is_coarse_but_near() -> None:
    error = np.abs(coarse_energies(FiniteWell(), 2) / solve(FiniteWell(), 2).energies - 1)
    assert 1e-5 < error.max() < 0.05


def test_reference_says_when_it_does_not_converge() -> None:
    with np.errstate(divide="ignore"), pytest.raises(ConfigError, match="does not converge"):
        solve(Function(V=lambda x: np.sign(np.sin(4001.7 * x**2)) * 1e5, x_range=(-1.0, 1.0)), 2)
