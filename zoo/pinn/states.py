"""The typed result that the models of this family share."""

from __future__ import annotations

from typing import TypedDict

from zoo.pinn.potentials import Array


class States(TypedDict):
    """States of one potential.

    Keys:
        x: (P,) positions in the user's units.
        psi: (K, P) states, integral psi^2 dx = 1.
        energies: (K,) in the user's units.
    """

    x: Array
    psi: Array
    energies: Array
