"""Reading scans and writing what was found in them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import ConfigError, DataError
from zoo.files import atomic_path, parsing, write_json
from zoo.humans.meshes import SUFFIXES, write_mesh

Array = NDArray[Any]
SCAN_SUFFIXES = (".ply", ".obj", ".pcd", ".npy", ".npz", ".xyz")
# A network needs this many to have neighbourhoods at all.
_FEWEST = 64
# Metres from end to end: from a part of a person to someone with arms stretched, with room to spare.
_SMALLEST, _LARGEST = 0.1, 10.0


def read_points(path: Path, count: int, seed: int = 0) -> Array:
    """Points (N, 3) float32 of a scan, at most `count`, chosen at random; a mesh is sampled on its surface.

    Args:
        path: ``.ply``, ``.obj``, ``.pcd``; ``.npy`` or ``.npz`` (the only array, or the one called ``points``) of
            (N, >= 3); ``.xyz``, a text file of one point per line.
        count: the most points.
        seed: of the choice.

    Raises:
        DataError: it is absent, unreadable, of another format, has too few points, or is no person's size in metres.
    """
    if not path.is_file():
        raise DataError(f"There is no scan {path}.")
    if path.suffix not in SCAN_SUFFIXES:
        raise DataError(f"{path} should end in one of {', '.join(SCAN_SUFFIXES)} to be read as a scan.")
    with parsing(path, "a scan"):
        points = _READERS[path.suffix](path, count, seed)
    if points.ndim != 2 or points.shape[1] < 3:
        raise DataError(f"{path} has an array of the shape {points.shape}, expected (N, 3).")
    points = points[np.isfinite(points).all(1), :3].astype(np.float32)
    if len(points) < _FEWEST:
        raise DataError(f"{path} has {len(points)} points: at least {_FEWEST} are needed.")
    size = float(np.ptp(points, axis=0).max())
    if not _SMALLEST < size < _LARGEST:
        raise DataError(f"{path} is {size:.3g} m from end to end, which no person is: scale it to metres.")
    if len(points) <= count:
        return points
    return points[np.random.default_rng(seed).permutation(len(points))[:count]]


def _from_mesh(path: Path, count: int, seed: int) -> Array:
    import trimesh

    loaded: Any = trimesh.load(path, process=False)
    if isinstance(loaded, trimesh.Scene):
        loaded = loaded.to_geometry()
    if isinstance(loaded, trimesh.Trimesh) and len(loaded.faces):
        sampled: Array = trimesh.sample.sample_surface(loaded, count, seed=seed)[0]
        return np.asarray(sampled)
    return np.asarray(loaded.vertices)


def _from_pcd(path: Path, count: int, seed: int) -> Array:
    try:
        o3d: Any = importlib.import_module("open3d")
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"Reading .pcd files needs Open3D, which can't be loaded ({error}): pip install 'zoo[humans]', and on "
            "Debian apt-get install libusb-1.0-0 libgomp1. Or save the points as .ply or .npy."
        ) from None
    return np.asarray(o3d.io.read_point_cloud(str(path)).points)


def _from_arrays(path: Path, count: int, seed: int) -> Array:
    content = np.load(path, allow_pickle=False)
    if path.suffix == ".npy":
        array: Array = content
        return array
    with content:
        names = content.files
        if len(names) != 1 and "points" not in names:
            raise ValueError(f"none of its arrays {', '.join(names)} is called 'points'")
        chosen: Array = content["points" if "points" in names else names[0]]
        return chosen


def _from_text(path: Path, count: int, seed: int) -> Array:
    return np.loadtxt(path, ndmin=2)


_READERS = {
    ".ply": _from_mesh,
    ".obj": _from_mesh,
    ".pcd": _from_pcd,
    ".npy": _from_arrays,
    ".npz": _from_arrays,
    ".xyz": _from_text,
}


def write_prediction(
    output: Path, vertices: Array, faces: Array, numbers: dict[str, Any], points: Array, colours: Array
) -> list[Path]:
    """Writes a mesh, and beside it the numbers and the coloured points.

    Args:
        output: of the mesh.
        vertices: (V, 3), faces: (F, 3).
        numbers: what JSON takes.
        points: (N, 3), colours: (N, 3) in [0, 1].

    Returns:
        The files.

    Raises:
        DataError: the output's suffix is no mesh's.
    """
    import trimesh

    if output.suffix not in SUFFIXES:
        raise DataError(f"The output {output} should end in one of {', '.join(SUFFIXES)}.")
    write_mesh(output, vertices, faces)
    written = [output, output.with_suffix(".json"), output.with_suffix(".parts.ply")]
    write_json(written[1], numbers)
    shades = np.clip(colours * 255, 0, 255).astype(np.uint8)
    with atomic_path(written[2]) as temporary:
        trimesh.PointCloud(points, colors=shades).export(temporary, file_type="ply")
    return written
