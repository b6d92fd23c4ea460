"""From the dimensionless equation to physical units and back."""

from __future__ import annotations

from typing import Literal

from scipy import constants

from zoo.errors import ConfigError

Units = Literal["natural", "nm-eV", "SI"]


def energy_unit(length: float = 1.0, m: float = 1.0, units: Units = "natural") -> float:
    """The energy hbar^2 / (2 m length^2), which is all there is to convert.

    A problem posed with lengths in multiples of `length` and energies in multiples of this one reads
    ``-psi'' + V psi = E psi``. So a dimensionless energy times ``energy_unit(L, m, units)`` is the physical one
    of a well of width `length`, a physical energy divided by it is dimensionless, and
    ``energy_unit(1.0, m, units)`` is the factor hbar^2 / 2m of the equation in physical units.

    Args:
        length: in units of 1 (``"natural"``), nanometres (``"nm-eV"``) or metres (``"SI"``).
        m: effective mass: in units in which hbar^2 / 2m = 1 for ``"natural"``, in electron masses for
            ``"nm-eV"``, in kilograms for ``"SI"``.
        units: the system.

    Returns:
        The energy: dimensionless, in electronvolts or in joules.

    Raises:
        ConfigError: a length or mass that is not positive, or an unknown system.
    """
    if not length > 0 or not m > 0:
        raise ConfigError(f"A length ({length}) and a mass ({m}) should be positive.")
    if units == "natural":
        return 1.0 / (m * length**2)
    if units == "SI":
        return constants.hbar**2 / (2.0 * m * length**2)
    if units == "nm-eV":
        joule = constants.hbar**2 / (2.0 * m * constants.m_e * (length * constants.nano) ** 2)
        return joule / constants.e
    raise ConfigError(f"units should be natural, nm-eV or SI, not {units!r}.")
