"""Potentials V(x) in a box with hard walls: -(hbar^2/2m) psi'' + V psi = E psi, psi = 0 at both ends.

With a mass that changes from layer to layer the equation is that of BenDaniel and Duke (Phys. Rev. 152, 1966),
-(hbar^2/2) (psi'/m)' + V psi = E psi: psi and psi'/m are continuous.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from zoo.data.potentials import read_potential_table
from zoo.errors import ConfigError, UnknownNameError, did_you_mean
from zoo.signature import check_names

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Potential(ABC):
    """A potential between two hard walls.

    Attributes:
        kinetic: hbar^2 / 2m in the units of energy times length squared (see `zoo.pinn.units.energy_unit`).
    """

    kinetic: float = field(default=1.0, kw_only=True)

    @property
    @abstractmethod
    def walls(self) -> tuple[float, float]:
        """Where psi is zero: (left, right)."""

    @abstractmethod
    def __call__(self, x: Array) -> Array:
        """V at positions `x` of any shape."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """Where V or the mass jumps, between the walls, ascending."""
        return ()

    @property
    def knots(self) -> tuple[float, ...]:
        """Where V is less than smooth: the breaks, and for a table the places between its pieces."""
        return self.breaks

    @property
    def masses(self) -> tuple[float, ...]:
        """Relative mass between the walls and breaks, from left to right; 1 is the mass in `kinetic`."""
        return (1.0,) * (len(self.breaks) + 1)

    @property
    def edges(self) -> Array:
        """Walls and breaks, ascending."""
        return np.array([self.walls[0], *self.breaks, self.walls[1]])

    @property
    def is_open(self) -> bool:
        """Whether V is constant at both ends, so that the scattering problem without the walls makes sense."""
        return False

    def inside(self, a: float, b: float, x: Array) -> Array:
        """V at points of [a, b], an interval without a break inside: at its ends the limit from within."""
        return self(np.clip(x, np.nextafter(a, b), np.nextafter(b, a)))

    @cached_property
    def symmetric(self) -> bool:
        """Whether V and the mass are even about the middle of the box."""
        left, right = self.walls
        middle, half = (left + right) / 2, (right - left) / 2
        distance = half * np.linspace(0.0, 1.0, 2003)[1:-1]
        distance = distance[np.abs(distance[:, None] + middle - self.edges).min(1) > 1e-9 * half]
        a, b = self(middle - distance), self(middle + distance)
        return bool(
            np.allclose(self.edges - middle, (middle - self.edges)[::-1], rtol=0, atol=1e-12 * half)
            and self.masses == self.masses[::-1]
            and np.allclose(a, b, rtol=0, atol=1e-10 * np.abs(a).max())
        )

    @cached_property
    def minimum(self) -> float:
        """The lowest value of V, as far as a fine sampling shows."""
        pieces = pairwise(self.edges)
        return float(min(self.inside(a, b, np.linspace(a, b, 1001)).min() for a, b in pieces))


@dataclass(frozen=True)
class Layered(Potential):
    """A potential that is constant in layers."""

    @property
    @abstractmethod
    def heights(self) -> tuple[float, ...]:
        """V of each layer, from left to right."""

    def __call__(self, x: Array) -> Array:
        """V at `x`; at a break the layer on its right."""
        return np.asarray(self.heights, dtype=np.float64)[np.searchsorted(self.breaks, x, side="right")]

    @property
    def is_open(self) -> bool:
        """A lone layer has nothing to scatter at."""
        return len(self.heights) > 1


@dataclass(frozen=True)
class InfiniteWell(Layered):
    """V = 0 on [0, L]: E_n = (hbar^2/2m) (n pi / L)^2."""

    L: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "L")

    @property
    def walls(self) -> tuple[float, float]:
        """0 and L."""
        return 0.0, self.L

    @property
    def heights(self) -> tuple[float, ...]:
        """One layer."""
        return (0.0,)


@dataclass(frozen=True)
class FiniteWell(Layered):
    """V = 0 for abs(x) < L/2 and V0 outside, in a box of length D."""

    V0: float = 20.0
    L: float = 1.0
    D: float = 5.0

    def __post_init__(self) -> None:
        _positive(self, "V0", "L", "D")
        _fits(self, self.L, "the well's width L")

    @property
    def walls(self) -> tuple[float, float]:
        """-D/2 and D/2."""
        return -self.D / 2, self.D / 2

    @property
    def breaks(self) -> tuple[float, ...]:
        """The edges of the well."""
        return -self.L / 2, self.L / 2

    @property
    def heights(self) -> tuple[float, ...]:
        """Outside, well, outside."""
        return self.V0, 0.0, self.V0


@dataclass(frozen=True)
class Barrier(Layered):
    """V = V0 for abs(x) < w/2 and 0 outside, in a box of length D."""

    V0: float = 20.0
    w: float = 1.0 / 3.0
    D: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "V0", "w", "D")
        _fits(self, self.w, "the barrier's width w")

    @property
    def walls(self) -> tuple[float, float]:
        """-D/2 and D/2."""
        return -self.D / 2, self.D / 2

    @property
    def breaks(self) -> tuple[float, ...]:
        """The edges of the barrier."""
        return -self.w / 2, self.w / 2

    @property
    def heights(self) -> tuple[float, ...]:
        """Outside, barrier, outside."""
        return 0.0, self.V0, 0.0


@dataclass(frozen=True)
class DoubleWell(Layered):
    """Two square wells of width L, a barrier of width w between them; V0 outside the wells, in a box of length D."""

    V0: float = 30.0
    L: float = 1.0
    w: float = 0.5
    D: float = 5.0

    def __post_init__(self) -> None:
        _positive(self, "V0", "L", "w", "D")
        _fits(self, 2 * self.L + self.w, "the double well's width 2 L + w")

    @property
    def walls(self) -> tuple[float, float]:
        """-D/2 and D/2."""
        return -self.D / 2, self.D / 2

    @property
    def breaks(self) -> tuple[float, ...]:
        """The edges of the wells."""
        inner, outer = self.w / 2, self.w / 2 + self.L
        return -outer, -inner, inner, outer

    @property
    def heights(self) -> tuple[float, ...]:
        """Outside, well, barrier, well, outside."""
        return self.V0, 0.0, self.V0, 0.0, self.V0


@dataclass(frozen=True)
class Layers(Layered):
    """A heterostructure: layers of given widths, heights and relative masses, the first one beginning at x = 0."""

    widths: tuple[float, ...] = ()
    layer_V: tuple[float, ...] = ()
    layer_m: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.widths)
        if count == 0:
            raise ConfigError("potential 'layers' needs the widths of its layers: widths=[4,1,4] layer_V=[0,0.3,0].")
        for name in ("layer_V", "layer_m"):
            values = getattr(self, name)
            if values is not None and len(values) != count:
                raise ConfigError(f"{name} should have one value for each of the {count} widths, not {len(values)}.")
        if not all(0 < value < math.inf for value in (*self.widths, *self.masses)):
            raise ConfigError("widths and layer_m should be positive and finite.")
        if not all(math.isfinite(v) for v in self.layer_V):
            raise ConfigError("layer_V should be finite.")

    @property
    def walls(self) -> tuple[float, float]:
        """0 and the sum of the widths."""
        return 0.0, sum(self.widths)

    @property
    def breaks(self) -> tuple[float, ...]:
        """The interfaces."""
        return tuple(float(x) for x in np.cumsum(self.widths)[:-1])

    @property
    def heights(self) -> tuple[float, ...]:
        """As given."""
        return tuple(self.layer_V)

    @property
    def masses(self) -> tuple[float, ...]:
        """As given; 1 without."""
        return tuple(self.layer_m) if self.layer_m is not None else (1.0,) * len(self.widths)


@dataclass(frozen=True)
class Harmonic(Potential):
    """V = m omega^2 x^2 / 2 in a box of length D; `omega` is the quantum hbar omega, the spacing of the levels.

    In natural units V = (omega x)^2 / 4, so that omega = 2 is V = x^2 with E_n = 2 n + 1.
    """

    omega: float = 2.0
    D: float = 12.0

    def __post_init__(self) -> None:
        _positive(self, "omega", "D")

    @property
    def walls(self) -> tuple[float, float]:
        """-D/2 and D/2."""
        return -self.D / 2, self.D / 2

    def __call__(self, x: Array) -> Array:
        """The parabola."""
        return (self.omega * x) ** 2 / (4.0 * self.kinetic)


@dataclass(frozen=True)
class TriangularWell(Potential):
    """V = F x on [0, D] with a hard wall at 0: an electron in a field F."""

    F: float = 8.0
    D: float = 5.0

    def __post_init__(self) -> None:
        _positive(self, "F", "D")

    @property
    def walls(self) -> tuple[float, float]:
        """0 and D."""
        return 0.0, self.D

    def __call__(self, x: Array) -> Array:
        """The slope."""
        return self.F * x


@dataclass(frozen=True)
class Table(Potential):
    """V sampled in a CSV or NPZ file, between the samples a shape-preserving cubic (PCHIP).

    The walls stand at the first and the last sample. An x that stands in the table twice is a jump of V, from
    the first of the two values to the second.
    """

    table: str | Path = ""

    def __post_init__(self) -> None:
        if not str(self.table):
            raise ConfigError("potential 'table' needs a file: table=path/to/potential.csv with columns x and V.")
        _ = self._pieces  # read it now: a damaged file is to be reported before any work

    @cached_property
    def _samples(self) -> tuple[Array, Array]:
        return read_potential_table(Path(self.table))

    @cached_property
    def _pieces(self) -> list[PchipInterpolator]:
        x, V = self._samples
        cuts = np.flatnonzero(np.diff(x) == 0) + 1
        pieces = zip(np.split(x, cuts), np.split(V, cuts), strict=True)
        return [PchipInterpolator(a, b, extrapolate=True) for a, b in pieces]

    @property
    def walls(self) -> tuple[float, float]:
        """The first and the last sample."""
        return float(self._samples[0][0]), float(self._samples[0][-1])

    @property
    def breaks(self) -> tuple[float, ...]:
        """Where an x stands twice."""
        x = self._samples[0]
        return tuple(float(v) for v in x[1:][np.diff(x) == 0])

    @property
    def knots(self) -> tuple[float, ...]:
        """The samples."""
        return tuple(float(v) for v in np.unique(self._samples[0])[1:-1])

    def __call__(self, x: Array) -> Array:
        """The interpolated samples; at a jump the value on its right."""
        piece = np.searchsorted(self.breaks, x, side="right")
        V = np.empty(np.shape(x))
        for k in np.unique(piece):
            V[piece == k] = self._pieces[k](x[piece == k])
        return V


@dataclass(frozen=True)
class Function(Potential):
    """Any V(x) given as a Python function of an array, with its walls and the places where it jumps."""

    V: Callable[[Array], Array] | None = None
    x_range: tuple[float, float] = (-1.0, 1.0)
    jumps: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.V is None:
            raise ConfigError(
                "potential 'function' needs V, a Python function of an array of positions. It can be given in "
                "Python only (zoo.create_model(..., V=function)); in a config use potential=table."
            )
        left, right = self.x_range
        if not left < right:
            raise ConfigError(f"x_range should be (left wall, right wall), not {self.x_range}.")
        if list(self.jumps) != sorted(set(self.jumps)) or any(not left < x < right for x in self.jumps):
            raise ConfigError(f"jumps should ascend and lie between the walls, not {self.jumps}.")
        inner = np.linspace(left, right, 257)[1:-1]
        values = np.asarray(self.V(inner))
        if values.shape != inner.shape or not np.isfinite(values).all():
            raise ConfigError("V should give a finite value for each position between the walls.")

    @property
    def walls(self) -> tuple[float, float]:
        """As given."""
        return self.x_range

    @property
    def breaks(self) -> tuple[float, ...]:
        """As given."""
        return tuple(self.jumps)

    def __call__(self, x: Array) -> Array:
        """The function."""
        assert self.V is not None
        return np.asarray(self.V(x), dtype=np.float64)


KINDS: dict[str, type[Potential]] = {
    "infinite_well": InfiniteWell,
    "finite_well": FiniteWell,
    "barrier": Barrier,
    "double_well": DoubleWell,
    "harmonic": Harmonic,
    "triangular_well": TriangularWell,
    "layers": Layers,
    "table": Table,
    "function": Function,
}


def make_potential(kind: str, kinetic: float = 1.0, **parameters: Any) -> Potential:
    """The potential of a name and its parameters; those that are None keep the defaults of the kind.

    Raises:
        UnknownNameError: no such kind.
        ConfigError: a parameter that this kind does not have, or a value that makes no sense.
    """
    if kind not in KINDS:
        raise UnknownNameError(f"There is no potential '{kind}'. {did_you_mean(kind, KINDS)}")
    given = {name: value for name, value in parameters.items() if value is not None}
    check_names(KINDS[kind], given, where=f"potential '{kind}'")
    return KINDS[kind](kinetic=kinetic, **given)


def _positive(potential: Potential, *names: str) -> None:
    for name in names:
        value = getattr(potential, name)
        if not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"{name} should be positive, not {value}.")


def _fits(potential: FiniteWell | Barrier | DoubleWell, width: float, what: str) -> None:
    if not width < potential.D:
        raise ConfigError(f"{what} ({width}) should be less than the length D of the box ({potential.D}).")
