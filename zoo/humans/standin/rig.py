"""The stand-in body's rig: skeleton, skinning, shape space, pose corrections, regressors, landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.spatial import cKDTree

from zoo.humans.joints import EXTRA_9, H36M_17, SMPL_24, SMPL_PARENTS, SMPL_VERTICES
from zoo.humans.standin.mesh import RingMesh, symmetrise

Array = NDArray[Any]
_J = {name: k for k, name in enumerate(SMPL_24)}

_MIDDLE = {
    **{"pelvis": (0, -0.23, 0), "spine1": (0, -0.115, -0.01), "spine2": (0, 0.02, -0.005), "spine3": (0, 0.08, 0)},
    **{"neck": (0, 0.285, -0.02), "head": (0, 0.365, 0.01)},
}
_LEFT = {
    **{"hip": (0.083, -0.31, 0), "knee": (0.095, -0.70, 0.005), "ankle": (0.09, -1.085, -0.03)},
    **{"foot": (0.11, -1.145, 0.085), "collar": (0.075, 0.20, -0.01), "shoulder": (0.18, 0.222, -0.015)},
    **{"elbow": (0.44, 0.215, -0.03), "wrist": (0.685, 0.22, -0.025), "hand": (0.77, 0.215, -0.02)},
}
# The joint that a bone leads to; leaves end at an offset of their own.
_MAIN_CHILD = {
    **{"pelvis": "spine1", "spine1": "spine2", "spine2": "spine3", "spine3": "neck", "neck": "head"},
    **{"hip": "knee", "knee": "ankle", "ankle": "foot", "collar": "shoulder", "shoulder": "elbow"},
    **{"elbow": "wrist", "wrist": "hand"},
}
_LEAF = {"head": (0, 0.19, 0), "foot": (0.01, -0.003, 0.065), "hand": (0.09, 0, 0)}
# Radius of the limb about each joint, metres: the reach of the pose corrections.
_RADIUS = {
    **{"pelvis": 0.11, "spine1": 0.11, "spine2": 0.11, "spine3": 0.11, "neck": 0.058, "head": 0.06, "hip": 0.09},
    **{"knee": 0.055, "ankle": 0.040, "foot": 0.035, "collar": 0.06, "shoulder": 0.057, "elbow": 0.043},
    **{"wrist": 0.029, "hand": 0.025},
}
_GENDER_SHIFT = 1.5  # in units of the raw shape modes


def _bare(name: str) -> str:
    return name.split("_")[-1]


def skeleton_joints() -> Array:
    """Rest joints, (24, 3) metres."""
    joints = np.zeros((24, 3))
    for name, k in _J.items():
        side = -1.0 if name.startswith("right") else 1.0
        joints[k] = _MIDDLE[name] if name in _MIDDLE else np.multiply(_LEFT[_bare(name)], (side, 1, 1))
    return joints


def bone_ends(joints: Array) -> Array:
    """Where each joint's bone ends, (24, 3)."""
    ends = np.zeros_like(joints)
    for name, k in _J.items():
        side = name.split("_")[0] + "_" if "_" in name else ""
        bare = _bare(name)
        if bare in _LEAF:
            ends[k] = joints[k] + np.multiply(_LEAF[bare], (-1 if side == "right_" else 1, 1, 1))
        else:
            child = _MAIN_CHILD[bare]
            ends[k] = joints[_J[child if child in _J else side + child]]
    return ends


