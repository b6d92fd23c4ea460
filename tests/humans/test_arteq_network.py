"""ArtEq's network: official numbers, equivariance, conversion."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pytest
import roma
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests import goldens
from tests.goldens import relative_error, section
from zoo.config import compose
from zoo.errors import WeightsError
from zoo.humans.arteq.context import rotation_of_frames
from zoo.humans.arteq.convert import convert_official
from zoo.humans.arteq.convolution import (
    ConvSetting,
    InterConv,
    IntraConv,
    SeparableBlock,
    find_neighbourhood,
)
from zoo.humans.arteq.group import kernel_points, rotation_group
from zoo.humans.arteq.heads import (
    AttentionStack,
    PartSegmentation,
    interpolate,
    mean_rotation,
    nearest_rotation,
    three_nearest,
)
from zoo.humans.arteq.network import ArtEqNetwork, conv_settings
from zoo.humans.pointnet.network import PointNet
from zoo.ops.points_reference import kernel_weights

TINY: dict[str, Any] = {
    "mlps": ((8, 8), (16, 16)),
    "attention_heads": 4,
    "part_hidden": 16,
    "pose_value_dim": 16,
}


def load(name: str) -> dict[str, Tensor]:
    return goldens.load("humans-arteq", name)


def channels_last(features: Tensor) -> Tensor:
    return features.permute(0, 2, 3, 1).contiguous()


def tables() -> tuple[Tensor, Tensor]:
    group = rotation_group()
    return group.rotations.float(), group.neighbours


def setting(name: str) -> ConvSetting:
    return ConvSetting(3, 5, 2 if "stride2" in name else 1, 0.16, 0.0128, 10, "lazy" in name)


@pytest.mark.parametrize("name", ["inter_stride1", "inter_stride2_fps", "inter_stride2_lazy"])
def test_convolution_over_space(name: str) -> None:
    golden = load(name)
    conv = InterConv(setting(name), "icosahedral", "epn")
    conv.load_state_dict(
        {
            "points": golden["w/kernels"],
            "weight": golden["w/basic_conv.W"].unflatten(1, (3, 24)),
            "bias": golden["w/basic_conv.bias"].flatten(),
        }
    )
    around = find_neighbourhood(golden["xyz"].mT, conv.setting, "epn")
    if around.chosen is not None:
        assert torch.equal(around.chosen, golden["sample_idx"].long())
    assert torch.equal(around.neighbours, golden["inter_idx"].long())
    assert torch.equal(around.xyz.mT, golden["out_xyz"])
    turned = torch.einsum("aij,kj->aki", tables()[0], golden["w/kernels"]).flatten(0, 1)
    weights = kernel_weights(around.offsets, around.neighbours, turned, conv.setting.sigma).unflatten(-1, (60, 24))
    assert relative_error(weights.sum((2, 4)), golden["inter_w_sum"]) < 1e-4
    assert relative_error(weights[:, :, :, 7].mT, golden["inter_w_anchor7"]) < 1e-4
    features = channels_last(golden["feats"]).requires_grad_()
    out = conv(features, around, tables()[0])
    assert relative_error(out, channels_last(golden["out_feats"])) < 1e-4
    out.backward(channels_last(golden["cot"]))
    assert relative_error(features.grad, channels_last(golden["g_feats"])) < 1e-3
    assert relative_error(conv.weight.grad.flatten(1), golden["gw/basic_conv.W"]) < 1e-3
    assert relative_error(conv.bias.grad, golden["gw/basic_conv.bias"].flatten()) < 1e-3


def test_convolution_over_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.humans.arteq.convolution._BLOCK", 10_000)  # several blocks
    golden = load("intra")
    conv = IntraConv(3, 5, 12)
    conv.load_state_dict(
        {"weight": golden["w/basic_conv.W"].unflatten(1, (3, 12)), "bias": golden["w/basic_conv.bias"].flatten()}
    )
    features = channels_last(golden["feats"]).requires_grad_()
    out = conv(features, golden["w/intra_idx"])
    assert relative_error(out, channels_last(golden["out_feats"])) < 1e-4
    out.backward(channels_last(golden["cot"]))
    assert relative_error(features.grad, channels_last(golden["g_feats"])) < 1e-3
    assert relative_error(conv.weight.grad.flatten(1), golden["gw/basic_conv.W"]) < 1e-3
    assert relative_error(conv.bias.grad, golden["gw/basic_conv.bias"].flatten()) < 1e-3


def test_separable_block() -> None:
    golden = load("separable_block")
    block = SeparableBlock(ConvSetting(3, 5, 2, 0.16, 0.0128, 10, False), "icosahedral", "epn")
    w = section(golden, "w/")
    block.load_state_dict(
        {
            "inter.points": w["inter_conv.conv.kernels"],
            "inter.weight": w["inter_conv.conv.basic_conv.W"].unflatten(1, (3, 24)),
            "inter.bias": w["inter_conv.conv.basic_conv.bias"].flatten(),
            "intra.weight": w["intra_conv.conv.basic_conv.W"].unflatten(1, (5, 12)),
            "intra.bias": w["intra_conv.conv.basic_conv.bias"].flatten(),
            "skip.weight": w["skip_conv.weight"].flatten(1),
            "skip.bias": w["skip_conv.bias"],
        }
    )
    features = channels_last(golden["feats"]).requires_grad_()
    xyz, out = block(golden["xyz"].mT, features, *tables())
    assert torch.equal(xyz.mT, golden["out_xyz"])
    assert relative_error(out, channels_last(golden["out_feats"])) < 1e-4
    out.backward(channels_last(golden["cot"]))
    assert relative_error(features.grad, channels_last(golden["g_feats"])) < 1e-3
    gw = section(golden, "gw/")
    assert relative_error(block.inter.weight.grad.flatten(1), gw["inter_conv.conv.basic_conv.W"]) < 1e-3
    assert relative_error(block.intra.weight.grad.flatten(1), gw["intra_conv.conv.basic_conv.W"]) < 1e-3
    assert relative_error(block.skip.weight.grad, gw["skip_conv.weight"].flatten(1)) < 1e-3
    # Before a normalisation: zero but for rounding, in the golden as here.
    biases = (block.inter.bias, block.intra.bias, block.skip.bias)
    for bias, expected in zip(biases, (v for k, v in sorted(gw.items()) if k.endswith("bias")), strict=True):
        assert (bias.grad - expected.flatten()).abs().max() < 1e-3


def test_heads() -> None:
    golden = load("heads")
    attention = AttentionStack(32, 4, 16)
    names = {"self_attention_layers": "layers", "_transform": "", "head_combine": "combine"}

    def ours(key: str) -> str:
        for old, new in names.items():
            key = key.replace(old, new)
        return key

    attention.load_state_dict({ours(key): value for key, value in section(golden, "mhsa_w/").items()})
    tokens = golden["mhsa_in"].requires_grad_()
    out = attention(tokens)
    assert relative_error(out, golden["mhsa_out"]) < 1e-4
    out.backward(golden["mhsa_cot"])
    assert relative_error(tokens.grad, golden["mhsa_gin"]) < 1e-3
    for key, expected in section(golden, "mhsa_gw/").items():
        assert relative_error(attention.get_parameter(ours(key)).grad, expected) < 1e-3, key

    weights = golden["so3_w"].requires_grad_()
    mean = mean_rotation(weights, tables()[0])
    assert (mean - golden["so3_R"]).abs().max() < 1e-4
    mean.backward(golden["so3_cot"])
    assert relative_error(weights.grad, golden["so3_gw"]) < 1e-2

    parts = PartSegmentation(16, 16, 22)
    blocks = {f"block_{old}.": f"blocks.{new}." for new, old in enumerate((0, 1, 3, 4))}

    def of_parts(key: str) -> str:
        prefix = next((old for old in blocks if key.startswith(old)), "")
        return blocks.get(prefix, "") + key.removeprefix(prefix)

    parts.load_state_dict({of_parts(key): value for key, value in section(golden, "part_w/").items()})
    points = golden["part_in"].requires_grad_()
    found = parts(points).softmax(-1)
    assert relative_error(found, golden["part_out"]) < 1e-4
    found.backward(golden["part_cot"])
    assert relative_error(points.grad, golden["part_gin"]) < 1e-3
    for key, expected in section(golden, "part_gw/").items():
        assert relative_error(parts.get_parameter(of_parts(key)).grad, expected) < 1e-3, key

    near = three_nearest(golden["prop_xyz1"], golden["prop_xyz2"])
    features = golden["prop_feat"].mT.contiguous().requires_grad_()
    spread_out = interpolate(features, *near)
    assert relative_error(spread_out, golden["prop_out"]) < 1e-4
    spread_out.backward(golden["prop_cot"])
    assert relative_error(features.grad, golden["prop_gfeat"].mT) < 1e-3


def tiny() -> ArtEqNetwork:
    network = ArtEqNetwork(**TINY)
    network.load_state_dict(convert_official(load("model_tiny_weights")))
    return network


def test_whole_network() -> None:
    golden = load("model_tiny_io")
    network = tiny()
    xyz, features = network.encoder(golden["points"])
    assert torch.equal(xyz.mT, golden["enc_xyz"])
    assert (features[:1] - channels_last(golden["enc_feats"])).abs().max() < 2e-3
    for points, suffix in ((golden["points"], ""), (golden["points_rot"], "_rot")):
        out = network(points)
        assert (out.segmentation - golden["seg" + suffix]).abs().max() < 5e-5
        assert (out.pose.flatten(2) - golden["pose" + suffix]).abs().max() < 1e-2
        assert (out.betas - golden["shape" + suffix]).abs().max() < 5e-5
    given = F.one_hot(golden["labels"].long(), 22).float()
    out = network(golden["points"], given)
    assert (out.pose.flatten(2) - golden["pose_gtseg"]).abs().max() < 1e-2
    assert (out.betas - golden["shape_gtseg"]).abs().max() < 5e-5


def tiny_in_double() -> ArtEqNetwork:
    network = tiny().double()
    network.encoder.rotations.copy_(rotation_group().rotations)  # the sum of which is exactly zero
    return network


def tiny_loss(network: ArtEqNetwork, golden: dict[str, Tensor]) -> Tensor:
    """The golden's loss in double precision."""
    points, *cotangents = (golden[name].double() for name in ("points", "cot_logseg", "cot_pose", "cot_shape"))
    out = network(points)
    found = (out.logits.log_softmax(-1), out.pose.flatten(2), out.betas)
    terms = [value * cotangent for value, cotangent in zip(found, cotangents, strict=True)]
    return terms[0].mean() + terms[1].sum() + terms[2].sum()


