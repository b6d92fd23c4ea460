"""SMPLify: its terms, its solvers, its files."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from tests.goldens import load
from tests.humans.bodies import SYSTEM, error, golden_prior, tiny_body, tiny_solver
from zoo.data.bodies import draw_people
from zoo.errors import ConfigError, DataError
from zoo.humans.metrics import point_errors
from zoo.humans.smplify import objective
from zoo.humans.smplify.module import to_pixels
from zoo.humans.smplify.prior import MaxMixturePrior, angle_terms, load_prior
from zoo.humans.smplify.solver import SMPLify


class TestTerms:
    golden = load(SYSTEM, "smplify_losses")

    def test_prior(self) -> None:
        pose = self.golden["body_pose"].clone().requires_grad_()
        prior = golden_prior()
        energy = prior(pose)
        energy.sum().backward()
        assert error(energy, self.golden["prior_value"]) < 1e-4
        assert error(pose.grad, self.golden["prior_grad"]) < 1e-4
        value, gradient, hessian = prior.quadratic(pose.detach())
        assert error(value, self.golden["prior_value"]) < 1e-4
        assert error(gradient, self.golden["prior_grad"]) < 1e-4
        assert torch.allclose(hessian, hessian.transpose(1, 2), atol=1e-3)

    def test_robust_error_and_angles(self) -> None:
        assert error(objective.gmof(self.golden["gmof_in"], 100.0), self.golden["gmof_out"]) < 1e-4
        assert error(angle_terms(self.golden["body_pose"]), self.golden["angle_prior_out"]) < 1e-4

    def test_camera_stage(self) -> None:
        joints, shift = (self.golden[n].clone().requires_grad_() for n in ("model_joints", "cam_t"))
        arguments = (self.golden["cam_t_est"], self.golden["cam_centre"], self.golden["keypoints2d"])
        loss = objective.camera_energy(joints, shift, *arguments).sum()
        loss.backward()
        assert error(loss, self.golden["camera_loss"]) < 1e-4
        assert error(joints.grad, self.golden["camera_grad_joints"]) < 1e-4
        assert error(shift.grad, self.golden["camera_grad_cam_t"]) < 1e-4

    def test_body_stage(self) -> None:
        names = ("body_pose", "betas", "model_joints")
        pose, betas, joints = (self.golden[n].clone().requires_grad_() for n in names)
        place = (self.golden["cam_t"], self.golden["cam_centre"], self.golden["keypoints2d"])
        loss = objective.body_energy(pose, betas, joints, *place, golden_prior()).sum()
        loss.backward()
        assert error(loss, self.golden["body_loss"]) < 1e-4
        for tensor, name in ((pose, "pose"), (betas, "betas"), (joints, "joints")):
            assert error(tensor.grad, self.golden[f"body_grad_{name}"]) < 1e-4
        assert error(objective.reprojection(joints, *place), self.golden["reproj_per_joint"]) < 1e-4

    def test_a_camera_without_torso_uses_what_there_is(self) -> None:
        keypoints = torch.ones(2, 49, 3)
        keypoints[0, [*objective.OPENPOSE_TORSO, *objective.SUPERSET_TORSO], 2] = 0
        weights = objective.camera_weights(keypoints, "visible")
        assert (weights[0] > 0).sum() == 41
        assert (weights[1] > 0).sum() == 8


class TestSolvers:
    golden = load(SYSTEM, "smplify_run")

    def arguments(self) -> tuple[torch.Tensor, ...]:
        return tuple(
            self.golden[n].clone() for n in ("init_pose", "init_betas", "init_cam_t", "keypoints2d", "cam_centre")
        )

    def test_the_original_run(self) -> None:
        fit = tiny_solver()(*self.arguments())
        for name, ours in (("pose", fit.pose), ("betas", fit.betas), ("cam_t", fit.translation)):
            assert error(ours, self.golden[f"out_{name}"]) < 3e-4
        assert error(fit.reprojection, self.golden["out_reproj"]) < 3e-4
        assert error(tiny_solver().posed(fit.pose, fit.betas), self.golden["out_joints"]) < 3e-4
        vertices = tiny_body()(fit.pose[:, :3], fit.pose[:, 3:], fit.betas).vertices
        assert error(vertices, self.golden["out_vertices"]) < 3e-4

    def test_loss_of_given_bodies(self) -> None:
        pose, betas, shift, keypoints, centre = self.arguments()
        before = keypoints.clone()
        loss = tiny_solver().fitting_loss(pose, betas, shift, keypoints, centre)
        assert error(loss, self.golden["fitting_loss_init"]) < 3e-4
        assert torch.equal(keypoints, before)  # the original zeroed confidences in the caller's tensor

    @pytest.mark.parametrize("optimizer", ["adam", "gauss-newton"])
    def test_examples_are_independent(self, optimizer: Any) -> None:
        solver = tiny_solver(6, optimizer)
        whole = solver(*self.arguments())
        alone = solver(*(a[1:2] for a in self.arguments()))
        assert error(whole.pose[1:2], alone.pose) < 1e-4

    def test_second_order_goes_where_adam_goes(self) -> None:
        """20 damped Gauss-Newton steps reach below 200 of Adam's, from the same start."""
        adam = tiny_solver(200)(*self.arguments())
        newton = tiny_solver(20, "gauss-newton")(*self.arguments())
        assert (newton.energy < adam.energy + 1.0).all()
        lbfgs = tiny_solver(60, "lbfgs")(*self.arguments())
        assert lbfgs.energy.sum() < tiny_solver(20)(*self.arguments()).energy.sum()

    def test_gauss_newton_ends_where_the_gradient_vanishes(self) -> None:
        pose, betas, shift, keypoints, centre = self.arguments()
        solver = tiny_solver(80, "gauss-newton")
        fit = solver(pose, betas, shift, keypoints, centre)
        numbers = torch.cat([fit.pose, fit.betas], 1).requires_grad_()
        start = torch.cat([pose, betas], 1).requires_grad_()
        sizes = []
        for at in (start, numbers):
            joints = solver.joints(at[:, :3], at[:, 3:72], at[:, 72:])
            masked = objective.ignore_joints(keypoints)
            energy = objective.body_energy(
                at[:, 3:72], at[:, 72:], joints, fit.translation, centre, masked, solver.prior
            )
            sizes.append(torch.autograd.grad(energy.sum(), at)[0].norm(dim=1))
        assert (sizes[1] < 0.02 * sizes[0]).all()


