"""What leaves a solved problem: the comparison with the direct solver on the screen, and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from zoo.errors import DataError
from zoo.files import atomic_path, write_text
from zoo.pinn import figures
from zoo.pinn.observables import Quality
from zoo.pinn.potentials import Array, Potential
from zoo.pinn.reference import Eigenstates
from zoo.pinn.scattering import leads
from zoo.pinn.units import Units
from zoo.viz.save import save_figures

SUFFIXES = (".npz", ".csv", ".png")


def print_comparison(
    out: Console, potential: Potential, energies: Array, reference: Eigenstates, quality: Quality
) -> None:
    """A line for each state, and what a direct solver would have taken."""
    table = Table(title="PINN against the direct solver", title_justify="left", box=None, pad_edge=False)
    for heading in ("state", "E", "E direct", "E error", "psi error", "residual", "virial", "nodes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for k, (found, exact) in enumerate(zip(energies, reference.energies, strict=True)):
        small = (quality.energy_error[k], quality.psi_error[k], quality.residual[k], quality.virial[k])
        nodes = str(quality.nodes[k]) if quality.nodes[k] == k else f"[red]{quality.nodes[k]}, not {k}[/]"
        table.add_row(str(k), f"{found:.10g}", f"{exact:.10g}", *(f"{value:.1e}" for value in small), nodes)
    out.print(table, width=max(out.width, 100), crop=False, no_wrap=True)
    out.print(f"orthogonality: {quality.orthogonality:.1e}")
    out.print(
        f"A direct solver (spectral elements, {reference.unknowns} unknowns) needs "
        f"{1e3 * reference.seconds:.1f} ms for this."
    )
    free = unbound(potential, reference.energies)
    if free:
        many = len(free) > 1
        out.print(
            f"State{'s' * many} {', '.join(map(str, free))} {'lie' if many else 'lies'} above the potential at the "
            "box's ends: held by its walls alone, whose distance decides the energy."
        )


def unbound(potential: Potential, energies: Array) -> list[int]:
    """States of a well that only the walls hold: their energy is above a constant V at one of the ends."""
    if not potential.is_open or min(leads(potential)) <= potential.minimum:
        return []
    return [k for k, energy in enumerate(energies) if energy >= min(leads(potential))]


def check_suffix(path: Path) -> None:
    """Raises `DataError` for a file that states can't be written to."""
    if path.suffix not in SUFFIXES:
        raise DataError(f"The output {path} should end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.")


def write_states(
    path: Path, potential: Potential, x: Array, psi: Array, energies: Array, units: Units = "natural"
) -> None:
    """Writes states as arrays, a table or a picture, by the suffix.

    Args:
        path: .npz with arrays x (P,), V (P,), psi (K, P), energies (K,); .csv with columns x, V, psi_0, ... and
            the energies in a comment on top; .png with the states drawn at their energies.
        potential: V.
        x: (P,).
        psi: (K, P).
        energies: (K,).
        units: for the picture's labels.

    Raises:
        DataError: another suffix.
    """
    check_suffix(path)
    left, right = potential.walls
    V = potential.inside(left, right, x)
    if path.suffix == ".npz":
        with atomic_path(path) as temporary:
            np.savez(temporary, x=x, V=V, psi=psi, energies=energies)
    elif path.suffix == ".csv":
        lines = ["# energies: " + ", ".join(f"{E:.15g}" for E in energies)]
        lines.append(",".join(["x", "V", *(f"psi_{k}" for k in range(len(psi)))]))
        lines += [",".join(f"{value:.15g}" for value in row) for row in np.column_stack([x, V, psi.T])]
        write_text(path, "\n".join(lines) + "\n")
    else:
        save_figures({path.stem: figures.states(potential, x, psi, energies, units)}, path.parent)
