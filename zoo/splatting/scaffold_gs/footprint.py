"""Which anchors a camera sees, and rendering, by the rules of the original tile rasterizer.

`zoo.ops.rasterize` bounds a Gaussian by where its alpha falls below 1/255; the original by a square of 3 standard
deviations, rounded to tiles. The choice of anchors follows the original, since means over the visible ones are part of
the loss. The images differ by at most some hundredths where a bright Gaussian is cut off; `render_classic` reproduces
them for comparisons with official results.

Source: Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023, section 6.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.ops.rasterize_reference import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, TILE, rotation_matrices
from zoo.splatting.scaffold_gs.decoder import Decoded

BLUR = 0.3  # square pixels


class Footprint(NamedTuple):
    """Gaussians on an image of the original rasterizer.

    Attributes:
        radii: (N,) int64 pixels; 0 where it is culled.
        low, high: (N, 2) int64, the tiles touched, column before row, `high` not included.
        means2d: (N, 2) pixels.
        conics: (N, 3) xx, xy, yy of the inverse covariance.
        depths: (N,).
    """

    radii: Tensor
    low: Tensor
    high: Tensor
    means2d: Tensor
    conics: Tensor
    depths: Tensor


def footprint(
    means: Tensor, quats: Tensor, scales: Tensor, viewmat: Tensor, K: Tensor, width: int, height: int, near: float
) -> Footprint:
    """Projects Gaussians (N, 3), (N, 4), (N, 3) with a camera (4, 4), (3, 3)."""
    x, y, z = (means @ viewmat[:3, :3].mT + viewmat[:3, 3]).unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    depth = torch.where(z > near, z, 1.0)
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    tx = (x / depth).clamp(-cx / fx - margin_x, (width - cx) / fx + margin_x)
    ty = (y / depth).clamp(-cy / fy - margin_y, (height - cy) / fy + margin_y)
    # Rows of the Jacobian times the camera's rotation times the Gaussian's axes.
    turned = quats.requires_grad or bool(quats[:, 1:].any())  # of anchors nothing ever changes the rotation
    axes = viewmat[:3, :3] @ rotation_matrices(quats) if turned else viewmat[None, :3, :3]
    across = (axes[:, 0] - tx.unsqueeze(1) * axes[:, 2]) * scales * (fx / depth).unsqueeze(1)
    down = (axes[:, 1] - ty.unsqueeze(1) * axes[:, 2]) * scales * (fy / depth).unsqueeze(1)
    xx, xy, yy = (across**2).sum(1) + BLUR, (across * down).sum(1), (down**2).sum(1) + BLUR
    determinant = xx * yy - xy * xy
    conics = torch.stack([yy, -xy, xx], dim=1) / determinant.unsqueeze(1)
    means2d = torch.stack([fx * x / depth + cx, fy * y / depth + cy], dim=1)
    with torch.no_grad():
        middle = 0.5 * (xx + yy)
        reach = torch.ceil(3 * (middle + (middle * middle - determinant).clamp_min(0.1).sqrt()).sqrt())
        tiles = torch.tensor([-(-width // TILE), -(-height // TILE)], device=means.device)
        place = means2d - 0.5  # the original counts from the first pixel's centre
        low = ((place - reach.unsqueeze(1)) / TILE).trunc().long().clamp_min(0).minimum(tiles)
        high = ((place + reach.unsqueeze(1) + TILE - 1) / TILE).trunc().long().clamp_min(0).minimum(tiles)
        seen = (z > near) & (determinant != 0) & ((high - low).prod(1) > 0)
    return Footprint(torch.where(seen, reach, 0).long(), low, high, means2d, conics, z)


@torch.no_grad()
def visible_anchors(
    rows: dict[str, Tensor], viewmat: Tensor, K: Tensor, width: int, height: int, near: float
) -> Tensor:
    """(A,) indices of the anchors that touch the image, each taken for a Gaussian of its first three scales."""
    scales = rows["scaling"][:, :3].exp()
    return (
        footprint(rows["anchor"], rows["rotation"], scales, viewmat, K, width, height, near).radii.nonzero().squeeze(1)
    )


def render_classic(
    decoded: Decoded, viewmat: Tensor, K: Tensor, width: int, height: int, background: Tensor, near: float
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Image (1, H, W, 3), alpha (1, H, W, 1), and radii and means2d as `zoo.ops.rasterize` gives them.

    In plain torch and with every pair of a pixel and a Gaussian in memory: for small images.
    """
    found = footprint(decoded.means, decoded.quats, decoded.scales, viewmat, K, width, height, near)
    means2d = found.means2d.clone()
    order = found.depths.detach().argsort(stable=True)
    order = order[found.radii[order] > 0]
    columns, rows = torch.meshgrid(
        torch.arange(width, device=means2d.device), torch.arange(height, device=means2d.device), indexing="xy"
    )
    pixels = torch.stack([columns, rows], dim=-1).view(-1, 1, 2)
    inside = ((pixels // TILE >= found.low[order]) & (pixels // TILE < found.high[order])).all(-1)
    dx, dy = (means2d[order] - pixels - 0.5).unbind(-1)
    a, b, c = found.conics[order].unbind(-1)
    power = -0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy
    alpha = (decoded.opacities[order] * power.exp()).clamp_max(MAX_ALPHA)
    alpha = torch.where(inside & (power <= 0) & (alpha >= MIN_ALPHA), alpha, 0)
    alpha = torch.where((1 - alpha).cumprod(1).detach() > MIN_TRANSMITTANCE, alpha, 0)
    after = (1 - alpha).cumprod(1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    clear = after[:, -1:] if len(order) else torch.ones(len(pixels), 1, device=means2d.device)
    image = (alpha * before) @ decoded.colors[order] + clear * background
    radii = found.radii.view(1, -1, 1).expand(-1, -1, 2)
    # The copy above is not what conics and places were made from: its gradient is the image position's alone.
    meta = {"radii": radii, "means2d": means2d, "depths": found.depths.unsqueeze(0)}
    return image.view(1, height, width, 3), (1 - clear).view(1, height, width, 1), meta
