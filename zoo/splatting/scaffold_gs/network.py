"""A scene as anchors and the decoder (or decoders) that make Gaussians of them: what is saved, loaded and rendered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.ops.rasterize import rasterize
from zoo.splatting.gaussians import KEY_CAMERAS
from zoo.splatting.scaffold_gs.anchors import ANCHOR_ROWS
from zoo.splatting.scaffold_gs.decoder import Decoded, GaussianDecoder
from zoo.splatting.scaffold_gs.footprint import render_classic, visible_anchors

Raster = Literal["zoo", "classic"]


class AnchorModel(nn.Module):
    """N anchors of one or many blocks, and decoders: one for all, or one per block.

    The number of anchors is part of the data: loading a state dict takes over its size.

    Args:
        decoders: how many.
        raster: ``"zoo"`` for `zoo.ops.rasterize`; ``"classic"`` for the original's tile bounds, in slow plain torch.
        near_plane: anchors and Gaussians nearer than this are left out.
        arguments: of the `GaussianDecoder`.

    Attributes:
        anchor, offset, anchor_feat, scaling, rotation, opacity: see `zoo.splatting.scaffold_gs.anchors.AnchorState`.
        block: (N,) int64, the block each anchor belongs to.
        decoders: the decoders.
        box: (2, 3) the corners of the box that blocks were cut from; zeros for a single block.
        dims: (3,) int64, blocks along each axis.
        background: (3,) colour behind everything.
        key_viewmats, key_K, key_size: see `zoo.splatting.gaussians.GaussianModel`.
    """

    anchor: nn.Parameter
    offset: nn.Parameter
    anchor_feat: nn.Parameter
    scaling: nn.Parameter
    rotation: nn.Parameter
    opacity: nn.Parameter
    block: Tensor
    box: Tensor
    dims: Tensor
    background: Tensor
    key_viewmats: Tensor
    key_K: Tensor
    key_size: Tensor

    def __init__(self, decoders: int = 1, raster: Raster = "zoo", near_plane: float = 0.01, **arguments: Any) -> None:
        super().__init__()
        self.raster, self.near_plane = raster, near_plane
        self.decoders = nn.ModuleList(GaussianDecoder(**arguments) for _ in range(decoders))
        for name, shape in self.row_shapes().items():
            # The training holds anchors block by block elsewhere; here they are only shown.
            self.register_parameter(name, nn.Parameter(torch.zeros(0, *shape), requires_grad=False))
        self.register_buffer("block", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("box", torch.zeros(2, 3))
        self.register_buffer("dims", torch.ones(3, dtype=torch.int64))
        self.register_buffer("background", torch.zeros(3))
        self.register_buffer("key_viewmats", torch.eye(4).repeat(KEY_CAMERAS, 1, 1))
        self.register_buffer("key_K", torch.eye(3))
        self.register_buffer("key_size", torch.ones(2, dtype=torch.int64))

    def row_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one anchor's part of each tensor."""
        one = self.decoder(0)
        shapes = ((3,), (one.n_offsets, 3), (one.feat_dim,), (6,), (4,), (1,))
        return dict(zip(ANCHOR_ROWS, shapes, strict=True))

    def decoder(self, block: int) -> GaussianDecoder:
        """The decoder of a block."""
        module = self.decoders[block if len(self.decoders) > 1 else 0]
        assert isinstance(module, GaussianDecoder)
        return module

    def __len__(self) -> int:
        """Number of anchors."""
        return len(self.anchor)

    @property
    def means(self) -> Tensor:
        """The anchors' places, (N, 3)."""
        return self.anchor

    def rows(self) -> dict[str, Tensor]:
        """The anchors, not copied."""
        return {name: getattr(self, name).data for name in ANCHOR_ROWS}

    @torch.no_grad()
    def set_rows(self, rows: Mapping[str, Tensor], block: Tensor | None = None) -> None:
        """Replaces all anchors.

        Args:
            rows: a tensor (M, ...) per name.
            block: (M,); None for all in block 0.
        """
        count = len(rows["anchor"])
        for name, shape in self.row_shapes().items():
            parameter = getattr(self, name)
            parameter.data = rows[name].detach().to(parameter).reshape(count, *shape).contiguous()
        self.block = self.block.new_zeros(count) if block is None else block.to(self.block)

    def fit_to(self, state: Mapping[str, Tensor]) -> None:
        """Takes over the number of anchors of a state dict that is to be loaded."""
        count = len(state["anchor"]) if "anchor" in state else len(self)
        if count != len(self):
            self.set_rows({n: getattr(self, n).new_zeros(count, *shape) for n, shape in self.row_shapes().items()})

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        self.fit_to({"anchor": state_dict[prefix + "anchor"]} if prefix + "anchor" in state_dict else {})
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def decode(self, viewmat: Tensor, K: Tensor, width: int, height: int, image: int | None = None) -> Decoded:
        """The Gaussians of the anchors that a camera (4, 4), (3, 3) sees.

        Args:
            viewmat: world to camera.
            K: intrinsics.
            width, height: of the image in pixels.
            image: the photograph's number, where there are appearances; None for the mean.
        """
        rows = self.rows()
        visible = visible_anchors(rows, viewmat, K, width, height, self.near_plane)
        seen = {name: value[visible] for name, value in rows.items()}
        return self._decode(seen, self.block[visible], -(viewmat[:3, :3].mT @ viewmat[:3, 3]), image)

    def decode_all(self, centre: Tensor) -> Decoded:
        """The Gaussians of all anchors for a camera at `centre` (3,), whether it sees them or not."""
        return self._decode(self.rows(), self.block, centre, None)

    def _decode(self, seen: dict[str, Tensor], block: Tensor, centre: Tensor, image: int | None) -> Decoded:
        if len(self.decoders) == 1:
            return self.decoder(0)(seen, centre, image)
        parts = []
        for index in range(len(self.decoders)):
            own = block == index
            parts.append(self.decoder(index)({name: value[own] for name, value in seen.items()}, centre, image))
        return Decoded(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def forward(
        self, viewmats: Tensor, Ks: Tensor, width: int, height: int, image: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Renders cameras (C, 4, 4), (C, 3, 3): images (C, H, W, 3), expected depth and alpha (C, H, W, 1)."""
        images, depths, alphas = [], [], []
        for viewmat, K in zip(viewmats, Ks, strict=True):
            decoded = self.decode(viewmat, K, width, height, image)
            color, depth, alpha = self.render_depth(decoded, viewmat, K, width, height)
            images.append(color)
            depths.append(depth)
            alphas.append(alpha)
        return torch.cat(images), torch.cat(depths), torch.cat(alphas)

    def render_depth(
        self, decoded: Decoded, viewmat: Tensor, K: Tensor, width: int, height: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Image (1, H, W, 3), expected depth and alpha (1, H, W, 1) of Gaussians."""
        if self.raster == "classic":
            image, alpha, meta = self.render(decoded, viewmat, K, width, height)
            depths = decoded._replace(colors=meta["depths"].view(-1, 1).expand(-1, 3))
            depth, _, _ = render_classic(depths, viewmat, K, width, height, viewmat.new_zeros(3), self.near_plane)
            return image, depth[..., :1] / alpha.clamp_min(1e-10), alpha
        image, alpha, _ = self.render(decoded, viewmat, K, width, height, depth=True)
        return image[..., :3], image[..., 3:], alpha

    def render(
        self, decoded: Decoded, viewmat: Tensor, K: Tensor, width: int, height: int, depth: bool = False
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Image (1, H, W, 3, with `depth` 4), alpha and what came up on the way, for Gaussians.

        ``meta["means2d"]`` (1, M, 2) takes gradients; ``meta["radii"]`` (1, M, 2) is 0 where a Gaussian is not shown.
        """
        if self.raster == "classic":
            return render_classic(decoded, viewmat, K, width, height, self.background, self.near_plane)
        return rasterize(
            *(decoded.means, decoded.quats, decoded.scales, decoded.opacities, decoded.colors),
            *(viewmat.unsqueeze(0), K.unsqueeze(0), width, height),
            near_plane=self.near_plane,
            backgrounds=self.background.unsqueeze(0) if bool(self.background.any()) else None,
            render_mode="RGB+ED" if depth else "RGB",
        )
