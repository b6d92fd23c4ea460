"""Quantum wells: our PINN against DeepXDE at equal network and time, and against a direct solver."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools.benchmark.report import Report
from zoo.config import compose
from zoo.data.potentials import gauss_legendre
from zoo.engine.run import train
from zoo.errors import ConfigError
from zoo.pinn.closed_forms import layered_energies
from zoo.pinn.potentials import Array, Layered, make_potential
from zoo.pinn.reference import Eigenstates, coarse_energies, solve

QUIET = ("callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}")
WIDTHS = (32, 32)
PROBLEMS = {
    "infinite": ("infinite_well", {"L": 1.0}),
    "finite": ("finite_well", {"V0": 20.0, "L": 1.0, "D": 5.0}),
}


def run(epochs: int = 18, nodes: int = 64, seed: int = 0) -> Report:
    """Solves for ground states, which is all that DeepXDE can be asked for without writing an eigen-solver.

    DeepXDE gets the same hidden layers, the same Gauss-Legendre nodes and weights, float64, the walls' zeros as a
    hard constraint, an energy that is trained from a coarse scan's value, and the time of our training: a third of
    it with Adam, the rest with L-BFGS.

    Args:
        epochs: of our training.
        nodes: quadrature nodes per layer of the potential.
        seed: of both networks.

    Raises:
        ConfigError: DeepXDE is not installed.
    """
    report = Report("ground states of quantum wells, equal network and time", reference="DeepXDE")
    report.rows = {"zoo": {}, "DeepXDE": {}, "direct solver": {}}
    for name, (kind, parameters) in PROBLEMS.items():
        potential = make_potential(kind, **parameters)
        assert isinstance(potential, Layered)
        exact, reference = layered_energies(potential, 1)[0], solve(potential, 1)
        ours = _train_ours(kind, parameters, epochs, nodes, seed)
        theirs = _train_deepxde(potential, ours["wall_time_s"], nodes, seed)
        found = {
            "zoo": (ours["metrics"]["test/E0"], ours["metrics"]["test/psi_error"], ours["wall_time_s"]),
            "DeepXDE": (theirs.energy, _psi_error(theirs, reference), theirs.seconds),
            "direct solver": (reference.energies[0], None, reference.seconds),
        }
        for row, (energy, psi_error, seconds) in found.items():
            report.rows[row][f"{name}: E error"] = abs(energy / exact - 1)
            if psi_error is not None:
                report.rows[row][f"{name}: psi error"] = psi_error
            report.rows[row][f"{name}: seconds"] = seconds
        ratio = 1 / report.ratios()["zoo"][f"{name}: E error"]
        rayleigh = abs(_rayleigh_quotient(potential, theirs) / exact - 1)
        report.notes.append(f"{name}: our energy error is {ratio:.2g} times smaller than DeepXDE's")
        report.notes.append(f"{name}: the Rayleigh quotient of DeepXDE's psi has an energy error of {rayleigh:.1e}")
    return report


def _train_ours(kind: str, parameters: dict[str, float], epochs: int, nodes: int, seed: int) -> dict[str, Any]:
    options = [*(f"model.{key}={value}" for key, value in parameters.items()), "model.states=1", f"seed={seed}"]
    options += [f"model.hidden={list(WIDTHS)}", f"data.nodes={nodes}", f"trainer.max_epochs={epochs}"]
    with tempfile.TemporaryDirectory() as folder:
        return train(compose(f"pinn/{kind}", [*QUIET, *options, f"run_dir={Path(folder) / 'run'}"]))


@dataclass(frozen=True)
class _Trained:
    """What DeepXDE found: the network, psi and psi' at the quadrature nodes, E and the time."""

    x: Array
    weight: Array
    psi: Array
    slope: Array
    energy: float
    seconds: float


