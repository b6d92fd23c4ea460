"""Choosing the reference views and their neighbours, as EDGS does: cameras as vectors of 16 numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def camera_vectors(viewmats: NDArray[np.floating]) -> NDArray[np.float64]:
    """(V, 16) entries of the transposed world-to-camera matrices (V, 4, 4)."""
    return np.asarray(viewmats, dtype=np.float64).swapaxes(1, 2).reshape(len(viewmats), 16)


def select_references(viewmats: NDArray[np.floating], count: int, seed: int = 0) -> list[int]:
    """Indices, ascending, of the cameras nearest to the centres of `count` clusters; all if there are no more.

    Args:
        viewmats: (V, 4, 4).
        count: of clusters.
        seed: of the clustering.
    """
    from scipy.cluster.vq import kmeans, vq

    vectors = camera_vectors(viewmats)
    if count >= len(vectors):
        return list(range(len(vectors)))
    centres, _ = kmeans(vectors, count, seed=np.random.RandomState(seed))
    members, distances = vq(vectors, centres)
    chosen = []
    for cluster in range(len(centres)):
        own = np.flatnonzero(members == cluster)
        if len(own):
            chosen.append(int(own[distances[own].argmin()]))
    return sorted(chosen)


def nearest_cameras(viewmats: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """(V, count) the nearest other cameras of each, by the Frobenius distance of their matrices (V, 4, 4)."""
    vectors = camera_vectors(viewmats)
    distances = np.linalg.norm(vectors[:, None] - vectors, axis=-1)
    np.fill_diagonal(distances, np.inf)
    return distances.argsort(axis=1, kind="stable")[:, : min(count, len(vectors) - 1)]
