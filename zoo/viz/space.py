"""What can be turned about in three dimensions: points and faces, and the file that holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.files import atomic_path

Array = NDArray[Any]


@dataclass(frozen=True)
class Space:
    """Points, some of which may be the corners of faces; the others are shown as dots.

    Attributes:
        points: (N, 3) x to the right, y down, z forward, in any unit.
        colours: (N, 3) in [0, 1].
        faces: (F, 3) indices of points.
    """

    points: Array
    colours: Array
    faces: Array = field(default_factory=lambda: np.zeros((0, 3), np.int64))

    def save(self, path: Path) -> None:
        """Writes a ``.npz`` file."""
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, points=self.points, colours=self.colours, faces=self.faces)

    @classmethod
    def load(cls, path: Path) -> Space:
        """Reads what `save` wrote."""
        with np.load(path) as arrays:
            return cls(arrays["points"], arrays["colours"], arrays["faces"])