def _rule(potential: Layered, nodes: int) -> tuple[Array, Array]:
    node, weight = (tensor.numpy() for tensor in gauss_legendre(nodes))
    left, right = potential.edges[:-1, None], potential.edges[1:, None]
    x = (left + right) / 2 + (right - left) / 2 * node
    return x.ravel(), ((right - left) / 2 * weight).ravel()


def _train_deepxde(potential: Layered, seconds: float, nodes: int, seed: int) -> _Trained:
    os.environ.setdefault("DDE_BACKEND", "pytorch")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            import deepxde as dde
    except ImportError as error:
        raise ConfigError(f"This benchmark needs DeepXDE ({error}): pip install 'zoo[benchmark]'.") from None

    before = torch.get_default_dtype()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            dde.config.set_default_float("float64")
            return _fit_deepxde(dde, potential, seconds, nodes, seed)
    finally:
        torch.set_default_dtype(before)


def _fit_deepxde(dde: Any, potential: Layered, seconds: float, nodes: int, seed: int) -> _Trained:
    dde.config.set_random_seed(seed)
    x, weight = _rule(potential, nodes)
    left, right = potential.walls
    V, w = torch.from_numpy(potential(x)).unsqueeze(1), torch.from_numpy(weight).unsqueeze(1)
    energy = dde.Variable(float(coarse_energies(potential, 1)[0]), dtype=torch.float64)

    def equation(points: torch.Tensor, psi: torch.Tensor) -> list[torch.Tensor]:
        residual = -dde.grad.hessian(psi, points) + (V - energy) * psi
        norm = (w * psi**2).sum()
        # DeepXDE takes the mean of squares: weighted like this it is the integral of the residual squared.
        return [(len(x) * w).sqrt() * residual / norm.sqrt(), (norm - 1) * torch.ones_like(psi)]

    # Anchors stand in the order given, and there are no other points, so that V and w belong to them.
    data = dde.data.PDE(dde.geometry.Interval(left, right), equation, [], anchors=x[:, None])
    network = dde.nn.FNN([1, *WIDTHS, 1], "tanh", "Glorot normal")
    network.apply_feature_transform(lambda points: (2 * points - left - right) / (right - left))
    network.apply_output_transform(
        lambda points, values: 4 * (points - left) * (right - points) / (right - left) ** 2 * values
    )
    model = dde.Model(data, network)
    start = time.perf_counter()
    for optimizer, share in (("adam", 1 / 3), ("L-BFGS", 1.0)):
        left_over = share * seconds - (time.perf_counter() - start)
        if optimizer == "adam":
            model.compile("adam", lr=1e-3, external_trainable_variables=[energy], verbose=0)
        else:
            dde.optimizers.set_LBFGS_options(maxiter=1_000_000, gtol=0, ftol=0)
            # The timer looks at the clock after each step.
            dde.optimizers.config.LBFGS_options.update(iter_per_step=20, fun_per_step=25)
            model.compile("L-BFGS", external_trainable_variables=[energy], verbose=0)
        timer = dde.callbacks.Timer(left_over / 60)
        model.train(iterations=1_000_000, callbacks=[timer], verbose=0, display_every=1_000_000)
    elapsed = time.perf_counter() - start

    points = torch.from_numpy(x).unsqueeze(1).requires_grad_()
    psi = network(points)
    (slope,) = torch.autograd.grad(psi.sum(), points)
    found = [values.detach().squeeze(1).numpy() for values in (psi, slope)]
    return _Trained(x, weight, found[0], found[1], float(energy.detach()), elapsed)


def _rayleigh_quotient(potential: Layered, found: _Trained) -> float:
    top = found.weight @ (potential.kinetic * found.slope**2 + potential(found.x) * found.psi**2)
    return float(top / (found.weight @ found.psi**2))


def _psi_error(found: _Trained, reference: Eigenstates) -> float:
    target = reference.psi(found.x)[0]
    psi = found.psi * np.sign(found.weight @ (found.psi * target)) / np.sqrt(found.weight @ found.psi**2)
    return float(np.sqrt(found.weight @ (psi - target) ** 2))