def skinning_weights(mesh: RingMesh) -> Array:
    """Hard labels by planes, diffused over about 5 cm, at most four per vertex; (V, 24), rows sum to 1."""
    x, y, z = np.abs(mesh.vertices[:, 0]), mesh.vertices[:, 1], mesh.vertices[:, 2]
    left = mesh.vertices[:, 0] >= 0
    middle = x < 1e-9
    conditions = [  # the first that holds counts; names without a side are on the vertex's own side
        ((x > 0.17) & (y > 0.05) & (x >= 0.765), "hand"),
        ((x > 0.17) & (y > 0.05) & (x >= 0.685), "wrist"),
        ((x > 0.17) & (y > 0.05) & (x >= 0.44), "elbow"),
        ((x > 0.17) & (y > 0.12), "shoulder"),
        ((y < -1.06) & (z > 0.085), "foot"),
        (y < -1.085, "ankle"),
        (y < -0.70, "knee"),
        ((y < -0.315 - 0.35 * np.maximum(0.06 - x, 0)) & (x > 0.012), "hip"),
        (y >= 0.365, "head"),
        ((y >= 0.285) & (x < 0.085), "neck"),
        ((x > 0.085) & (y > 0.15), "collar"),
        (y >= 0.08, "spine3"),
        (y >= 0.02, "spine2"),
        (y >= -0.115, "spine1"),
        (np.ones_like(middle), "pelvis"),
    ]
    weights = np.zeros((len(x), 24))
    open_ = np.ones(len(x), bool)
    for condition, name in conditions:
        chosen = open_ & condition
        open_ &= ~condition
        if name in _J:
            weights[chosen, _J[name]] = 1.0
        else:
            weights[chosen & left, _J[f"left_{name}"]] = 1.0
            weights[chosen & ~left, _J[f"right_{name}"]] = 1.0
    for _ in range(14):
        weights = 0.5 * (weights + mesh.average @ weights)
    mirrored = weights[mesh.mirror][:, _flip()]
    weights = 0.5 * (weights + mirrored)
    smallest_kept = np.sort(weights, 1)[:, -4][:, None]
    weights[(weights < smallest_kept) | (weights < 0.004)] = 0.0
    weights /= weights.sum(1, keepdims=True)
    return weights


def _flip() -> list[int]:
    swap = {"left": "right", "right": "left"}
    return [_J["_".join(swap.get(part, part) for part in name.split("_"))] for name in SMPL_24]


def shape_modes(mesh: RingMesh, weights: Array, joints: Array) -> tuple[Array, Array]:
    """Ten anatomical modes at one sigma each: stature, weight, legs against spine, arms, shoulders, hips, belly,
    chest, head, limb girth.

    Returns:
        Displacements of the vertices (V, 3, 10) and of the joints (24, 3, 10).
    """
    vertices, moves = zip(*(_deform(mesh, weights, joints, mode) for mode in range(10)), strict=True)
    return np.stack([symmetrise(mode, mesh.mirror) for mode in vertices], -1), np.stack(moves, -1)


def _deform(mesh: RingMesh, weights: Array, joints: Array, mode: int) -> tuple[Array, Array]:
    bare = [_bare(name) for name in SMPL_24]
    offset = np.ones((24, 3))  # scale of each joint's offset from its parent
    axial, radial = np.ones(24), np.ones(24)
    bump = np.zeros_like(mesh.vertices)

    def scale(array: Array, names: Sequence[str], factor: float) -> None:
        array[[k for k, name in enumerate(bare) if name in names]] *= factor

    trunk, legs = ("pelvis", "spine1", "spine2", "spine3"), ("hip", "knee", "ankle", "foot")
    arms = ("shoulder", "elbow", "wrist", "hand")
    if mode == 0:
        offset, axial, radial = offset * 1.045, axial * 1.045, radial * 1.045
    elif mode == 1:
        scale(radial, trunk, 1.13)
        scale(radial, ("hip",), 1.09)
        scale(radial, ("knee", "ankle", "neck", "collar", *arms), 1.06)
    elif mode == 2:
        scale(offset, ("knee", "ankle"), 1.035)
        scale(axial, ("hip", "knee"), 1.035)
        scale(offset, ("spine1", "spine2", "spine3", "neck"), 0.965)
        scale(axial, trunk, 0.965)
    elif mode == 3:
        scale(offset, ("elbow", "wrist", "hand"), 1.04)
        scale(axial, arms, 1.04)
    elif mode == 4:
        scale(offset[:, 0], ("collar", "shoulder"), 1.07)
        scale(axial, ("collar",), 1.07)
    elif mode == 5:
        scale(offset[:, 0], ("hip",), 1.06)
        scale(radial, ("pelvis",), 1.06)
    elif mode == 6:
        bump = _bump(mesh.vertices, (0, -0.09, 0.09), 0.10, 0.022)
    elif mode == 7:
        bump = _bump(mesh.vertices, (0.066, 0.12, 0.10), 0.07, 0.018)
    elif mode == 8:
        scale(radial, ("head",), 1.05)
        scale(axial, ("head",), 1.05)
    else:
        scale(radial, (*arms, *legs), 1.07)
    moved = np.zeros_like(joints)
    moved[0] = joints[0]
    for k in range(1, 24):
        moved[k] = moved[SMPL_PARENTS[k]] + offset[k] * (joints[k] - joints[SMPL_PARENTS[k]])
    direction = bone_ends(joints) - joints
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    displaced = np.zeros_like(mesh.vertices)
    for k in range(24):
        relative = mesh.vertices - joints[k]
        along = (relative @ direction[k])[:, None] * direction[k]
        new = moved[k] + axial[k] * along + radial[k] * (relative - along)
        displaced += weights[:, k : k + 1] * (new - mesh.vertices)
    return displaced + bump, moved - joints


