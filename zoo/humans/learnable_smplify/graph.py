"""Skeleton graphs over BODY_25 and their adjacency tables for graph convolutions.

Source of the partitions: Yan et al., "Spatial Temporal Graph Convolutional Networks", AAAI 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Labeling = Literal["uniform", "distance_star", "distance", "spatial", "DAD", "DLD"]
Skeleton = Literal["ntu", "body-25"]

POINTS = 25
# The tree of BODY_25 from the mid-hip down: (child, parent), a parent before its children.
BODY_25_TREE = (
    *((1, 8), (9, 8), (12, 8), (0, 1), (2, 1), (5, 1), (10, 9), (13, 12), (3, 2), (6, 5), (15, 0), (16, 0)),
    *((11, 10), (14, 13), (4, 3), (7, 6), (17, 15), (18, 16), (22, 11), (24, 11), (19, 14), (21, 14), (23, 22)),
    (20, 19),
)
# The official code applies the tree of NTU's 25 Kinect joints to the indices of BODY_25; its weights need it.
_NTU_FROM_ONE = (
    *((1, 2), (2, 21), (3, 21), (4, 3), (5, 21), (6, 5), (7, 6), (8, 7), (9, 21), (10, 9), (11, 10), (12, 11)),
    *((13, 1), (14, 13), (15, 14), (16, 15), (17, 1), (18, 17), (19, 18), (20, 19), (22, 23), (23, 8), (24, 25)),
    (25, 12),
)
NTU_TREE = tuple((child - 1, parent - 1) for child, parent in _NTU_FROM_ONE)
TREES: dict[Skeleton, tuple[tuple[int, int], ...]] = {"ntu": NTU_TREE, "body-25": BODY_25_TREE}

Array = NDArray[Any]


def _links(edges: Sequence[tuple[int, int]]) -> Array:
    matrix = np.zeros((POINTS, POINTS))
    for source, target in edges:
        matrix[target, source] = 1.0
    return matrix


def _column_shares(matrix: Array) -> Array:
    total = matrix.sum(0)
    return matrix / np.where(total > 0, total, 1.0)


def _symmetric_shares(matrix: Array) -> Array:
    root = matrix.sum(0) ** -0.5
    return root[:, None] * matrix * root[None]


def adjacency(labeling: Labeling = "spatial", skeleton: Skeleton = "ntu") -> Tensor:
    """Adjacency table; (x A)_v = sum over u of x_u A[u, v].

    Args:
        labeling: ``"spatial"``: self, inward and outward links (3, 25, 25), the one in use; ``"distance"``: self and
            neighbours (2, 25, 25); the others are single matrices (25, 25): ``"uniform"`` (self and neighbours
            together), ``"distance_star"`` (self minus neighbours), ``"DAD"`` and ``"DLD"`` (normalised on both sides,
            and the normalised Laplacian).
        skeleton: ``"ntu"`` as the official code has it, or the true tree of ``"body-25"``.
    """
    tree = TREES[skeleton]
    outward = [(parent, child) for child, parent in tree]
    own, both = np.eye(POINTS), _links([*tree, *outward])
    tables = {
        "spatial": lambda: np.stack([own, _column_shares(_links(tree)), _column_shares(_links(outward))]),
        "distance": lambda: np.stack([own, _column_shares(both)]),
        "uniform": lambda: _column_shares(both + own),
        "distance_star": lambda: own - _column_shares(both),
        "DAD": lambda: _symmetric_shares(both + own),
        "DLD": lambda: own - _symmetric_shares(both),
    }
    return torch.from_numpy(tables[labeling]()).float()
