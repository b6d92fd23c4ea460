"""The golden states: closed forms and a 40th-order solver, see tests/goldens/pinn-quantum-wells/meta.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.integrate import trapezoid

from zoo.pinn.potentials import Array, Potential, make_potential

FOLDER = Path(__file__).resolve().parent.parent / "goldens" / "pinn-quantum-wells"
KINDS = {"infinite": "infinite_well", "finite": "finite_well", "barrier": "barrier"}


@dataclass(frozen=True)
class Golden:
    """One case."""

    key: str
    kind: str
    parameters: dict[str, float]
    energies: Array
    x: Array
    psi: Array
    energies_infinite_line: Array | None

    @property
    def potential(self) -> Potential:
        return make_potential(self.kind, **self.parameters)

    def psi_error(self, psi: Array) -> Array:
        """L2 norm of the difference of each state on the golden grid (trapezoidal rule)."""
        return np.sqrt(trapezoid((psi - self.psi) ** 2, self.x, axis=1))


@cache
def goldens() -> dict[str, Golden]:
    """All cases by key."""
    cases = json.loads((FOLDER / "meta.json").read_text())["cases"]
    found = {}
    with np.load(FOLDER / "states.npz") as states:
        for case in cases:
            key = case["key"]
            line = f"{key}/energies_infinite_line"
            found[key] = Golden(
                key,
                KINDS[key.split("_")[0]],
                {name: float(case[name]) for name in ("V0", "L", "D", "w") if name in case},
                *(states[f"{key}/{name}"] for name in ("energies", "x", "psi")),
                states.get(line),
            )
    return found


KEYS = sorted(goldens())
