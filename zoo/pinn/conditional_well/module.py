"""All finite square wells of a range as one LightningModule."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.potentials import WellBatch, gauss_legendre
from zoo.errors import ConfigError
from zoo.pinn import figures
from zoo.pinn.closed_forms import bound_states, finite_well_energies, layered_energies
from zoo.pinn.conditional_well.network import ConditionalWellNetwork
from zoo.pinn.output import check_suffix, write_states
from zoo.pinn.potentials import Array, FiniteWell
from zoo.pinn.reference import signs
from zoo.pinn.ritz import Grid, gram, ritz_of_frame, ritz_sum, space_residual
from zoo.pinn.states import States
from zoo.pinn.two_phase import TwoPhaseModule
from zoo.pinn.units import Units, energy_unit
from zoo.registry import register_model

_NEIGHBOURS = (0.8, 1.0, 1.25)  # strengths, relative to the well's, whose trial functions serve in an answer


class WellEnergies(TypedDict):
    """What a test or predict step gives.

    Keys:
        energies: (B, K) in units of hbar^2/2m / L^2.
        exact: (B, K) from the transcendental equation.
        bound: (B, K) whether the state's energy is below V0.
    """

    energies: Array
    exact: Array
    bound: NDArray[np.bool_]


@register_model("pinn/conditional-well")
class ConditionalWell(TwoPhaseModule):
    """The lowest states of any finite square well of a range, without training for it.

    In units of the well's width L the well (V0, L) in a box of length D is given by two numbers, its strength
    g = V0 L^2 / (hbar^2/2m) and d = D / L, which the network takes as inputs. Asking for a well means evaluating
    the K functions for it and for two neighbours, a little shallower and deeper, at the quadrature nodes, and a
    Rayleigh-Ritz step in all of them: between the wells of the training there are lines in the plane of (g, d) on
    which the K functions become linearly dependent, and one of the neighbours is off such a line. The training is
    that of `QuantumWell` averaged over a grid of wells.

    Args:
        states: trial functions; those above `answers` only guard the ones below.
        answers: states that may be asked for.
        strength: range of g.
        box: range of d.
        nodes: Gauss-Legendre nodes per sub-interval in answering.
        hidden, frequency: of the network, see `zoo.pinn.conditional_well.network.ConditionalWellNetwork`.
        lr, adam_epochs, iterations, history_size: see `zoo.pinn.two_phase.TwoPhaseModule`.
    """

    network: ConditionalWellNetwork
    same_parity: Tensor

    def __init__(
        self,
        states: int = 6,
        answers: int = 4,
        strength: tuple[float, float] = (2.0, 200.0),
        box: tuple[float, float] = (3.0, 12.0),
        nodes: int = 48,
        hidden: tuple[int, ...] = (64, 64),
        frequency: float = 4.0,
        lr: float = 1e-2,
        adam_epochs: int = 5,
        iterations: int = 20,
        history_size: int = 100,
    ) -> None:
        super().__init__(lr, adam_epochs, iterations, history_size)
        self.save_hyperparameters()
        if not 1 <= answers <= states:
            raise ConfigError(f"answers ({answers}) should be from 1 to states ({states}).")
        if not 0 < strength[0] < strength[1] or not 1 < box[0] < box[1]:
            raise ConfigError("strength and box should be ascending ranges, box above 1.")
        self.answers, self.strength, self.box = answers, strength, box
        self.rule = gauss_legendre(nodes)
        self.network = ConditionalWellNetwork(states, hidden, frequency, strength, box).double()
        parity = self.network.parity
        self.register_buffer("same_parity", (parity == parity.unsqueeze(1)).to(parity), persistent=False)

    def forward(self, g: Tensor, d: Tensor) -> Tensor:
        """Energies (B, answers) of wells (B,), in units of hbar^2/2m / L^2."""
        node, weight = self.rule
        grid = well_grid(g, d, node.to(g.device), weight.to(g.device))
        return self._ritz(grid, g, d)[0][:, : self.answers]

    def _ritz(self, grid: Grid, g: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (B, 3 K) in units of hbar^2/2m / L^2, and coefficients (B, 3 K, 3 K) of the states."""
        u = self._frame(lambda t, g, d: self.network.trial(self.network.inputs(t, g, d)), grid.t, g, d)
        same_parity = self.same_parity.repeat(len(_NEIGHBOURS), len(_NEIGHBOURS))
        energies, vectors = ritz_of_frame(*gram(u, grid, same_parity))
        return energies * (4 / d**2).unsqueeze(1), vectors

    def _frame(self, functions: Callable[[Tensor, Tensor, Tensor], Tensor], t: Tensor, g: Tensor, d: Tensor) -> Tensor:
        """The functions (..., K) of a well and of its neighbours: (..., 3 K)."""
        return torch.cat([functions(t, (ratio * g).clamp(*self.strength), d) for ratio in _NEIGHBOURS], -1)

    def training_step(self, batch: WellBatch, batch_idx: int) -> None:
        """So many iterations of the phase's optimiser, on all wells of the batch."""
        g, d = batch["strength"], batch["box"]
        grid = well_grid(g, d, batch["node"], batch["weight"])
        inputs = self.network.inputs(grid.t, g, d)
        unit = 4 / d**2  # of energy: from half the box's length to the well's width

        def energies() -> Tensor:
            return (unit * ritz_sum(*gram(self.network.trial(inputs), grid, self.same_parity))).mean()

        def residual() -> Tensor:
            return (unit * space_residual(self.network.trial(inputs), grid, self.same_parity)).mean()

        self.log("train/loss", self.descend(batch_idx, energies, residual), prog_bar=True)

    def test_step(self, batch: WellBatch, batch_idx: int) -> WellEnergies:
        """Energy errors of the bound states against the transcendental equation, and the time of an answer."""
        output = self.predict_step(batch, batch_idx)
        error = np.where(output["bound"], np.abs(output["energies"] / output["exact"] - 1), np.nan)
        self.log_dict(
            {
                "test/energy_error": float(np.nanmax(error)),
                "test/energy_error_median": float(np.nanmedian(error)),
                **{f"test/energy_error_{k}": float(np.nanmax(error[:, k])) for k in range(self.answers)},
                "test/answer_ms": 1e3 * self._time_of_answer(batch),
            },
            batch_size=1,
        )
        return output

    def _time_of_answer(self, batch: WellBatch) -> float:
        """Seconds for the energies of one well, the best of ten."""
        times = []
        for g, d in zip(batch["strength"][:10, None], batch["box"][:10, None], strict=True):
            start = time.perf_counter()
            self(g, d)
            times.append(time.perf_counter() - start)
        return min(times)

    def predict_step(self, batch: WellBatch, batch_idx: int) -> WellEnergies:
        """Energies of the batch's wells."""
        g, d = batch["strength"], batch["box"]
        with torch.no_grad():
            energies = self(g, d).cpu().numpy()
        exact = np.stack(
            [layered_energies(FiniteWell(float(a), 1.0, float(b)), self.answers) for a, b in zip(g, d, strict=True)]
        )
        return {"energies": energies, "exact": exact, "bound": exact < g.cpu().numpy()[:, None]}

    def figures(self, batch: WellBatch, output: WellEnergies) -> dict[str, Figure]:
        """Levels over the strength of the well, and errors over the range."""
        g, d = batch["strength"].cpu().numpy(), batch["box"].cpu().numpy()
        strengths = torch.from_numpy(np.geomspace(*self.strength, 300))
        with torch.no_grad():
            levels = self(strengths.to(self.device), torch.full_like(strengths, self.box[1]).to(self.device))
        return {
            "levels": figures.well_levels(strengths.numpy(), levels.cpu().numpy()),
            "error": figures.well_errors(g, d, output["energies"], output["exact"], output["bound"]),
        }

    @torch.no_grad()
    def solve(
        self,
        V0: float,
        L: float,
        D: float | None = None,
        states: int | None = None,
        m: float = 1.0,
        units: Units = "natural",
        points: int = 401,
    ) -> States:
        """The lowest states of a finite square well.

        Args:
            V0: depth, an energy.
            L: width, a length.
            D: length of the box. None: the well on the open line is meant, and the largest box of the range is
                taken for it; only bound states are given. Walls so far away raise the energy of a state that is
                barely bound all the same (see the model card).
            states: how many. None: as many as the well binds, up to `answers`.
            m, units: see `zoo.pinn.units.energy_unit`.
            points: positions from wall to wall.

        Raises:
            ConfigError: a well outside of the range, or more states than there are.
        """
        kinetic = energy_unit(1.0, m, units)
        potential = self._well(V0, L, D, kinetic)
        g, d = V0 * L**2 / kinetic, potential.D / L
        for name, value, (low, high) in (("V0 L^2 / (hbar^2/2m)", g, self.strength), ("D / L", d, self.box)):
            if not low * (1 - 1e-12) <= value <= high * (1 + 1e-12):
                raise ConfigError(
                    f"{name} = {value:g} is outside of what this model was trained for, {low:g} to {high:g}."
                )
        bound = bound_states(V0, L, kinetic)
        states = min(bound, self.answers) if states is None else states
        if not 1 <= states <= self.answers:
            raise ConfigError(f"This model answers with the lowest {self.answers} states; {states} were asked for.")
        if D is None and states > bound:
            raise ConfigError(
                f"This well binds {bound} state{'s' * (bound > 1)}; {states} were asked for. With the length D of a "
                "box given, the box's states above V0 are answered as well."
            )
        strength, box = (torch.tensor([value], dtype=torch.float64, device=self.device) for value in (g, d))
        node, weight = (tensor.to(self.device) for tensor in self.rule)
        energies, vectors = self._ritz(well_grid(strength, box, node, weight), strength, box)
        t = torch.linspace(-1, 1, points, dtype=torch.float64, device=self.device)
        psi = (self._frame(self.network, t.unsqueeze(0), strength, box) @ vectors)[0, :, :states].T.cpu().numpy()
        psi = psi * signs(psi)[:, None] / math.sqrt(potential.D / 2)
        return {
            "x": t.cpu().numpy() * potential.D / 2,
            "psi": psi,
            "energies": energies[0, :states].cpu().numpy() * kinetic / L**2,
        }

    def _well(self, V0: float, L: float, D: float | None, kinetic: float) -> FiniteWell:
        return FiniteWell(V0, L, self.box[1] * L if D is None else D, kinetic=kinetic)

    def predict_file(
        self,
        output: Path,
        V0: float,
        L: float,
        D: float | None = None,
        states: int | None = None,
        m: float = 1.0,
        units: Units = "natural",
        points: int = 401,
    ) -> dict[str, Any]:
        """Writes the states of one well; reports their energies beside those of the transcendental equations.

        Args:
            output: .npz, .csv or .png, see `zoo.pinn.output.write_states`.
            V0, L, D, states, m, units, points: see `solve`.

        Raises:
            DataError: another suffix.
            ConfigError: as `solve`.
        """
        check_suffix(output)
        found = self.solve(V0, L, D, states, m, units, points)
        start = time.perf_counter()
        self.solve(V0, L, D, states, m, units, points)  # again, now that torch is warm
        seconds = time.perf_counter() - start
        potential = self._well(V0, L, D, energy_unit(1.0, m, units))
        write_states(output, potential, found["x"], found["psi"], found["energies"], units)
        count = len(found["energies"])
        facts = {
            "energies": found["energies"].tolist(),
            f"exact, in a box of {potential.D:g}": layered_energies(potential, count).tolist(),
        }
        if D is None:
            facts["exact, on the open line"] = finite_well_energies(V0, L, count, potential.kinetic).tolist()
        return {**facts, "answered in ms": round(1e3 * seconds, 2), "written": output}


def well_grid(g: Tensor, d: Tensor, node: Tensor, weight: Tensor) -> Grid:
    """The right half of the box, in t = 2x/D, of wells g, d (B,): a rule inside the well and one outside.

    Returns:
        A grid of tensors (B, 2n) in the units of `zoo.pinn.ritz`; ``x`` is in units of L.
    """
    edge = (1 / d).unsqueeze(1)
    t = torch.cat([edge / 2 * (1 + node), (1 + edge) / 2 + (1 - edge) / 2 * node], 1)
    weights = torch.cat([edge * weight, (1 - edge) * weight], 1)  # twice those of the half
    outside = (t > edge).to(t)
    return Grid(t * d.unsqueeze(1) / 2, t, weights, outside * (g * d**2 / 4).unsqueeze(1), torch.ones_like(t), 0.0)
