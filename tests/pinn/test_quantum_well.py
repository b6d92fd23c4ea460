"""The configs of quantum wells train, resume, draw and predict."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file

import zoo
from tests.pinn.goldens import goldens
from zoo import predict, weights
from zoo.config import compose, compose_run
from zoo.data.potentials import QuadratureBatch, gauss_legendre
from zoo.engine.run import train
from zoo.errors import ConfigError, DataError, Interrupted
from zoo.pinn.potentials import make_potential
from zoo.pinn.quantum_well.module import QuantumWell
from zoo.pinn.reference import solve

DRAWING = ["callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}"]
QUIET = [*DRAWING, "callbacks.test_figures=null"]
CONFIGS = ["infinite_well", "finite_well", "barrier", "double_well", "harmonic", "triangular_well", "heterostructure"]


def batch(nodes: int = 64) -> QuadratureBatch:
    node, weight = gauss_legendre(nodes)
    return {"node": node, "weight": weight, "point": torch.linspace(0, 1, 101, dtype=torch.float64)}


# One well of each kind; the direct solver is held to all of them (test_reference.py).
TRAINED = ["infinite_L1.0", "finite_V20_L1.0_D5.0", "barrier_V20_w0.3333_D1.0"]


@pytest.mark.slow
@pytest.mark.parametrize("key", TRAINED)
def test_goldens_are_reached(in_tmp: Path, key: str) -> None:
    """Relative energy error 1e-7 and L2 error 1e-4 of all golden states within 6 epochs."""
    golden = goldens()[key]
    parameters = [f"model.{name}={value}" for name, value in golden.parameters.items()]
    options = [f"model.states={len(golden.energies)}", "trainer.max_epochs=6", "run_dir=run"]
    metrics = train(compose(f"pinn/{golden.kind}", [*QUIET, *parameters, *options]))["metrics"]
    module = weights.build(Path("run/model.safetensors"))
    assert isinstance(module, QuantumWell)
    np.testing.assert_allclose(module.energies, golden.energies, rtol=1e-7)
    with torch.no_grad():
        psi = module(torch.from_numpy(golden.x)).T.numpy()
    assert golden.psi_error(psi).max() < 1e-4
    assert metrics["test/energy_error"] < 1e-7
    assert metrics["test/psi_error"] < 1e-4
    assert metrics["test/orthogonality"] < 1e-10
    assert metrics["test/virial"] < 1e-3
    assert metrics["test/wrong_states"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_configs_improve(in_tmp: Path, config: str) -> None:
    """From an error of per cents or more to below 1e-5 in 600 iterations, with all pictures."""
    composed = compose(f"pinn/{config}", [*DRAWING, "model.adam_epochs=1", "trainer.max_epochs=3", "run_dir=run"])
    arguments = {key: value for key, value in composed.model.items() if key != "name"}
    torch.manual_seed(0)
    module = zoo.create_model("pinn/quantum-well", **arguments)
    rule = batch()
    grid = module.grid(rule)
    module.settle(grid, module.network.inputs(grid.x), rule["point"])
    start = module.assess(rule, solve(module.potential, module.states)).energy_error.max()
    metrics = train(composed)["metrics"]
    assert start > 1e-2
    assert metrics["test/energy_error"] < 1e-5
    names = {path.stem for path in Path("run/figures").glob("*.png")}
    assert names >= {"states", "error", "residual", "convergence"}
    assert ("transmission" in names) == module.potential.is_open


@pytest.mark.slow
@pytest.mark.parametrize(("config", "bound"), [("infinite_well-paper", 1e-3), ("finite_well-paper", 0.1)])
def test_the_papers_way_learns(in_tmp: Path, config: str, bound: float) -> None:
    options = ["trainer.max_epochs=12", "model.adam_epochs=12", "model.lr=5e-3", "run_dir=run"]
    metrics = train(compose(f"pinn/{config}", [*QUIET, *options]))["metrics"]
    assert metrics["test/psi_error"] < 0.1
    assert metrics["test/energy_error"] < bound
    tensors = load_file("run/model.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())


def test_trainable_energies_of_two_states_with_lbfgs(in_tmp: Path) -> None:
    """E as a parameter, with orthogonality, in the accurate setting."""
    options = ["model.energy=trainable", "model.E_init=[4.4,16.6]", "trainer.max_epochs=8", "run_dir=run"]
    metrics = train(compose("pinn/finite_well", [*QUIET, *options]))["metrics"]
    assert metrics["test/energy_error"] < 1e-4
    assert metrics["test/orthogonality"] < 1e-3
    assert metrics["test/wrong_states"] == 0


@pytest.mark.parametrize("stop", [3, 10, 13])
def test_resumed_in_either_phase_it_ends_the_same(in_tmp: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    """Interrupted within an epoch of Adam (steps 1 to 10), at the end of one, and within one of L-BFGS (11 to 15)."""
    sizes = ["model.adam_epochs=2", "model.iterations=5", "data.steps=5", "trainer.max_epochs=3"]
    train(compose("pinn/finite_well", [*QUIET, *sizes, "run_dir=whole"]))
    original, count = QuantumWell.training_step, 0

    def training_step(self: QuantumWell, batch: Any, batch_idx: int) -> None:
        nonlocal count
        count += 1
        if count == stop:
            os.kill(os.getpid(), signal.SIGINT)
        original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(QuantumWell, "training_step", training_step)
        with pytest.raises(Interrupted):
            train(compose("pinn/finite_well", [*QUIET, *sizes, "run_dir=parts"]))
    train(compose_run(Path("parts")), resume=True)
    whole, parts = load_file("whole/model.safetensors"), load_file("parts/model.safetensors")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert "E" in whole


def test_same_seed_same_states(in_tmp: Path) -> None:
    options = ["model.iterations=3", "data.steps=2", "model.adam_epochs=1", "trainer.max_epochs=2"]
    found = [train(compose("pinn/barrier", [*QUIET, *options, f"run_dir={k}"]))["metrics"] for k in range(2)]
    assert found[0]["test/E0"] == found[1]["test/E0"]


def test_table_and_python_function_give_the_same_states(in_tmp: Path) -> None:
    Path("v.csv").write_text("x,V\n0,0\n1,0\n1,12\n1.6,12\n1.6,3\n3,3\n")
    common = {"states": 2, "hidden": (12, 12)}
    torch.manual_seed(0)
    table = zoo.create_model("pinn/quantum-well", potential="table", table="v.csv", **common)
    torch.manual_seed(0)
    function = zoo.create_model(
        "pinn/quantum-well",
        potential="function",
        V=lambda x: np.select([x < 1, x < 1.6], [0.0, 12.0], 3.0),
        x_range=(0.0, 3.0),
        jumps=(1.0, 1.6),
        **common,
    )
    for module in (table, function):
        grid = module.grid(batch())
        module.settle(grid, module.network.inputs(grid.x), batch()["point"])
    np.testing.assert_allclose(table.energies, function.energies, rtol=1e-12)
    weights.save(function, "function.safetensors")
    with pytest.raises(ConfigError, match="can be given in Python only"):
        weights.build("function.safetensors")
    weights.save(table, "table.safetensors")
    again = weights.build("table.safetensors")
    np.testing.assert_array_equal(again.energies, table.energies)  # type: ignore[attr-defined]


def test_a_python_function_is_trained_with_any_trainer() -> None:
    """Morse's potential, whose energies are V_e - (sqrt(V_e) - n - 1/2)^2."""
    pl.seed_everything(0, verbose=False)
    module = zoo.create_model(
        "pinn/quantum-well", potential="function", V=lambda x: 25 * (1 - np.exp(-x)) ** 2, x_range=(-2.0, 8.0)
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=10, accelerator="cpu", enable_model_summary=False, **quiet)  # type: ignore[arg-type]
    trainer.fit(module, zoo.create_data("pinn/quadrature"))
    np.testing.assert_allclose(module.energies, [4.75, 12.75], rtol=1e-6)