class TestPrior:
    def test_em_finds_clusters(self) -> None:
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(3, 69, generator=generator)
        poses = (centres[:, None] + torch.randn(3, 400, 69, generator=generator)).flatten(0, 1)
        prior = MaxMixturePrior(3)
        losses = [float(prior.em_step(poses)) for _ in range(15)]
        assert losses[-1] < losses[0]
        assert all(b <= a + 1e-3 for a, b in pairwise(losses))  # EM never goes back
        assert torch.cdist(centres, prior.means).amin(1).max() < 0.8  # 69 numbers off by 0.05 each: 0.42
        assert torch.allclose(prior.weights, torch.full((3,), 1 / 3), atol=0.05)

    def test_official_file(self, in_tmp: Path) -> None:
        import pickle

        golden = load(SYSTEM, "smplify_losses")
        content = {name: golden[f"gmm_{name}"].double().numpy() for name in ("means", "covars", "weights")}
        Path("gmm_08.pkl").write_bytes(pickle.dumps(content, protocol=2))
        prior = load_prior("gmm_08.pkl")
        assert error(prior(golden["body_pose"]), golden["prior_value"]) < 1e-4
        np.savez("bad.npz", means=np.zeros((8, 69)), covars=np.zeros((8, 69)), weights=np.zeros(8))
        with pytest.raises(DataError, match="no mixture's"):
            load_prior("bad.npz")
        with pytest.raises(DataError, match="There is no file"):
            load_prior("none.npz")
        flat = {"means": np.zeros((8, 69)), "covars": np.zeros((8, 69, 69)), "weights": np.full(8, 0.125)}
        np.savez("bad.npz", **flat)
        with pytest.raises(DataError, match="no inverse"):
            load_prior("bad.npz")
        with pytest.raises(ConfigError, match="of 60 numbers, expected the 69"):
            SMPLify(tiny_solver().joints, MaxMixturePrior(8, 60))


@pytest.fixture(scope="module")
def module() -> Any:
    return zoo.load_pretrained("humans/smplify-activities")


class TestFitting:
    def test_people_are_fitted(self, module: Any) -> None:
        """Better than the mean pose by a quarter, and several starts better than one."""
        people = draw_people(24, 77, yaw=80.0)
        keypoints = to_pixels(torch.from_numpy(people.keypoints))
        truth = module.evaluation_joints(torch.from_numpy(people.pose), torch.from_numpy(people.betas))
        solver: SMPLify = module.network

        def pa_error(pose: torch.Tensor, betas: torch.Tensor) -> float:
            found = module.evaluation_joints(pose, betas)
            return 1000 * float(point_errors(found, truth, "procrustes").mean())

        start = solver.start(keypoints)
        one = solver.from_scratch(keypoints)
        three = solver.from_scratch(keypoints, (0.0, -65.0, 65.0))
        errors = [pa_error(*start[:2]), pa_error(one.pose, one.betas), pa_error(three.pose, three.betas)]
        assert errors[1] < 0.75 * errors[0], errors
        assert errors[2] < 0.95 * errors[1], errors
        assert (three.energy <= one.energy + 1e-3).all()

    def test_joints_in_space(self, module: Any) -> None:
        people = draw_people(8, 5)
        pose, betas = torch.from_numpy(people.pose), torch.from_numpy(people.betas)
        points = module.network.posed(pose, betas) + torch.tensor([1.0, 2.0, 3.0])
        confidence = torch.ones(8, 49)
        confidence[:, ::7] = 0
        fit = module.network.with_settings(25, "gauss-newton").fit_points(points, confidence)
        moved = module.network.posed(fit.pose, fit.betas) + fit.translation[:, None]
        assert (moved - points).norm(dim=-1).mean() < 0.02

    def test_missing_joints_and_no_joints_stay_finite(self, module: Any) -> None:
        keypoints = to_pixels(torch.from_numpy(draw_people(3, 6).keypoints))
        keypoints[0, ::2, 2] = 0
        keypoints[1, 6:, 2] = 0
        keypoints[2, :, 2] = 0
        fit = module.network.from_scratch(keypoints)
        assert fit.pose.isfinite().all()
        assert fit.translation.isfinite().all()


