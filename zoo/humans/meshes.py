"""Writing and reading triangle meshes: PLY, OBJ, GLB, STL, through trimesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError
from zoo.files import atomic_path, parsing

Array = NDArray[Any]
SUFFIXES = (".ply", ".obj", ".glb", ".stl")


def write_mesh(path: Path, vertices: Array, faces: Array, colours: Array | None = None) -> None:
    """Writes a mesh; the suffix chooses the format.

    Args:
        path: ending in .ply, .obj, .glb or .stl.
        vertices: (V, 3) metres.
        faces: (F, 3).
        colours: (V, 3) in [0, 1].

    Raises:
        DataError: another suffix.
    """
    import trimesh

    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} should end in one of {', '.join(SUFFIXES)} to be written as a mesh.")
    shades = None if colours is None else np.clip(np.asarray(colours) * 255, 0, 255).astype(np.uint8)
    mesh = trimesh.Trimesh(np.asarray(vertices), np.asarray(faces), vertex_colors=shades, process=False)
    with atomic_path(path) as temporary:
        mesh.export(temporary, file_type=path.suffix[1:])


def read_mesh(path: Path) -> tuple[Array, Array]:
    """Vertices (V, 3) and faces (F, 3) of a mesh file.

    Raises:
        DataError: it is absent or unreadable.
    """
    import trimesh

    with parsing(path, "a mesh"):
        mesh: Any = trimesh.load(path, process=False, force="mesh")
        return np.asarray(mesh.vertices), np.asarray(mesh.faces)