def _bump(vertices: Array, centre: Sequence[float], width: float, height: float) -> Array:
    folded = vertices * [1, 1, 1]
    folded[:, 0] = np.abs(folded[:, 0])
    fall = np.exp(-((folded - centre) ** 2).sum(1) / (2 * width**2))
    return height * fall[:, None] * np.array([0.0, 0.0, 1.0])


def principal_rotation(modes: Array) -> Array:
    """The rotation of the modes, (10, 10), that makes ``modes @ rotation`` principal components.

    Coefficients N(0, 1) of those mean independent raw modes N(0, 1).
    """
    vt = np.linalg.svd(modes.reshape(-1, modes.shape[-1]), full_matrices=False)[2]
    largest = np.abs(vt).argmax(1)
    return vt.T * np.sign(vt[np.arange(len(vt)), largest])


def vertex_normals(vertices: Array, faces: Array) -> Array:
    """Area-weighted unit normals, (V, 3)."""
    corner = vertices[faces]
    face_normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, faces[:, k], face_normal)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def pose_corrections(vertices: Array, faces: Array, joints: Array) -> Array:
    """Displacements linear in the joints' R - I, (V, 3, 207): bent limbs keep volume, flexors bulge."""
    normals = vertex_normals(vertices, faces)
    direction = bone_ends(joints) - joints
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    out = np.zeros((len(vertices), 3, 23, 3, 3))
    for k in range(1, 24):
        radius = _RADIUS[_bare(SMPL_24[k])]
        relative = vertices - joints[k]
        reach = np.exp(-(relative**2).sum(1) / (2 * (1.1 * radius) ** 2))[:, None] * normals * radius
        for a in range(3):  # the diagonal of R - I sums to -2 (1 - cos angle)
            out[:, :, k - 1, a, a] -= 0.11 * reach
        across = relative - (relative @ direction[k])[:, None] * direction[k]
        across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
        lever = np.cross(direction[k], across)
        for axis, (a, b) in enumerate(((2, 1), (0, 2), (1, 0))):  # sin(angle) axis is half of R - R^T
            half = 0.5 * 0.12 * reach * lever[:, axis : axis + 1]
            out[:, :, k - 1, a, b] += half
            out[:, :, k - 1, b, a] -= half
    return out.reshape(len(vertices), 3, 207)


def regress_point(target: Array, moves: Array, vertices: Array, shapes: Array, count: int = 128) -> Array:
    """Non-negative weights (V,) that sum to 1 and give a point and its displacements under the shapes.

    Args:
        target: (3,) the point on the rest body.
        moves: (3, S) its displacement under each shape component.
        vertices: (V, 3).
        shapes: (V, 3, S).
        count: nearest vertices that take part.
    """
    near = np.argsort(((vertices - target) ** 2).sum(1), kind="stable")[:count]
    local = shapes[near].reshape(count, -1).T  # (3 S, count)
    matrix = np.concatenate(
        [5 * (vertices[near] - target).T, 5 * local, np.full((1, count), 20.0), 0.02 * np.eye(count)]
    )
    right = np.concatenate([np.zeros(3), 5 * moves.reshape(-1), [20.0], np.zeros(count)])
    solution, _ = nnls(matrix, right)
    weights = np.zeros(len(vertices))
    solution[solution < 1e-5] = 0.0
    weights[near] = solution / solution.sum()
    return weights