def test_gradients_of_the_whole_network() -> None:
    # The golden is of float32, and with random weights the mean rotations are ill-conditioned: weights that differ by
    # 6e-8 of themselves change its gradients by 2e-2. So ours are of float64, and the golden's own error is what is
    # left: 6e-3 at most, and 1e-3 in the shape head, of which the pose knows nothing.
    golden, network = load("model_tiny_io"), tiny_in_double()
    loss = tiny_loss(network, golden)
    assert abs(loss.item() - golden["loss"].item()) < 1e-2
    loss.backward()
    buffers = {key: value for key, value in load("model_tiny_weights").items() if "basic_conv" not in key}
    expected = convert_official({**buffers, **load("model_tiny_grads")})
    for name, parameter in network.named_parameters():
        error, scale = (parameter.grad - expected[name]).abs().max(), expected[name].abs().max()
        if scale > 0.05:
            assert error < (1e-3 if name.startswith("shape_head") else 8e-3) * scale, name
        elif not name.startswith("shape_head"):  # biases before a normalisation or in a direction without effect
            assert parameter.grad.abs().max() < 1e-4, name


def test_gradients_of_the_whole_network_are_the_slopes_of_its_loss() -> None:
    golden, network = load("model_tiny_io"), tiny_in_double()
    tiny_loss(network, golden).backward()
    names = ("encoder.blocks.2.intra.weight", "pose_head.weigh.weight", "part_segmentation.fc_c.weight")
    for name in names:
        weight = network.get_parameter(name)
        assert weight.grad is not None
        slope, step = weight.grad.norm(), 1e-6
        with torch.no_grad():
            weight.add_(weight.grad / slope, alpha=step)
            above = tiny_loss(network, golden)
            weight.sub_(weight.grad / slope, alpha=2 * step)
            below = tiny_loss(network, golden)
            weight.add_(weight.grad / slope, alpha=step)
        # What is left is the damping of the mean rotation's derivative.
        assert (above - below).item() / (2 * step) == pytest.approx(slope.item(), rel=1e-4), name


