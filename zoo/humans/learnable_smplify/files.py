"""Reading files of joints over time, and writing the bodies fitted to them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError
from zoo.files import parsing, write_json
from zoo.humans.learnable_smplify.fitting import FEWEST, FittedMotion
from zoo.humans.meshes import SUFFIXES, write_mesh
from zoo.humans.motion.sequence import Motion, write_amass

Array = NDArray[Any]
INPUTS = (".npz", ".npy", ".json")
OUTPUTS = (".npz", ".json", *SUFFIXES)


@dataclass(frozen=True)
class JointFile:
    """The content of a file of joints.

    Attributes:
        joints: (T, K, 3).
        confidence: (T, K), or None.
        pose: (72,) of the first frame, or None.
        betas: (10,), or None.
    """

    joints: Array
    confidence: Array | None = None
    pose: Array | None = None
    betas: Array | None = None


def read_joints(path: Path) -> JointFile:
    """Joints over time.

    Args:
        path: ``.npy``: (T, K, 3), or (T, K, 4) with confidences; ``.npz`` and ``.json``: ``joints`` likewise, and
            where there are such ``confidence`` (T, K), ``pose`` (72,) of the first frame and ``betas`` (10,). A single
            frame may lack the first dimension. Joints that are NaN or of no confidence are missing.

    Raises:
        DataError: it is absent, unreadable, of other shapes, or has hardly any joints in the first frame.
    """
    if path.suffix not in INPUTS:
        raise DataError(f"{path} should end in one of {', '.join(INPUTS)} to be read as joints.")
    with parsing(path, "joints"):
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            fields = content if isinstance(content, dict) else {"joints": content}
        else:
            loaded = np.load(path, allow_pickle=False)
            fields = {"joints": loaded} if path.suffix == ".npy" else dict(loaded)
        if "joints" not in fields:
            raise ValueError(f"it has no 'joints' but {', '.join(fields) or 'nothing'}")
        arrays = {
            name: np.asarray(fields[name], np.float32)
            for name in ("joints", "confidence", "pose", "betas")
            if fields.get(name) is not None
        }
    joints = arrays["joints"]
    joints = joints[None] if joints.ndim == 2 else joints
    if joints.ndim != 3 or joints.shape[-1] not in (3, 4) or len(joints) == 0:
        raise DataError(f"{path}: the joints have the shape {joints.shape}, expected (frames, joints, 3 or 4).")
    confidence = arrays.get("confidence", joints[..., 3] if joints.shape[-1] == 4 else None)
    confidence = confidence[None] if confidence is not None and confidence.ndim == 1 else confidence
    if confidence is not None and confidence.shape != joints.shape[:2]:
        raise DataError(f"{path}: the confidence has the shape {confidence.shape}, expected {joints.shape[:2]}.")
    pose, betas = (None if name not in arrays else arrays[name].ravel() for name in ("pose", "betas"))
    if pose is not None and pose.shape != (72,):
        raise DataError(f"{path}: the pose has {pose.size} numbers, expected 72.")
    if betas is not None and betas.shape != (10,):
        raise DataError(f"{path}: there are {betas.size} betas, expected 10.")
    for name, values in (("confidence", confidence), ("pose", pose), ("betas", betas)):
        if values is not None and not np.isfinite(values).all():
            raise DataError(f"{path}: {name} holds NaN or infinity.")
    seen = np.isfinite(joints[0, :, :3]).all(-1) & (True if confidence is None else confidence[0] > 0)
    if seen.sum() < FEWEST:
        raise DataError(f"{path}: {seen.sum()} joints of the first frame are given: at least {FEWEST} are needed.")
    return JointFile(joints[..., :3], confidence, pose, betas)


def check_output(output: Path) -> None:
    """Raises `DataError` unless the suffix is one that `write_motion` takes."""
    if output.suffix not in OUTPUTS:
        raise DataError(f"The output {output} should end in one of {', '.join(OUTPUTS)}.")


def write_motion(output: Path, motion: FittedMotion, vertices: Array, faces: Array, fps: float) -> list[Path]:
    """Writes fitted bodies.

    Args:
        output: ``.npz`` in AMASS' layout (a y-up world is assumed), ``.json`` the numbers, or a mesh file: one body,
            or for several frames ``<output>_0000``, ``_0001``, ...
        motion: fitted.
        vertices: (T, V, 3), faces: (F, 3); looked at for mesh files only.
        fps: frames per second.
    """
    pose, betas, trans = (np.asarray(t, np.float32) for t in (motion.pose, motion.betas, motion.transl))
    if output.suffix == ".npz":
        write_amass(Motion(pose, trans, betas[0], fps), output)
        return [output]
    if output.suffix == ".json":
        numbers = {"pose": pose, "betas": betas[0], "translation": trans, "residual": np.asarray(motion.residual)}
        write_json(output, {name: value.tolist() for name, value in numbers.items()})
        return [output]
    if len(vertices) == 1:
        write_mesh(output, vertices[0], faces)
        return [output]
    paths = [output.with_stem(f"{output.stem}_{k:04d}") for k in range(len(vertices))]
    for path, mesh in zip(paths, vertices, strict=True):
        write_mesh(path, mesh, faces)
    return paths
