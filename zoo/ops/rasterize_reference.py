"""Gaussian splatting in plain torch: the definition that the kernels are tested against, for any float dtype.

Three steps, each differentiable: `project` Gaussians onto images, evaluate their colours (`harmonics`), and
`composite` them front to back. Culled Gaussians never enter a differentiated expression, so that NaN in one of them
leaves the others' gradients alone.

Sources: Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023; Zwicker et al., "EWA
Splatting", 2002; antialiasing after Yu et al., "Mip-Splatting", 2024. Conventions are gsplat's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops.spherical_harmonics import evaluate_sh

TILE = 16
MIN_ALPHA = 1 / 255
MAX_ALPHA = 0.99
MIN_TRANSMITTANCE = 1e-4
MIN_COMPENSATION = 0.005
MAX_EXTENT = 3.33


class Projected(NamedTuple):
    """Gaussians on images; rows of culled ones are zero.

    Attributes:
        radii: (C, N, 2) int32, half the size of the box beyond which a Gaussian counts for nothing; 0 if culled.
        means2d: (C, N, 2) pixels.
        depths: (C, N) z in camera coordinates.
        conics: (C, N, 3) entries xx, xy, yy of the inverse 2-D covariance.
        compensations: (C, N) factor on the opacity that makes up for the blur by eps2d.
    """

    radii: Tensor
    means2d: Tensor
    depths: Tensor
    conics: Tensor
    compensations: Tensor


def rotation_matrices(quats: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4) in the order w, x, y, z, of any length but zero."""
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def covariances(quats: Tensor, scales: Tensor) -> Tensor:
    """R S S^T R^T, (..., 3, 3), of quaternions (..., 4) and linear scales (..., 3)."""
    shape = rotation_matrices(quats) * scales.unsqueeze(-2)
    return shape @ shape.mT


def camera_centres(viewmats: Tensor) -> Tensor:
    """World coordinates (..., 3) of the centres of world-to-camera matrices (..., 4, 4)."""
    return -(viewmats[..., :3, :3].mT @ viewmats[..., :3, 3:]).squeeze(-1)


def project(
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    opacities: Tensor | None,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    antialiased: bool = False,
    covars: Tensor | None = None,
) -> Projected:
    """Projects N Gaussians into C cameras with the affine approximation of EWA splatting.

    Args:
        means: (N, 3).
        quats: (N, 4) w, x, y, z; None with `covars`.
        scales: (N, 3) standard deviations; None with `covars`.
        opacities: (N,) in [0, 1]; with them Gaussians below 1/255 are culled and radii shrink; None for neither.
        viewmats: (C, 4, 4) world to camera, OpenCV axes.
        Ks: (C, 3, 3) intrinsics, pixel centres at half-integers.
        width, height: of the images in pixels.
        near_plane, far_plane: bounds on the depth.
        radius_clip: Gaussians with no radius above it are culled.
        eps2d: added to the diagonal of the 2-D covariance, in square pixels.
        antialiased: opacities will be multiplied by the compensation.
        covars: (N, 3, 3) in place of quaternions and scales.
    """
    count, cameras = len(means), len(viewmats)

    def on_pairs(camera: Tensor, gaussian: Tensor) -> tuple[Tensor, ...]:
        if covars is None:
            assert quats is not None
            assert scales is not None
            shape = covariances(quats[gaussian], scales[gaussian])
        else:
            shape = covars[gaussian]
        return _project_pairs(means[gaussian], shape, viewmats[camera], Ks[camera], width, height, eps2d)

    with torch.no_grad():
        depth = _to_camera(means, viewmats)[..., 2]
        camera, gaussian = ((depth >= near_plane) & (depth <= far_plane)).nonzero(as_tuple=True)
        xy, _, xx, x_y, yy, before, after = on_pairs(camera, gaussian)
        compensation = _compensation(before, after)
        extent: Tensor | float = MAX_EXTENT
        seen = (after > 0) & (after < 1e30)
        if opacities is not None:
            opacity = opacities[gaussian] * (compensation if antialiased else 1)
            extent = (2 * (255 * opacity).log()).clamp_min(0).sqrt().clamp_max(MAX_EXTENT)
            seen &= opacity >= MIN_ALPHA
        radii = torch.stack([(extent * xx.sqrt()).ceil(), (extent * yy.sqrt()).ceil()], dim=-1)
        size = torch.tensor([width, height], device=xy.device)
        seen &= ((xy + radii > 0) & (xy - radii < size) & (radii < 1e9)).all(-1) & (radii > radius_clip).any(-1)
        camera, gaussian, radii = camera[seen], gaussian[seen], radii[seen].int()

    xy, depth, xx, x_y, yy, before, after = on_pairs(camera, gaussian)
    conic = torch.stack([yy, -x_y, xx], dim=-1) / after.unsqueeze(-1)

    def scatter(values: Tensor) -> Tensor:
        empty = values.new_zeros(cameras, count, *values.shape[1:])
        return empty.index_put((camera, gaussian), values)

    return Projected(*map(scatter, (radii, xy, depth, conic, _compensation(before, after))))


