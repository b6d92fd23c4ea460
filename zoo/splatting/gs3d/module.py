"""3DGS with both of its densification strategies as a LightningModule."""

from __future__ import annotations

from typing import Literal

import numpy as np

from zoo.data.scene_views import Scene
from zoo.ops.rasterize import RasterizeMode
from zoo.registry import register_model
from zoo.splatting.gaussians import Rows, rows_from_points
from zoo.splatting.reconstruction import Reconstruction
from zoo.splatting.strategies import MCMC, Densify, Strategy

Densification = Literal["adc", "mcmc", "none"]


@register_model("splatting/3dgs")
class GaussianSplatting(Reconstruction):
    """Gaussians from a sparse cloud, more of them while they are optimised.

    Args:
        densification: ``"adc"``, adaptive density control; ``"mcmc"``, relocation and noise; ``"none"``.
        cap: number of Gaussians at which growth stops; None for no limit (adc only).
        grow_grad2d, absgrad, grow_scale3d, prune_scale3d: of adc, see `zoo.splatting.strategies.Densify`.
        start, stop, every, reset_every: steps of densification, see there.
        noise, opacity_weight, scale_weight: of mcmc, see `zoo.splatting.strategies.MCMC`.
        init_opacity: of the first Gaussians.
        init_scale: factor on their widths, which are the distances to the nearest three.
        random_points: Gaussians drawn uniformly where a scene has no points.
        sh_degree, sh_every, lr_means, lr_means_final, lr_means_hold, lr_sh0, lr_shN, lr_opacities, lr_scales, lr_quats,
            ssim_weight, rasterize_mode, exposure, lr_exposure, lr_exposure_final, lpips_backbone, lpips_heads: see
            `zoo.splatting.reconstruction.Reconstruction`.
    """

    def __init__(
        self,
        densification: Densification = "adc",
        cap: int | None = None,
        grow_grad2d: float = 2e-4,
        absgrad: bool = False,
        grow_scale3d: float = 0.01,
        prune_scale3d: float = 0.1,
        start: int = 500,
        stop: int = 15_000,
        every: int = 100,
        reset_every: int = 3000,
        noise: float = 5e5,
        opacity_weight: float = 0.01,
        scale_weight: float = 0.01,
        init_opacity: float = 0.1,
        init_scale: float = 1.0,
        random_points: int = 100_000,
        sh_degree: int = 3,
        sh_every: int = 1000,
        lr_means: float = 1.6e-4,
        lr_means_final: float = 1.6e-6,
        lr_means_hold: int = 0,
        lr_sh0: float = 2.5e-3,
        lr_shN: float = 1.25e-4,
        lr_opacities: float = 0.05,
        lr_scales: float = 5e-3,
        lr_quats: float = 1e-3,
        ssim_weight: float = 0.2,
        rasterize_mode: RasterizeMode = "classic",
        exposure: bool = False,
        lr_exposure: float = 0.01,
        lr_exposure_final: float = 0.001,
        lpips_backbone: str | None = None,
        lpips_heads: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._build()

    def initial_rows(self, scene: Scene) -> Rows:
        """One Gaussian per sparse point; without points, of random places and colours."""
        points, colors = scene.points, scene.point_colors
        if len(points) < 2:
            generator = np.random.default_rng(0)
            count, reach = self.hparams["random_points"], 1.3 * scene.extent / 1.1
            points = scene.centres.mean(0) + generator.uniform(-reach, reach, (count, 3))
            colors = generator.integers(0, 256, (count, 3)).astype(np.uint8)
        own = self.hparams
        return rows_from_points(points, colors, own["init_opacity"], own["init_scale"], own["sh_degree"])

    def make_strategy(self, scene: Scene, steps: int) -> Strategy:
        """The one that `densification` names."""
        own = self.hparams
        schedule = {key: own[key] for key in ("start", "stop", "every")}
        if own["densification"] == "mcmc":
            extra = {key: own[key] for key in ("noise", "opacity_weight", "scale_weight")}
            return MCMC(cap=own["cap"] or 1_000_000, **extra, **schedule)
        if own["densification"] == "none":
            schedule["stop"] = 0
        growth = {
            key: own[key] for key in ("grow_grad2d", "grow_scale3d", "prune_scale3d", "reset_every", "absgrad", "cap")
        }
        return Densify(extent=scene.extent, **growth, **schedule)
