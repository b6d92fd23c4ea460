"""Scaffold-GS as a LightningModule."""

from __future__ import annotations

from zoo.registry import register_model
from zoo.splatting.momentum_gs.reconstruction import BlockReconstruction
from zoo.splatting.scaffold_gs.network import Raster


@register_model("splatting/scaffold-gs")
class ScaffoldGS(BlockReconstruction):
    """A whole scene as one block of anchors with a decoder: on any scene, and the single-block rival of Momentum-GS.

    Args:
        feat_dim, n_offsets, add_opacity_dist, add_cov_dist, add_color_dist, appearance_dim, appearances, use_feat_bank,
            voxel_size, ratio, radius, grow_start, grow_stop, grow_interval, grow_gradient, grow_success,
            grow_min_opacity, grow_levels, grow_init_factor, grow_hierarchy_factor, grow_cap, lr_offset, lr_anchor_feat,
            lr_scaling, lr_mlp_opacity, lr_mlp_cov, lr_mlp_color, lr_mlp_feature_bank, lr_embedding_appearance,
            lr_decay, ssim_weight, volume_weight, raster, near_plane: see
            `zoo.splatting.momentum_gs.module.MomentumGS`.
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
        voxel_size: float = 1e-4,
        ratio: int = 1,
        radius: float | None = None,
        grow_start: int = 500,
        grow_stop: int = 15_000,
        grow_interval: int = 25,
        grow_gradient: float = 2e-4,
        grow_success: float = 0.8,
        grow_min_opacity: float = 0.005,
        grow_levels: int = 3,
        grow_init_factor: int = 128,
        grow_hierarchy_factor: int = 4,
        grow_cap: int | None = None,
        lr_offset: tuple[float, float] = (0.01, 1e-4),
        lr_anchor_feat: float = 0.0075,
        lr_scaling: float = 0.007,
        lr_mlp_opacity: tuple[float, float] = (0.002, 2e-5),
        lr_mlp_cov: tuple[float, float] = (0.004, 0.004),
        lr_mlp_color: tuple[float, float] = (0.008, 5e-5),
        lr_mlp_feature_bank: tuple[float, float] = (0.01, 1e-5),
        lr_embedding_appearance: tuple[float, float] = (0.05, 5e-4),
        lr_decay: float = 1.0,
        ssim_weight: float = 0.2,
        volume_weight: float = 0.01,
        raster: Raster = "zoo",
        near_plane: float = 0.01,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._build(
            feat_dim=feat_dim,
            n_offsets=n_offsets,
            add_opacity_dist=add_opacity_dist,
            add_cov_dist=add_cov_dist,
            add_color_dist=add_color_dist,
            appearance_dim=appearance_dim,
            appearances=appearances,
            use_feat_bank=use_feat_bank,
        )
