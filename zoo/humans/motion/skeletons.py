"""Readers of motion-capture skeletons: Acclaim ASF/AMC and Biovision BVH.

Both give global bone rotations that are the identity in the rest pose, with the rest direction of each bone.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from zoo.errors import DataError
from zoo.files import parsing

Array = NDArray[Any]
INCHES_PER_UNIT = 1 / 0.45  # of CMU's files, whose units section says "length 0.45"
METRES_PER_INCH = 0.0254


@dataclass(frozen=True)
class SkeletonMotion:
    """Bones in motion.

    Attributes:
        rotations: bone -> (T, 3, 3) global rotation, identity at rest.
        directions: bone -> (3,) unit vector from its start to its end at rest.
        lengths: bone -> metres.
        root: (T, 3) root position in metres.
        fps: frames per second.
        name: where it comes from.
    """

    rotations: dict[str, Array]
    directions: dict[str, Array]
    lengths: dict[str, float]
    root: Array
    fps: float
    name: str = ""


@dataclass
class _Bone:
    direction: Array
    length: float
    axis: tuple[float, ...]
    dof: list[str] = field(default_factory=list)


def _text(path: Path) -> list[str]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="latin1") as file:
            return file.read().splitlines()
    return path.read_text(encoding="latin1").splitlines()


def _euler(angles: Array, order: str = "xyz") -> Array:
    """Rotations R_z R_y R_x for the order "xyz" (the first letter is applied first), degrees."""
    return Rotation.from_euler(order.lower(), angles, degrees=True).as_matrix()


def _read_asf(path: Path) -> tuple[dict[str, _Bone], dict[str, str], float]:
    """Bones, parents and metres per unit of an ASF file."""
    bones: dict[str, _Bone] = {}
    parents: dict[str, str] = {}
    scale, section = INCHES_PER_UNIT * METRES_PER_INCH, ""
    entry: dict[str, list[str]] = {}
    for line in _text(path):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith(":"):
            section = words[0]
        elif section == ":units" and words[0] == "length":
            scale = METRES_PER_INCH / float(words[1])
        elif section == ":bonedata":
            if words[0] == "begin":
                entry = {}
            elif words[0] == "end":
                direction = np.array([float(w) for w in entry["direction"]])
                axis = tuple(float(w) for w in entry["axis"][:3])
                name = entry["name"][0]
                unit = direction / np.linalg.norm(direction)
                bones[name] = _Bone(unit, float(entry["length"][0]), axis, entry.get("dof", []))
            else:
                entry[words[0]] = words[1:]
        elif section == ":hierarchy" and words[0] not in ("begin", "end"):
            parents |= dict.fromkeys(words[1:], words[0])
    if not bones or not parents:
        raise DataError(f"{path} is no ASF skeleton: it has no :bonedata or no :hierarchy.")
    return bones, parents, scale


def read_acclaim(asf: str | Path, amc: str | Path, fps: float = 120.0) -> SkeletonMotion:
    """A CMU recording.

    Args:
        asf: the subject's skeleton.
        amc: the motion, gzipped or not.
        fps: of the recording; the files do not say.

    Raises:
        DataError: unreadable, or the motion is of another skeleton.
    """
    asf, amc = Path(asf), Path(amc)
    with parsing(asf, "an ASF skeleton"):
        bones, parents, scale = _read_asf(asf)
    with parsing(amc, f"a motion of the skeleton {asf}"):
        return _read_amc(amc, asf, bones, parents, scale, fps)


def _read_amc(
    amc: Path, asf: Path, bones: dict[str, _Bone], parents: dict[str, str], scale: float, fps: float
) -> SkeletonMotion:
    values: dict[str, list[list[float]]] = {}
    frames = 0
    for line in _text(amc):
        words = line.split()
        if not words or words[0][0] in "#:":
            continue
        if len(words) == 1 and words[0].isdigit():
            frames += 1
        else:
            values.setdefault(words[0], []).append([float(w) for w in words[1:]])
    broken = [name for name, rows in values.items() if name not in {*bones, "root"} or len(rows) != frames]
    if frames == 0 or "root" not in values or broken:
        what = f"the bone '{broken[0]}' does not fit" if broken else "it has no frames"
        raise DataError(f"{amc} is no motion of the skeleton {asf}: {what}.")
    root = np.array(values["root"])
    if not all(np.isfinite(rows).all() for rows in values.values()):
        raise DataError(f"{amc} holds NaN or infinity.")
    rotations = {"root": _euler(root[:, 3:])}
    for name in _down(parents):
        bone, above = bones[name], rotations[parents[name]]
        if not bone.dof:
            rotations[name] = above
            continue
        angles = np.zeros((frames, 3))
        moving = [dof for dof in bone.dof if dof in ("rx", "ry", "rz")]
        angles[:, ["xyz".index(dof[1]) for dof in moving]] = np.array(values[name])[:, : len(moving)]
        frame = _euler(np.array(bone.axis))
        rotations[name] = above @ frame @ _euler(angles) @ frame.T
    return SkeletonMotion(
        rotations,
        {name: bone.direction for name, bone in bones.items()},
        {name: bone.length * scale for name, bone in bones.items()},
        root[:, :3] * scale,
        fps,
        amc.name.split(".")[0],
    )


def _down(parents: dict[str, str]) -> list[str]:
    """Bones such that each stands after its parent."""
    order, open_ = [], list(parents)
    while open_:
        ready = [name for name in open_ if parents[name] == "root" or parents[name] in order]
        if not ready:
            raise ValueError(f"its hierarchy does not hang together at {', '.join(open_[:3])}")
        order += ready
        open_ = [name for name in open_ if name not in ready]
    return order


def read_bvh(path: str | Path, unit: float = INCHES_PER_UNIT * METRES_PER_INCH) -> SkeletonMotion:
    """A BVH file, whose zero pose is taken as the rest pose.

    Args:
        path: the file.
        unit: metres per unit of length; the default is that of CMU's recordings converted to BVH.

    Raises:
        DataError: unreadable or damaged.
    """
    path = Path(path)
    with parsing(path, "a BVH motion"):
        return _parse_bvh(path, unit)


def _parse_bvh(path: Path, unit: float) -> SkeletonMotion:
    lines = _text(path)
    names: list[str] = []
    parent: dict[str, str | None] = {}
    offset: dict[str, Array] = {}
    channels: list[tuple[str, str]] = []
    stack: list[str] = []
    start = next(k for k, line in enumerate(lines) if line.strip() == "MOTION")
    for line in lines[:start]:
        words = line.split()
        if words and words[0] in ("ROOT", "JOINT", "End"):
            name = words[1] if words[0] != "End" else f"{stack[-1]}_end"
            names.append(name)
            parent[name] = stack[-1] if stack else None
            pending = name
        elif words and words[0] == "{":
            stack.append(pending)
        elif words and words[0] == "}":
            stack.pop()
        elif words and words[0] == "OFFSET":
            offset[stack[-1]] = np.array([float(w) for w in words[1:4]])
        elif words and words[0] == "CHANNELS":
            channels += [(stack[-1], word) for word in words[2:]]
    frame_time = next(float(line.split()[-1]) for line in lines[start:] if line.startswith("Frame Time"))
    body = [line for line in lines[start + 1 :] if line.strip() and line.split()[0] not in ("Frames:", "Frame")]
    data = np.array([[float(w) for w in line.split()] for line in body])
    if data.ndim != 2 or data.shape[1] != len(channels):
        raise ValueError(f"{len(channels)} channels are declared but a row has {data.shape[-1]} numbers")
    rotations: dict[str, Array] = {}
    root = np.zeros((len(data), 3))
    for name in names:
        own = [(what, data[:, k]) for k, (owner, what) in enumerate(channels) if owner == name]
        turns = [(what[0], values) for what, values in own if what.endswith("rotation")]
        local = np.broadcast_to(np.eye(3), (len(data), 3, 3))
        if turns:  # the product in channel order: the last one is applied first
            order = "".join(axis for axis, _ in turns).upper()
            local = Rotation.from_euler(order, np.stack([v for _, v in turns], 1), degrees=True).as_matrix()
        above = parent[name]
        rotations[name] = local if above is None else rotations[above] @ local
        if above is None:
            for what, values in own:
                if what.endswith("position"):
                    root[:, "XYZ".index(what[0])] = values * unit
    directions, lengths = {}, {}
    for name in names:
        children = [child for child in names if parent[child] == name]
        longest = max(children, key=lambda child: float(np.linalg.norm(offset[child])), default=None)
        length = 0.0 if longest is None else float(np.linalg.norm(offset[longest]))
        if longest is not None and length > 0:
            directions[name], lengths[name] = offset[longest] / length, length * unit
    return SkeletonMotion(rotations, directions, lengths, root, 1 / frame_time, path.stem)
