"""A body with the regressors that the literature reads its joints with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DataError
from zoo.humans.body import Body, load_body
from zoo.humans.joint_body import JointBody, spin_joints

REGRESSORS = ("J_regressor_extra", "J_regressor_h36m")


@dataclass(frozen=True)
class BodySet:
    """A body and its joints.

    Attributes:
        body: the mesh model.
        spin: SPIN's 49 joints.
        h36m: Human3.6M's 17 joints, by which pose is evaluated.
        regressors: ``J_regressor_extra`` (9, V) and ``J_regressor_h36m`` (17, V).
    """

    body: Body
    spin: JointBody
    h36m: JointBody
    regressors: dict[str, Tensor]


def load_body_set(folder: str | Path | None = None, gender: str = "neutral") -> BodySet:
    """The body of a folder, or the stand-in.

    Args:
        folder: with ``SMPL_NEUTRAL.pkl`` (or .npz), ``J_regressor_extra.npy`` and ``J_regressor_h36m.npy``, which
            come with SPIN's data; None for the stand-in.
        gender: ``"neutral"``, ``"male"`` or ``"female"``.

    Raises:
        DataError: a file is absent or of another layout.
    """
    body = load_body(folder, gender)
    regressors = {name: _read(folder, name, body) for name in REGRESSORS}
    h36m = JointBody(body, regressors["J_regressor_h36m"], tuple(range(24, 41)))
    return BodySet(body, spin_joints(body, regressors["J_regressor_extra"]), h36m, regressors)


def _read(folder: str | Path | None, name: str, body: Body) -> Tensor:
    if folder is None:
        from zoo.humans.standin import extra_regressor, h36m_regressor

        return extra_regressor() if name == "J_regressor_extra" else h36m_regressor()
    path = Path(folder).expanduser() / f"{name}.npy"
    if not path.is_file():
        raise DataError(f"There is no {path}. It comes with SPIN's data files: put it beside the body model.")
    matrix = torch.from_numpy(np.load(path, allow_pickle=False)).float()
    rows = {"J_regressor_extra": 9, "J_regressor_h36m": 17}[name]
    if matrix.shape != (rows, len(body.v_template)):
        raise DataError(f"{path} has the shape {tuple(matrix.shape)}, expected {(rows, len(body.v_template))}.")
    return matrix
