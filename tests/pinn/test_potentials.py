from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import constants

from zoo.data.potentials import read_potential_table
from zoo.errors import ConfigError, DataError, UnknownNameError
from zoo.pinn.potentials import (
    KINDS,
    Barrier,
    DoubleWell,
    FiniteWell,
    Function,
    Harmonic,
    Layers,
    Table,
    make_potential,
)
from zoo.pinn.reference import solve
from zoo.pinn.units import energy_unit


def test_values_jumps_and_limits() -> None:
    well = FiniteWell(V0=20.0, L=1.0, D=5.0)
    assert well.walls == (-2.5, 2.5)
    assert well.breaks == (-0.5, 0.5)
    assert well(np.array([-2.0, -0.4, 0.0, 0.6])).tolist() == [20.0, 0.0, 0.0, 20.0]
    assert well.inside(-0.5, 0.5, np.array([-0.5, 0.5])).tolist() == [0.0, 0.0]
    assert well.inside(0.5, 2.5, np.array([0.5, 2.5])).tolist() == [20.0, 20.0]
    double = DoubleWell(V0=30.0, L=1.0, w=0.5, D=5.0)
    assert double(np.array([0.0, 0.5, -0.5, 1.5])).tolist() == [30.0, 0.0, 0.0, 30.0]


def test_symmetry_is_found() -> None:
    assert all(make_potential(kind).symmetric for kind in ("infinite_well", "finite_well", "barrier", "double_well"))
    assert make_potential("harmonic").symmetric
    assert not make_potential("triangular_well").symmetric
    assert Layers(widths=(1.0, 2.0, 1.0), layer_V=(5.0, 0.0, 5.0)).symmetric
    assert not Layers(widths=(1.0, 2.0, 1.1), layer_V=(5.0, 0.0, 5.0)).symmetric
    assert not Layers(widths=(1.0, 2.0, 1.0), layer_V=(5.0, 0.0, 5.0), layer_m=(1.0, 1.0, 2.0)).symmetric
    assert Function(V=lambda x: (x - 1) ** 2, x_range=(-1.0, 3.0)).symmetric
    assert not Function(V=lambda x: x**2 + 1e-6 * x, x_range=(-2.0, 2.0)).symmetric


