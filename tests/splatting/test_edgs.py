"""EDGS: triangulation, matching and both initialisations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.goldens import load
from zoo.data.procedural_scene import procedural_scene
from zoo.data.scene_views import look_at
from zoo.errors import ConfigError
from zoo.ops.plane_sweep import plane_sweep
from zoo.ops.spherical_harmonics import evaluate_sh
from zoo.splatting.edgs import official
from zoo.splatting.edgs.cameras import nearest_cameras, select_references
from zoo.splatting.edgs.initialisation import dense_cloud, fit_sh, spread, thin_out
from zoo.splatting.edgs.matching import PlaneSweepMatcher, RoMaMatcher, make_matcher
from zoo.splatting.edgs.triangulation import triangulate, triangulate_ndc


class TestTriangulation:
    @pytest.mark.parametrize(("kind", "tolerance"), [("exact", 1e-6), ("official", 1e-5)])
    def test_two_views(self, kind: str, tolerance: float) -> None:
        golden = load("splatting-edgs", "triangulate")
        cameras = (golden["P1"], golden["P2"], golden["ndc1"], golden["ndc2"])
        points, first, second = triangulate_ndc(*cameras, official=kind == "official")
        assert ((points - golden[f"{kind}_xyz"]).norm(dim=-1) / golden["depth1"]).max() < tolerance
        assert (first - golden[f"{kind}_err1"]).abs().max() < 1e-5
        assert (second - golden[f"{kind}_err2"]).abs().max() < 1e-5

    def views(self) -> tuple[torch.Tensor, torch.Tensor]:
        eyes = np.array([[0.0, -4, 0.5], [1.2, -3.8, 0.2], [-1.0, -3.9, 1.0]])
        viewmats = np.stack([look_at(eye, np.zeros(3), np.array([0.0, 0, 1])) for eye in eyes])
        K = np.array([[500.0, 0, 320], [0, 510.0, 240], [0, 0, 1]])
        return torch.from_numpy(viewmats), torch.from_numpy(np.repeat(K[None], 3, 0))

    def project(self, points: torch.Tensor, viewmats: torch.Tensor, Ks: torch.Tensor) -> torch.Tensor:
        image = torch.einsum(
            "nij,mnj->mni", Ks, torch.einsum("nij,mj->mni", viewmats[:, :3, :3], points) + viewmats[:, :3, 3]
        )
        return image[..., :2] / image[..., 2:]

    def test_exact_matches_give_exact_points(self) -> None:
        viewmats, Ks = self.views()
        points = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        pixels = self.project(points, viewmats, Ks)
        used = torch.ones(50, 3, dtype=torch.bool)
        used[:20, 2] = False
        pixels[:20, 2] = 1e6  # what does not count has no influence
        found = triangulate(pixels, used, viewmats, Ks)
        assert (found.points - points).abs().max() < 1e-6
        assert found.error.max() < 1e-4
        assert (found.depth > 0).all()
        assert found.parallax.min().rad2deg() > 5

    def test_the_last_step_lowers_the_reprojection_error_under_noise(self) -> None:
        viewmats, Ks = self.views()
        generator = torch.Generator().manual_seed(1)
        points = torch.randn(200, 3, generator=generator, dtype=torch.float64)
        pixels = self.project(points, viewmats, Ks) + torch.randn(200, 3, 2, generator=generator)
        found = triangulate(pixels, torch.ones(200, 3, dtype=torch.bool), viewmats, Ks)
        residual = (self.project(found.points, viewmats, Ks) - pixels).square().sum((1, 2))
        true = (self.project(points, viewmats, Ks) - pixels).square().sum((1, 2))
        assert (residual <= true + 1e-9).float().mean() > 0.99  # a least-squares minimum lies below the truth

    def test_behind_a_camera_and_without_parallax(self) -> None:
        viewmats, Ks = self.views()
        pixels = self.project(torch.tensor([[0.0, -8.0, 0.3]], dtype=torch.float64), viewmats, Ks)
        assert (triangulate(pixels, torch.ones(1, 3, dtype=torch.bool), viewmats, Ks).depth < 0).any()
        far = torch.tensor([[0.0, 4e3, 0.0]], dtype=torch.float64)
        found = triangulate(self.project(far, viewmats, Ks), torch.ones(1, 3, dtype=torch.bool), viewmats, Ks)
        assert found.parallax.rad2deg() < 0.1


def test_initialisation_is_the_official_one() -> None:
    golden = load("splatting-edgs", "edgs_init")
    viewmats = golden["w2c"].numpy()
    near = nearest_cameras(viewmats, 2)
    assert np.array_equal(near, golden["nearest"])
    assert select_references(viewmats, 3, seed=101) == golden["kmeans_selected"].tolist()
    tangents = [float(torch.tan(angle / 2)) for angle in golden["fov"]]
    for viewmat, expected in zip(golden["w2c"], golden["full_proj"], strict=True):
        assert torch.allclose(official.full_projection(viewmat, *tangents), expected, atol=1e-5)
    for place, reference in enumerate(golden["kmeans_selected"].tolist()):
        logits = golden["certainty_logit"][place], golden["certainty_low_logit"][place]
        certainty = official.to_image_size(official.attenuated_certainty(*logits), 48, 64)
        assert (official.sampling_weights(certainty) - golden["sample_prob"][place]).abs().max() < 1e-5
        rows, error = official.initialise(
            golden["images"][reference].numpy(),
            golden["sample_idx"][place].long(),
            official.reference_coordinates((40, 56), 48, 64),
            official.to_image_size(golden["flow"][place], 48, 64),
            golden["full_proj"][[reference, *near[reference]]],
            golden["camera_center"][reference],
        )
        own = slice(600 * place, 600 * place + 600)
        assert (rows["means"] - golden["xyz"][own]).abs().median() < 1e-5
        assert (rows["means"] - golden["xyz"][own]).abs().max() < 1e-3
        assert (error - golden["reproj_err"][place]).abs().max() < 1e-5
        assert torch.equal(rows["opacities"], golden["opacity"][own, 0].to(rows["opacities"]))
        assert (rows["scales"] - golden["log_scale"][own]).abs().max() < 1e-5
        assert ((rows["sh0"] - golden["f_dc"][own]).abs().amax((1, 2)) < 1e-5).float().mean() > 0.99


def test_more_references_than_cameras_and_equal_poses() -> None:
    viewmats = np.repeat(np.eye(4)[None], 4, 0)
    assert select_references(viewmats, 9) == [0, 1, 2, 3]
    assert nearest_cameras(viewmats, 9).shape == (4, 3)
    assert select_references(viewmats, 2)


class TestColours:
    @pytest.mark.parametrize("kind", ["over", "under"])
    def test_least_squares(self, kind: str) -> None:
        golden = load("splatting-edgs", "sh_fit")
        found = fit_sh(golden[f"{kind}_dirs"], golden[f"{kind}_rgb"])
        assert (found - golden[f"{kind}_sh"]).abs().max() < 1e-3

    def test_ridge_and_missing_observations(self) -> None:
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(5, 12, 3, generator=generator)
        true = torch.randn(5, 4, 3, generator=generator) * 0.2
        colors = evaluate_sh(directions, true.unsqueeze(1), 1) + 0.5
        used = torch.ones(5, 12, dtype=torch.bool)
        used[:, 8:] = False
        colors[:, 8:] = 100.0
        assert (fit_sh(directions, colors, 1, 1e-8, used) - true).abs().max() < 1e-4
        flat = fit_sh(directions, colors, 1, 1e6, used)
        assert flat[:, 1:].abs().max() < 1e-4
        mean = colors[:, :8].mean(1) - 0.5
        assert torch.allclose(flat[:, 0] * 0.28209479177387814, mean.to(flat), atol=1e-3)


class TestSampling:
    def test_spread_is_even(self) -> None:
        mask = torch.ones(40, 60, dtype=torch.bool)
        chosen = spread(mask, 150, seed=0)
        assert len(set(chosen.tolist())) == 150
        cells = np.histogram2d(chosen // 60, chosen % 60, bins=(4, 6), range=((0, 40), (0, 60)))[0]
        assert cells.min() >= 3  # 6.25 on average; random sampling leaves such cells emptier

    def test_only_inside_the_mask(self) -> None:
        mask = torch.zeros(10, 10, dtype=torch.bool)
        mask[2:4, 5:8] = True
        assert sorted(spread(mask, 99, 0).tolist()) == [25, 26, 27, 35, 36, 37]

    def test_one_point_per_cell(self) -> None:
        generator = torch.Generator().manual_seed(0)
        points = torch.rand(500, 3, generator=generator, dtype=torch.float64)
        twice = torch.cat([points, points])
        footprint = torch.full((1000,), 1e-4, dtype=torch.float64)
        assert len(thin_out(twice, footprint, 10_000, 0)) == 500
        assert len(thin_out(twice, footprint, 100, 0)) == 100
        assert len(thin_out(twice, footprint * 1e5, 10_000, 0)) == 1


@pytest.fixture(scope="module")
def scene() -> Any:
    return procedural_scene(size=64, views=24, points=400)


class TestPlaneSweep:
    def test_the_kernel_agrees_with_the_reference(self) -> None:
        generator = torch.Generator().manual_seed(2)
        reference, *others = torch.nn.functional.interpolate(
            torch.rand(1, 4, 9, 12, generator=generator), (37, 51), mode="bicubic"
        )[0].clamp(0, 1)
        homographies = torch.eye(3).repeat(3, 1, 1) + 0.01 * torch.randn(3, 3, 3, generator=generator)
        homographies[:, 2] = torch.tensor([0.0, 0, 1])
        offsets = torch.tensor([[9.0, 1, 0.1], [-7.0, 2, 0], [1.0, -8, 0]])
        inverse = torch.linspace(0.1, 1.5, 20)
        arguments = (reference, torch.stack(others), homographies, offsets, inverse, 2)
        fast, score = plane_sweep(*arguments, implementation="compiled")
        slow, expected = plane_sweep(*arguments, implementation="reference")
        assert ((score - expected).abs() < 1e-3).float().mean() > 0.99
        assert ((fast - slow).abs() < 1e-2).float().mean() > 0.95

    def test_depth_is_found(self, scene: Any) -> None:
        matcher = PlaneSweepMatcher(scene)
        errors, kept = [], []
        for view in scene.train_indices:
            good = matcher.good[view]
            error = (matcher.depth[view] - torch.from_numpy(scene.depths[view])).abs() / matcher.depth[view]
            errors.append(error[good])
            kept.append(good.float().mean())
        assert torch.stack(kept).mean() > 0.25
        assert (torch.cat(errors) < 0.03).float().mean() > 0.65

    def test_the_cloud_keeps_its_budget_and_lies_on_surfaces(self, scene: Any) -> None:
        train = scene.train_indices
        near = nearest_cameras(scene.viewmats[train], 3)
        neighbours = {train[i]: [train[j] for j in row] for i, row in enumerate(near)}
        cloud = dense_cloud(scene, PlaneSweepMatcher(scene), train, neighbours, budget=1500)
        assert 500 < len(cloud.points) <= 1500
        assert cloud.error.max() < 1.0
        assert cloud.points.isfinite().all()
        height = cloud.points[cloud.points[:, :2].norm(dim=1) < 1.5, 2]
        assert ((height > -0.1) & (height < 1.0)).float().mean() > 0.9


class TestRoMa:
    def test_its_grid_is_taken_over(self) -> None:
        scene = procedural_scene(size=16, views=6, points=20)

        class Model:
            def match(self, first: Any, second: Any) -> tuple[torch.Tensor, torch.Tensor]:
                assert first.size == second.size == (16, 16)
                warp = torch.zeros(8, 16, 4)
                warp[:4, :8, 2] = 1.5  # outside the other image
                return warp, torch.full((8, 16), 0.9)

        found = RoMaMatcher(scene, Model()).match(1, [2, 3])
        assert found.warp.shape == (2, 8, 8, 2)
        assert (found.certainty[:, :4] == 0).all()
        assert (found.certainty[:, 4:] == 0.9).all()

    def test_a_missing_package_is_named(self) -> None:
        scene = procedural_scene(size=16, views=6, points=20)
        with pytest.raises(ConfigError, match="pip install romatch"):
            make_matcher("roma", scene, 100, 8)
