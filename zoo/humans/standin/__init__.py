"""A procedural body in SMPL's own format, for when the licensed model is not there.

It has SMPL's 6890 vertices and 13776 triangles, its tree, 10 shape and 207 pose coefficients, and its landmark
vertices at SMPL's indices, so everything that takes SMPL files takes it, smplx included. It is generated in some
seconds, the same on every machine up to rounding, and kept in the cache folder.
"""

from __future__ import annotations

import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from zoo.cache import kept_file
from zoo.files import atomic_path
from zoo.humans.joints import SMPL_PARENTS
from zoo.humans.smpl_file import GENDERS, SMPLArrays, load_smpl
from zoo.humans.standin import mesh as meshes
from zoo.humans.standin import rig

_VERSION = "standin-1"
_REGRESSORS = ("J_regressor_extra", "J_regressor_h36m")


@cache
def generate() -> dict[str, dict[str, Any]]:
    """The fields of an SMPL file for each gender, with the two further regressors."""
    ring = meshes.build_mesh()
    joints = rig.skeleton_joints()
    weights = rig.skinning_weights(ring)
    modes, moves = rig.shape_modes(ring, weights, joints)
    rotation = rig.principal_rotation(modes)
    shapes = modes @ rotation
    matrices = rig.regressors(ring, joints, shapes, moves @ rotation)
    regressed = matrices["J_regressor"] @ ring.vertices
    corrections = rig.pose_corrections(ring.vertices, ring.faces, regressed)
    order = rig.landmark_order(ring)
    place = np.argsort(order)
    common = {
        "shapedirs": shapes[order].astype(np.float32),
        "posedirs": corrections[order].astype(np.float32),
        "weights": weights[order].astype(np.float32),
        "f": place[ring.faces].astype(np.uint32),
        "kintree_table": np.array([[2**32 - 1, *SMPL_PARENTS[1:]], range(24)], dtype=np.uint32),
        **{name: matrix[:, order].astype(np.float32) for name, matrix in matrices.items()},
    }
    bodies = {}
    for gender in GENDERS:
        template = (ring.vertices + rig.gender_shift(modes, gender))[order].astype(np.float32)
        bodies[gender] = {**common, "v_template": template, "J": common["J_regressor"] @ template}
    return bodies


def standin_folder() -> Path:
    """The folder with ``SMPL_NEUTRAL.pkl``, ``SMPL_MALE.pkl``, ``SMPL_FEMALE.pkl`` and the regressors, in the cache.

    The files are written at the first call; smplx and every other reader of SMPL takes them.
    """
    return kept_file(f"bodies/{_VERSION}/complete", _write_files).parent


def _write_files(complete: Path) -> None:
    """Writes them beside an empty file, which takes its place when they are all there."""
    folder = complete.parent
    for gender, fields in generate().items():
        official = {name: value for name, value in fields.items() if name not in _REGRESSORS}
        official |= {"bs_style": "lbs", "bs_type": "lrotmin"}
        official["J_regressor"] = scipy.sparse.csc_matrix(official["J_regressor"])
        with atomic_path(folder / f"SMPL_{gender.upper()}.pkl") as path:
            path.write_bytes(pickle.dumps(official, protocol=2))
    for name in _REGRESSORS:
        with atomic_path(folder / f"{name}.npy") as path:
            np.save(path, generate()["neutral"][name])


@cache
def standin_arrays(gender: str = "neutral") -> SMPLArrays:
    """The stand-in body's model, through the reader of SMPL files."""
    return load_smpl(standin_folder(), gender)


@cache
def _regressor(name: str) -> Tensor:
    return torch.from_numpy(np.load(standin_folder() / f"{name}.npy"))


def extra_regressor() -> Tensor:
    """``J_regressor_extra`` of the stand-in, (9, 6890)."""
    return _regressor("J_regressor_extra")


def h36m_regressor() -> Tensor:
    """``J_regressor_h36m`` of the stand-in, (17, 6890)."""
    return _regressor("J_regressor_h36m")
