"""The published network of Learnable SMPLify: reference numbers, official checkpoints, pruning, equivariance."""

from __future__ import annotations

from functools import cache

import pytest
import roma
import torch
from torch import Tensor

import zoo
from tests.goldens import load, load_json, relative_error, section
from zoo.errors import ConfigError, WeightsError
from zoo.humans.body import Body
from zoo.humans.joints import SMPL_VERTICES
from zoo.humans.learnable_smplify import geometry, published
from zoo.humans.learnable_smplify.graph import BODY_25_TREE, adjacency
from zoo.humans.learnable_smplify.stgcn import OfficialNetwork, prune, useful_taps
from zoo.humans.metrics import point_errors
from zoo.humans.rotations import rot6d_to_rotmat, rotmat_to_rotvec, rotvec_to_rotmat
from zoo.humans.smpl_file import SMPLArrays

SYSTEM = "humans-learnable-smplify"
NARROW = ((8, 8, 1), (8, 12, 2), (12, 16, 2))


@cache
def tiny_body() -> Body:
    golden = {name: value.numpy() for name, value in load(SYSTEM, "standin_body").items()}
    arrays = SMPLArrays(
        golden["v_template"],
        golden["shapedirs"],
        golden["posedirs"].T.reshape(-1, 3, 207),
        golden["J_regressor"],
        golden["lbs_weights"],
        golden["parents"][:1].reshape(1, 1).repeat(3, 1).clip(0),
        golden["parents"],
    )
    return Body(arrays, {name: k for k, name in enumerate(SMPL_VERTICES)})


def golden_network(**arguments: object) -> OfficialNetwork:
    network = OfficialNetwork(NARROW, 24, 20, **arguments)  # type: ignore[arg-type]
    state = zoo.convert_official("humans/learnable-smplify", load(SYSTEM, "net_weights"))
    network.fit_to(state)
    network.load_state_dict(state)
    return network


def rotations(pose: Tensor) -> Tensor:
    """Poses (B, 156) as matrices (B, 24, 3, 3) without hands."""
    matrices = rotvec_to_rotmat(pose[:, :66].unflatten(1, (22, 3)))
    return torch.cat([matrices, torch.eye(3).expand(len(pose), 2, 3, 3)], 1)


