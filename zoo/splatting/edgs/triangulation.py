"""Points from matches between calibrated views.

Source: Hartley and Zisserman, "Multiple View Geometry", 2nd ed., section 12.2 (linear triangulation); EDGS (arXiv
2504.13204), section 3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Triangulated(NamedTuple):
    """Points and how well they fit.

    Attributes:
        points: (M, 3) float64 world coordinates.
        error: (M,) largest distance in pixels between a match and the point's image, over the views used.
        depth: (M, n) z in each view's camera coordinates.
        parallax: (M,) largest angle in radians between two rays to the point, of views used.
    """

    points: Tensor
    error: Tensor
    depth: Tensor
    parallax: Tensor


def triangulate(pixels: Tensor, used: Tensor, viewmats: Tensor, Ks: Tensor) -> Triangulated:
    """Linear least squares over all views of a match, then one Gauss-Newton step on the distances in pixels.

    Args:
        pixels: (M, n, 2) a match's place in each of n views.
        used: (M, n) bool, which of them count; two or more per match.
        viewmats: (n, 4, 4) world to camera.
        Ks: (n, 3, 3).
    """
    pixels, viewmats, Ks = pixels.double(), viewmats.double(), Ks.double()
    weight = used.double()
    rays = torch.stack(
        [
            (pixels[..., 0] - Ks[:, 0, 2]) / Ks[:, 0, 0],
            (pixels[..., 1] - Ks[:, 1, 2]) / Ks[:, 1, 1],
        ],
        dim=-1,
    )
    # x (row 3) - (row 1) and y (row 3) - (row 2), on the homogeneous point.
    rows = rays.unsqueeze(-1) * viewmats[:, 2:3] - viewmats[:, :2]
    rows = rows * weight[..., None, None]
    flat = rows.flatten(1, 2)
    points = _solve(flat[..., :3], -flat[..., 3])

    step_rows, step_residuals = _reprojection_system(points, pixels, viewmats, Ks)
    mask = weight[..., None]
    points = points - _solve((step_rows * mask.unsqueeze(-1)).flatten(1, 2), (step_residuals * mask).flatten(1))
    residuals = _reprojection_system(points, pixels, viewmats, Ks)[1]
    error = torch.where(used, residuals.norm(dim=-1), 0).amax(1)
    depth = points @ viewmats[:, 2, :3].T + viewmats[:, 2, 3]
    centres = -(viewmats[:, :3, :3].mT @ viewmats[:, :3, 3:]).squeeze(-1)
    directions = torch.nn.functional.normalize(points.unsqueeze(1) - centres, dim=-1)
    cosines = directions @ directions.mT
    both = used.unsqueeze(1) & used.unsqueeze(2)
    parallax = torch.where(both, cosines, 1.0).flatten(1).amin(1).clamp(-1, 1).arccos()
    return Triangulated(points, error, depth, parallax)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Least squares (M, k, 3), (M, k) -> (M, 3) through the normal equations, in double precision."""
    normal = matrix.mT @ matrix
    # A hair of damping keeps parallel rays from stopping the whole batch; their points fail the checks.
    damping = 1e-12 * normal.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(1e-30)
    normal = normal + damping[:, None, None] * torch.eye(3, dtype=matrix.dtype)
    return torch.linalg.solve(normal, (matrix.mT @ right.unsqueeze(-1))).squeeze(-1)


def _reprojection_system(points: Tensor, pixels: Tensor, viewmats: Tensor, Ks: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives (M, n, 2, 3) and residuals (M, n, 2) of the points' images, in pixels."""
    local = torch.einsum("nij,mj->mni", viewmats[:, :3, :3], points) + viewmats[:, :3, 3]
    x, y, z = local.unbind(-1)
    z = torch.where(z.abs() < 1e-9, 1e-9, z)
    fx, fy = Ks[:, 0, 0], Ks[:, 1, 1]
    image = torch.stack([fx * x / z + Ks[:, 0, 2], fy * y / z + Ks[:, 1, 2]], dim=-1)
    rotation = viewmats[:, :3, :3]
    by_x = (fx / z).unsqueeze(-1) * rotation[:, 0] - (fx * x / z**2).unsqueeze(-1) * rotation[:, 2]
    by_y = (fy / z).unsqueeze(-1) * rotation[:, 1] - (fy * y / z**2).unsqueeze(-1) * rotation[:, 2]
    return torch.stack([by_x, by_y], dim=-2), image - pixels


def triangulate_ndc(
    first: Tensor, second: Tensor, ndc1: Tensor, ndc2: Tensor, official: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Two-view linear triangulation in normalised device coordinates, with its L1 errors there.

    Args:
        first, second: (4, 4) full projections for row vectors, clip = (x, y, z, 1) P.
        ndc1, ndc2: (M, 2).
        official: reproduce the published code, which divides by the third clip coordinate where the fourth is meant
            and adds 1e-4 to it in the reprojection.

    Returns:
        (M, 3) points and the two errors (M,).
    """
    column = 2 if official else 3
    matrices, places = (first.double(), second.double()), (ndc1.double(), ndc2.double())
    rows = torch.cat(
        [ndc.unsqueeze(-1) * p[:, column] - p[:, :2].T for p, ndc in zip(matrices, places, strict=True)], dim=1
    )
    points = torch.linalg.lstsq(rows[..., :3], -rows[..., 3:]).solution.squeeze(-1)
    errors = []
    for matrix, ndc in zip(matrices, places, strict=True):
        clip = torch.cat([points, torch.ones_like(points[:, :1])], dim=1) @ matrix
        image = clip[:, :2] / (clip[:, 3:] + (1e-4 if official else 0.0))
        errors.append((image - ndc).abs().sum(-1))
    return points, errors[0], errors[1]