def regressors(mesh: RingMesh, joints: Array, shapes: Array, joint_moves: Array) -> dict[str, Array]:
    """J_regressor (24, V), J_regressor_extra (9, V) and J_regressor_h36m (17, V).

    Args:
        joints: (24, 3).
        shapes: (V, 3, S) principal shapes.
        joint_moves: (24, 3, S) the joints' displacement under them.
    """
    vertices, mirror = mesh.vertices, mesh.mirror

    def central(target: Array, moves: Array) -> Array:
        row = regress_point(target, moves, vertices, shapes)
        return 0.5 * (row + row[mirror])

    def nearest_moves(target: Array) -> Array:
        """A point moves as the surface around it does."""
        distance = ((vertices - target) ** 2).sum(1)
        near = np.exp(-0.5 * (distance - distance.min()) / 0.05**2)
        return np.einsum("v,vck->ck", near / near.sum(), shapes)

    smpl: dict[str, Array] = {}
    for name, k in _J.items():
        if name.startswith("right"):
            smpl[name] = smpl[name.replace("right", "left")][mirror]
        elif name.startswith("left"):
            smpl[name] = regress_point(joints[k], joint_moves[k], vertices, shapes)
        else:
            smpl[name] = central(joints[k], joint_moves[k])
    pole = vertices[:, 1].argmax()
    head_top = np.zeros(len(vertices))
    head_top[pole] = 1.0
    points = {
        **{"neck": (0, 0.265, -0.01), "pelvis": (0, -0.30, 0), "thorax": (0, 0.225, 0), "spine": (0, -0.02, 0)},
        **{"jaw": (0, 0.40, 0.07), "head": (0, 0.48, 0.03)},
    }
    extra = {name: central(np.array(p), nearest_moves(np.array(p))) for name, p in points.items()}
    hip = np.array([0.105, -0.335, 0.0])
    extra["left_hip"] = regress_point(hip, joint_moves[_J["left_hip"]], vertices, shapes)
    extra["right_hip"] = extra["left_hip"][mirror]
    extra["head_top"] = head_top
    rows_extra = [extra[name.rsplit("_", 1)[0] if name != "head_top" else name] for name in EXTRA_9]
    rows_h36m = [extra[name] if name in extra else smpl[name] for name in H36M_17]
    return {
        "J_regressor": np.stack([smpl[name] for name in SMPL_24]),
        "J_regressor_extra": np.stack(rows_extra),
        "J_regressor_h36m": np.stack(rows_h36m),
    }


def landmark_order(mesh: RingMesh) -> Array:
    """A permutation p with new vertex k = old vertex p[k], such that the 21 landmarks get SMPL's indices."""
    vertices = mesh.vertices
    middle = (np.abs(vertices[:, 0]) < 1e-9) & (vertices[:, 1] > 0.42) & (vertices[:, 1] < 0.47)
    nose = np.flatnonzero(middle)[vertices[middle, 2].argmax()]
    targets = {
        **{"eye": (0.032, 0.478, 0.10), "ear": (0.087, 0.45, 0), "BigToe": (0.095, -1.15, 0.165)},
        **{"SmallToe": (0.14, -1.155, 0.135), "Heel": (0.088, -1.15, -0.09), "thumb": (0.778, 0.206, 0.048)},
        **{"index": (0.858, 0.215, 0.005), "middle": (0.862, 0.215, -0.015), "ring": (0.858, 0.215, -0.033)},
        "pinky": (0.85, 0.215, -0.05),
    }
    tree = cKDTree(vertices)
    chosen: dict[str, int] = {"nose": int(nose)}
    for bare, target in targets.items():
        left = next(int(k) for k in tree.query(target, k=8)[1] if int(k) not in chosen.values())
        upper = bare[0].isupper()
        chosen["L" + bare if upper else "l" + bare] = left
        chosen["R" + bare if upper else "r" + bare] = int(mesh.mirror[left])
    order = np.arange(len(vertices))
    for name, place in SMPL_VERTICES.items():
        where = int(np.flatnonzero(order == chosen[name])[0])
        order[[place, where]] = order[[where, place]]
    return order


def gender_shift(modes: Array, gender: str) -> Array:
    """Displacement (V, 3) of the rest mesh of a gender: broader shoulders or hips, flatter or fuller chest."""
    sign = {"neutral": 0.0, "male": 1.0, "female": -1.0}[gender]
    return sign * _GENDER_SHIFT * (modes[..., 4] - modes[..., 5] - modes[..., 7])
