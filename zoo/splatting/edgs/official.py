"""The initialisation as the published code does it, its defects included, for comparisons with it.

Each function says where it departs from what is meant. Parity is of numbers: it was written from a description of
the behaviour, not from the code.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zoo.ops.spherical_harmonics import rgb_to_sh0, sh_count
from zoo.splatting.edgs.triangulation import triangulate_ndc
from zoo.splatting.gaussians import Rows

SAMPLE_THRESHOLD = 0.05
REJECTED_LOGIT = -10.0


def full_projection(viewmat: Tensor, tan_x: float, tan_y: float, near: float = 0.01, far: float = 100.0) -> Tensor:
    """(4, 4) for row vectors: world to clip coordinates, w = z, principal point at the image's centre.

    Args:
        viewmat: (4, 4) world to camera.
        tan_x, tan_y: tangents of half the fields of view.
        near, far: of the clip volume.
    """
    projection = viewmat.new_zeros(4, 4)
    projection[0, 0], projection[1, 1] = 1 / tan_x, 1 / tan_y
    projection[2, 2], projection[3, 2] = far / (far - near), -far * near / (far - near)
    projection[2, 3] = 1.0
    return viewmat.T @ projection


def attenuated_certainty(fine: Tensor, coarse: Tensor) -> Tensor:
    """Certainty (B, h, w) of RoMa's logits at its finest and coarsest scale.

    Subtracting half of the negative part of the coarse logit raises the certainty where it is meant to lower it.
    """
    low = F.interpolate(coarse.unsqueeze(1), size=fine.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)
    return torch.sigmoid(fine - 0.5 * low.clamp_max(0))


def to_image_size(grid: Tensor, height: int, width: int) -> Tensor:
    """A grid (B, h, w) or (B, h, w, 2) resized bilinearly."""
    channels = grid.unsqueeze(1) if grid.ndim == 3 else grid.permute(0, 3, 1, 2)
    resized = F.interpolate(channels, size=(height, width), mode="bilinear", align_corners=False)
    return resized.squeeze(1) if grid.ndim == 3 else resized.permute(0, 2, 3, 1)


def sampling_weights(certainty: Tensor) -> Tensor:
    """Weights (H, W) of the pixels of a reference from the certainty (n, H, W) of its neighbours."""
    best = certainty.amax(0)
    return torch.where(best > SAMPLE_THRESHOLD, 1.0, best)


def reference_coordinates(grid: tuple[int, int], height: int, width: int) -> Tensor:
    """(H, W, 2) normalised (x, y) of the reference's pixels.

    The matcher's grid of cell centres (h, w) is stretched to the image, which moves pixels at the border inwards.
    """
    y, x = (torch.linspace(-1 + 1 / n, 1 - 1 / n, n) for n in grid)
    cells = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    return to_image_size(cells.unsqueeze(0), height, width)[0]


def pixel_colors(image: NDArray[np.uint8], own: Tensor) -> Tensor:
    """(M, 3) colours in [0, 1] at normalised coordinates (M, 2).

    The code rounds a pixel centre, half to even, and so reads a neighbouring pixel in three of four cases.
    """
    height, width = image.shape[:2]
    i = torch.round((own[:, 1] + 1) * height / 2).long().clamp(0, height - 1)
    j = torch.round((own[:, 0] + 1) * width / 2).long().clamp(0, width - 1)
    return torch.from_numpy(image)[i, j].float() / 255


def initialise(
    image: NDArray[np.uint8],
    index: Tensor,
    own: Tensor,
    warp: Tensor,
    projections: Tensor,
    centre: Tensor,
    tolerance: float = 0.01,
    scaling_factor: float = 0.001,
    sh_degree: int = 3,
) -> tuple[Rows, Tensor]:
    """Gaussians of one reference view, before the trainer halves their scales.

    Args:
        image: (H, W, 3) of the reference.
        index: (M,) row-major indices of the drawn pixels.
        own: (H, W, 2) normalised coordinates of the reference's pixels, see `reference_coordinates`.
        warp: (n, H, W, 2) normalised coordinates of each pixel in the n neighbours.
        projections: (1 + n, 4, 4), see `full_projection`; the reference first.
        centre: (3,) of the reference camera.
        tolerance: L1 error in normalised coordinates beyond which a Gaussian is made transparent.
        scaling_factor: scale per distance from the camera.
        sh_degree: of the colours.

    Returns:
        The Gaussians and their errors (M,).
    """
    own = own.flatten(0, 1)[index]
    points, errors = [], []
    for n, projection in enumerate(projections[1:]):
        other = warp[n].flatten(0, 1)[index]
        found, first, second = triangulate_ndc(projections[0], projection, own, other, official=True)
        points.append(found)
        errors.append(torch.maximum(first, second))
    error, best = torch.stack(errors).min(0)
    means = torch.stack(points)[best, torch.arange(len(index))]
    distance = (means - centre).norm(dim=-1)
    quats = torch.zeros(len(index), 4)
    quats[:, 0] = 1
    rows = {
        "means": means,
        "scales": (scaling_factor * distance).log().unsqueeze(-1).repeat(1, 3),
        "quats": quats,
        "opacities": torch.where(error > tolerance, REJECTED_LOGIT, 0.0),
        "sh0": rgb_to_sh0(pixel_colors(image, own)).unsqueeze(1),
        "shN": torch.zeros(len(index), sh_count(sh_degree) - 1, 3),
    }
    return rows, error