@pytest.mark.parametrize("name", goldens.load_json("humans-arteq", "manifest_official")["param_counts"])
def test_parameter_counts(name: str) -> None:
    layers, conditioned = int(name[7]), name.endswith("yes")
    widths = [(32 * 2**stage,) * 2 for stage in range(layers)]
    with torch.device("meta"):
        network = ArtEqNetwork(mlps=widths, strides=[2] * layers, kinematic_cond=conditioned)
    expected = goldens.load_json("humans-arteq", "manifest_official")["param_counts"][name]
    assert sum(p.numel() for p in network.parameters()) == expected


def test_the_paper_s_network() -> None:
    manifest = goldens.load_json("humans-arteq", "manifest_official")
    for ours, official in zip(conv_settings(((32, 32), (64, 64)), (2, 2)), manifest["conv_settings"], strict=True):
        found = vars(ours)
        if ours.stride == 1:  # a convolution that samples nothing is not lazy about it
            official = {**official, "lazy_sample": found["lazy_sample"]}
        assert found == pytest.approx(official)
    random = {
        key: torch.zeros(entry["shape"], dtype=getattr(torch, entry["dtype"]))
        for key, entry in manifest["paper"]["keys"].items()
    }
    network = ArtEqNetwork()
    network.load_state_dict(convert_official(random))
    assert sum(p.numel() for p in network.parameters()) == 933149


