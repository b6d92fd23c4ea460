"""Learnable SMPLify: bones, the network's symmetries, fitting, files, training, shipped weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import zoo
from tests.goldens import load
from tests.humans.test_learnable_smplify_network import SYSTEM, golden_network, rotations, tiny_body
from zoo.config import compose
from zoo.data.motion_pairs import MotionPairs, pairs_at_strides
from zoo.engine.run import train
from zoo.errors import ConfigError, DataError
from zoo.humans.body import Body, load_body
from zoo.humans.joints import BODY_25, COCO_17, SMPL_24
from zoo.humans.learnable_smplify import published
from zoo.humans.learnable_smplify.bones import Bones, batch_first, batch_last, body_25, orthonormal, target_bones
from zoo.humans.learnable_smplify.descent import Descent
from zoo.humans.learnable_smplify.export import export
from zoo.humans.learnable_smplify.figures import time_against_error
from zoo.humans.learnable_smplify.files import read_joints
from zoo.humans.learnable_smplify.fitting import Fitter
from zoo.humans.learnable_smplify.geometry import aligned_error
from zoo.humans.learnable_smplify.graph import BODY_25_TREE
from zoo.humans.learnable_smplify.keypoints import named_joints
from zoo.humans.learnable_smplify.module import LearnableSMPLify, default_regressor
from zoo.humans.learnable_smplify.network import BoneNetwork, exponential, swings
from zoo.humans.learnable_smplify.noise import confidence_of
from zoo.humans.learnable_smplify.sequence import follow, published_sequence
from zoo.humans.learnable_smplify.shape import estimate_shape
from zoo.humans.motion.sequence import read_amass
from zoo.humans.rotations import rotmat_to_rotvec, rotvec_to_rotmat

WEIGHTS = "humans/learnable-smplify"


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def trained() -> LearnableSMPLify:
    module = zoo.load_pretrained(WEIGHTS)
    assert isinstance(module, LearnableSMPLify)
    return module


def random_pose(count: int, seed: int = 0, size: float = 0.4) -> Tensor:
    vectors = size * torch.randn(count, 24, 3, generator=torch.Generator().manual_seed(seed))
    vectors[:, 22:] = 0
    return rotvec_to_rotmat(vectors)


def random_network(**arguments: int) -> BoneNetwork:
    """With a last layer that does something."""
    torch.manual_seed(0)
    network = BoneNetwork(hidden=32, **arguments)
    torch.nn.init.normal_(network.last.weight, 0, 0.1)
    return network


def test_bones_are_those_of_the_body(body: Body) -> None:
    joints = body_25(body)
    bones, rotmats, betas = Bones(joints), random_pose(3), torch.randn(3, 10)
    rotmats[:, 22:] = rotvec_to_rotmat(0.4 * torch.randn(3, 2, 3))
    state = joints.state(rotmats, betas)
    _, local, hands = batch_last(rotmats).split([1, 21, 2], 2)
    world = bones.global_rotations(batch_last(rotmats))
    assert (batch_first(world) - state.world[:, :22, :3, :3]).abs().max() < 1e-5
    assert (batch_first(bones.relative_rotations(world)) - rotmats[:, 1:22]).abs().max() < 1e-5
    child, parent = (list(ends) for ends in zip(*BODY_25_TREE, strict=True))
    expected = state.joints[:, child] - state.joints[:, parent]
    assert (batch_first(bones(world, local, bones.rest(betas.T, hands))) - expected).abs().max() < 1e-6


def test_missing_joints_move_with_their_neighbours(body: Body) -> None:
    bones = Bones(body_25(body))
    start = torch.randn(3, 24, 2)
    shift = torch.tensor([[1.0, 2.0, 3.0]]).T.unsqueeze(-1)
    place = [torch.zeros(3, 2)] * 25
    for k, (child, parent) in enumerate(BODY_25_TREE):
        place[child] = place[parent] + start[:, k]
    joints = torch.stack(place, 1) + shift  # a pure translation
    sure = torch.ones(25, 2)
    sure[[8, 3, 4, 1]] = 0
    joints[:, [8, 3, 4, 1]] = torch.nan
    goal, confidence = target_bones(bones, joints, sure, start)
    assert confidence is not None
    assert (goal - start).abs().max() < 1e-5
    hidden = [k for k, (child, parent) in enumerate(BODY_25_TREE) if {child, parent} & {8, 3, 4, 1}]
    assert (confidence[:, 0] == 0).nonzero().flatten().tolist() == hidden


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-6, 3.0))
def test_small_rotations_in_closed_form(seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = size * torch.nn.functional.normalize(torch.randn(3, 5, generator=generator), dim=0)
    assert (exponential(vectors).permute(2, 0, 1) - roma.rotvec_to_rotmat(vectors.T)).abs().max() < 1e-5
    a, b = torch.randn(2, 3, 7, generator=generator)
    turned = (exponential(swings(a, b)) * a).sum(1)
    cosine = torch.nn.functional.cosine_similarity(turned, b, dim=0)
    assert (cosine - 1).abs().max() < 1e-4
    noisy = exponential(vectors) + 1e-3 * torch.randn(3, 3, 5, generator=generator)
    again = orthonormal(orthonormal(noisy)).permute(2, 0, 1)
    assert (again @ again.mT - torch.eye(3)).abs().max() < 1e-5


def test_an_untrained_network_swings_limbs_and_leaves_the_rest(body: Body) -> None:
    joints = body_25(body)
    start, betas = random_pose(4), torch.randn(4, 10)
    end = start.clone()
    end[:, [1, 4, 17, 18]] = end[:, [1, 4, 17, 18]] @ rotvec_to_rotmat(0.3 * torch.randn(4, 4, 3))
    target = joints.state(end, betas).joints
    found = BoneNetwork(passes=1)(Bones(joints), start, betas, target)
    placed = joints.state(found, betas).joints
    ends = [BODY_25.index(name) for name in ("left_knee", "left_ankle", "right_elbow", "left_wrist", "right_wrist")]
    assert (placed - target)[:, ends].norm(dim=-1).max() < 2e-3
    torch.testing.assert_close(BoneNetwork()(Bones(joints), start, betas, joints.state(start, betas).joints), start)


def test_global_turns_and_moves_pass_through(body: Body) -> None:
    """Turning root and joints together turns the answer's root, and nothing else changes; moving changes nothing."""
    joints, network = body_25(body), random_network()
    bones, start, betas = Bones(joints), random_pose(3), torch.randn(3, 10)
    target = joints.state(random_pose(3, 1), betas).joints
    turn = roma.random_rotmat(3)
    turned = torch.cat([(turn @ start[:, 0]).unsqueeze(1), start[:, 1:]], 1)
    found = network(bones, start, betas, target)
    moved = network(bones, turned, betas, target @ turn.mT + torch.randn(3, 1, 3))
    torch.testing.assert_close(moved[:, 1:], found[:, 1:], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(moved[:, 0], turn @ found[:, 0], rtol=1e-3, atol=1e-4)


def test_the_network_differentiates(body: Body) -> None:
    bones = Bones(body_25(body)).double()
    network = random_network(passes=2).double()
    start, betas = random_pose(1).double(), torch.randn(1, 10).double()
    target = torch.randn(1, 25, 3).double()
    assert torch.autograd.gradcheck(lambda t: network(bones, start, betas, t), target.requires_grad_(), atol=1e-5)
    still = Bones(body_25(body))  # at the target itself, where angles and norms have corners
    pose = random_pose(2)
    exact = body_25(body).state(pose, torch.zeros(2, 10)).joints.requires_grad_()
    random_network()(still, pose, torch.zeros(2, 10), exact).sum().backward()
    assert exact.grad is not None
    assert exact.grad.isfinite().all()


def test_the_exported_function_is_the_network(body: Body, tmp_path: Path) -> None:
    bones, network = Bones(body_25(body)), random_network()
    export(network, bones, tmp_path / "network.pt")
    loaded = torch.jit.load(tmp_path / "network.pt")
    for count in (1, 3):
        rotmats, betas = random_pose(count, count), torch.randn(count, 10)
        target = torch.randn(count, 25, 3)
        found = loaded(rotmat_to_rotvec(rotmats).flatten(1), betas, target)
        torch.testing.assert_close(found, network(bones, rotmats, betas, target), rtol=1e-4, atol=1e-5)


def test_the_published_sequences() -> None:
    golden, network, small = load(SYSTEM, "sequence"), golden_network().eval(), tiny_body()
    joints = published.regressed_joints(small, network.openpose_regressor)
    rotmats, betas = rotations(golden["poses"][0]), golden["betas"][0, :, :10]
    for mode in ("plain", "constrained"):
        found = published_sequence(network, joints, rotmats, betas, golden["trans"][0], mode == "constrained")
        vertices = small(found[:, :1], found[:, 1:], betas.expand(len(found), -1)).vertices
        expected, frames = golden[f"verts_{mode}"], golden["frames"]
        assert (vertices[frames] - expected).abs().max() < 1e-4
        assert (vertices.abs().mean((1, 2)) - golden[f"mean_abs_{mode}"]).abs().max() < 1e-4


def test_following_takes_the_nearest_candidate() -> None:
    start = torch.zeros(2, 24, 3, 3)
    goal = torch.tensor([1.0, 5.0])

    def distance(pose: Tensor, frame: int) -> Tensor:
        return (pose[:, 0, 0, 0] - goal).abs()

    found = follow(lambda pose, frame: pose + 1, start, 4, distance, lambda pose, frame: pose + 5, first_anchored=2)
    assert found[:, :, 0, 0, 0].tolist() == [[1, 1], [1, 5], [1, 5]]


def test_the_official_regressor_reads_the_same_joints(body: Body) -> None:
    exact, read = body_25(body), published.regressed_joints(body, default_regressor(body))
    pose, betas = random_pose(2, size=0.0), torch.zeros(2, 10)
    assert (exact.state(pose, betas).joints - read.state(pose, betas).joints).abs().max() < 1e-4


def test_named_sets(body: Body) -> None:
    coco = named_joints(body, "coco-17")
    observed, sure = coco.observe(torch.arange(17.0).view(1, 17, 1).expand(1, 17, 3), torch.ones(1, 17))
    for k, name in enumerate(BODY_25):
        assert bool(sure[0, k]) == (name in COCO_17), name
        if name in COCO_17:
            assert observed[0, k, 0] == COCO_17.index(name)
    smpl = named_joints(body, "smpl-24")
    assert smpl.points.gather.shape[0] == 24
    assert (smpl.source >= 0).sum() == sum(name in SMPL_24 or name == "mid_hip" for name in BODY_25)
    near = named_joints(body, "lsp-14")  # its hips lie elsewhere than SMPL's
    assert float(near.sure[near.names.index("right_hip_lsp")]) < 0.5
    assert len(named_joints(body, "spin-49").rows) == 47  # all but the jaw and the head's top
    with pytest.raises(ConfigError, match="coco-17"):
        named_joints(body, "coco17")
    with pytest.raises(ConfigError, match="None of the joints"):
        named_joints(body, ("tail", "fin"))


def test_shape_from_bone_lengths(body: Body) -> None:
    named = named_joints(body)
    betas = torch.tensor([[1.5, -0.5, 1.0, 0.8, -1.0, 0.3, 0.0, 0.2, -0.4, 0.1]])
    pose = random_pose(20, size=0.3)
    joints = named.points.state(pose, betas.expand(20, -1)).joints
    sure = torch.ones(20, 25)
    found = estimate_shape(named.points, named.names, joints, sure)

    def lengths(shape: Tensor) -> Tensor:
        rest = body.rest_joints(shape)
        return torch.stack([(rest[:, a] - rest[:, b]).norm() for a, b in ((1, 4), (4, 7), (16, 18), (18, 20))])

    assert (lengths(found) - lengths(betas)).abs().max() < 0.004
    assert (lengths(torch.zeros(1, 10)) - lengths(betas)).abs().max() > 0.015
    assert torch.equal(estimate_shape(named.points, named.names, joints, 0 * sure), torch.zeros(1, 10))


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_descent_brings_joints_together(body: Body, optimizer: str) -> None:
    joints, betas, transl = body_25(body), torch.randn(2, 10), torch.randn(2, 3)
    start, end = random_pose(2, 3), random_pose(2, 3) @ random_pose(2, 4, 0.05)
    pose = rotmat_to_rotvec(start).flatten(1)
    target = joints.state(end, betas).joints + transl.unsqueeze(1)
    with torch.inference_mode():  # as in a test loop
        found = Descent(optimizer, {"adam": 60, "lbfgs": 15}[optimizer])(joints, pose, betas, transl, target)  # type: ignore[arg-type]
    after = joints(found[:, :3], found[:, 3:], betas) + transl.unsqueeze(1) - target
    before = joints(pose[:, :3], pose[:, 3:], betas) + transl.unsqueeze(1) - target
    assert after.norm(dim=-1).mean() < 0.1 * before.norm(dim=-1).mean()
    assert torch.equal(found[:, 66:], pose[:, 66:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "oficial"}, "architecture should be 'bones' \\| 'official', not 'oficial'"),
        ({"passes": 0}, r"model\.passes \(0\)"),
        ({"vertex_step": 0}, r"model\.vertex_step \(0\)"),
        ({"architecture": "official", "backbone_config": ((8, 8, 1), (12, 16, 2))}, "12 channels follows one of 8"),
    ],
)
def test_impossible_settings_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        zoo.create_model("humans/learnable-smplify", **arguments)


