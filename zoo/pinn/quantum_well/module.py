"""The quantum well as a LightningModule: a physics-informed network trained on the Schroedinger equation."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from zoo import cli
from zoo.data.potentials import QuadratureBatch
from zoo.errors import ConfigError
from zoo.pinn import figures
from zoo.pinn.closed_forms import bound_states
from zoo.pinn.jets import Activation
from zoo.pinn.observables import Quality, assess
from zoo.pinn.output import print_comparison, write_states
from zoo.pinn.potentials import Array, FiniteWell, make_potential
from zoo.pinn.quantum_well.network import QuantumWellNetwork
from zoo.pinn.reference import Eigenstates, coarse_energies, signs, solve
from zoo.pinn.ritz import (
    Grid,
    Scales,
    gram,
    hamiltonian,
    interface_reach,
    make_grid,
    ritz,
    ritz_sum,
    space_residual,
    state_residuals,
)
from zoo.pinn.states import States
from zoo.pinn.two_phase import TwoPhaseModule
from zoo.pinn.units import Units, energy_unit
from zoo.registry import register_model


@register_model("pinn/quantum-well")
class QuantumWell(TwoPhaseModule):
    """Bound states of a particle in one dimension: -(hbar^2/2m) psi'' + V psi = E psi, psi = 0 at the walls.

    Two phases, both on Gauss-Legendre nodes: Adam, then L-BFGS with strong Wolfe line search. With
    ``energy="rayleigh"`` the energies are eliminated (Rayleigh and Ritz): Adam lowers the sum of the Ritz
    energies, L-BFGS the residual of the space of states. With ``"trainable"`` or ``"fixed"`` both lower the
    paper's loss, in which E is a parameter or given.

    Source: "Physics-Informed Neural Networks for One-Dimensional Quantum Well Problems", arXiv 2504.05367.

    Args:
        potential: ``infinite_well`` (L), ``finite_well`` (V0, L, D), ``barrier`` (V0, w, D), ``double_well``
            (V0, L, w, D), ``harmonic`` (omega, D), ``triangular_well`` (F, D), ``layers`` (widths, layer_V,
            layer_m), ``table`` (table) or ``function`` (V, x_range, jumps); see `zoo.pinn.potentials`.
        V0: depth of the wells or height of the barrier, an energy.
        L: width of a well.
        D: length of the box.
        w: width of the barrier.
        omega: hbar omega of the oscillator, an energy.
        F: slope of the triangular well, energy per length.
        widths, layer_V, layer_m: of each layer of a heterostructure; masses relative to `m`.
        table: CSV or NPZ file of x and V.
        V: Python function of an array of positions (in Python only), with `x_range` and `jumps`.
        x_range: positions of the walls for `V`.
        jumps: where `V` jumps.
        units: of all these: ``natural`` (hbar^2/2m = 1), ``nm-eV`` or ``SI``.
        m: effective mass, in electron masses (nm-eV), kilograms (SI) or units in which hbar^2/2m = 1.
        states: number of states, from the ground state upwards.
        hidden, activation, frequency, interface_features: of the network, see
            `zoo.pinn.quantum_well.network.QuantumWellNetwork`.
        symmetrise: give the trial functions the parity of the states when the potential is symmetric.
        energy: eliminate the energies, train them, or hold them fixed.
        E_init: (states,) fixed energies, or first guesses of trained ones; None: a coarse scan by finite
            differences.
        norm_weight: of (integral psi^2 - 1)^2 where E is not eliminated.
        orthogonality_weight: of <psi_i|psi_j>^2 where E is not eliminated.
        dtype: of the network, ``float64`` or ``float32``.
        lr, adam_epochs, iterations, history_size: see `zoo.pinn.two_phase.TwoPhaseModule`.

    Raises:
        ConfigError: a parameter that the potential does not have, or a value that makes no sense.
        DataError: an unusable table.
    """

    network: QuantumWellNetwork
    E_init: Tensor
    same_parity: Tensor

    def __init__(
        self,
        potential: str = "finite_well",
        V0: float | None = None,
        L: float | None = None,
        D: float | None = None,
        w: float | None = None,
        omega: float | None = None,
        F: float | None = None,
        widths: tuple[float, ...] | None = None,
        layer_V: tuple[float, ...] | None = None,
        layer_m: tuple[float, ...] | None = None,
        table: str | None = None,
        V: Callable[[Array], Array] | None = None,
        x_range: tuple[float, float] | None = None,
        jumps: tuple[float, ...] | None = None,
        units: Units = "natural",
        m: float = 1.0,
        states: int = 2,
        hidden: tuple[int, ...] = (32, 32),
        activation: Activation = "sin",
        frequency: float | None = 4.0,
        interface_features: bool = True,
        symmetrise: bool = True,
        energy: Literal["rayleigh", "trainable", "fixed"] = "rayleigh",
        E_init: tuple[float, ...] | None = None,
        norm_weight: float = 1.0,
        orthogonality_weight: float = 1.0,
        dtype: Literal["float64", "float32"] = "float64",
        lr: float = 1e-2,
        adam_epochs: int = 3,
        iterations: int = 20,
        history_size: int = 100,
    ) -> None:
        super().__init__(lr, adam_epochs, iterations, history_size)
        self.save_hyperparameters(ignore=["V"])
        self.potential = make_potential(
            potential,
            energy_unit(1.0, m, units),
            **{"V0": V0, "L": L, "D": D, "w": w, "omega": omega, "F": F, "widths": widths, "layer_V": layer_V},
            **{"layer_m": layer_m, "table": table, "V": V, "x_range": x_range, "jumps": jumps},
        )
        self._warn_of_unbound(states)
        if states < 1:
            raise ConfigError(f"states should be 1 or more, not {states}.")
        if E_init is not None and len(E_init) != states:
            raise ConfigError(f"E_init should hold {states} energies, one for each state, not {len(E_init)}.")
        if E_init is not None and not np.isfinite(E_init).all():
            raise ConfigError(f"E_init should hold finite energies, not {E_init}.")
        if energy == "fixed" and E_init is None:
            raise ConfigError("energy=fixed needs the energies: E_init=[...].")
        if energy == "rayleigh" and E_init is not None:
            raise ConfigError("energy=rayleigh eliminates the energies: E_init belongs to trainable or fixed.")
        self.scales, self.units = Scales.of(self.potential), units
        self.states, self.energy = states, energy
        self.norm_weight, self.orthogonality_weight = norm_weight, orthogonality_weight
        self.network = QuantumWellNetwork(
            self.potential.walls,
            self.potential.breaks,
            self.potential.masses,
            states,
            symmetrise and self.potential.symmetric,
            hidden,
            activation,
            frequency,
            interface_reach(self.potential) if interface_features else None,
            train_energies=energy == "trainable",
        ).to(getattr(torch, dtype))
        if energy != "rayleigh":
            guess = coarse_energies(self.potential, states) if E_init is None else np.asarray(E_init)
            self.register_buffer("E_init", torch.from_numpy(guess / self.scales.energy).to(self.network.E), False)
            self.network.E.data.copy_(self.E_init)
        parity = self.network.parity if self.network.symmetric else torch.ones_like(self.network.parity)
        self.register_buffer("same_parity", (parity == parity.unsqueeze(1)).to(parity), persistent=False)
        self.trace: list[list[float]] = []  # per training step: L-BFGS or not, and the energies

    def _warn_of_unbound(self, states: int) -> None:
        well = self.potential
        if isinstance(well, FiniteWell) and states > (bound := bound_states(well.V0, well.L, well.kinetic)):
            rank_zero_warn(
                f"The well binds {bound} state{'s' * (bound > 1)}; of the {states} asked for, {bound} and above are "
                "states of the box, whose length D decides their energies."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Positions (N,) in the user's units -> the normalised states (N, K)."""
        return self.network(x)

    @property
    def energies(self) -> Array:
        """(K,) in the user's units."""
        return self.network.E.detach().double().cpu().numpy() * self.scales.energy

    def grid(self, batch: QuadratureBatch, whole: bool = False) -> Grid:
        """The batch's rule on the sub-intervals of this potential.

        Args:
            batch: the rule.
            whole: the whole box also where the trial functions have a parity, so that a half would do.
        """
        half = self.network.symmetric and not whole
        return make_grid(self.potential, batch["node"], batch["weight"], half, self.network.mix.dtype)

    # ---- training ------------------------------------------------------------------------------------------

    def loss(self, u: Tensor, grid: Grid, lower_energies: bool) -> Tensor:
        """What is minimised, of the jets u (3, Q, K) of the trial functions.

        Args:
            u: as `QuantumWellNetwork.trial` gives them.
            grid: their nodes.
            lower_energies: the sum of the Ritz energies rather than the residual, where E is eliminated.
        """
        if self.energy == "rayleigh":
            if lower_energies:
                return ritz_sum(*gram(u, grid, self.same_parity))
            return space_residual(u, grid, self.same_parity)
        E = self.network.E if self.energy == "trainable" else self.E_init
        overlap, _ = gram(u, grid, self.same_parity)
        norms = self.scales.half * overlap.diagonal()
        loss = state_residuals(u, grid, E).sum() + self.norm_weight * (norms - 1).square().sum()
        if self.states > 1:
            cosines = overlap / torch.outer(norms, norms).sqrt() * self.scales.half
            loss = loss + self.orthogonality_weight * cosines.triu(1).square().sum()
        return loss

    def training_step(self, batch: QuadratureBatch, batch_idx: int) -> None:
        """So many iterations of the phase's optimiser."""
        grid = self.grid(batch)
        inputs = self.network.inputs(grid.x)
        loss = self.descend(
            batch_idx,
            lambda: self.loss(self.network.trial(inputs), grid, lower_energies=True),
            lambda: self.loss(self.network.trial(inputs), grid, lower_energies=False),
        )
        self.settle(grid, inputs, batch["point"])
        self.trace.append([float(self.in_second_phase), *self.energies.tolist()])
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({f"train/E{k}": E for k, E in enumerate(self.network.E.detach() * self.scales.energy)})

    @torch.no_grad()
    def settle(self, grid: Grid, inputs: tuple[Tensor, Tensor], point: Tensor) -> None:
        """Sets the network's `mix` and, unless it is trained, `E` to the states in the space of its trial functions.

        Args:
            grid: quadrature.
            inputs: of the network at its nodes.
            point: (P,) fractions of the box, at which the states' signs are decided.
        """
        network = self.network
        overlap, energy = gram(network.trial(inputs), grid, self.same_parity)
        if self.energy == "rayleigh":
            E, vectors = ritz(overlap, energy)
        else:
            E, vectors = energy.diagonal() / overlap.diagonal(), overlap.diagonal().rsqrt().diag()
        if self.energy != "trainable":
            network.E.copy_(E)
        network.mix.copy_(vectors / math.sqrt(self.scales.half))
        psi = network(self.positions(point)).T.cpu().numpy()
        network.mix.mul_(torch.from_numpy(signs(psi)).to(network.mix))

    def positions(self, point: Tensor) -> Tensor:
        """Fractions of the box (P,) -> positions in the user's units, in the network's dtype."""
        left, right = self.potential.walls
        return (left + (right - left) * point).to(self.network.mix.dtype)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the course of the energies for the figure."""
        checkpoint["trace"] = self.trace

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up what `on_save_checkpoint` kept."""
        self.trace = checkpoint["trace"]

    # ---- evaluation ----------------------------------------------------------------------------------------

    def assess(self, batch: QuadratureBatch, reference: Eigenstates) -> Quality:
        """The states against those of the direct solver, on the batch's nodes."""
        grid = self.grid(batch, whole=True)
        with torch.no_grad():
            u = self.network.jets(grid.x) * math.sqrt(self.scales.half)
        return assess(u, self.network.E.detach(), grid, reference, self.scales)

    def validation_step(self, batch: QuadratureBatch, batch_idx: int) -> None:
        """Errors against the direct solver."""
        quality = self.assess(batch, solve(self.potential, self.states))
        self.log("val/energy_error", quality.energy_error.max(), prog_bar=True, batch_size=1)
        self.log("val/psi_error", quality.psi_error.max(), batch_size=1)
        self.log("val/residual", quality.residual.max(), batch_size=1)

    def test_step(self, batch: QuadratureBatch, batch_idx: int) -> States:
        """Errors against the direct solver, printed and logged with the time that it takes."""
        reference = solve(self.potential, self.states)
        quality = self.assess(batch, reference)
        metrics = {
            "energy_error": quality.energy_error.max(),
            "psi_error": quality.psi_error.max(),
            "residual": quality.residual.max(),
            "orthogonality": quality.orthogonality,
            "virial": quality.virial.max(),
            "wrong_states": float((quality.nodes != np.arange(self.states)).sum()),
            **{f"E{k}": E for k, E in enumerate(self.energies)},
            **{f"E{k}_reference": E for k, E in enumerate(reference.energies)},
            "reference_ms": 1e3 * reference.seconds,
        }
        # As tensors: Lightning makes a plain float a float32.
        logged = {f"test/{name}": torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}
        self.log_dict(logged, batch_size=1)
        print_comparison(cli.console(), self.potential, self.energies, reference, quality)
        return self.predict_step(batch, batch_idx)

    def predict_step(self, batch: QuadratureBatch, batch_idx: int) -> States:
        """The states at the batch's points."""
        return self.sample(batch["point"])

    def sample(self, point: Tensor) -> States:
        """The states at fractions (P,) of the box."""
        x = self.positions(point)
        with torch.no_grad():
            psi = self.network(x)
        return {"x": x.double().cpu().numpy(), "psi": psi.double().T.cpu().numpy(), "energies": self.energies}

    def figures(self, batch: QuadratureBatch, output: States) -> dict[str, Figure]:
        """Levels and wave functions in the potential, errors, residual, course of the energies, T(E)."""
        reference = solve(self.potential, self.states)
        grid = self.grid(batch, whole=True)
        with torch.no_grad():
            u = self.network.jets(grid.x)
        residual = (hamiltonian(u, grid) - self.network.E * u[0]).abs() / u[0].abs().amax(0)
        drawn = {
            "states": figures.states(self.potential, output["x"], output["psi"], output["energies"], self.units),
            "error": figures.psi_error(output["x"], output["psi"], reference, self.units),
            "residual": figures.residual(
                grid.x.cpu().numpy(), residual.T.cpu().numpy() * self.scales.energy, self.potential, self.units
            ),
        }
        if self.trace:
            drawn["convergence"] = figures.convergence(np.array(self.trace), reference.energies, self.iterations)
        if self.potential.is_open:
            drawn["transmission"] = figures.transmission(self.potential, self.units)
        return drawn

    def predict_file(self, output: Path, points: int = 401) -> dict[str, Any]:
        """Writes the states.

        Args:
            output: .npz (x, V, psi, energies), .csv (columns x, V, psi_0, ...; energies in the first line) or
                .png (the states in their potential).
            points: evenly spaced positions from wall to wall.

        Raises:
            DataError: another suffix.
        """
        states = self.sample(torch.linspace(0, 1, points, dtype=torch.float64, device=self.network.mix.device))
        write_states(output, self.potential, states["x"], states["psi"], states["energies"], self.units)
        return {"energies": states["energies"].tolist(), "written": output}
