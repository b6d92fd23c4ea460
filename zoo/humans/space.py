"""Bodies to turn about in three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.viz.space import Space

Array = NDArray[Any]
Colour = tuple[float, float, float]
FOUND, TRUE = (0.95, 0.62, 0.35), (0.62, 0.71, 0.86)
_GAP = 0.1  # metres


def side_by_side(bodies: Sequence[tuple[Array, Colour]], faces: Array) -> Space:
    """Bodies in a row, the first where it is and each to the right of the one before.

    Args:
        bodies: vertices (V, 3) as a camera sees them, metres, and a colour.
        faces: (F, 3) of each.
    """
    placed: list[Array] = []
    for vertices, _ in bodies:
        right = placed[-1][:, 0].max() - vertices[:, 0].min() + _GAP if placed else 0.0
        placed.append(vertices + np.array([right, 0.0, 0.0]))
    return Space(
        np.concatenate(placed),
        np.concatenate([np.tile(colour, (len(vertices), 1)) for vertices, colour in bodies]),
        np.concatenate([faces + number * len(vertices) for number, vertices in enumerate(placed)]),
    )
