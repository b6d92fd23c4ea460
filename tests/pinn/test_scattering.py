from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.errors import ConfigError
from zoo.pinn.closed_forms import barrier_transmission
from zoo.pinn.figures import transmission as draw
from zoo.pinn.potentials import Barrier, FiniteWell, Harmonic, InfiniteWell, Layers
from zoo.pinn.scattering import transmission


@settings(max_examples=25, deadline=None)
@given(st.floats(1.0, 200.0), st.floats(0.1, 1.5), st.floats(0.3, 3.0))
def test_barrier_against_the_closed_form(V0: float, w: float, kinetic: float) -> None:
    energies = V0 * np.array([1e-3, 0.1, 0.5, 0.999, 1.0, 1.001, 1.7, 5.0])
    found = transmission(Barrier(V0=V0, w=w, D=2 * w + 1, kinetic=kinetic), energies)
    np.testing.assert_allclose(found, barrier_transmission(energies, V0, w, kinetic), rtol=1e-8)


def test_tunnelling_decays_like_the_exponential() -> None:
    thin, thick = (barrier_transmission(np.array([10.0]), 100.0, w)[0] for w in (1.0, 1.5))
    np.testing.assert_allclose(np.log(thin / thick), 2 * np.sqrt(90.0) * 0.5, rtol=1e-6)
    found = transmission(Barrier(V0=100.0, w=1.5, D=2.0), np.array([10.0]))[0]
    np.testing.assert_allclose(found, thick, rtol=1e-6)


def test_resonances_above_the_barrier() -> None:
    V0, w = 20.0, 0.8
    resonances = V0 + (np.arange(1, 5) * np.pi / w) ** 2
    np.testing.assert_allclose(transmission(Barrier(V0=V0, w=w, D=3.0), resonances), 1.0, atol=1e-9)
    assert (transmission(Barrier(V0=V0, w=w, D=3.0), resonances[:-1] + np.diff(resonances) / 2) < 0.999).all()


def test_ramsauer_resonances_of_a_well() -> None:
    V0, L = 20.0, 1.0
    energies = (np.arange(2, 5) * np.pi / L) ** 2
    np.testing.assert_allclose(transmission(FiniteWell(V0=V0, L=L, D=4.0), energies), 1.0, atol=1e-9)


def test_step_and_masses() -> None:
    """T = 4 v1 v2 / (v1 + v2)^2 with the velocities v = hbar k / m on both sides."""
    step = Layers(widths=(1.0, 2.0), layer_V=(0.0, 5.0), layer_m=(1.0, 2.0))
    energies = np.array([5.5, 8.0, 40.0])
    v1, v2 = np.sqrt(energies), np.sqrt((energies - 5.0) / 2)
    np.testing.assert_allclose(transmission(step, energies), 4 * v1 * v2 / (v1 + v2) ** 2, rtol=1e-9)


def test_what_does_not_matter() -> None:
    energies = np.linspace(1.0, 80.0, 7)
    there = Layers(widths=(0.5, 0.3, 0.2, 1.0), layer_V=(0.0, 30.0, 10.0, 0.0))
    back = Layers(widths=(1.0, 0.2, 0.3, 0.5), layer_V=(0.0, 10.0, 30.0, 0.0))
    longer = Layers(widths=(2.5, 0.3, 0.2, 1.7), layer_V=(0.0, 30.0, 10.0, 0.0))
    found = transmission(there, energies)
    np.testing.assert_allclose(found, transmission(back, energies), rtol=1e-9)  # direction
    np.testing.assert_allclose(found, transmission(longer, energies), rtol=1e-9)  # where the box ends
    assert ((found > 0) & (found <= 1 + 1e-12)).all()


def test_bad_questions() -> None:
    with pytest.raises(ConfigError, match="energies above V at the ends"):
        transmission(Barrier(), np.array([-1.0, 3.0]))
    with pytest.raises(ConfigError, match="energies above V at the ends"):
        transmission(FiniteWell(V0=20.0), np.array([10.0]))
    with pytest.raises(ConfigError, match="finite energies"):
        transmission(Barrier(), np.array([np.nan]))
    with pytest.raises(ConfigError, match="positive energy"):
        barrier_transmission(np.array([-1.0, 3.0]), 20.0, 1.0)
    for closed in (Harmonic(), InfiniteWell()):
        with pytest.raises(ConfigError, match="nothing to scatter"):
            transmission(closed, np.array([1.0]))


def test_figure_shows_the_resonance() -> None:
    axes = draw(Barrier(V0=20.0, w=0.8, D=3.0)).axes[0]
    energy, T = axes.lines[0].get_data()
    near = T[np.abs(energy - (20 + (np.pi / 0.8) ** 2)) < 1.0]
    assert len(near) > 2
    assert near.max() > 0.999