class TestPredict:
    def keypoints(self) -> np.ndarray:
        points = draw_people(1, 11).keypoints[0].copy()
        points[:, :2] = (points[:, :2] + 1) * 150 + np.array([60, 20])
        return points

    def test_openpose_and_coco(self, module: Any, in_tmp: Path) -> None:
        points = self.keypoints()
        openpose = {"people": [{"pose_keypoints_2d": points[:25].ravel().tolist()}]}
        Path("a.json").write_text(json.dumps(openpose))
        facts = module.predict_file(Path("a.json"), Path("out.json"))
        assert facts["people"] == 1
        [person] = json.loads(Path("out.json").read_text())
        assert len(person["pose"]) == 72
        # Seen through its own camera, the body's superset joints lie on the keypoints.
        joints, focal = np.array(person["joints"]), person["focal"]
        centre = 0.5 * np.array([2 * x for x in _box_centre(points[:25])]).round()
        seen = focal * joints[:, :2] / joints[:, 2:] + centre
        assert np.abs(seen[:25] - points[:25, :2]).mean() < 6

        from zoo.humans.joints import COCO_TO_SUPERSET

        coco = points[[25 + k for k in COCO_TO_SUPERSET]]
        coco[:, 2] = 2
        entry = {"image_id": 1, "keypoints": coco.ravel().tolist()}
        Path("b.json").write_text(json.dumps({"annotations": [entry, entry]}))
        assert module.predict_file(Path("b.json"), Path("mesh.obj"))["people"] == 2
        assert Path("mesh.obj").read_text().count("\nv ") >= 2 * 6890 - 1

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("not json", "can't be read as JSON"),
            ("[]", "shows nobody"),
            ('{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', "has 3 numbers, expected 75"),
            (json.dumps([[0.0] * 51]), "shows nobody"),
        ],
    )
    def test_bad_files_are_named(self, module: Any, in_tmp: Path, content: str, message: str) -> None:
        Path("a.json").write_text(content)
        with pytest.raises(DataError, match=message):
            module.predict_file(Path("a.json"), Path("out.json"))
        with pytest.raises(DataError, match=r"should end in .json, .png"):
            module.predict_file(Path("a.json"), Path("out.txt"))
        assert not Path("out.json").exists()


def _box_centre(points: np.ndarray) -> np.ndarray:
    return 0.5 * (points[:, :2].min(0) + points[:, :2].max(0))


def test_the_shipped_weights_reproduce_their_record(module: Any) -> None:
    """On the first 48 of the 128 test people: the recorded mean within what a part of them can differ."""
    from zoo.pretrained import get_entry

    entry = get_entry("humans/smplify-activities")
    data = zoo.create_data("humans/keypoints", test_size=128, batch_size=48)
    batch = next(iter(data.test_dataloader()))
    fit = module(to_pixels(batch["keypoints"]))
    found = module.evaluation_joints(fit.pose, fit.betas)
    errors = point_errors(found, module.evaluation_joints(batch["pose"], batch["betas"]), "procrustes")
    assert 1000 * float(errors.mean()) == pytest.approx(entry.metrics["test/pa_mpjpe"], rel=0.2)
    assert entry.size < 4_000_000


def test_the_config_trains_draws_and_predicts(in_tmp: Path) -> None:
    from zoo.config import compose
    from zoo.engine.loggers import read_metrics
    from zoo.engine.run import train

    quiet = ["callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}"]
    sizes = ["data.poses=600", "data.val_size=4", "data.test_size=12", "trainer.max_epochs=6", "model.yaws=[0.0]"]
    summary = train(compose("humans/smplify", [*quiet, *sizes, "run_dir=run"]))
    losses = [row["train/nll"] for row in read_metrics(Path("run")) if "train/nll" in row]
    assert losses[-1] < losses[0] - 0.3  # the first step already starts from the nearest means
    assert summary["metrics"]["test/pa_mpjpe"] < 130  # the mean pose is at 140
    assert {"fits", "training"} <= {path.stem for path in Path("run/figures").glob("*.png")}
