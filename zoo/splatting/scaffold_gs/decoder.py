"""The decoder of Scaffold-GS: an anchor's feature and the direction it is seen from become k Gaussians.

Sources: Lu et al., "Scaffold-GS: Structured 3D Gaussians for View-Adaptive Rendering", 2023 (arXiv 2312.00109),
section 4; Fan et al., "Momentum-GS", 2024 (arXiv 2412.04887), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Rows = Mapping[str, Tensor]


class Decoded(NamedTuple):
    """The Gaussians of A visible anchors, M of their A k, anchor by anchor.

    Attributes:
        means: (M, 3).
        quats: (M, 4) unit quaternions w, x, y, z.
        scales: (M, 3) standard deviations.
        opacities: (M,) in (0, 1).
        colors: (M, 3) in (0, 1).
        selected: (M,) int64, which of the A k slots are Gaussians.
        raw_opacities: (A k,) in (-1, 1); a slot whose value is not positive is no Gaussian.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    selected: Tensor
    raw_opacities: Tensor


class Appearance(nn.Module):
    """A vector per photograph, for its exposure.

    Args:
        images: number of photographs.
        dim: of the vectors.
    """

    def __init__(self, images: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(images, dim)

    def forward(self, image: int | None) -> Tensor:
        """The vector (dim,) of a photograph; of an unknown one the mean of all."""
        table = self.embedding.weight
        return table.mean(0) if image is None else table[image]


class GaussianDecoder(nn.Module):
    """Three small networks for opacity, shape and colour; names of parts are the official ones.

    Args:
        feat_dim: length C of an anchor's feature.
        n_offsets: Gaussians k per anchor.
        add_opacity_dist, add_cov_dist, add_color_dist: tell that network the distance to the camera, too.
        appearance_dim: length of the vectors per photograph that the colours see; 0 for none.
        appearances: number of photographs with such a vector.
        use_feat_bank: mix the feature at three resolutions by direction and distance.
    """

    def __init__(
        self,
        feat_dim: int = 32,
        n_offsets: int = 10,
        add_opacity_dist: bool = False,
        add_cov_dist: bool = False,
        add_color_dist: bool = False,
        appearance_dim: int = 0,
        appearances: int = 1,
        use_feat_bank: bool = False,
    ) -> None:
        super().__init__()
        self.feat_dim, self.n_offsets = feat_dim, n_offsets
        self.distances = (add_opacity_dist, add_cov_dist, add_color_dist)
        width = feat_dim + 3

        def mlp(inputs: int, outputs: int, *last: nn.Module) -> nn.Sequential:
            return nn.Sequential(nn.Linear(inputs, feat_dim), nn.ReLU(), nn.Linear(feat_dim, outputs), *last)

        self.mlp_opacity = mlp(width + add_opacity_dist, n_offsets, nn.Tanh())
        self.mlp_cov = mlp(width + add_cov_dist, 7 * n_offsets)
        self.mlp_color = mlp(width + add_color_dist + appearance_dim, 3 * n_offsets, nn.Sigmoid())
        self.mlp_feature_bank = mlp(4, 3, nn.Softmax(dim=1)) if use_feat_bank else None
        self.embedding_appearance = Appearance(appearances, appearance_dim) if appearance_dim else None

    def inputs(self, anchor: Tensor, feature: Tensor, centre: Tensor, image: int | None = None) -> Tensor:
        """What the networks see, (A, C + 3 + ...): feature, direction, and distance and appearance where wanted.

        Args:
            anchor: (A, 3).
            feature: (A, C).
            centre: (3,) of the camera.
            image: the photograph's number, for its appearance; None for the mean.
        """
        ray = anchor - centre
        distance = ray.norm(dim=1, keepdim=True)
        direction = ray / distance
        if self.mlp_feature_bank is not None:
            bank = self.mlp_feature_bank(torch.cat([direction, distance], dim=1))
            coarse, middle = feature[:, ::4].repeat(1, 4), feature[:, ::2].repeat(1, 2)
            feature = bank[:, :1] * coarse + bank[:, 1:2] * middle + bank[:, 2:] * feature
        parts = [feature, direction]
        if any(self.distances):
            parts.append(distance)
        if self.embedding_appearance is not None:
            parts.append(self.embedding_appearance(image).expand(len(anchor), -1))
        return torch.cat(parts, dim=1)

    def heads(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raw opacities (A k,), shapes (A k, 7) and colours (A k, 3) of `inputs`: one product for all first layers."""
        mlps = (self.mlp_opacity, self.mlp_cov, self.mlp_color)
        first: list[nn.Linear] = [mlp[0] for mlp in mlps]  # type: ignore[misc]
        weight = torch.cat([self._widened(i, layer.weight, inputs.shape[1]) for i, layer in enumerate(first)])
        hidden = F.relu(F.linear(inputs, weight, torch.cat([layer.bias for layer in first])))
        outputs = []
        for mlp, part in zip(mlps, hidden.split(self.feat_dim, dim=1), strict=True):
            for layer in list(mlp)[2:]:
                part = layer(part)
            outputs.append(part.to(weight.dtype))  # under autocast the rasterizer needs its own precision
        opacity, shape, color = outputs
        return opacity.flatten(), shape.reshape(-1, 7), color.reshape(-1, 3)

    def _widened(self, head: int, weight: Tensor, width: int) -> Tensor:
        """The first layer's weight with zeros for inputs that only other networks see."""
        if weight.shape[1] == width:
            return weight
        known = self.feat_dim + 3
        columns = [weight[:, :known]]
        if any(self.distances):
            columns.append(weight[:, known : known + 1] if self.distances[head] else weight.new_zeros(len(weight), 1))
        rest = width - sum(c.shape[1] for c in columns)
        if rest:
            columns.append(weight.new_zeros(len(weight), rest) if head < 2 else weight[:, -rest:])
        return torch.cat(columns, dim=1)

    def forward(self, rows: Rows, centre: Tensor, image: int | None = None) -> Decoded:
        """The Gaussians of anchors as a camera sees them.

        Args:
            rows: anchor (A, 3), offset (A, k, 3), anchor_feat (A, C), scaling (A, 6) logarithms.
            centre: (3,) of the camera.
            image: see `inputs`.
        """
        return self.decode(self.inputs(rows["anchor"], rows["anchor_feat"], centre, image), rows)

    def decode(self, inputs: Tensor, rows: Rows) -> Decoded:
        """`forward` from inputs that have been made already."""
        opacity, shape, color = self.heads(inputs)
        selected = (opacity > 0).nonzero().squeeze(1)
        extent = rows["scaling"].exp()
        means = rows["anchor"].unsqueeze(1) + rows["offset"] * extent[:, None, :3]
        scales, quats = activate(shape[selected], extent, selected // self.n_offsets)
        return Decoded(
            means.reshape(-1, 3)[selected], quats, scales, opacity[selected], color[selected], selected, opacity
        )


def activate(shape: Tensor, extent: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviations (M, 3) and unit quaternions (M, 4).

    Args:
        shape: (M, 7) of the shape network.
        extent: (A, 6) scales of the anchors.
        owner: (M,) the anchor of each.
    """
    return extent[owner, 3:] * shape[:, :3].sigmoid(), F.normalize(shape[:, 3:], dim=1)
