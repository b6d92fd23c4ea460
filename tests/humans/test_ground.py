"""Rotations, bodies, joints, cameras, metrics: the ground of the human models."""

from __future__ import annotations

import pickle
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.goldens import load, load_json
from tests.humans.bodies import SYSTEM, error, tiny_arrays, tiny_body
from zoo.errors import ConfigError, DataError, UnknownNameError
from zoo.humans import cameras, joints, metrics, rotations, smpl_file
from zoo.humans.body import Body, load_body, pose_matrices
from zoo.humans.joint_body import JointBody, JointJacobian, spin_joints
from zoo.humans.meshes import read_mesh, write_mesh
from zoo.humans.standin import extra_regressor, generate, h36m_regressor, standin_folder


class TestRotations:
    golden = load(SYSTEM, "geometry")

    def test_six_numbers(self) -> None:
        numbers = self.golden["rot6d_in"].requires_grad_()
        matrices = rotations.rot6d_to_rotmat(numbers)
        (matrices * self.golden["w"]).sum().backward()
        assert error(matrices, self.golden["rot6d_out"]) < 1e-5
        assert error(numbers.grad, self.golden["rot6d_grad"]) < 1e-5
        assert error(rotations.rot6d_to_rotmat(rotations.rotmat_to_rot6d(matrices)), matrices) < 1e-6

    def test_rotation_vectors(self) -> None:
        vectors = self.golden["aa"].requires_grad_()
        matrices = rotations.rotvec_to_rotmat(vectors)
        (matrices[1:] * self.golden["w"][1:]).sum().backward()
        assert error(matrices, self.golden["rodrigues_quat_out"]) < 1e-5
        assert error(matrices, self.golden["rodrigues_smplx_out"]) < 1e-5
        assert error(vectors.grad, self.golden["rodrigues_quat_grad"]) < 1e-5
        back = rotations.rotmat_to_rotvec(self.golden["rodrigues_smplx_out"])
        assert error(rotations.rotvec_to_rotmat(back), self.golden["rodrigues_smplx_out"]) < 1e-5

    def test_quaternions(self) -> None:
        assert error(rotations.quaternion_to_rotmat(self.golden["quat_in"]), self.golden["quat_out"]) < 1e-5

    def test_derivatives_at_zero_and_pi_are_finite(self) -> None:
        for angle in (0.0, 1e-9, torch.pi - 1e-7):
            vector = torch.tensor([[angle, 0.0, 0.0]], requires_grad=True)
            rotations.rotmat_to_rotvec(rotations.rotvec_to_rotmat(vector)).sum().backward()
            assert vector.grad is not None
            assert vector.grad.isfinite().all()

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.floats(-1.7, 1.7), min_size=3, max_size=3), st.lists(st.floats(-1, 1), min_size=3, max_size=3))
    def test_right_jacobian_is_the_derivative(self, vector: list[float], direction: list[float]) -> None:
        v, d = (torch.tensor(x, dtype=torch.float64) for x in (vector, direction))
        step = 1e-6
        moved = rotations.rotvec_to_rotmat(v).T @ rotations.rotvec_to_rotmat(v + step * d)
        numeric = (moved - moved.T)[[2, 0, 1], [1, 2, 0]] / (2 * step)
        assert torch.allclose(rotations.right_jacobian(v) @ d, numeric, atol=1e-5)


