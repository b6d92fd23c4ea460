"""Depth of a view by sweeping a plane through its neighbours.

Source: Collins, "A Space-Sweep Approach to True Multi-Image Matching", 1996; scored by zero-mean normalised
cross-correlation, the mean over the two best neighbours, refined by a parabola over inverse depth.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops import native
from zoo.ops import rasterize_op as rasterize_op  # defines the op

_LEAST_VARIANCE = 1e-5


def plane_sweep(
    reference: Tensor,
    neighbours: Tensor,
    homographies: Tensor,
    offsets: Tensor,
    inverse_depths: Tensor,
    radius: int = 2,
    implementation: native.Implementation = "auto",
) -> tuple[Tensor, Tensor]:
    """The inverse depth at which each pixel of a view looks most like its neighbours.

    Args:
        reference: (H, W) grey values in [0, 1].
        neighbours: (n, H', W') grey values.
        homographies: (n, 3, 3) A, and
        offsets: (n, 3) b: pixel (x, y) at inverse depth w lies in the neighbour at A (x, y, 1) + w b up to scale, in
            coordinates whose first pixel centre is (0.5, 0.5).
        inverse_depths: (P,) at even distances.
        radius: of the square windows that are compared, 1 to 5 pixels.
        implementation: ``"auto"``, ``"reference"`` or ``"compiled"``.

    Returns:
        (H, W) inverse depth and (H, W) correlation, -1 where no neighbour sees the pixel.
    """
    if implementation == "compiled":
        native.require("splat", reference.device)
    elif (
        native.is_reference(implementation)
        or reference.device.type != "cpu"
        or not native.covers("splat", reference.device)
    ):
        return plane_sweep_reference(reference, neighbours, homographies, offsets, inverse_depths, radius)
    arguments = (t.float() for t in (reference, neighbours, homographies, offsets, inverse_depths))
    return torch.ops.zoo.plane_sweep(*arguments, radius)


def plane_sweep_reference(
    reference: Tensor, neighbours: Tensor, homographies: Tensor, offsets: Tensor, inverse_depths: Tensor, radius: int
) -> tuple[Tensor, Tensor]:
    """`plane_sweep` in plain torch."""
    height, width = reference.shape
    count, other_height, other_width = neighbours.shape
    size = 2 * radius + 1

    def mean(planes: Tensor) -> Tensor:
        return F.avg_pool2d(planes.unsqueeze(1), size, stride=1, padding=radius).squeeze(1)

    rows, columns = (torch.arange(n, device=reference.device) + 0.5 for n in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1).to(reference)
    base = torch.einsum("nij,hwj->nhwi", homographies, pixels)
    mean_reference = mean(reference.unsqueeze(0))
    variance = (mean(reference.unsqueeze(0) ** 2) - mean_reference**2).clamp_min(_LEAST_VARIANCE)
    scores = []
    for w in inverse_depths:
        u, v, z = (base + w * offsets[:, None, None]).unbind(-1)
        u, v = u / z, v / z
        seen = (z > 0) & (u >= 0.5) & (u <= other_width - 0.5) & (v >= 0.5) & (v <= other_height - 0.5)
        grid = torch.stack([2 * u / other_width - 1, 2 * v / other_height - 1], dim=-1)
        grid = torch.where(seen.unsqueeze(-1), grid, 2.0)
        warped = F.grid_sample(neighbours.unsqueeze(1), grid, padding_mode="border", align_corners=False).squeeze(1)
        corner = neighbours[:, :1, :1]
        warped = torch.where(seen, warped, corner)
        m = mean(warped)
        covariance = mean(warped * reference) - m * mean_reference
        spread = (mean(warped**2) - m**2).clamp_min(_LEAST_VARIANCE)
        score = torch.where(seen, covariance / (variance * spread).sqrt(), -1.0)
        scores.append(score.topk(min(2, count), dim=0).values.mean(0))
    volume = torch.stack(scores)
    best, place = volume.max(0)
    last = len(inverse_depths) - 1
    before = volume.gather(0, (place - 1).clamp_min(0).unsqueeze(0))[0]
    after = volume.gather(0, (place + 1).clamp_max(last).unsqueeze(0))[0]
    bend = before - 2 * best + after
    between = (place > 0) & (place < last) & (bend < -1e-6)
    shift = torch.where(between, 0.5 * (before - after) / bend, 0.0)
    step = inverse_depths[1] - inverse_depths[0] if last else 0.0
    return inverse_depths[place] + shift * step, best
