"""One network for all finite wells of a range: the shipped weights, the questions it takes, and its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import trapezoid

import zoo
from tests.pinn.goldens import KEYS, goldens
from zoo.config import compose
from zoo.data.potentials import WellBatch, gauss_legendre
from zoo.engine.run import train
from zoo.errors import ConfigError, DataError
from zoo.pinn.closed_forms import finite_well_energies, layered_energies
from zoo.pinn.conditional_well.module import ConditionalWell, well_grid
from zoo.pinn.potentials import FiniteWell
from zoo.pinn.ritz import make_grid
from zoo.pretrained import get_entry

QUIET = ["callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}"]
FINITE = [key for key in KEYS if goldens()[key].kind == "finite_well"]


@pytest.fixture(scope="module")
def wells() -> ConditionalWell:
    module = zoo.load_pretrained("pinn/wells")
    assert isinstance(module, ConditionalWell)
    return module


def batch(strength: Any, box: Any) -> WellBatch:
    node, weight = gauss_legendre(24)
    g, d = np.broadcast_arrays(np.asarray(strength, dtype=np.float64), box)
    return {
        "strength": torch.from_numpy(g.ravel().copy()),
        "box": torch.from_numpy(d.ravel().astype(np.float64)),
        "node": node,
        "weight": weight,
    }


def errors(module: ConditionalWell, wells: WellBatch) -> Any:
    """Relative energy errors of the bound states."""
    output = module.predict_step(wells, 0)
    return np.abs(output["energies"] / output["exact"] - 1)[output["bound"]]


def test_shipped_weights_keep_what_was_recorded(wells: ConditionalWell) -> None:
    """A quarter of the wells that the metrics were measured on: no error above the recorded one, nor far below."""
    data = zoo.create_data("pinn/wells", test_wells=64, seed=0)
    (drawn,) = data.test_dataloader()
    error, recorded = errors(wells, drawn), get_entry("pinn/wells").metrics
    assert error.max() <= recorded["test/energy_error"] * (1 + 1e-6)
    assert np.median(error) == pytest.approx(recorded["test/energy_error_median"], rel=0.5)


def test_the_worst_of_a_grid_of_wells(wells: ConditionalWell) -> None:
    """Corners and edges of the range included: 1e-3 for every bound state."""
    strength, box = np.meshgrid(np.geomspace(*wells.strength, 15), np.geomspace(*wells.box, 5))
    error = errors(wells, batch(strength, box))
    assert len(error) > 150
    assert error.max() < 1e-3


@pytest.mark.parametrize("key", FINITE)
def test_goldens(wells: ConditionalWell, key: str) -> None:
    golden = goldens()[key]
    bound = int((golden.energies < golden.parameters["V0"]).sum())
    states = min(bound, wells.answers)
    found = wells.solve(**golden.parameters, states=states, points=len(golden.x))
    np.testing.assert_allclose(found["x"], golden.x, atol=1e-12)
    np.testing.assert_allclose(found["energies"], golden.energies[:states], rtol=1e-3)
    difference = np.sqrt(trapezoid((found["psi"] - golden.psi[:states]) ** 2, golden.x, axis=1))
    assert difference.max() < 0.02


@pytest.mark.parametrize(("V0", "L"), [(20.0, 1.0), (6.0, 1.0), (15.0, 3.0)])
def test_without_a_box_the_open_line_is_meant(wells: ConditionalWell, V0: float, L: float) -> None:
    found = wells.solve(V0, L)
    exact = finite_well_energies(V0, L, len(found["energies"]))
    np.testing.assert_allclose(found["energies"], exact, rtol=1e-3)
    assert (exact < V0).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10.0), st.floats(4.0, 150.0), st.floats(3.5, 11.0))
def test_only_strength_and_box_matter(wells: ConditionalWell, L: float, strength: float, box: float) -> None:
    unit = wells.solve(strength, 1.0, box, states=2)
    scaled = wells.solve(strength / L**2, L, box * L, states=2)
    np.testing.assert_allclose(scaled["energies"] * L**2, unit["energies"], rtol=1e-9)
    np.testing.assert_allclose(scaled["psi"] * np.sqrt(L), unit["psi"], atol=1e-7)
    np.testing.assert_allclose(trapezoid(scaled["psi"] ** 2, scaled["x"]), 1, rtol=1e-3)


def test_nanometres_and_electronvolts(wells: ConditionalWell) -> None:
    """GaAs between AlGaAs with one mass: the same as the transcendental equation in these units."""
    from zoo.pinn.units import energy_unit

    found = wells.solve(V0=0.3, L=10.0, m=0.067, units="nm-eV", states=2)
    exact = finite_well_energies(0.3, 10.0, 2, kinetic=energy_unit(1.0, 0.067, "nm-eV"))
    np.testing.assert_allclose(found["energies"], exact, rtol=1e-3)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"V0": 1.0, "L": 1.0}, r"V0 L\^2 / \(hbar\^2/2m\) = 1 is outside"),
        ({"V0": 20.0, "L": 4.0}, "outside of what this model was trained for, 2 to 200"),
        ({"V0": 20.0, "L": 1.0, "D": 30.0}, "D / L = 30 is outside"),
        ({"V0": 20.0, "L": 1.0, "D": 5.0, "states": 9}, "answers with the lowest 4 states; 9"),
        ({"V0": 20.0, "L": 1.0, "D": 5.0, "states": 0}, "answers with the lowest 4 states; 0"),
        ({"V0": 20.0, "L": 1.0, "states": 3}, "binds 2 states; 3 were asked for"),
        ({"V0": 20.0, "L": -1.0}, "L should be positive"),
        ({"V0": 20.0, "L": 1.0, "m": 0.0}, "should be positive"),
    ],
)
def test_unanswerable_questions(wells: ConditionalWell, question: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wells.solve(**question)


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".png"])
def test_predict_file(wells: ConditionalWell, in_tmp: Path, suffix: str) -> None:
    facts = wells.predict_file(Path(f"well{suffix}"), V0=20.0, L=1.0, points=101)
    assert {"energies", "exact, in a box of 12", "exact, on the open line", "answered in ms"} <= facts.keys()
    assert Path(f"well{suffix}").stat().st_size > 1000
    if suffix == ".npz":
        with np.load("well.npz") as file:
            assert file["psi"].shape == (2, 101)
            assert file["energies"].tolist() == facts["energies"]
    with pytest.raises(DataError, match=r"should end in \.npz, \.csv or \.png"):
        wells.predict_file(Path("well.txt"), V0=20.0, L=1.0)


def test_command_line(zoo_command: Any, tmp_path: Path) -> None:
    result = zoo_command("zoo.predict", "weights=pinn/wells", "V0=20", "L=1", "D=5", "output=well.csv")
    assert result.returncode == 0, result.stderr
    assert "exact, in a box of 5: [4.589982" in result.stdout
    assert (tmp_path / "well.csv").read_text().startswith("# energies: 4.5")
    result = zoo_command("zoo.predict", "weights=pinn/wells", "V0=2000", "L=1", "output=well.csv")
    assert result.returncode == 2
    assert "outside of what this model was trained for" in result.stderr


def test_grid_is_that_of_a_single_well() -> None:
    """Up to the unit of length, which is L here."""
    node, weight = gauss_legendre(8)
    g, d = torch.tensor([30.0], dtype=torch.float64), torch.tensor([4.0], dtype=torch.float64)
    found, expected = well_grid(g, d, node, weight), make_grid(FiniteWell(30.0, 1.0, 4.0), node, weight)
    right = expected.t > 1 / 4
    assert found.weight.sum().item() == pytest.approx(2.0)
    torch.testing.assert_close(found.x[0, 8:], expected.x[right])
    torch.testing.assert_close(found.t[0, 8:], expected.t[right])
    torch.testing.assert_close(found.weight[0, 8:], 2 * expected.weight[right])
    torch.testing.assert_close(found.v[0, 8:], expected.v[right])
    assert (found.v[0, :8] == 0).all()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("model", {"answers": 7}, "answers"),
        ("model", {"strength": (5.0, 2.0)}, "ascending ranges"),
        ("model", {"box": (0.5, 2.0)}, "box above 1"),
        ("data", {"strength": (5.0, 2.0)}, "ascending ranges"),
        ("data", {"nodes": 1}, "nodes > 1"),
        ("data", {"test_wells": 0}, "test_wells"),
    ],
)
def test_bad_arguments_are_named(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        if name == "model":
            zoo.create_model("pinn/conditional-well", **arguments)
        else:
            zoo.create_data("pinn/wells", **arguments)


@pytest.mark.slow
def test_a_short_training_improves(in_tmp: Path) -> None:
    """A small range with a small network: from per cents or more to below 1e-3, on wells not trained on."""
    torch.manual_seed(0)
    options = ["model.strength=[10,40]", "model.box=[3,5]", "model.hidden=[32,32]", "model.states=4", "model.answers=2"]
    options += ["data.strengths=5", "data.boxes=3", "data.test_wells=16", "data.steps=10"]
    composed = compose("pinn/wells", [*QUIET, *options, "model.adam_epochs=2", "trainer.max_epochs=5", "run_dir=run"])
    arguments = {key: value for key, value in composed.model.items() if key != "name"}
    untrained = zoo.create_model("pinn/conditional-well", **arguments)
    start = errors(untrained, batch(np.geomspace(10, 40, 8), 4.0)).max()  # type: ignore[arg-type]
    metrics = train(composed)["metrics"]
    assert start > 0.05
    assert metrics["test/energy_error"] < 1e-3
    assert {path.stem for path in Path("run/figures").glob("*.png")} >= {"levels", "error"}


def test_answers_do_not_depend_on_the_company() -> None:
    """Wells are answered one by one as in a batch."""
    torch.manual_seed(0)
    module = zoo.create_model("pinn/conditional-well", hidden=(8,))
    many = batch([5.0, 50.0, 150.0], [4.0, 8.0, 11.0])
    together = module.predict_step(many, 0)
    for k in range(3):
        alone = module.predict_step(batch(many["strength"][k : k + 1].numpy(), many["box"][k : k + 1].numpy()), 0)
        np.testing.assert_allclose(alone["energies"][0], together["energies"][k], rtol=1e-9)
        exact = layered_energies(FiniteWell(float(many["strength"][k]), 1.0, float(many["box"][k])), 4)
        np.testing.assert_array_equal(alone["exact"][0], exact)
