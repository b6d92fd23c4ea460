"""Joint sets by name, the maps between them, and their mirror images.

SPIN's 49 joints are read from 54 sources: the 24 SMPL joints, 21 picked vertices, and 9 regressed joints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.errors import UnknownNameError, did_you_mean

SMPL_24 = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle"),
    *("right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hand", "right_hand"),
)
SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)

# Vertices that are joints 24 to 44 of smplx's output, under smplx's names, with their indices in SMPL's mesh.
SMPL_VERTICES = {
    **{"nose": 332, "reye": 6260, "leye": 2800, "rear": 4071, "lear": 583},
    **{"LBigToe": 3216, "LSmallToe": 3226, "LHeel": 3387, "RBigToe": 6617, "RSmallToe": 6624, "RHeel": 6787},
    **{"lthumb": 2746, "lindex": 2319, "lmiddle": 2445, "lring": 2556, "lpinky": 2673},
    **{"rthumb": 6191, "rindex": 5782, "rmiddle": 5905, "rring": 6016, "rpinky": 6133},
}
_VERTEX_NAMES = (
    *("nose", "right_eye", "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel"),
    *("right_big_toe", "right_small_toe", "right_heel"),
    *(f"left_{finger}" for finger in ("thumb", "index", "middle", "ring", "pinky")),
    *(f"right_{finger}" for finger in ("thumb", "index", "middle", "ring", "pinky")),
)
# Rows of J_regressor_extra, in SPIN's order.
EXTRA_9 = (
    *("right_hip_lsp", "left_hip_lsp", "neck_lsp", "head_top", "pelvis_mpii", "thorax_mpii", "spine_h36m"),
    *("jaw_h36m", "head_h36m"),
)
SPIN_SOURCES = (*SMPL_24, *_VERTEX_NAMES, *EXTRA_9)

BODY_25 = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye"),
    *("left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe"),
    *("right_small_toe", "right_heel"),
)
SUPERSET_24 = (
    *("right_ankle", "right_knee", "right_hip_lsp", "left_hip_lsp", "left_knee", "left_ankle", "right_wrist"),
    *("right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck_lsp", "head_top"),
    *("pelvis_mpii", "thorax_mpii", "spine_h36m", "jaw_h36m", "head_h36m", "nose", "left_eye", "right_eye"),
    *("left_ear", "right_ear"),
)
SPIN_49 = (*(f"op_{name}" for name in BODY_25), *SUPERSET_24)
LSP_14 = SUPERSET_24[:14]
H36M_17 = (
    *("pelvis", "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle", "spine", "neck"),
    *("jaw", "head_top", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist"),
)
COCO_17 = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle"),
    "right_ankle",
)

_BODY_25_SOURCES = (24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34)
_SUPERSET_SOURCES = (8, 5, 45, 46, 4, 7, 21, 19, 17, 16, 18, 20, 47, 48, 49, 50, 51, 52, 53, 24, 26, 25, 28, 27)
SPIN_49_SOURCES = (*_BODY_25_SOURCES, *_SUPERSET_SOURCES)

# Evaluation: rows of the H36M regressor, or of the superset, that make the 17 and (first 14) LSP joints.
H36M_TO_J17 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10, 0, 7, 9)
H36M_TO_J14 = H36M_TO_J17[:14]
J24_TO_J17 = (*range(13), 18, 14, 16, 17)
J24_TO_J14 = J24_TO_J17[:14]

# Where the joints of other annotations stand in the superset (index of the target for each source row).
COCO_TO_SUPERSET = (19, 20, 21, 22, 23, 9, 8, 10, 7, 11, 6, 3, 2, 4, 1, 5, 0)
MPII_TO_SUPERSET = (0, 1, 2, 3, 4, 5, 14, 15, 12, 13, 6, 7, 8, 9, 10, 11)
LSP_TO_SUPERSET = tuple(range(14))
MPII_16 = tuple(SUPERSET_24[k] for k in MPII_TO_SUPERSET)

SMPL_FLIP = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22)
BODY_25_FLIP = (0, 1, 5, 6, 7, 2, 3, 4, 8, 12, 13, 14, 9, 10, 11, 16, 15, 18, 17, 22, 23, 24, 19, 20, 21)
SUPERSET_FLIP = (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13, 14, 15, 16, 17, 18, 19, 21, 20, 23, 22)
SPIN_49_FLIP = (*BODY_25_FLIP, *(25 + k for k in SUPERSET_FLIP))

JOINT_SETS: dict[str, tuple[str, ...]] = {
    "smpl-24": SMPL_24,
    "spin-49": SPIN_49,
    "superset-24": SUPERSET_24,
    "h36m-17": H36M_17,
    "lsp-14": LSP_14,
    "coco-17": COCO_17,
    "body-25": BODY_25,
    "mpii-16": MPII_16,
}

# Bones to draw a skeleton with, as pairs of names.
_LIMBS = (
    *(("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")),
    *(("hip_lsp", "knee"), ("ankle", "big_toe"), ("ankle", "heel"), ("ankle", "foot")),
)
_TRUNK = (
    *(("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"), ("left_hip_lsp", "right_hip_lsp")),
    *(("left_shoulder", "left_hip"), ("right_shoulder", "right_hip")),
    *(("left_shoulder", "left_hip_lsp"), ("right_shoulder", "right_hip_lsp"), ("neck_lsp", "head_top")),
    *(("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"), ("right_eye", "right_ear")),
)


def skeleton(names: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of indices to connect when these joints are drawn; SPIN's 49 are drawn by their last 24."""
    pairs = [(f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in _LIMBS]
    index = {name: k for k, name in enumerate(names)}
    return [(index[a], index[b]) for a, b in (*pairs, *_TRUNK) if a in index and b in index]


def to_spin_49(keypoints: Tensor, layout: str) -> Tensor:
    """Keypoints of another set as SPIN's 49; what the set lacks has confidence 0.

    Args:
        keypoints: (..., J, 3) of x, y, confidence.
        layout: ``"body-25"``, ``"coco-17"``, ``"mpii-16"``, ``"lsp-14"``, ``"superset-24"`` or ``"spin-49"``.

    Returns:
        (..., 49, 3). BODY_25 also fills those superset joints that mean the same point. The hips of COCO and of
        the superset are the annotators', which lie lower than SMPL's.

    Raises:
        UnknownNameError: a set that is no set of image keypoints.
    """
    if layout == "spin-49":
        return keypoints
    out = keypoints.new_zeros(*keypoints.shape[:-2], 49, 3)
    if layout == "body-25":
        out[..., :25, :] = keypoints
        targets = {name: 25 + k for k, name in enumerate(SUPERSET_24)}
        for source, name in enumerate(BODY_25):
            if name in targets:
                out[..., targets[name], :] = keypoints[..., source, :]
        for side in ("right", "left"):  # the superset has annotators' hips; OpenPose's are near enough to place
            out[..., targets[f"{side}_hip_lsp"], :] = keypoints[..., BODY_25.index(f"{side}_hip"), :]
        return out
    places = {
        **{"coco-17": COCO_TO_SUPERSET, "mpii-16": MPII_TO_SUPERSET, "lsp-14": LSP_TO_SUPERSET},
        "superset-24": tuple(range(24)),
    }
    if layout not in places:
        raise UnknownNameError(f"'{layout}' is no set of image keypoints. {did_you_mean(layout, ('body-25', *places))}")
    out[..., [25 + k for k in places[layout]], :] = keypoints
    return out


def flip_pose(pose: Tensor) -> Tensor:
    """The mirror image of a body's pose, rotation vectors (..., 72) -> (..., 72)."""
    joints = pose.unflatten(-1, (24, 3))[..., list(SMPL_FLIP), :]
    return (joints * torch.tensor([1.0, -1.0, -1.0], dtype=pose.dtype, device=pose.device)).flatten(-2)


def flip_keypoints(keypoints: Tensor, width: float = 0.0) -> Tensor:
    """Mirrored keypoints: left and right swapped, x -> `width` - x.

    Args:
        keypoints: (..., 24, C) in the superset's order or (..., 49, C) in SPIN's, x first.
        width: of the image in pixels minus 1; 0 for coordinates about the centre.
    """
    order = SUPERSET_FLIP if keypoints.shape[-2] == 24 else SPIN_49_FLIP
    flipped = keypoints[..., list(order), :].clone()
    flipped[..., 0] = width - flipped[..., 0]
    return flipped
