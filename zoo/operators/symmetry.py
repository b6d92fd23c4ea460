"""Exact symmetries of forced 2-D flow on a periodic grid, for augmentation that costs no data.

The vorticity equation keeps its form under the isometries of the square lattice: if w solves it with source f,
then det(R) w(R x + a) solves it with det(R) f(R x + a), because vorticity changes sign under reflections. Those
(R, a) that leave f as it is therefore commute with the flow map. For f = 0.1 (sin 2 pi (x + y) + cos 2 pi (x + y))
on N x N points, N divisible by 4, they are the shifts (s, -s), the half-turn w(1/4 - x, -y), the swap
-w(y + 1/4, x + 1/4) and their products: 4 N elements.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# (transpose, flip the first axis, flip the second axis) for the eight isometries of a square.
_POINT_GROUP = [(bool(t), bool(i), bool(j)) for t in (0, 1) for i in (0, 1) for j in (0, 1)]


def _turn(field: NDArray[np.floating], element: int) -> NDArray[np.floating]:
    """det(R) w(R x) for one of the eight R, on the last two axes; -x is the point N - i."""
    transpose, flip_first, flip_second = _POINT_GROUP[element]
    if transpose:
        field = field.swapaxes(-1, -2)
    for flip, axis in ((flip_first, -2), (flip_second, -1)):
        if flip:
            field = np.roll(np.flip(field, axis), 1, axis)
    return -field if (transpose + flip_first + flip_second) % 2 else field


@dataclass(frozen=True)
class FlowSymmetries:
    """A group of symmetries of vorticity fields.

    Attributes:
        elements: (G, 3) integers: which isometry, then the shift along either axis in points.
    """

    elements: NDArray[np.int64]

    @classmethod
    def of_forcing(cls, forcing: NDArray[np.floating]) -> FlowSymmetries:
        """All lattice symmetries of a source field (N, N), found by correlating it with its own images."""
        forcing = np.asarray(forcing, dtype=np.float64)
        spectrum = np.fft.fft2(forcing)
        energy = float((forcing**2).sum())
        found = []
        for element in range(len(_POINT_GROUP)):
            image = _turn(forcing, element)
            correlation = np.fft.ifft2(spectrum * np.fft.fft2(image).conj()).real
            # sum (f - image shifted)^2 = 2 (energy - correlation); rounding is far below 1e-9 of the energy.
            shifts = np.argwhere(correlation >= energy * (1 - 1e-6) - 1e-12)
            found += [(element, int(a), int(b)) for a, b in shifts]
        return cls(np.array(found, dtype=np.int64))

    def __len__(self) -> int:
        """Number of elements."""
        return len(self.elements)

    def apply(self, field: NDArray[np.floating], index: int) -> NDArray[np.floating]:
        """The image of vorticity fields (..., N, N) under one element."""
        element, first, second = self.elements[index]
        return np.roll(_turn(field, int(element)), (int(first), int(second)), (-2, -1))

    def draw(self, generator: np.random.Generator) -> int:
        """A random element."""
        return int(generator.integers(len(self.elements)))