def test_training_beats_the_start_pose(tmp_path: Path) -> None:
    changes = ["data.pairs=4480", "data.batch_size=64", "data.motions=20", "data.test_size=12", "data.val_size=4"]
    quiet = ["callbacks.progress_bar=null", "callbacks.test_figures=null", "logger={csv: {}}"]
    run_dir = tmp_path / "run"
    summary = train(
        compose("humans/learnable-smplify", [*changes, *quiet, "trainer.max_epochs=1", f"run_dir={run_dir}"])
    )
    for group in ("s5", "s9", "wide_s5"):
        assert summary["metrics"][f"test/pve_{group}"] < 0.5 * summary["metrics"][f"test/copy_{group}"]


def test_the_official_architecture_trains(body: Body) -> None:
    torch.manual_seed(0)
    narrow = {"backbone_config": ((8, 8, 1), (8, 16, 2)), "input_dim": 16, "hidden_dim": 16}
    module = LearnableSMPLify("official", identity_init=True, dropout=0.0, vertex_step=200, **narrow)  # type: ignore[arg-type]
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    data = MotionPairs(pairs=32, motions=4, batch_size=32)
    batch = next(iter(data.train_dataloader()))
    optimizer = torch.optim.Adam(module.network.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss = module.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.85 * losses[0]
    start = rotvec_to_rotmat(batch["start_pose"].unflatten(1, (-1, 3)))
    with pytest.raises(ConfigError, match="transl"):
        module(start, batch["betas"], torch.zeros(32, 25, 3))
    with pytest.raises(ConfigError, match="bones"):
        module.fitter()


def test_shipped_weights(trained: LearnableSMPLify) -> None:
    """The recorded errors, on a part of the test set."""
    from zoo.pretrained import get_entry

    recorded = get_entry(WEIGHTS).metrics
    data = MotionPairs(motions=1, test_size=256)
    items = pairs_at_strides(data.test_motions(), 24)
    batch = {name: torch.stack([items[k][name] for k in range(len(items))]) for name in items[0]}  # type: ignore[literal-required]
    start, end = (rotvec_to_rotmat(batch[f"{name}_pose"].unflatten(1, (-1, 3))) for name in ("start", "end"))
    betas, small = batch["betas"], trained.body
    with torch.no_grad():
        found = trained(start, betas, trained.joints.state(end, betas).joints)
        meshes = [small(pose[:, :1], pose[:, 1:], betas).vertices for pose in (found, end)]
    errors = 1000 * aligned_error(meshes[0], meshes[1], small.J_regressor)
    for number, name in enumerate(("s1", "s5", "s9")):
        mean = float(errors[batch["group"] == number].mean())
        assert mean == pytest.approx(recorded[f"test/pve_{name}"], rel=0.35)


def held_out_clip(module: LearnableSMPLify, frames: int = 40) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Poses (T, 72), betas (1, 10), BODY_25 joints (T, 25, 3) in the world, translations."""
    motion = MotionPairs(motions=1).recordings["02_05"]
    pose, trans = torch.from_numpy(motion.poses[100 : 100 + frames]), torch.from_numpy(motion.trans[100 : 100 + frames])
    betas = torch.from_numpy(motion.betas)[None]
    with torch.no_grad():
        joints = module.joints(pose[:, :3], pose[:, 3:], betas.expand(frames, -1)) + trans.unsqueeze(1)
    return pose, betas, joints, trans


def vertex_errors(module: LearnableSMPLify, pose: Tensor, betas: Tensor, truth: Tensor, true_betas: Tensor) -> Tensor:
    """Millimetres, pelvis brought together."""
    with torch.no_grad():
        a = module.body(pose[:, :3], pose[:, 3:], betas.expand(len(pose), -1)).vertices
        b = module.body(truth[:, :3], truth[:, 3:], true_betas.expand(len(pose), -1)).vertices
    return 1000 * aligned_error(a, b, module.body.J_regressor)


def test_a_motion_is_followed(trained: LearnableSMPLify) -> None:
    pose, betas, joints, trans = held_out_clip(trained)
    given = trained.fit(joints, pose[0], betas)
    assert vertex_errors(trained, given.pose, betas, pose, betas).mean() < 12
    assert (given.transl - trans).norm(dim=-1).max() < 0.01
    alone = trained.fit(joints, refine=2)
    assert vertex_errors(trained, alone.pose, alone.betas, pose, betas).mean() < 40
    assert alone.residual.mean() < given.residual.mean() + 0.008


def test_noise_and_gaps(trained: LearnableSMPLify) -> None:
    pose, betas, joints, _ = held_out_clip(trained)
    noisy = joints + 0.02 * torch.randn(joints.shape, generator=torch.Generator().manual_seed(0))
    told = trained.fit(noisy, pose[0], betas, confidence_of(torch.full(joints.shape[:2], 0.02)))
    untold = trained.fit(noisy, pose[0], betas)
    errors = [vertex_errors(trained, fit.pose, betas, pose, betas).mean() for fit in (told, untold)]
    assert errors[0] < 35
    assert errors[0] < errors[1]
    gaps = joints.clone()
    gaps[torch.rand(joints.shape[:2], generator=torch.Generator().manual_seed(1)) < 0.2] = torch.nan
    fit = trained.fit(gaps, pose[0], betas)
    assert fit.pose.isfinite().all()
    assert vertex_errors(trained, fit.pose, betas, pose, betas).mean() < 25


def test_frames_without_joints_stay_where_the_body_was(trained: LearnableSMPLify) -> None:
    pose, betas, joints, trans = held_out_clip(trained, 12)
    gaps = joints.clone()
    gaps[[0, 5, 6, 7, 11]] = torch.nan
    fit = trained.fit(gaps, pose[0].double(), betas.double())
    assert (fit.transl - trans).norm(dim=-1).max() < 0.1
    assert (fit.residual == 0).nonzero().flatten().tolist() == [0, 5, 6, 7, 11]
    assert vertex_errors(trained, fit.pose, betas, pose, betas).mean() < 25
    with pytest.raises(DataError, match="fewer than 6 joints"):
        trained.fit(gaps)


def test_another_estimator_is_refined(trained: LearnableSMPLify) -> None:
    """What SPIN gives: rotation matrices and betas in the camera's frame, here the truth made worse."""
    pose, betas, joints, _ = held_out_clip(trained, 12)
    truth = rotvec_to_rotmat(pose.unflatten(1, (24, 3)))
    estimate = truth @ rotvec_to_rotmat(0.15 * torch.randn(12, 24, 3, generator=torch.Generator().manual_seed(2)))
    fit = trained.fitter("coco-17").frames(_coco(joints), estimate, betas)
    before = vertex_errors(trained, rotmat_to_rotvec(estimate).flatten(1), betas, pose, betas).mean()
    after = vertex_errors(trained, fit.pose, betas, pose, betas).mean()
    assert after < 0.6 * before


def _coco(joints: Tensor) -> Tensor:
    return joints[:, [BODY_25.index(name) for name in COCO_17]]


def test_files(trained: LearnableSMPLify, in_tmp: Path) -> None:
    pose, betas, joints, _ = held_out_clip(trained, 6)
    np.savez("joints.npz", joints=joints, pose=pose[0], betas=betas[0])
    facts = trained.predict_file(Path("joints.npz"), Path("out.npz"), refine=0)
    assert facts["frames"] == 6
    motion = read_amass("out.npz").with_up("y", trained.body.rest_joints(betas)[0, 0].numpy())
    assert vertex_errors(trained, torch.from_numpy(motion.poses), betas, pose, betas).mean() < 10
    np.save("coco.npy", np.concatenate([1000 * _coco(joints)[0], np.ones((17, 1))], 1))
    facts = trained.predict_file(Path("coco.npy"), Path("body.json"), keypoints="coco-17", unit="mm")
    assert len(json.loads(Path("body.json").read_text())["pose"][0]) == 72
    assert float(facts["mean distance"].split()[0]) < 15
    Path("frames.json").write_text(json.dumps(joints[:2].tolist()))
    facts = trained.predict_file(Path("frames.json"), Path("body.ply"), refine=0, independent=True)
    assert sorted(p.name for p in in_tmp.glob("*.ply")) == ["body_0000.ply", "body_0001.ply"]


def test_bad_files(trained: LearnableSMPLify, in_tmp: Path) -> None:
    np.save("flat.npy", np.zeros((5, 3, 2, 2)))
    np.savez("named.npz", points=np.zeros((5, 25, 3)))
    np.savez("sure.npz", joints=np.zeros((5, 25, 3)), confidence=np.zeros((5, 24)))
    np.savez("thin.npz", joints=np.zeros((5, 25, 3)), betas=np.zeros(3))
    np.save("few.npy", np.zeros((5, 12, 3)))
    Path("text.npy").write_text("no array")
    np.save("nan.npy", np.full((5, 25, 3), np.nan))
    np.savez("nan.npz", joints=np.zeros((5, 25, 3)), pose=np.full(72, np.nan))
    cases = {
        "nan.npy": "0 joints of the first frame",
        "nan.npz": "pose holds NaN",
        "thin.npz": "3 betas",
        "flat.npy": "shape",
        "named.npz": "no 'joints'",
        "sure.npz": "confidence",
        "text.npy": "can't be read",
    }
    for name, message in cases.items():
        with pytest.raises(DataError, match=message):
            read_joints(Path(name))
    with pytest.raises(DataError, match="no file"):
        read_joints(Path("absent.npy"))
    with pytest.raises(DataError, match=r"\.npz, \.npy, \.json"):
        read_joints(Path("joints.csv"))
    with pytest.raises(DataError, match="at least 25"):
        trained.predict_file(Path("few.npy"), Path("out.npz"))
    with pytest.raises(DataError, match="should end in"):
        trained.predict_file(Path("few.npy"), Path("out.txt"))
    fitter = trained.fitter()
    assert isinstance(fitter, Fitter)
    with pytest.raises(DataError, match="72 numbers"):
        fitter.frames(torch.zeros(2, 25, 3), torch.zeros(3, 72))
    with pytest.raises(DataError, match=r"expected \(1, 10\) or \(2, 10\)"):
        fitter.frames(torch.zeros(2, 25, 3), betas=torch.zeros(3, 10))
    with pytest.raises(DataError, match=r"expected \(1, 10\)\."):
        fitter.sequence(torch.zeros(2, 25, 3), betas=torch.zeros(2, 10))
    with pytest.raises(DataError, match=r"confidence has the shape \(2,\)"):
        fitter.frames(torch.zeros(2, 25, 3), confidence=torch.ones(2))
    with pytest.raises(DataError, match=r"shape \(0, 25, 3\)"):
        fitter.sequence(torch.zeros(0, 25, 3))


def test_figures(trained: LearnableSMPLify) -> None:
    pytest.importorskip("trimesh")
    data = MotionPairs(motions=1, test_size=2)
    items = pairs_at_strides(data.test_motions()[1:2], 2)
    batch = {name: torch.stack([items[k][name] for k in range(2)]) for name in items[0]}  # type: ignore[literal-required]
    output = trained.predict_step(batch, 0)  # type: ignore[arg-type]
    drawn = trained.figures(batch, output)  # type: ignore[arg-type]
    assert len(drawn["pairs"].axes) == 4 * 2 + 1
    motion = trained._motion_figures(data.test_motions()[1], frames=9)
    assert {"motion", "errors"} == motion.keys()
    assert time_against_error({"a": (1.0, 2.0), "b": (10.0, 1.0)}, "t").axes[0].get_xscale() == "log"