def _to_camera(means: Tensor, viewmats: Tensor) -> Tensor:
    """(N, 3), (C, 4, 4) -> (C, N, 3)."""
    return means @ viewmats[:, :3, :3].mT + viewmats[:, None, :3, 3]


def _compensation(before: Tensor, after: Tensor) -> Tensor:
    return (before / after).clamp_min(MIN_COMPENSATION**2).sqrt()


def _project_pairs(
    mean: Tensor, covariance: Tensor, viewmat: Tensor, K: Tensor, width: int, height: int, eps2d: float
) -> tuple[Tensor, ...]:
    """Centre, depth, blurred 2-D covariance and its determinant before and after the blur, for P pairs."""
    rotation = viewmat[:, :3, :3]
    x, y, z = ((rotation @ mean.unsqueeze(-1)).squeeze(-1) + viewmat[:, :3, 3]).unbind(-1)
    fx, fy, cx, cy = K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    tx = z * torch.minimum(torch.maximum(x / z, -cx / fx - margin_x), (width - cx) / fx + margin_x)
    ty = z * torch.minimum(torch.maximum(y / z, -cy / fy - margin_y), (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * tx / z**2, zero, fy / z, -fy * ty / z**2], dim=-1).unflatten(-1, (2, 3))
    affine = jacobian @ rotation
    flat = affine @ covariance @ affine.mT
    xx, xy, yy = flat[:, 0, 0], flat[:, 0, 1], flat[:, 1, 1]
    before, after = xx * yy - xy * xy, (xx + eps2d) * (yy + eps2d) - xy * xy
    centre = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)
    return centre, z, xx + eps2d, xy, yy + eps2d, before, after


def harmonics(means: Tensor, centres: Tensor, coefficients: Tensor, radii: Tensor, degree: int) -> Tensor:
    """Colours max(0, 0.5 + sum_k Y_k c_k) of the visible Gaussians as seen from each camera.

    Args:
        means: (N, 3).
        centres: (C, 3) camera centres.
        coefficients: (N, K, 3), K >= (degree + 1)^2.
        radii: (C, N, 2), 0 where a Gaussian is culled; its colour is 0.
        degree: 0 to 3.

    Returns:
        (C, N, 3).
    """
    camera, gaussian = (radii[..., 0] > 0).nonzero(as_tuple=True)
    colors = evaluate_sh(means[gaussian] - centres[camera], coefficients[gaussian], degree)
    empty = colors.new_zeros(len(centres), len(means), 3)
    return empty.index_put((camera, gaussian), (colors + 0.5).clamp_min(0))


class TileLists(NamedTuple):
    """Which Gaussians each tile of 16 x 16 pixels may show, by their boxes.

    Attributes:
        tiles_per_gauss: (C, N) int32.
        isect_ids: (P,) int64: camera, tile and the bits of the float32 depth, packed; ascending.
        flatten_ids: (P,) int32: camera * N + Gaussian.
        offsets: (C, rows, columns) int32: where a tile's part begins.
    """

    tiles_per_gauss: Tensor
    isect_ids: Tensor
    flatten_ids: Tensor
    offsets: Tensor