def test_what_is_no_official_checkpoint() -> None:
    weights = load("model_tiny_weights")
    with pytest.raises(WeightsError, match=r"unknown: encoder\.extra"):
        convert_official({**weights, "encoder.extra": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"missing: .*skip_conv\.bias"):
        convert_official({k: v for k, v in weights.items() if k != "encoder.backbone.0.blocks.1.skip_conv.bias"})
    key = "encoder.backbone.1.blocks.0.inter_conv.conv.anchors"
    with pytest.raises(WeightsError, match="differ between its blocks"):
        convert_official({**weights, key: weights[key].flip(0)})
    with pytest.raises(WeightsError, match="no ArtEq checkpoint"):
        convert_official({})


def network_of(group: str, kernel: str, strides: tuple[int, ...] = (2, 1), context: int = 0) -> ArtEqNetwork:
    torch.manual_seed(0)
    network = ArtEqNetwork(
        group,  # type: ignore[arg-type]
        kernel,  # type: ignore[arg-type]
        mlps=((6,), (8,)),
        strides=strides,
        radii=(0.3, 0.4),
        neighbors=(12, 12),
        attention_heads=2,
        part_hidden=8,
        pose_value_dim=8,
        context=context,
        context_dim=8,
    ).double()
    network.encoder.rotations.copy_(rotation_group(group).rotations)  # type: ignore[arg-type]
    for block in network.encoder.blocks:  # float32 tables would be the largest error
        block.inter.points.copy_(0.7 * block.inter.setting.radius * kernel_points(kernel, group))  # type: ignore[arg-type]
    return network


KINDS = [("icosahedral", "epn"), ("icosahedral", "orbit"), ("tetrahedral", "epn"), ("tetrahedral", "orbit")]


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize(("group", "kernel"), KINDS)
@torch.no_grad()
def test_equivariance_under_the_whole_group(group: str, kernel: str, context: int) -> None:
    network, tables_ = network_of(group, kernel, context=context), rotation_group(group)  # type: ignore[arg-type]
    points = torch.rand(1, 70, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64) - 0.5
    turned = points @ tables_.rotations.mT
    _, features = network.encoder(points)
    _, of_turned = network.encoder(turned)
    expected = features[0][:, tables_.permutation].movedim(1, 0)
    assert features.std() > 0.1
    assert (of_turned - expected).abs().max() < 1e-9
    out, out_turned = network(points), network(turned)
    assert (out_turned.segmentation - out.segmentation).abs().max() < 1e-9
    assert (out_turned.betas - out.betas).abs().max() < 1e-9
    assert (out_turned.pose - tables_.rotations[:, None] @ out.pose).abs().max() < 1e-6


@torch.no_grad()
def test_without_its_rotations_the_network_is_not_equivariant() -> None:
    network = network_of("trivial", "orbit", context=2)
    points = torch.rand(1, 70, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64) - 0.5
    turned = points @ rotation_group("tetrahedral").rotations[1].mT
    assert (network(turned).betas - network(points).betas).abs().max() > 1e-3


@pytest.mark.parametrize(("group", "kernel"), KINDS)
@torch.no_grad()
def test_a_turned_part_changes_no_other(group: str, kernel: str) -> None:
    # Without sampling: which points are furthest depends on all parts.
    network, tables_ = network_of(group, kernel, (1, 1)), rotation_group(group)  # type: ignore[arg-type]
    part = torch.rand(2, 30, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64) - 0.5
    away = torch.tensor([5.0, 0.0, 0.0], dtype=torch.float64)
    apart = torch.cat([part[0], part[1] + away])[None]
    _, features = network.encoder(apart)
    turned = torch.cat([part[0].expand(len(tables_), -1, -1), part[1] @ tables_.rotations.mT + away], 1)
    _, of_turned = network.encoder(turned)
    assert (of_turned[:, :30] - features[:, :30]).abs().max() < 1e-9
    expected = features[0, 30:][:, tables_.permutation].movedim(1, 0)
    assert (of_turned[:, 30:] - expected).abs().max() < 1e-9


@pytest.mark.parametrize("context", [0, 2])
@torch.no_grad()
def test_the_order_of_the_points_means_nothing_to_orbit_kernels(context: int) -> None:
    network = network_of("tetrahedral", "orbit", context=context)
    random = torch.Generator().manual_seed(6)
    points = torch.rand(1, 70, 3, generator=random, dtype=torch.float64) - 0.5
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(69, generator=random)])
    out, shuffled = network(points), network(points[:, order])
    assert (shuffled.segmentation - out.segmentation[:, order]).abs().max() < 1e-9
    assert (shuffled.betas - out.betas).abs().max() < 1e-9