@settings(max_examples=50)
@given(st.floats(0.1, 1e3), st.floats(0.01, 10.0), st.floats(1.01, 20.0))
def test_wells_and_barriers_complement_each_other(V0: float, width: float, ratio: float) -> None:
    D = width * ratio
    x = np.linspace(-D / 2, D / 2, 101)[1:-1]
    total = FiniteWell(V0=V0, L=width, D=D)(x) + Barrier(V0=V0, w=width, D=D)(x)
    np.testing.assert_array_equal(total, V0)


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("finite_well", {"V0": -1.0}, "V0 should be positive"),
        ("finite_well", {"V0": float("nan")}, "V0 should be positive"),
        ("finite_well", {"L": 5.0, "D": 5.0}, "should be less than the length D"),
        ("finite_well", {"w": 1.0}, "potential 'finite_well' has no argument 'w'"),
        ("infinite_well", {"V0": 1.0}, "potential 'infinite_well' has no argument 'V0'"),
        ("barrier", {"w": 0.0}, "w should be positive"),
        ("barrier", {"L": 1.0}, "has no argument 'L'"),
        ("double_well", {"w": 4.0, "D": 5.0}, "double well's width"),
        ("layers", {}, "needs the widths"),
        ("layers", {"widths": (1.0, 2.0), "layer_V": (1.0,)}, "one value for each of the 2 widths"),
        ("layers", {"widths": (1.0, -2.0), "layer_V": (1.0, 2.0)}, "should be positive"),
        ("layers", {"widths": (1.0, float("inf")), "layer_V": (1.0, 2.0)}, "positive and finite"),
        (
            "layers",
            {"widths": (1.0, 2.0), "layer_V": (1.0, 2.0), "layer_m": (1.0, float("inf"))},
            "positive and finite",
        ),
        ("table", {}, "needs a file"),
        ("function", {}, "needs V"),
        ("function", {"V": np.square, "x_range": (1.0, -1.0)}, "x_range should be"),
        ("function", {"V": np.square, "jumps": (0.5, 0.2)}, "jumps should ascend"),
        ("function", {"V": np.log}, "finite value"),
        ("function", {"V": lambda x: 3.0}, "finite value for each position"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in log")
def test_bad_parameters_are_named(kind: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_potential(kind, **parameters)


def test_unknown_potential() -> None:
    with pytest.raises(UnknownNameError, match="'finite_well'"):
        make_potential("finit_well")
    assert all(make_potential(kind).walls for kind in KINDS if kind not in ("layers", "table", "function"))


# ---- tables ----------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_table_with_a_jump_is_the_finite_well(tmp_path: Path) -> None:
    csv = write(tmp_path / "well.csv", "V,comment,x\n20,a,-2.5\n20,,-0.5\n0,,-0.5\n0,,0.5\n20,,0.5\n20,b,2.5\n\n")
    table = Table(table=csv)
    assert table.breaks == (-0.5, 0.5)
    assert table.symmetric
    np.testing.assert_allclose(solve(table, 3).energies, solve(FiniteWell(), 3).energies, rtol=1e-11)


def test_npz_table_of_a_smooth_potential(tmp_path: Path) -> None:
    x = np.linspace(-6, 6, 401)
    np.savez(tmp_path / "v.npz", x=x, V=x**2)
    found = solve(Table(table=tmp_path / "v.npz"), 4).energies
    np.testing.assert_allclose(found, [1, 3, 5, 7], rtol=2e-4)  # the samples' own accuracy
    assert np.abs(found - [1, 3, 5, 7]).max() > 1e-9


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40), st.integers(0, 2**31))
def test_tables_pass_through_their_samples(tmp_path_factory: pytest.TempPathFactory, V: list[float], seed: int) -> None:
    x = np.cumsum(np.random.default_rng(seed).uniform(0.01, 1.0, len(V)))
    path = tmp_path_factory.mktemp("table") / "v.npz"
    np.savez(path, x=x, V=V)
    table = Table(table=path)
    np.testing.assert_allclose(table(x), V, atol=1e-9)
    between = table(np.linspace(x[0], x[-1], 301))
    assert min(V) - 1e-9 <= between.min() <= between.max() <= max(V) + 1e-9  # no overshoot


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("v.csv", "x,V\n0,1\n1,nan\n2,1\n", "V is nan in sample 2"),
        ("v.csv", "x,V\n0,1\n2,1\n1,1\n", "not sorted: sample 3"),
        ("v.csv", "x,U\n0,1\n2,1\n", "has no column V"),
        ("v.csv", "", "has no column x and no V"),
        ("v.csv", "x,V\n0,1\n1,abc\n", "line 3"),
        ("v.csv", "x,V\n0\n", "line 2"),
        ("v.csv", "x,V\n0,1\n", "two samples"),
        ("v.csv", "x,V\n0,1\n0,2\n1,1\n", "twice at an end"),
        ("v.csv", "x,V\n0,1\n1,2\n1,3\n1,4\n2,0\n", "no x thrice"),
        ("v.npz", "no archive", "can't be read as an .npz"),
        ("v.txt", "x,V\n", r"\.csv or an \.npz"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_potential_table(write(tmp_path / name, text))


def test_absent_and_incomplete_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no table"):
        Table(table=tmp_path / "absent.csv")
    np.savez(tmp_path / "v.npz", x=np.arange(3.0))
    with pytest.raises(DataError, match="has no array V"):
        read_potential_table(tmp_path / "v.npz")
    np.savez(tmp_path / "w.npz", x=np.arange(3.0), V=np.arange(4.0))
    with pytest.raises(DataError, match="equal length"):
        read_potential_table(tmp_path / "w.npz")


# ---- units -----------------------------------------------------------------------------------------------------


def test_units_agree_with_each_other() -> None:
    ground = np.pi**2 * energy_unit(10.0, 0.067, "nm-eV")
    np.testing.assert_allclose(ground, 0.05612, rtol=1e-3)  # GaAs, 10 nm
    joule = np.pi**2 * energy_unit(10e-9, 0.067 * constants.m_e, "SI")
    np.testing.assert_allclose(joule / constants.e, ground, rtol=1e-9)
    assert energy_unit(2.0, 0.5) == 0.5
    kinetic = energy_unit(1.0, 0.067, "nm-eV")
    np.testing.assert_allclose(solve(Harmonic(omega=0.1, D=60.0, kinetic=kinetic), 3).energies, [0.05, 0.15, 0.25])
    for bad in ({"length": 0.0}, {"m": -1.0}, {"units": "eV"}):
        with pytest.raises(ConfigError):
            energy_unit(**bad)