def tile_lists(projected: Projected, width: int, height: int, tile: int = TILE) -> TileLists:
    """Sorts the pairs of Gaussians and tiles by camera, tile and depth."""
    radii, means2d = projected.radii, projected.means2d
    cameras, count = radii.shape[:2]
    across, down = math.ceil(width / tile), math.ceil(height / tile)
    limit = torch.tensor([across, down], device=radii.device)
    low = ((means2d - radii) / tile).floor().long().clamp_min(0).minimum(limit)
    high = ((means2d + radii) / tile).ceil().long().clamp_min(0).minimum(limit)
    size = torch.where(radii > 0, high - low, 0)
    tiles = size.prod(-1)
    flat = torch.arange(cameras * count, device=radii.device).repeat_interleave(tiles.flatten())
    first = tiles.flatten().cumsum(0) - tiles.flatten()
    within = torch.arange(len(flat), device=radii.device) - first[flat]
    columns = size.flatten(0, 1)[flat, 0]
    corner = low.flatten(0, 1)[flat]
    index = (corner[:, 1] + within // columns) * across + corner[:, 0] + within % columns
    bits = projected.depths.detach().float().view(torch.int32).flatten()[flat].long()
    tile_bits = (across * down - 1).bit_length()
    ids = ((flat // count) << (32 + tile_bits)) | (index << 32) | bits
    ids, order = ids.sort(stable=True)
    per_tile = torch.bincount((flat // count * across * down + index), minlength=cameras * across * down)
    offsets = (per_tile.cumsum(0) - per_tile).view(cameras, down, across)
    return TileLists(tiles.int(), ids, flat[order].int(), offsets.int())


def composite(
    projected: Projected, colors: Tensor, opacities: Tensor, width: int, height: int, absgrad: bool = False
) -> tuple[Tensor, Tensor]:
    """Composites Gaussians front to back, stopping a pixel before its transmittance would fall to 1e-4.

    Args:
        projected: what `project` gave.
        colors: (C, N, D).
        opacities: (C, N) in [0, 1].
        width, height: of the images.
        absgrad: the backward pass leaves the sums over pixels of absolute gradients of the 2-D means in
            ``projected.means2d.absgrad``, (C, N, 2).

    Returns:
        (C, H, W, D) colours without background and (C, H, W, 1) alpha.
    """
    means2d = projected.means2d
    cameras, count, channels = colors.shape
    lists = tile_lists(projected, width, height)
    starts = [*lists.offsets.flatten().tolist(), len(lists.flatten_ids)]
    across = lists.offsets.shape[2]
    xy, conic = means2d.flatten(0, 1), projected.conics.flatten(0, 1)
    flat_colors, flat_opacities = colors.flatten(0, 1), opacities.flatten()
    holder = torch.zeros_like(xy) if absgrad else None
    if holder is not None:
        means2d.absgrad = holder.view(cameras, count, 2)  # type: ignore[attr-defined]
    # Sums of nothing tie an empty image to its inputs, so that it can be differentiated like any other.
    nothing = colors[:, :0].sum() + opacities[:, :0].sum() + means2d[:, :0].sum() + projected.conics[:, :0].sum()
    blank = colors.new_zeros(TILE, TILE, channels + 1) + nothing
    images: list[list[list[Tensor]]] = []
    for camera in range(cameras):
        rows: list[list[Tensor]] = []
        for tile in range(lists.offsets.shape[1] * across):
            index = camera * lists.offsets[0].numel() + tile
            ids = lists.flatten_ids[starts[index] : starts[index + 1]].long()
            if tile % across == 0:
                rows.append([])
            if len(ids) == 0:
                rows[-1].append(blank)
                continue
            corner = (tile % across * TILE, tile // across * TILE)
            rows[-1].append(_tile(corner, ids, xy, conic, flat_colors, flat_opacities, holder))
        images.append(rows)
    whole = torch.stack([torch.cat([torch.cat(row, dim=1) for row in rows], dim=0) for rows in images])
    whole = whole[:, :height, :width]
    return whole[..., :-1], whole[..., -1:]


def _tile(
    corner: Sequence[int],
    ids: Tensor,
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    absgrad: Tensor | None,
) -> Tensor:
    """Colours and alpha of one tile, (16, 16, D + 1)."""
    steps = torch.arange(TILE, device=ids.device, dtype=means2d.dtype) + 0.5
    pixels = torch.stack(torch.meshgrid(corner[0] + steps, corner[1] + steps, indexing="xy"), dim=-1).view(-1, 1, 2)
    centre = means2d[ids].expand(len(pixels), -1, 2)
    if absgrad is not None and centre.requires_grad:

        def add_up(grad: Tensor) -> None:
            absgrad.index_add_(0, ids, grad.abs().sum(0))

        centre.register_hook(add_up)
    dx, dy = (centre - pixels).unbind(-1)
    a, b, c = conics[ids].unbind(-1)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (opacities[ids] * (-sigma).exp()).clamp_max(MAX_ALPHA)
    alpha = torch.where((sigma >= 0) & (alpha >= MIN_ALPHA), alpha, 0)
    after = (1 - alpha).cumprod(1)
    counts = after.detach() > MIN_TRANSMITTANCE  # `after` falls: once it is too low it stays so
    alpha = torch.where(counts, alpha, 0)
    after = (1 - alpha).cumprod(1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    color = (alpha * before) @ colors[ids]
    return torch.cat([color, 1 - after[:, -1:]], dim=-1).view(TILE, TILE, -1)