class TestBody:
    golden = load(SYSTEM, "smpl_tiny")

    def test_vertices_joints_and_gradients(self) -> None:
        given_ = [self.golden[name].clone().requires_grad_() for name in ("global_orient", "body_pose", "betas")]
        out = tiny_body()(*given_)
        ((out.vertices * self.golden["w_v"]).sum() + (out.joints * self.golden["w_j"]).sum()).backward()
        assert error(out.vertices, self.golden["vertices"]) < 2e-6
        assert error(out.joints, self.golden["joints45"]) < 2e-6
        for tensor, name in zip(given_, ("global_orient", "body_pose", "betas"), strict=True):
            assert error(tensor.grad, self.golden[f"grad_{name}"]) < 2e-6

    def test_matrices_and_translation(self) -> None:
        rotmats = self.golden["rotmats"]
        assert error(pose_matrices(self.golden["global_orient"], self.golden["body_pose"]), rotmats) < 2e-6
        out = tiny_body()(rotmats[:, :1], rotmats[:, 1:], self.golden["betas"], self.golden["transl"])
        assert error(out.vertices, self.golden["vertices_transl"]) < 2e-6
        assert error(out.joints, self.golden["joints45_transl"]) < 2e-6

    def test_joints_without_the_mesh(self) -> None:
        pose = (self.golden["global_orient"], self.golden["body_pose"], self.golden["betas"])
        few = spin_joints(tiny_body(), self.golden["J_regressor_extra"])
        assert error(few(*pose), self.golden["joints49"]) < 2e-6

    def test_rows_whose_signs_cancel(self) -> None:
        """A row that sums to zero on a bone, such as the vector between two vertices that move with it."""
        arrays = tiny_arrays()
        stiff = np.zeros_like(arrays.weights)
        stiff[:, 4] = 1.0
        body = Body(replace(arrays, weights=stiff), load_json(SYSTEM, "vertex_ids"))
        rows = torch.zeros(1, len(stiff))
        rows[0, 3], rows[0, 8] = 1.0, -1.0
        pose = (self.golden["global_orient"], self.golden["body_pose"], self.golden["betas"])
        vertices = body(*pose).vertices
        assert error(JointBody(body, rows)(*pose)[:, -1], vertices[:, 3] - vertices[:, 8]) < 2e-6

    def test_a_small_body_needs_its_own_vertices(self) -> None:
        with pytest.raises(ConfigError, match="vertex_ids"):
            Body(tiny_arrays())
        with pytest.raises(ConfigError, match="lacks reye, leye"):
            Body(tiny_arrays(), {"nose": 1})
        with pytest.raises(ConfigError, match="no gender 'woman'"):
            load_body(gender="woman")


class TestStandIn:
    def test_counts_topology_and_size(self) -> None:
        body = generate()["neutral"]
        vertices, faces = body["v_template"].astype(float), body["f"].astype(int)
        assert vertices.shape == (6890, 3)
        assert faces.shape == (13776, 3)
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        directed = {tuple(edge) for edge in edges}
        assert len(directed) == len(edges)
        assert all((b, a) in directed for a, b in directed)  # closed and oriented: Euler number 2 by the counts
        corner = vertices[faces]
        volume = np.einsum("fi,fi->f", corner[:, 0], np.cross(corner[:, 1], corner[:, 2])).sum() / 6
        assert volume == pytest.approx(0.073, abs=0.001)
        mirrored = {tuple(p) for p in np.round(vertices * [-1, 1, 1], 5) + 0.0}
        assert mirrored == {tuple(p) for p in np.round(vertices, 5) + 0.0}

    def test_weights_and_regressors(self) -> None:
        body = generate()["neutral"]
        assert np.allclose(body["weights"].sum(1), 1, atol=1e-5)
        assert ((body["weights"] > 0).sum(1) <= 4).all()
        for name in ("J_regressor", "J_regressor_extra", "J_regressor_h36m"):
            assert np.allclose(body[name].sum(1), 1, atol=1e-4)
        expected = np.array([[0.083, -0.31, 0], [0.44, 0.215, -0.03], [0.0, 0.285, -0.02]])
        assert np.allclose(body["J"][[1, 18, 12]], expected, atol=1e-3)

    def test_extreme_shapes_do_not_fold(self) -> None:
        body = load_body()
        betas = torch.cat([3 * torch.eye(10), -3 * torch.eye(10)])
        vertices = body(torch.zeros(20, 3), torch.zeros(20, 69), betas).vertices
        corner = vertices[:, body.faces]
        area = torch.linalg.cross(corner[:, :, 1] - corner[:, :, 0], corner[:, :, 2] - corner[:, :, 0]).norm(dim=-1)
        assert area.min() > 1e-6
        heights = vertices[..., 1].amax(1) - vertices[..., 1].amin(1)
        assert heights.min() > 1.4
        assert heights.max() < 2.1

    def test_smplx_takes_it_and_agrees(self) -> None:
        smplx = pytest.importorskip("smplx")
        theirs = smplx.SMPL(str(standin_folder()), gender="female", batch_size=3)
        ours = load_body(gender="female")
        generator = torch.Generator().manual_seed(0)
        pose, betas = (torch.randn(3, n, generator=generator) * 0.4 for n in (72, 10))
        reference = theirs(global_orient=pose[:, :3], body_pose=pose[:, 3:], betas=betas)
        out = ours(pose[:, :3], pose[:, 3:], betas)
        assert error(out.vertices, reference.vertices) < 2e-6
        assert error(out.joints, reference.joints) < 2e-6

    def test_fast_joints_equal_the_mesh_and_their_jacobian_autograd(self) -> None:
        body = load_body().double()
        rows = torch.cat([extra_regressor(), h36m_regressor()]).double()
        few = JointBody(body, rows)
        generator = torch.Generator().manual_seed(1)
        pose, betas = (0.5 * torch.randn(2, n, generator=generator, dtype=torch.float64) for n in (72, 10))
        out = body(pose[:, :3], pose[:, 3:], betas)
        full = torch.cat([out.joints[:, :24], rows @ out.vertices], 1)
        few = few.double()
        state = few.state(pose_matrices(pose[:, :3], pose[:, 3:]), betas)
        assert (state.joints - full).abs().max() < 1e-6
        jacobian = JointJacobian(few)(state, pose.unflatten(1, (-1, 3)))
        numbers = torch.cat([pose, betas], 1)
        numeric = torch.autograd.functional.jacobian(
            lambda x: few(x[:, :3], x[:, 3:72], x[:, 72:]).sum(0), numbers
        )  # (K, 3, B, numbers)
        assert (jacobian - numeric.permute(2, 0, 1, 3)).abs().max() < 1e-9
        root = JointJacobian(few).of_root(state, pose[:, :3])
        assert (root - jacobian[..., :3]).abs().max() < 1e-6  # regressors sum to 1 in single precision