@pytest.mark.parametrize("context", [0, 2])
@torch.no_grad()
def test_where_the_cloud_lies_means_nothing_to_orbit_kernels(context: int) -> None:
    network = network_of("tetrahedral", "orbit", context=context)
    points = torch.rand(2, 70, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64) - 0.5
    out, moved = network(points), network(points + torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64))
    assert (moved.segmentation - out.segmentation).abs().max() < 1e-9
    assert (moved.pose - out.pose).abs().max() < 1e-6


def test_the_second_look_is_at_points_that_agree_with_a_part() -> None:
    network: Any = network_of("tetrahedral", "orbit", context=2)
    look = network.pose_head.looks[0]
    points = torch.rand(1, 70, 3, generator=torch.Generator().manual_seed(14), dtype=torch.float64) - 0.5
    for layer in (look.question, network.part_segmentation.fc_c):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert network(points).logits.abs().max() == 0
    nn.init.ones_(look.question.bias)
    out = network(points)
    assert out.logits.std(1).min() > 0.01  # points differ, parts do not: all ask the same
    assert out.logits.std(2).max() < 1e-9
    out.pose.sum().backward()
    assert all(p.grad is not None for p in look.parameters())


def test_a_matrix_of_each_frame_can_be_a_weight_of_each_rotation() -> None:
    # The paper's weights are a special case of the matrices that the frames name.
    rotations = tables()[0].double()
    weights = torch.randn(20, 60, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
    matrices = weights[..., None, None] * torch.eye(3, dtype=torch.float64)
    assert (rotation_of_frames(matrices, rotations) - mean_rotation(weights, rotations)).abs().max() < 1e-9


def test_group_convolution_without_gathering() -> None:
    group = rotation_group("tetrahedral")
    conv = IntraConv(3, 5, 12).double()
    features = torch.randn(2, 4, 12, 3, generator=torch.Generator().manual_seed(13), dtype=torch.float64)
    expected = torch.einsum("bpakc,ock->bpao", features[:, :, group.neighbours], conv.weight) + conv.bias
    assert (conv(features, group.neighbours) - expected).abs().max() < 1e-12


def test_the_mean_rotation_is_a_rotation_with_a_finite_derivative() -> None:
    rotations = tables()[0].double()
    weights = torch.randn(20, 60, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    weights[0] = 0.0  # any rotation is as good
    weights.requires_grad_()
    mean = mean_rotation(weights, rotations)
    assert (mean @ mean.mT - torch.eye(3)).abs().max() < 1e-9
    assert (mean.det() - 1).abs().max() < 1e-9
    mean.square().mul(torch.arange(9.0).view(3, 3)).sum().backward()
    assert bool(weights.grad.isfinite().all())
    # One rotation alone is its own mean.
    alone = mean_rotation(torch.eye(60, dtype=torch.float64), rotations)
    assert (alone - rotations).abs().max() < 1e-6


def test_the_nearest_rotation() -> None:
    matrices = torch.randn(6, 3, 3, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    assert bool((matrices.det() < 0).any())
    found = nearest_rotation(matrices)
    assert (found - roma.special_procrustes(matrices)).abs().max() < 1e-9
    matrices.requires_grad_()
    assert torch.autograd.gradcheck(lambda m: nearest_rotation(m, 0.0), (matrices,))
    with torch.inference_mode():  # an evaluation leaves nothing behind that training could not use
        nearest_rotation(matrices)
    nearest_rotation(matrices).sum().backward()


@pytest.mark.parametrize("kernel", ["epn", "orbit"])
def test_a_network_is_built_on_a_device(kernel: Any) -> None:
    for table in (rotation_group, kernel_points):
        table.cache_clear()  # type: ignore[attr-defined]
    with torch.device("meta"):
        network = ArtEqNetwork(kernel=kernel)
    assert {tensor.device.type for tensor in (*network.parameters(), *network.buffers())} == {"meta"}
    assert rotation_group().rotations.device.type == kernel_points("epn").device.type == "cpu"


def test_settings_that_do_not_belong_together() -> None:
    with pytest.raises(ValueError, match="as many strides"):
        ArtEqNetwork(mlps=((8,), (8,)), strides=(2,))
    with pytest.raises(ValueError, match="radii"):
        ArtEqNetwork(mlps=((8,), (8,)), radii=(0.1,))
    with pytest.raises(ValueError, match="7 attention heads don't divide the 128"):
        ArtEqNetwork(attention_heads=7)
    with pytest.raises(ValueError, match="no kernel 'epm'"):
        ArtEqNetwork(kernel="epm")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "option",
    [
        *({"mlps": (), "strides": ()}, {"mlps": ((8,), ())}, {"mlps": ((8, 0), (8, 8))}, {"strides": (0, 2)}),
        *({"radii": (0.1, 0.1, 0.1, -0.1)}, {"neighbors": (8, 8, 8, 0)}, {"attention_heads": 0}, {"part_hidden": 0}),
        *({"context": -1}, {"context": 1, "context_dim": 1}),
    ],
)
def test_impossible_numbers(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="an ArtEq needs"):
        ArtEqNetwork(**option)


@pytest.mark.parametrize("option", [{"part_dim": 76}, {"attention_heads": 0}])
def test_heads_divide_the_width_of_pointnet(option: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="attention heads don't divide part_dim="):
        PointNet(**option)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["arteq", "context", "pointnet"])
def test_mixed_precision(kind: str) -> None:
    network: Any = PointNet(part_dim=16)
    if kind != "pointnet":
        network = network_of("tetrahedral", "orbit", context=2 if kind == "context" else 0).float()
    points = torch.rand(2, 70, 3, generator=torch.Generator().manual_seed(9)) - 0.5
    plain = network(points)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(points)
        loss = out.pose.sum() + out.betas.float().sum() + out.logits.float().square().sum()
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters())
    assert (out.segmentation - plain.segmentation).abs().max() < 0.05
    assert (out.pose @ out.pose.mT - torch.eye(3)).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["paper", "context", "pointnet"])
def test_no_pass_needs_values_on_the_host(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A tensor without values has no answer to "which" or "how many", for which a GPU would have to be waited.
    monkeypatch.setenv("ZOO_OPS", "reference")
    network: Any = PointNet() if kind == "pointnet" else ArtEqNetwork()
    if kind == "context":
        network = network_of("tetrahedral", "orbit", context=2).float()
    network.to("meta")
    out = network(torch.empty(2, 70, 3, device="meta"))
    (out.pose.sum() + out.betas.sum() + out.logits.sum()).backward()
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in network.parameters())


def test_pointnet_is_as_large_as_the_tetrahedral_network() -> None:
    config = compose("humans/arteq")
    settings = {k: v for k, v in config.model.items() if k in signature(ArtEqNetwork).parameters}
    ours, rival = (sum(p.numel() for p in n.parameters()) for n in (ArtEqNetwork(**settings), PointNet()))
    assert 0.97 < rival / ours < 1.03
