"""Reading SMPL model files: official pickles without chumpy, npz files and folders.

A pickle is read by an unpickler that builds arrays and plain containers only; everything else that a pickle could
name is refused.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError
from zoo.files import atomic_path, parsing
from zoo.pickles import array_class

Array = NDArray[Any]
GENDERS = ("neutral", "male", "female")
GENDER_LETTERS = {gender[0]: gender for gender in GENDERS}
_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "f", "kintree_table")


@dataclass(frozen=True)
class SMPLArrays:
    """The content of an SMPL file, float32 and int64.

    Attributes:
        v_template: (V, 3) rest mesh in metres, y up, facing +z, the body's left at +x.
        shapedirs: (V, 3, S) displacement per unit of each shape coefficient.
        posedirs: (V, 3, 9 (J - 1)) displacement per entry of the joints' R - I.
        J_regressor: (J, V) joints from the shaped rest mesh.
        weights: (V, J) skinning weights.
        f: (F, 3) triangles, counter-clockwise from outside.
        parents: (J,) parent of each joint, -1 for the root.
    """

    v_template: Array
    shapedirs: Array
    posedirs: Array
    J_regressor: Array
    weights: Array
    f: Array
    parents: Array


class _Stub:
    """Stands for an object whose class is not wanted; keeps its state."""

    def __init__(self, *arguments: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.state = state


class _Unpickler(pickle.Unpickler):
    _PLAIN = frozenset({("collections", "OrderedDict"), ("collections", "defaultdict")})

    def find_class(self, module: str, name: str) -> Any:
        top = module.split(".")[0]
        if top == "chumpy" or module.startswith("scipy.sparse"):
            return _Stub
        if (found := array_class(module, name)) is not None:
            return found
        if (module, name) in self._PLAIN:
            return super().find_class(module, name)
        if (module, name) == ("copy_reg", "_reconstructor"):  # protocol 1 of Python 2: cls, base, state
            return lambda cls, base, state: cls()
        if (module, name) == ("__builtin__", "object"):
            return object
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a body model")


def _array(value: Any) -> Array:
    if not isinstance(value, _Stub):
        return np.asarray(value)
    state = value.state
    if "x" in state:  # chumpy.Ch
        return _array(state["x"])
    if {"a", "idxs", "preferred_shape"} <= state.keys():  # chumpy's Select: a sliced array
        return _array(state["a"]).ravel()[np.asarray(state["idxs"])].reshape(state["preferred_shape"])
    if {"data", "indices", "indptr"} <= state.keys():  # a sparse matrix, of columns as SMPL writes it
        rows, columns = state["_shape"] if "_shape" in state else state["shape"]
        dense = np.zeros((rows, columns))
        indices, indptr = np.asarray(state["indices"]), np.asarray(state["indptr"])
        by_column = len(indptr) == columns + 1
        major = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        np.add.at(dense, (indices, major) if by_column else (major, indices), np.asarray(state["data"]))
        return dense
    raise DataError(
        f"An object of the body model can't be read as an array (it holds {', '.join(state) or 'nothing'})."
    )


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in an official ``.pkl`` file, arrays resolved.

    Raises:
        DataError: it is absent, damaged, or names anything but arrays.
    """
    with parsing(path, "a body model"):
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        if not isinstance(content, dict):
            raise DataError(f"{path} holds no dictionary, so it is no body model.")
        return {key: _array(value) if isinstance(value, _Stub) else value for key, value in content.items()}


def from_dict(content: dict[str, Any], num_betas: int = 10, source: str = "the body model") -> SMPLArrays:
    """Checks the fields of an SMPL file and brings them to common types.

    Raises:
        DataError: fields are missing or their shapes do not fit together.
    """
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise DataError(f"{source} is no SMPL model: it has no {', '.join(missing)}.")
    field = {key: _array(content[key]) for key in _KEYS if key != "J_regressor"}
    regressor = content["J_regressor"]
    field["J_regressor"] = regressor.toarray() if hasattr(regressor, "toarray") else _array(regressor)
    vertices, joints = field["weights"].shape
    shapes = {
        "v_template": (vertices, 3),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "J_regressor": (joints, vertices),
        "kintree_table": (2, joints),
    }
    for key, shape in shapes.items():
        if field[key].shape != shape:
            raise DataError(f"{source}: {key} has the shape {field[key].shape}, expected {shape}.")
    if field["shapedirs"].shape[:2] != (vertices, 3) or field["shapedirs"].shape[2] < num_betas:
        raise DataError(f"{source}: shapedirs {field['shapedirs'].shape} does not give {num_betas} shape coefficients.")
    parents = field["kintree_table"][0].astype(np.int64)
    parents[0] = -1  # written as 2^32 - 1
    floats = {key: np.ascontiguousarray(field[key], dtype=np.float32) for key in _KEYS[:5]}
    floats["shapedirs"] = np.ascontiguousarray(floats["shapedirs"][:, :, :num_betas])
    return SMPLArrays(**floats, f=field["f"].astype(np.int64), parents=parents)


def load_smpl(path: str | Path, gender: str = "neutral", num_betas: int = 10) -> SMPLArrays:
    """Reads an SMPL model.

    Args:
        path: a ``.pkl`` or ``.npz`` file, or a folder with ``SMPL_NEUTRAL``, ``_MALE``, ``_FEMALE`` of either kind.
        gender: which file of a folder.
        num_betas: shape coefficients to keep.

    Raises:
        DataError: there is no such file, or it is no SMPL model.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        name = f"SMPL_{gender.upper()}"
        found = [path / f"{name}{suffix}" for suffix in (".npz", ".pkl") if (path / f"{name}{suffix}").is_file()]
        if not found:
            raise DataError(f"{path} has neither {name}.pkl nor {name}.npz. Rename the downloaded files so.")
        path = found[0]
    with parsing(path, "a body model"):
        if path.suffix != ".npz":
            return from_dict(read_pickle(path), num_betas, str(path))
        with np.load(path, allow_pickle=False) as arrays:
            return from_dict(dict(arrays), num_betas, str(path))


def convert_smpl(source: str | Path, target: str | Path) -> None:
    """Writes an official pickle as an npz file of pure float32 and integer arrays.

    Raises:
        DataError: the source is no SMPL model.
    """
    content = {key: _array(value) for key, value in read_pickle(Path(source)).items() if key in _KEYS}
    shapes = _array(content["shapedirs"]).shape[-1] if "shapedirs" in content else 10
    arrays = from_dict(content, shapes, str(source))
    kintree = np.stack([arrays.parents, np.arange(len(arrays.parents))])
    with atomic_path(target) as path:
        np.savez_compressed(path, kintree_table=kintree, **{k: getattr(arrays, k) for k in _KEYS[:6]})
