"""Gaussians from dense matches.

Source: Kotovenko, Grebenkova, Ommer, "EDGS: Eliminating Densification for Efficient Convergence of 3DGS" (arXiv
2504.13204), second version: uniform sampling where confidence and reprojection error allow, colours by least squares
on spherical harmonics. Scales follow the size of a pixel, so that they suit any resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.scene_views import Scene
from zoo.ops.spherical_harmonics import sh_basis, sh_count
from zoo.splatting.edgs.matching import Matcher
from zoo.splatting.edgs.triangulation import triangulate


@dataclass(frozen=True)
class Cloud:
    """Triangulated points.

    Attributes:
        points: (M, 3) float64.
        footprint: (M,) size of a pixel of the reference view at the point.
        error: (M,) pixels of the reference view.
        sh: (M, K, 3) coefficients of the colours.
        reference: (M,) index of the view.
        coverage: reference view -> part of its pixels with a valid match.
    """

    points: Tensor
    footprint: Tensor
    error: Tensor
    sh: Tensor
    reference: Tensor
    coverage: dict[int, float]


def dense_cloud(
    scene: Scene,
    matcher: Matcher,
    references: list[int],
    neighbours: dict[int, list[int]],
    budget: int,
    min_certainty: float = 0.05,
    max_error: float = 1.0,
    min_parallax: float = 1.0,
    sh_degree: int = 3,
    sh_fit_degree: int = 1,
    sh_ridge: float = 0.1,
    seed: int = 0,
) -> Cloud:
    """Matches, triangulates, filters and samples.

    Args:
        scene: the scene.
        matcher: finds the matches.
        references: views whose pixels become points.
        neighbours: view -> those it is matched with.
        budget: number of points; fewer where less can be matched.
        min_certainty: of a match.
        max_error: reprojection error in pixels of the full image.
        min_parallax: largest angle between a point's rays, at least, in degrees.
        sh_degree: of the coefficients that are given back.
        sh_fit_degree: up to which they are fitted to the views' colours; the others are 0.
        sh_ridge: see `fit_sh`.
        seed: of the sampling.
    """
    parts: list[tuple[Tensor, ...]] = []
    coverage: dict[int, float] = {}
    share = -(-budget // len(references))
    for order, reference in enumerate(references):
        views = [reference, *neighbours[reference]]
        found = matcher.match(reference, views[1:])
        part, coverage[reference] = _points_of(
            scene, views, found.warp, found.certainty, 2 * share, min_certainty, max_error, min_parallax, seed + order
        )
        points, footprint, error, places, used = part
        sh = _colors(scene, views, points, places, used, sh_degree, sh_fit_degree, sh_ridge)
        parts.append((points, footprint, error, sh, torch.full((len(points),), reference)))
    points, footprint, error, sh, source = (torch.cat(column) for column in zip(*parts, strict=True))
    chosen = thin_out(points, footprint, budget, seed)
    return Cloud(points[chosen], footprint[chosen], error[chosen], sh[chosen], source[chosen], coverage)


def _points_of(
    scene: Scene,
    views: list[int],
    warp: Tensor,
    certainty: Tensor,
    count: int,
    min_certainty: float,
    max_error: float,
    min_parallax: float,
    seed: int,
) -> tuple[tuple[Tensor, ...], float]:
    """Points of one reference: positions, footprints, errors, places in all views, and which views count."""
    height, width = warp.shape[1:3]
    sizes = torch.tensor([scene.images[v].shape[1::-1] for v in views], dtype=torch.float64)
    valid = certainty > min_certainty
    candidates = spread(valid.any(0), 2 * count, seed)
    row, column = candidates // width, candidates % width
    own = torch.stack([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1], dim=-1).double()
    others = warp.flatten(1, 2)[:, candidates].transpose(0, 1).double()
    places = (torch.cat([own.unsqueeze(1), others], dim=1) + 1) / 2 * sizes
    used = torch.cat([torch.ones(len(candidates), 1, dtype=torch.bool), valid.flatten(1)[:, candidates].T], dim=1)
    viewmats, Ks = torch.from_numpy(scene.viewmats[views]), torch.from_numpy(scene.Ks[views])
    found = triangulate(places, used, viewmats, Ks)
    in_front = (~used | (found.depth > 0)).all(1)
    good = in_front & (found.error < max_error) & (found.parallax > np.deg2rad(min_parallax))
    good &= found.points.isfinite().all(1)
    kept = good.nonzero().squeeze(1)[:count]
    footprint = found.depth[:, 0] / Ks[0, 0, 0]
    part = (found.points[kept], footprint[kept], found.error[kept], places[kept], used[kept])
    return part, float(valid.any(0).float().mean())


def spread(mask: Tensor, count: int, seed: int) -> Tensor:
    """Row-major indices of up to `count` pixels of a mask (h, w), evenly spread, in an order evenly spread, too.

    They are ranked by a two-dimensional low-discrepancy sequence (R2) with a random start.
    """
    width = mask.shape[1]
    rows, columns = mask.nonzero(as_tuple=True)
    start = np.random.default_rng(seed).random()
    rank = (0.7548776662466927 * columns.double() + 0.5698402909980532 * rows.double() + start) % 1
    return (rows * width + columns)[rank.argsort()[:count]]


def thin_out(points: Tensor, footprint: Tensor, budget: int, seed: int) -> Tensor:
    """Indices, ascending, of at most `budget` points, of those in one cell about a pixel wide only one.

    Args:
        points: (M, 3).
        footprint: (M,) size of a pixel at each.
        budget: at most this many.
        seed: of the order in which points claim their cells.
    """
    order = np.random.default_rng(seed).permutation(len(points))
    level = footprint.clamp_min(1e-12).log2().round()
    cells = (points / torch.exp2(level).unsqueeze(1)).floor().long()
    keys = torch.cat([level.long().unsqueeze(1), cells], dim=1).numpy()[order]
    _, first = np.unique(keys, axis=0, return_index=True)
    kept = order[np.sort(first)[:budget]]
    return torch.from_numpy(np.sort(kept))


def _colors(
    scene: Scene,
    views: list[int],
    points: Tensor,
    places: Tensor,
    used: Tensor,
    degree: int,
    fit_degree: int,
    ridge: float,
) -> Tensor:
    """Coefficients (M, K, 3) of the colours that the views show at their matches."""
    colors = []
    for n, view in enumerate(views):
        image = torch.from_numpy(scene.images[view]).permute(2, 0, 1).double() / 255
        height, width = image.shape[1:]
        grid = 2 * places[:, n] / torch.tensor([width, height]) - 1
        seen = F.grid_sample(image.unsqueeze(0), grid[None, None], padding_mode="border", align_corners=False)
        colors.append(seen[0, :, 0].T)
    centres = torch.from_numpy(scene.centres[views])
    directions = points.unsqueeze(1) - centres
    sh = fit_sh(directions, torch.stack(colors, dim=1), fit_degree, ridge, used)
    return F.pad(sh, (0, 0, 0, sh_count(degree) - sh.shape[1])).float()


def fit_sh(
    directions: Tensor, colors: Tensor, degree: int = 3, ridge: float = 0.0, used: Tensor | None = None
) -> Tensor:
    """Spherical-harmonic coefficients that give the observed colours.

    Args:
        directions: (M, n, 3) from the cameras.
        colors: (M, n, 3) in [0, 1].
        degree: 0 to 3.
        ridge: weight of the squared coefficients beyond degree 0; with 0 the least-squares solution of least norm.
        used: (M, n) bool, which observations count.

    Returns:
        (M, (degree + 1)^2, 3).
    """
    basis = sh_basis(directions.double(), degree)
    target = colors.double() - 0.5
    if used is not None:
        basis, target = basis * used.unsqueeze(-1), target * used.unsqueeze(-1)
    if ridge == 0:
        return torch.linalg.pinv(basis) @ target
    penalty = torch.full((basis.shape[-1],), ridge, dtype=torch.float64)
    penalty[0] = 1e-9
    return torch.linalg.solve(basis.mT @ basis + penalty.diag(), basis.mT @ target)