class TestFiles:
    def official(self, **changes: Any) -> dict[str, Any]:
        arrays = tiny_arrays()
        kintree = np.stack([arrays.parents, np.arange(24)]).astype(np.uint32)
        names = ("v_template", "shapedirs", "posedirs", "weights", "f")
        fields = {name: getattr(arrays, name) for name in names}
        sparse = scipy.sparse.csc_matrix(arrays.J_regressor)
        return {**fields, "kintree_table": kintree, "J_regressor": sparse, "bs_style": "lbs", **changes}

    def test_pickles_without_chumpy_or_scipy(self, in_tmp: Path) -> None:
        """Classes of modules named chumpy.* hold arrays as chumpy's do; the sparse matrix is a real one."""
        modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering")}
        for module, name in (("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")):
            setattr(modules[module], name, type(name, (), {"__module__": module}))
        shapes = np.concatenate([tiny_arrays().shapedirs, np.zeros((60, 3, 5), np.float32)], 2)
        whole, part = modules["chumpy.ch"].Ch(), modules["chumpy.reordering"].Select()
        whole.__dict__["x"] = shapes
        indices = np.arange(shapes.size).reshape(shapes.shape)[:, :, :10].ravel()
        part.__dict__.update(a=whole, idxs=indices, preferred_shape=(60, 3, 10))
        with pytest.MonkeyPatch.context() as patch:
            for name, module in modules.items():
                patch.setitem(sys.modules, name, module)
            Path("SMPL_NEUTRAL.pkl").write_bytes(pickle.dumps(self.official(shapedirs=part), protocol=2))
        read = smpl_file.load_smpl(".")
        for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "f", "parents"):
            assert np.array_equal(getattr(read, name), getattr(tiny_arrays(), name)), name
        smpl_file.convert_smpl("SMPL_NEUTRAL.pkl", "small.npz")
        assert np.array_equal(smpl_file.load_smpl("small.npz").shapedirs, tiny_arrays().shapedirs)

    def test_a_pickle_that_runs_code_is_refused(self, in_tmp: Path) -> None:
        class Bad:
            def __reduce__(self) -> Any:
                return (Path("hacked").touch, ())

        Path("SMPL_MALE.pkl").write_bytes(pickle.dumps(self.official(f=Bad()), protocol=2))
        with pytest.raises(DataError, match="not allowed"):
            smpl_file.load_smpl(".", "male")
        assert not Path("hacked").exists()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"weights": np.ones((60, 23))}, "posedirs has the shape"),
            ({"v_template": np.ones((61, 3))}, "v_template has the shape"),
            ({"shapedirs": np.ones((60, 3, 4))}, "does not give 10 shape coefficients"),
        ],
    )
    def test_wrong_shapes_are_named(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            smpl_file.from_dict(self.official(**changes))

    def test_absent_files_are_named(self, in_tmp: Path) -> None:
        with pytest.raises(DataError, match=r"SMPL_NEUTRAL.pkl nor SMPL_NEUTRAL.npz"):
            smpl_file.load_smpl(".")
        Path("SMPL_NEUTRAL.pkl").write_bytes(b"nothing")
        with pytest.raises(DataError, match="can't be read as a body model"):
            smpl_file.load_smpl(".")

    @pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
    def test_meshes_come_back(self, in_tmp: Path, suffix: str) -> None:
        arrays = tiny_arrays()
        path = Path(f"m.{suffix}")
        write_mesh(path, arrays.v_template, arrays.f)
        vertices, faces = read_mesh(path)
        assert np.allclose(vertices[faces], arrays.v_template[arrays.f], atol=1e-5)
        with pytest.raises(DataError, match="should end in"):
            write_mesh(Path("m.txt"), arrays.v_template, arrays.f)


class TestJoints:
    def test_conventions_fit_together(self) -> None:
        sources = [joints.SPIN_SOURCES[k] for k in joints.SPIN_49_SOURCES]
        renamed = {"neck": "neck", "pelvis": "mid_hip"}
        assert [renamed.get(name, name) for name in sources[:25]] == list(joints.BODY_25)
        assert tuple(sources[25:]) == joints.SUPERSET_24
        for flip, names in (
            (joints.SMPL_FLIP, joints.SMPL_24),
            (joints.BODY_25_FLIP, joints.BODY_25),
            (joints.SUPERSET_FLIP, joints.SUPERSET_24),
        ):
            swapped = [n.replace("left", "L").replace("right", "left").replace("L", "right") for n in names]
            assert [names[k] for k in flip] == swapped

    def test_flips(self) -> None:
        golden = load(SYSTEM, "imutils")
        assert error(joints.flip_pose(golden["pose"]), golden["pose_flip"]) < 1e-6
        for name in ("kp24", "kp49"):
            assert error(joints.flip_keypoints(golden[name]), golden[f"{name}_flip"]) < 1e-4

    def test_other_sets_reach_the_right_places(self) -> None:
        coco = torch.arange(17.0)[:, None].expand(17, 3)
        spin = joints.to_spin_49(coco, "coco-17")
        names = dict(zip(joints.SPIN_49, spin[:, 2].tolist(), strict=True))
        assert names["left_wrist"] == joints.COCO_17.index("left_wrist")
        assert names["right_hip_lsp"] == joints.COCO_17.index("right_hip")
        mpii = joints.to_spin_49(torch.arange(16.0)[:, None].expand(16, 3), "mpii-16")
        names = dict(zip(joints.SPIN_49, mpii[:, 2].tolist(), strict=True))
        wanted = ("pelvis_mpii", "thorax_mpii", "neck_lsp", "head_top", "right_wrist", "left_wrist", "left_ankle")
        assert [names[name] for name in wanted] == [6, 7, 8, 9, 10, 15, 5]
        body = torch.arange(1.0, 26)[:, None].expand(25, 3)
        spin = joints.to_spin_49(body, "body-25")
        assert torch.equal(spin[:25], body)
        assert spin[joints.SPIN_49.index("left_knee"), 0] == 1 + joints.BODY_25.index("left_knee")
        with pytest.raises(UnknownNameError, match="coco-17"):
            joints.to_spin_49(coco, "coco17")


class TestCameras:
    golden = load(SYSTEM, "geometry")

    def test_projection_and_gradients(self) -> None:
        points, shift = (self.golden[f"persp_{n}"].clone().requires_grad_() for n in ("points", "trans"))
        out = cameras.perspective_projection(
            points, self.golden["persp_rot"], shift, 5000.0, self.golden["persp_centre"]
        )
        (out * self.golden["persp_w"]).sum().backward()
        assert error(out, self.golden["persp_out"]) < 1e-5
        assert error(points.grad, self.golden["persp_points_grad"]) < 1e-5
        assert error(shift.grad, self.golden["persp_trans_grad"]) < 1e-5

    def test_least_squares_camera(self) -> None:
        found, seen = cameras.estimate_translation(self.golden["est_S"][:, 25:], self.golden["est_joints2d"][:, 25:])
        assert seen.all()
        assert error(found, self.golden["est_out"]) < 2e-3
        blind = self.golden["est_joints2d"][:, 25:].clone()
        blind[..., 2] = 0
        fallback, seen = cameras.estimate_translation(self.golden["est_S"][:, 25:], blind)
        assert not seen.any()
        assert fallback.isfinite().all()

    @settings(max_examples=20, deadline=None)
    @given(st.floats(0.5, 1.2), st.floats(-0.3, 0.3), st.floats(100, 900), st.floats(300, 3000))
    def test_full_image_camera_shows_the_crop(self, s: float, tx: float, cx: float, focal: float) -> None:
        """The pelvis falls on the same pixel of the picture through either camera."""
        camera, centre, side = torch.tensor([[s, tx, 0.1]]), torch.tensor([[cx, 200.0]]), torch.tensor([300.0])
        size, origin = torch.tensor([1000.0, 600.0]), torch.zeros(1, 1, 3)
        full = cameras.full_image_translation(camera, centre, side, size, focal)
        in_full = cameras.perspective_projection(origin, None, full, focal, size / 2)
        crop = cameras.perspective_projection(
            origin, None, cameras.crop_translation(camera), 5000.0, torch.tensor([112.0, 112.0])
        )
        expected = centre + (crop - 112) * side / 224
        assert torch.allclose(in_full, expected, atol=0.05)

    def test_conventions(self) -> None:
        points = torch.tensor([[1.0, 2.0, 3.0]])
        assert cameras.to_convention(points, "opengl").tolist() == [[1.0, -2.0, -3.0]]
        assert cameras.to_convention(points, "pytorch3d").tolist() == [[-1.0, -2.0, 3.0]]


class TestMetrics:
    golden = load(SYSTEM, "procrustes")

    def test_procrustes(self) -> None:
        source, target = self.golden["S1"], self.golden["S2"]
        assert error(metrics.procrustes(source, target), self.golden["S1_hat"]) < 1e-5
        aligned = metrics.point_errors(source, target, "procrustes").mean(1)
        assert error(aligned, self.golden["recon_err"]) < 1e-5
        assert error(metrics.point_errors(source, target, "none").mean(1), self.golden["mpjpe"]) < 1e-5

    def test_batches_add_up(self) -> None:
        source, target = self.golden["S1"], self.golden["S2"]
        whole, parts = metrics.MeanPointError("procrustes"), metrics.MeanPointError("procrustes")
        whole.update(source, target)
        for k in range(6):
            parts.update(source[k : k + 1], target[k : k + 1])
        assert float(whole.compute()) == pytest.approx(float(parts.compute()), rel=1e-5)
        assert float(whole.compute()) == pytest.approx(1000 * float(self.golden["recon_err"].mean()), rel=1e-4)

    def test_pck_and_auc(self) -> None:
        target = torch.zeros(1, 3, 3)
        prediction = torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0]]])
        pck, auc = metrics.PCK(0.15, alignment="none"), metrics.PCK(0.15, 31, alignment="none")
        pck.update(prediction, target)
        auc.update(prediction, target)
        assert float(pck.compute()) == pytest.approx(2 / 3)
        assert float(auc.compute()) == pytest.approx((30 / 31 + 10 / 31 + 0) / 3, abs=0.02)

    def test_a_steady_drift_has_no_acceleration(self) -> None:
        path = torch.arange(5.0)[:, None, None] * torch.ones(5, 2, 3)
        assert float(metrics.acceleration_error(path, torch.zeros(5, 2, 3))) == pytest.approx(0, abs=1e-6)
