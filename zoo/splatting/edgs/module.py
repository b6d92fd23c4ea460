"""EDGS as a LightningModule."""

from __future__ import annotations

import time
from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure

from zoo.cli import console
from zoo.data.scene_views import Scene, ViewBatch
from zoo.errors import DataError
from zoo.ops.rasterize import RasterizeMode
from zoo.registry import register_model
from zoo.splatting.edgs import figures as edgs_figures
from zoo.splatting.edgs import official
from zoo.splatting.edgs.cameras import nearest_cameras, select_references
from zoo.splatting.edgs.initialisation import Cloud, dense_cloud
from zoo.splatting.edgs.matching import Matcher, MatcherName, make_matcher
from zoo.splatting.gaussians import Rows, make_rows, rows_from_points
from zoo.splatting.reconstruction import Reconstruction, Rendering
from zoo.splatting.strategies import Prune, Strategy


@register_model("splatting/edgs")
class EDGS(Reconstruction):
    """Gaussians from dense matches between neighbouring views, then optimised and pruned, never added.

    Args:
        version: ``"paper"``, the method of the paper's second version with correct triangulation; ``"official"``, what
            the published code does, its defects included.
        matcher: ``"plane-sweep"``, which needs nothing, or ``"roma"`` (package romatch and its weights).
        match_side: views with a longer side are matched at this many pixels (plane sweep).
        planes: depths that are tried (plane sweep).
        min_score: correlation that a depth needs (plane sweep).
        min_agreeing: neighbours whose depth must agree; 1 where there are few views (plane sweep).
        num_refs: reference views at most.
        nns_per_ref: neighbours that each is matched with.
        matches_per_ref: points drawn per reference (official); in the paper's version `budget` decides.
        budget: number of Gaussians from matches.
        scale_pixels: standard deviation of a new Gaussian in pixels of its reference.
        max_error: of the reprojection in pixels; a match with more is dropped.
        min_parallax: largest angle between the rays of a match, at least, in degrees.
        sh_fit_degree: the colours are fitted by harmonics up to it.
        sh_ridge: see `zoo.splatting.edgs.initialisation.fit_sh`.
        init_opacity: of the Gaussians from matches.
        scaling_factor, error_tolerance: of the official version.
        add_sfm: keep the sparse points as Gaussians beside the matches.
        prune_opacity, prune_every, fade, prune_stop: see `zoo.splatting.strategies.Prune`.
        sh_degree, sh_every, lr_means, lr_means_final, lr_means_hold, lr_sh0, lr_shN, lr_opacities, lr_scales, lr_quats,
            ssim_weight, rasterize_mode, exposure, lr_exposure, lr_exposure_final, lpips_backbone, lpips_heads: see
            `zoo.splatting.reconstruction.Reconstruction`.
    """

    def __init__(
        self,
        version: Literal["paper", "official"] = "paper",
        matcher: MatcherName = "plane-sweep",
        match_side: int = 480,
        planes: int = 96,
        min_score: float = 0.6,
        min_agreeing: int = 2,
        num_refs: int = 180,
        nns_per_ref: int = 3,
        matches_per_ref: int = 15_000,
        budget: int = 1_500_000,
        scale_pixels: float = 0.5,
        max_error: float = 1.0,
        min_parallax: float = 1.0,
        sh_fit_degree: int = 1,
        sh_ridge: float = 0.1,
        init_opacity: float = 0.5,
        scaling_factor: float = 0.001,
        error_tolerance: float = 0.01,
        add_sfm: bool = True,
        prune_opacity: float = 0.005,
        prune_every: int = 50,
        fade: float = 0.99,
        prune_stop: int = 15_000,
        sh_degree: int = 3,
        sh_every: int = 1000,
        lr_means: float = 1.6e-4,
        lr_means_final: float = 1.6e-6,
        lr_means_hold: int = 8000,
        lr_sh0: float = 2.5e-3,
        lr_shN: float = 1.25e-4,
        lr_opacities: float = 0.025,
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
        self.cloud: Cloud | None = None

    def initial_rows(self, scene: Scene) -> Rows:
        """Matches, triangulates and joins the sparse points.

        Raises:
            DataError: fewer than two training views, or nothing could be matched.
        """
        own = self.hparams
        train = scene.train_indices
        if len(train) < 2:
            raise DataError(f"EDGS matches views with each other; {scene.name} has {len(train)} to train on.")
        start = time.perf_counter()
        matcher = make_matcher(
            own["matcher"], scene, own["match_side"], own["planes"], own["min_score"], own["min_agreeing"]
        )
        matched = time.perf_counter()
        viewmats = scene.viewmats[train]
        near = nearest_cameras(viewmats, own["nns_per_ref"])
        neighbours = {train[i]: [train[j] for j in row] for i, row in enumerate(near)}
        references = [train[i] for i in select_references(viewmats, own["num_refs"])]
        if own["version"] == "official":
            rows = self._official_rows(scene, matcher, references, neighbours)
        else:
            rows = self._rows(scene, matcher, references, neighbours)
        console().print(
            f"EDGS: {len(rows['means']):,} Gaussians from {len(references)} views; "
            f"depth {matched - start:.1f} s, matches and points {time.perf_counter() - matched:.1f} s"
        )
        if own["add_sfm"] and len(scene.points) > 1:
            sparse = rows_from_points(scene.points, scene.point_colors, sh_degree=own["sh_degree"])
            rows = {name: torch.cat([value, sparse[name]]) for name, value in rows.items()}
        if len(rows["means"]) == 0:
            raise DataError(
                f"No matches were found in {scene.name}: the views overlap too little or the cameras are wrong. "
                "splatting/3dgs starts from sparse points instead."
            )
        return rows

    def _rows(self, scene: Scene, matcher: Matcher, references: list[int], neighbours: dict[int, list[int]]) -> Rows:
        own = self.hparams
        options = {key: own[key] for key in ("max_error", "min_parallax", "sh_degree", "sh_fit_degree", "sh_ridge")}
        self.cloud = cloud = dense_cloud(scene, matcher, references, neighbours, own["budget"], **options)
        scales = own["scale_pixels"] * cloud.footprint
        grey = torch.full((len(scales), 3), 0.5)
        rows = make_rows(cloud.points, grey, scales, own["init_opacity"], own["sh_degree"])
        return {**rows, "sh0": cloud.sh[:, :1], "shN": cloud.sh[:, 1:]}

    def _official_rows(
        self, scene: Scene, matcher: Matcher, references: list[int], neighbours: dict[int, list[int]]
    ) -> Rows:
        own = self.hparams
        generator = torch.Generator().manual_seed(228)
        parts: list[Rows] = []
        for reference in references:
            image = scene.images[reference]
            height, width = image.shape[:2]
            found = matcher.match(reference, neighbours[reference])
            weights = official.sampling_weights(official.to_image_size(found.certainty, height, width)).flatten()
            count = min(own["matches_per_ref"], int((weights > 0).sum()))
            if count == 0:
                continue
            index = torch.multinomial(weights, count, generator=generator)
            grid = (found.warp.shape[1], found.warp.shape[2])
            projections = []
            for view in (reference, *neighbours[reference]):
                rows, columns = scene.images[view].shape[:2]
                tangents = columns / (2 * scene.Ks[view, 0, 0]), rows / (2 * scene.Ks[view, 1, 1])
                projections.append(official.full_projection(torch.from_numpy(scene.viewmats[view]), *tangents))
            part, _ = official.initialise(
                image,
                index,
                official.reference_coordinates(grid, height, width),
                official.to_image_size(found.warp, height, width),
                torch.stack(projections),
                torch.from_numpy(scene.centres[reference]),
                own["error_tolerance"],
                own["scaling_factor"],
                own["sh_degree"],
            )
            parts.append({**part, "scales": part["scales"] + float(np.log(0.5))})
        if not parts:
            raise DataError(f"No matches were found in {scene.name}.")
        return {name: torch.cat([part[name] for part in parts]).float() for name in parts[0]}

    def make_strategy(self, scene: Scene, steps: int) -> Strategy:
        """Pruning only."""
        own = self.hparams
        return Prune(own["prune_opacity"], own["prune_every"], own["fade"], min(own["prune_stop"], steps // 2 + 1))

    def figures(self, batch: ViewBatch, output: Rendering) -> dict[str, Figure]:
        """Renders and Gaussians; the cloud that the training began with."""
        drawn = super().figures(batch, output)
        if self.cloud is not None:
            drawn["matches"] = edgs_figures.cloud(self.cloud, self.scene)
        return drawn
