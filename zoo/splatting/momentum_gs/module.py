"""Momentum-GS as a LightningModule."""

from __future__ import annotations

from zoo.registry import register_model
from zoo.splatting.momentum_gs.reconstruction import BlockReconstruction
from zoo.splatting.momentum_gs.training import DecoderOptimizer
from zoo.splatting.scaffold_gs.network import Raster


@register_model("splatting/momentum-gs")
class MomentumGS(BlockReconstruction):
    """Blocks of anchors trained in turns with one decoder, which a momentum teacher keeps from swinging.

    Args:
        feat_dim, n_offsets, add_opacity_dist, add_cov_dist, add_color_dist, appearance_dim, appearances, use_feat_bank:
            see `zoo.splatting.scaffold_gs.decoder.GaussianDecoder`.
        decoders: 1 for a shared decoder; the number of blocks for one each, which is the baseline without sharing.
        teacher_momentum: of the teacher, per step; 0 freezes it at the beginning.
        consistency: weight of the differences between student and teacher; 0 for no teacher.
        consistency_ramp: parts of the training between which that weight rises from 0; equal for none.
        detach_teacher: let no gradient reach the anchors through the teacher.
        weight_sigma: width in dB of the weights of blocks by quality; None for equal weights.
        weight_warmup: iterations of a block before they begin.
        decoder_optimizer: ``"shared"``, or ``"per_block"`` as officially.
        voxel_size: cells of the first anchors and unit of growth; 0 for the points' median distance.
        ratio: take every so many points only.
        crop_margin: begin a block with the points in its cell, widened by this part; None for all points.
        radius: unit of the offsets' learning rate; None for that of each block's cameras.
        grow_start, grow_stop, grow_interval, grow_gradient, grow_success, grow_min_opacity, grow_levels,
            grow_init_factor, grow_hierarchy_factor, grow_cap: see `zoo.splatting.scaffold_gs.growth.Growth`; no growth
            with a stop of 0.
        lr_offset, lr_anchor_feat, lr_scaling, lr_mlp_opacity, lr_mlp_cov, lr_mlp_color, lr_mlp_feature_bank,
            lr_embedding_appearance: see `zoo.splatting.momentum_gs.training.Rates`.
        lr_decay: part of the training over which they fall.
        ssim_weight, volume_weight: of the losses, see `zoo.splatting.momentum_gs.step.Weights`.
        max_resident: blocks on the device at once, see `zoo.splatting.momentum_gs.store.BlockStore`.
        spill: keep the others on disk and not in host memory.
        raster, near_plane: see `zoo.splatting.scaffold_gs.network.AnchorModel`.
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
        decoders: int = 1,
        teacher_momentum: float = 0.9,
        consistency: float = 50.0,
        consistency_ramp: tuple[float, float] = (0.0, 0.0),
        detach_teacher: bool = False,
        weight_sigma: float | None = 10.0,
        weight_warmup: int = 1000,
        decoder_optimizer: DecoderOptimizer = "shared",
        voxel_size: float = 1e-4,
        ratio: int = 1,
        crop_margin: float | None = None,
        radius: float | None = None,
        grow_start: int = 500,
        grow_stop: int = 30_000,
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
        lr_decay: float = 0.5,
        ssim_weight: float = 0.2,
        volume_weight: float = 0.01,
        max_resident: int = 2,
        spill: bool = False,
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