def run(network: OfficialNetwork, golden: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the official code computes from a batch, loss terms included."""
    given, body = section(golden, "in/"), tiny_body()
    joints = published.regressed_joints(body, network.openpose_regressor)
    betas = given["betas"][:, :10]
    start, end = rotations(given["start_pose"]), rotations(given["end_pose"])
    start_joints = joints.state(start, betas).joints + given["start_trans"].unsqueeze(1)
    end_joints = joints.state(end, betas).joints + given["end_trans"].unsqueeze(1)
    net_in = published.network_input(start_joints, end_joints)
    found = published.step(network, start, betas, start_joints, end_joints)
    vertices = body(found[:, :1], found[:, 1:], betas).vertices
    truth = body(end[:, :1], end[:, 1:], betas).vertices
    pred_joints = joints.state(found, betas).joints + given["end_trans"].unsqueeze(1)
    terms = published.losses((found, pred_joints, vertices), (end, end_joints, truth))
    return {
        "net_in": net_in,
        "backbone_out": network.backbone(net_in),
        "pred_rotmat": found[:, :22],
        "pred_verts": vertices,
        "end_verts": truth,
        # The reference numbers have joints without the translation.
        "pred_joints": pred_joints - given["end_trans"].unsqueeze(1),
        "start_joints": start_joints - given["start_trans"].unsqueeze(1),
        "end_joints": end_joints - given["end_trans"].unsqueeze(1),
        "loss/smpl_kp3d": terms["joints"],
        "loss/smpl_pose": terms["pose"],
        "loss/smpl_verts": terms["vertices"],
        "loss/total": terms["joints"] + terms["pose"] + terms["vertices"],
    }


def check_gradients(network: OfficialNetwork, total: Tensor, file: str) -> None:
    total.backward()
    golden = load(SYSTEM, file)
    largest = max(float(value.abs().max()) for value in golden.values())
    parameters = dict(network.named_parameters())
    assert parameters.keys() == golden.keys()
    for name, expected in golden.items():
        actual = parameters[name].grad
        assert actual is not None
        torch.testing.assert_close(actual, expected, rtol=2e-3, atol=1e-4 * largest, msg=name)


def test_in_eval_mode() -> None:
    golden, network = load(SYSTEM, "net_eval"), golden_network().eval()
    ours = run(network, golden)
    for name, value in ours.items():
        if name != "loss/total" and name in golden:
            torch.testing.assert_close(value, golden[name], rtol=1e-4, atol=2e-5, msg=name)
    torch.testing.assert_close(ours["loss/total"], golden["loss/total"], rtol=1e-4, atol=0)
    regressor = tiny_body().J_regressor
    pred, truth = ours["pred_verts"], ours["end_verts"]
    expected = {"pve_joint8_mm": geometry.ANKLE, "pve_root_mm": 0}
    for name, joint in expected.items():
        millimetres = 1000 * geometry.aligned_error(pred, truth, regressor, joint)
        assert (millimetres - golden[name]).abs().max() < 0.02
    aligned = geometry.published_procrustes(pred, truth)
    assert (1000 * point_errors(aligned, truth, "none").mean(1) - golden["pa_pve_mm"]).abs().max() < 0.02
    check_gradients(network, ours["loss/total"], "net_eval_grads")


def test_in_training_mode() -> None:
    golden, network = load(SYSTEM, "net_train_nodrop"), golden_network(dropout=0.0).train()
    given, body = section(golden, "in/"), tiny_body()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    joints = published.regressed_joints(body, network.openpose_regressor)
    start, betas = rotations(given["start_pose"]), given["betas"][:, :10]
    end = rotations(given["end_pose"])
    start_joints = joints.state(start, betas).joints + given["start_trans"].unsqueeze(1)
    end_joints = joints.state(end, betas).joints + given["end_trans"].unsqueeze(1)
    published.step(network, start, betas, start_joints, end_joints)
    for name, expected in section(golden, "bn_after/").items():
        torch.testing.assert_close(network.state_dict()[name], expected, rtol=1e-4, atol=1e-5, msg=name)
    network.load_state_dict(before)
    ours = run(network, golden)
    for name in ("net_in", "backbone_out", "loss/smpl_kp3d", "loss/smpl_pose", "loss/smpl_verts"):
        torch.testing.assert_close(ours[name], golden[name], rtol=1e-4, atol=1e-5, msg=name)
    check_gradients(network, ours["loss/total"], "net_train_nodrop_grads")


def test_geometry() -> None:
    golden = load(SYSTEM, "geometry")
    start = golden["kp_start"].requires_grad_()
    axes, origin = geometry.human_frame(start)
    assert (axes - golden["R"]).abs().max() < 1e-5
    assert (origin - golden["T"]).abs().max() < 1e-5
    assert (torch.linalg.det(axes) + 1).abs().max() < 1e-5
    first, second = geometry.normalise(start, golden["kp_end"])
    torch.testing.assert_close(first, golden["n_start"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(second, golden["n_end"], rtol=1e-5, atol=1e-5)
    ((first * golden["cot_start"]).sum() + (second * golden["cot_end"]).sum()).backward()
    assert relative_error(start.grad, golden["g_kp_start"]) < 1e-4  # type: ignore[arg-type]

    numbers = golden["x6"].requires_grad_()
    matrices = rot6d_to_rotmat(numbers)
    assert (matrices - golden["rotmat"]).abs().max() < 1e-5
    (matrices * golden["cot_rotmat"]).sum().backward()
    assert relative_error(numbers.grad, golden["g_x6"]) < 1e-4  # type: ignore[arg-type]
    for vectors in (golden["aa"], rotmat_to_rotvec(golden["rm"])):
        assert (roma.rotvec_to_rotmat(vectors) - golden["rm"]).abs().max() < 1e-4
    angles = geometry.published_angle(golden["RA"], golden["RB"])
    torch.testing.assert_close(angles, golden["geodesic_loss"], rtol=1e-4, atol=1e-5)
    away = golden["geodesic_loss"] > 0.01
    torch.testing.assert_close(
        geometry.angle(golden["RA"], golden["RB"])[away], golden["geodesic_loss"][away], rtol=1e-3, atol=1e-4
    )
    assert (point_errors(golden["kp_start"], golden["kp_end"], "none") - golden["l2_loss"]).abs().max() < 1e-5

    a, b = golden["mesh_a"], golden["mesh_b"]
    assert (1000 * geometry.aligned_error(a, b, golden["J_regressor"], 8) - golden["pve_joint8_mm"]).abs().max() < 0.02
    aligned = geometry.published_procrustes(a, b)
    torch.testing.assert_close(aligned, golden["mesh_a_aligned"], rtol=1e-4, atol=1e-5)
    assert (1000 * point_errors(aligned, b, "none").mean(1) - golden["pa_pve_mm"]).abs().max() < 0.02


def test_graph_tables() -> None:
    for labeling, expected in load(SYSTEM, "graph").items():
        assert (adjacency(labeling) - expected).abs().max() < 1e-6, labeling  # type: ignore[arg-type]
    true = adjacency("spatial", "body-25")
    assert true[1].sum() == 24  # each joint but the root has its parent's column
    assert sorted(child for child, _ in BODY_25_TREE) == [k for k in range(25) if k != 8]


def test_the_published_size_and_names() -> None:
    manifest = load_json(SYSTEM, "manifest_official")
    network = zoo.create_model("humans/learnable-smplify", architecture="official").network
    assert sum(p.numel() for p in network.parameters()) == manifest["trainable_params"]
    state = network.state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == {
        name: entry["shape"] for name, entry in manifest["keys"].items()
    }
    pruned = OfficialNetwork(pruned=True)
    assert sum(p.numel() for p in pruned.parameters()) == 4_050_200


def test_official_checkpoints_convert() -> None:
    state = load(SYSTEM, "net_weights")
    wrapped = {"model": {f"module.{name}": value for name, value in state.items()}, "epochs": 3}
    converted = zoo.convert_official("humans/learnable-smplify", wrapped)
    assert converted.keys() >= state.keys()
    assert all(torch.equal(converted[name], value) for name, value in state.items())
    broken = {name: value for name, value in state.items() if name != "linear.0.bias"}
    with pytest.raises(WeightsError, match=r"missing: linear\.0\.bias"):
        zoo.convert_official("humans/learnable-smplify", {**broken, "extra": torch.zeros(1)})


@pytest.mark.parametrize("labeling", ["spatial", "distance", "uniform"])
def test_networks_of_other_sizes_load_through_the_registry(labeling: str) -> None:
    sizes = {"backbone_config": NARROW, "input_dim": 24, "hidden_dim": 20, "labeling_mode": labeling}
    module = zoo.create_model("humans/learnable-smplify", architecture="official", temporal_kernel_size=9, **sizes)
    state = module.network.state_dict()
    if labeling == "spatial":
        state = load(SYSTEM, "net_weights")  # whose joints are read from a body of 96 vertices
    module.network.load_state_dict(zoo.convert_official(module.zoo_name, state))
    if labeling == "spatial":
        golden = load(SYSTEM, "net_eval")
        torch.testing.assert_close(
            module.network.eval().backbone(golden["net_in"]), golden["backbone_out"], rtol=1e-4, atol=1e-5
        )
        start = torch.eye(3).expand(1, 24, 3, 3)
        with pytest.raises(ConfigError, match="a body of 96 vertices, but this one has 6890"):
            module(start, torch.zeros(1, 10), torch.zeros(1, 25, 3), torch.zeros(1, 3))


def test_the_network_does_not_see_hands() -> None:
    network, body = golden_network().eval(), tiny_body()
    joints = published.regressed_joints(body, network.openpose_regressor)
    start, betas = rotvec_to_rotmat(0.3 * torch.randn(2, 24, 3)), torch.zeros(2, 10)
    open_hands = torch.cat([start[:, :22], torch.eye(3).expand(2, 2, 3, 3)], 1)
    places = (joints.state(start, betas).joints, torch.randn(2, 25, 3))
    with_hands, without = (published.step(network, pose, betas, *places) for pose in (start, open_hands))
    assert torch.equal(with_hands[:, :22], without[:, :22])
    assert torch.equal(with_hands[:, 22:], start[:, 22:])


def test_pruning_changes_nothing() -> None:
    assert useful_taps(2, 9, 1) == (3, 6, 2)
    assert useful_taps(2, 9, 2) == (4, 6, 1)
    assert useful_taps(1, 9, 1) == (4, 5, 1)
    network = golden_network().eval()
    small = OfficialNetwork(NARROW, 24, 20, pruned=True, vertices=96).eval()
    small.load_state_dict(prune(network))
    x, pose, betas = torch.randn(3, 3, 2, 25), torch.randn(3, 69), torch.randn(3, 10)
    torch.testing.assert_close(small(x, pose, betas), network(x, pose, betas), rtol=1e-5, atol=1e-6)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())


def test_turning_and_moving_both_bodies_changes_no_residual() -> None:
    generator = torch.Generator().manual_seed(3)
    network, body = golden_network().eval(), tiny_body()
    joints = published.regressed_joints(body, network.openpose_regressor)
    poses = rotvec_to_rotmat(0.4 * torch.randn(2, 5, 24, 3, generator=generator))
    betas, trans = torch.randn(5, 10, generator=generator), torch.randn(2, 5, 1, 3, generator=generator)
    turn, shift = roma.random_rotmat(5), torch.randn(5, 1, 3, generator=generator)
    pelvis = body.rest_joints(betas)[:, :1]

    def residual(turned: bool) -> Tensor:
        rotmats, placed = [], []
        for pose, move in zip(poses, trans, strict=True):
            matrices = torch.cat([(turn @ pose[:, 0])[:, None] if turned else pose[:, :1], pose[:, 1:]], 1)
            points = joints.state(matrices, betas).joints
            where = (move + pelvis) @ turn.transpose(1, 2) + shift - pelvis if turned else move
            rotmats.append(matrices)
            placed.append(points + where)
        found = published.step(network, rotmats[0], betas, placed[0], placed[1])
        return rotmats[0][:, :22].transpose(2, 3) @ found[:, :22]

    torch.testing.assert_close(residual(True), residual(False), rtol=1e-3, atol=1e-4)


def test_an_untrained_network_with_identity_start_leaves_the_pose() -> None:
    network = OfficialNetwork(NARROW, 24, 20, identity_init=True).eval()
    found = network(torch.randn(2, 3, 2, 25), torch.randn(2, 69), torch.randn(2, 10))
    assert torch.equal(found, torch.eye(3).expand(2, 22, 3, 3))