def test_units_only_scale_the_answer() -> None:
    """The same network weights in nanometres and electronvolts, in SI and in natural units."""
    found = []
    for units, length, energy, m in (("natural", 1.0, 1.0, 1.0), ("nm-eV", 10.0, 0.005686, 0.067)):
        torch.manual_seed(0)
        module = zoo.create_model(
            "pinn/quantum-well", V0=20 * energy, L=length, D=5 * length, units=units, m=m, hidden=(8,)
        )
        grid = module.grid(batch())
        module.settle(grid, module.network.inputs(grid.x), batch()["point"])
        found.append(module.energies / energy)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"V0": -20.0}, "V0 should be positive"),
        ({"w": 1.0}, "potential 'finite_well' has no argument 'w'"),
        ({"states": 0}, "states should be 1 or more"),
        ({"energy": "fixed"}, "needs the energies"),
        ({"E_init": (1.0, 2.0)}, "belongs to trainable or fixed"),
        ({"energy": "trainable", "E_init": (1.0,)}, "should hold 2 energies"),
        ({"energy": "fixed", "E_init": (1.0, float("nan"))}, "finite energies"),
        ({"potential": "function"}, "needs V"),
        ({"well": 3}, "has no argument 'well'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        zoo.create_model("pinn/quantum-well", **arguments)


def test_more_states_than_bound_are_announced() -> None:
    with pytest.warns(UserWarning, match=r"binds 1 state; .* 1 and above"):
        zoo.create_model("pinn/quantum-well", V0=8.0, L=1.0, D=8.0, states=3)


def test_command_line_names_a_parameter_that_the_potential_lacks(zoo_command: Any) -> None:
    result = zoo_command("zoo.train", "config=pinn/infinite_well", "model.V0=3")
    assert result.returncode == 2
    assert "potential 'infinite_well' has no argument 'V0'" in result.stderr


@pytest.mark.slow
def test_a_table_is_trained_on_and_predicted_from(in_tmp: Path) -> None:
    """Train on a table of V and predict from the run folder, with the options that the model card names."""
    Path("v.csv").write_text("x,V\n0,0\n1,0\n1,12\n1.6,12\n1.6,3\n3,3\n")
    question = ["model.potential=table", "model.L=null", "model.table=v.csv"]
    small = ["model.states=2", "model.adam_epochs=1", "trainer.max_epochs=3"]
    train(compose("pinn/infinite_well", [*QUIET, *question, *small, "run_dir=run"]))
    predict.main(["weights=run", "output=states.npz", "points=31"])
    with np.load("states.npz") as file:
        assert file["psi"].shape == (2, 31)
        exact = solve(make_potential("layers", widths=(1.0, 0.6, 1.4), layer_V=(0.0, 12.0, 3.0)), 2).energies
        np.testing.assert_allclose(file["energies"], exact, rtol=1e-4)
    Path("v.csv").write_text("x,V\n0,0\n1,nan\n")
    with pytest.raises(DataError, match=r"v\.csv: V is nan in sample 2"):
        train(compose("pinn/infinite_well", [*QUIET, *question, *small, "run_dir=again"]))


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".png"])
def test_predict_file(in_tmp: Path, suffix: str) -> None:
    module = zoo.create_model("pinn/quantum-well", potential="barrier", hidden=(8,))
    grid = module.grid(batch())
    module.settle(grid, module.network.inputs(grid.x), batch()["point"])
    facts = module.predict_file(Path(f"states{suffix}"), points=51)
    assert facts["energies"] == module.energies.tolist()
    if suffix == ".npz":
        with np.load("states.npz") as file:
            assert file["psi"].shape == (2, 51)
            np.testing.assert_array_equal(file["energies"], module.energies)
            np.testing.assert_allclose(file["psi"].T, module(torch.from_numpy(file["x"])).detach(), atol=1e-12)
            assert set(file["V"]) == {0.0, 20.0}
    elif suffix == ".csv":
        lines = Path("states.csv").read_text().splitlines()
        assert lines[1] == "x,V,psi_0,psi_1"
        np.testing.assert_allclose([float(E) for E in lines[0].split(":")[1].split(",")], module.energies, rtol=1e-14)
        assert np.loadtxt("states.csv", delimiter=",", skiprows=2).shape == (51, 4)
    else:
        assert Path("states.png").stat().st_size > 10_000
    with pytest.raises(DataError, match=r"should end in \.npz, \.csv or \.png"):
        module.predict_file(Path("states.txt"))


def test_comparison_is_printed(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["model.iterations=2", "data.steps=1", "model.adam_epochs=1", "trainer.max_epochs=1", "run_dir=run"]
    train(compose("pinn/finite_well", [*QUIET, *options, "model.states=3"]))
    printed = capsys.readouterr().out
    assert "22.03314748" in printed
    assert "A direct solver" in printed
    assert "State 2 lies above the potential" in printed
