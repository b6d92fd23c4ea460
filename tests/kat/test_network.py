"""KAT against the official model: shapes, keys, numbers, gradients, initialisation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import zoo
from tests import goldens
from tests.goldens import relative_error, section
from zoo.errors import ConfigError, WeightsError
from zoo.kat.coefficients import INITIAL_COEFFICIENTS
from zoo.kat.describe import describe_rationals
from zoo.kat.kat.network import KAT
from zoo.kat.layers import GRKAN, Rational, variance_gain
from zoo.kat.transformer import Attention, DropPath, VisionTransformer
from zoo.kat.vit.network import ViT

SYSTEM = "kat-rational"
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 10}


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_official_keys_shapes_and_parameter_counts(size: str) -> None:
    manifest = goldens.load_json(SYSTEM, f"manifest_kat_{size}")
    network = zoo.create_model("kat/kat", size=size).network
    assert {name: list(tensor.shape) for name, tensor in network.state_dict().items()} == manifest["keys"]
    assert sum(p.numel() for p in network.parameters()) == manifest["params"]
    zeros = {name: torch.zeros(shape) for name, shape in manifest["keys"].items()}
    network.load_state_dict(zoo.convert_official("kat/kat", zeros))


@pytest.mark.parametrize("case", [0, 1])
def test_small_models_forward_and_backward(case: int) -> None:
    """Case 1 has denominators of exactly 0, whose gradient a formula with torch.abs would lose."""
    golden = goldens.load(SYSTEM, f"kat_small_model_{case}")
    network = zoo.create_model("kat/kat", **SMALL).network.eval()
    network.load_state_dict(zoo.convert_official("kat/kat", section(golden, "w.")))
    x = golden["x"].requires_grad_()
    assert relative_error(network.forward_features(x), golden["features"]) < 1e-5
    logits = network(x)
    assert relative_error(logits, golden["logits"]) < 1e-5
    loss = F.cross_entropy(logits, golden["label"], label_smoothing=0.1)
    assert loss.item() == pytest.approx(golden["loss"].item(), rel=1e-6)
    loss.backward()
    assert x.grad is not None
    assert relative_error(x.grad, golden["dx"]) < 1e-4
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert relative_error(parameter.grad, golden[f"g.{name}"]) < 1e-4, name


def closed_form_weights(network: VisionTransformer, freq: float) -> dict[str, Tensor]:
    """The rule by which the full-size golden's weights were made."""
    weights = {}
    for index, name in enumerate(sorted(network.state_dict())):
        shape = network.state_dict()[name].shape
        u = torch.sin(freq * (torch.arange(shape.numel(), dtype=torch.float64) + 1) + 0.7 * (index + 1)).view(shape)
        if ".act" in name:
            numerator, denominator = INITIAL_COEFFICIENTS["identity" if "act1" in name else "swish"]
            start = numerator if name.endswith("numerator") else denominator
            value = torch.tensor(start, dtype=torch.float64) + 0.02 * u
        elif "norm" in name and name.endswith("weight"):
            value = 1 + 0.1 * u
        elif name.endswith("bias") or len(shape) == 1:
            value = 0.05 * u
        elif name in ("cls_token", "pos_embed"):
            value = 0.2 * u
        else:
            value = u * math.sqrt(2 / shape[1:].numel())
        weights[name] = value.float()
    return weights


def test_full_size_model() -> None:
    golden = goldens.load(SYSTEM, "closedform_kat_tiny_patch16_224")
    network = KAT().eval()
    network.load_state_dict(closed_form_weights(network, 0.37))
    j = torch.arange(3 * 224 * 224, dtype=torch.float64)
    image = (torch.sin(0.013 * j) + 0.5 * torch.cos(0.00071 * j * 1.3 + 0.2)).float().view(1, 3, 224, 224)
    with torch.no_grad():
        features = network.forward_features(image)
        assert relative_error(network(image), golden["logits"]) < 1e-4
    assert relative_error(features[:, 0], golden["cls_feature"]) < 1e-4
    assert relative_error(features.mean(1), golden["feature_mean"]) < 1e-4


@pytest.mark.parametrize(("case", "sizes", "act"), [("m0", (32, 64, 32), "swish"), ("m1", (24, 48, 16), "gelu")])
def test_gr_kan_mlp(case: str, sizes: tuple[int, int, int], act: str) -> None:
    golden = section(goldens.load(SYSTEM, "grkan_mlp"), f"{case}.")
    mlp = GRKAN(*sizes, act_init=act)
    mlp.load_state_dict(section(golden, "w."))
    x = golden["x"].requires_grad_()
    y = mlp(x)
    assert relative_error(y, golden["y"]) < 1e-5
    y.backward(golden["gy"])
    assert x.grad is not None
    assert relative_error(x.grad, golden["dx"]) < 1e-5
    for name, parameter in mlp.named_parameters():
        assert parameter.grad is not None
        assert relative_error(parameter.grad, golden[f"g.{name}"]) < 1e-5, name


TARGETS = {
    "identity": lambda x: x,
    "swish": F.silu,
    "swish_wide": F.silu,
    "gelu": F.gelu,
    "gelu_wide": F.gelu,
    "gelu_old": F.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.01),
    "leaky_relu_0.1": lambda x: F.leaky_relu(x, 0.1),
    "mish": F.mish,
}


@pytest.mark.parametrize("mode", TARGETS)
def test_initial_coefficients_are_the_function_they_are_named_after(mode: str) -> None:
    x = torch.linspace(-3, 3, 2001, dtype=torch.float64).unsqueeze(1)
    y = Rational(mode, 1).double()(x)
    bound = 0.031 if "relu" in mode else 5e-3
    assert (y - TARGETS[mode](x)).abs().max() < bound


def test_the_whole_table_is_the_published_one_and_the_refits_are_those_measured() -> None:
    """Published values that were fitted with form B stand under ``*_official``."""
    table = goldens.load_json(SYSTEM, "init_coefficients")
    for name, entry in table["official"].items():
        ours = INITIAL_COEFFICIENTS[name if entry["fitted_for"] == "A" else f"{name}_official"]
        assert (list(ours.numerator), list(ours.denominator)) == (entry["a"], entry["b"]), name
    for key, entry in table["refit_form_A"].items():
        name, interval = key.split("@")
        name = name if interval == "[-3,3]" else f"{name}_wide"
        ours = INITIAL_COEFFICIENTS[name]
        assert ours.numerator == pytest.approx(entry["a"], rel=1e-8), key
        assert ours.denominator == pytest.approx(entry["b"], rel=1e-8), key
        assert variance_gain(name) == pytest.approx(entry["alpha"], rel=1e-4)


def test_published_gelu_is_kept_apart() -> None:
    """Fitted with form B: form A misses GELU by 1.46 with it."""
    table = goldens.load_json(SYSTEM, "init_coefficients")["official"]["gelu"]
    assert list(INITIAL_COEFFICIENTS["gelu_official"].numerator) == table["a"]
    x = torch.linspace(-3, 3, 2001, dtype=torch.float64).unsqueeze(1)
    error = {f: (Rational("gelu_official", 1, form=f).double()(x) - F.gelu(x)).abs().max() for f in ("A", "B")}
    assert error["A"] > 1
    assert error["B"] < 4e-3


@pytest.mark.parametrize(
    ("mode", "alpha"), [("identity", 1.0), ("swish", 2.81076), ("gelu", 2.35197), ("tanh", 2.53618)]
)
def test_variance_gain(mode: str, alpha: float) -> None:
    assert variance_gain(mode) == pytest.approx(alpha, rel=1e-5)


def test_variance_preserving_init_preserves_variance() -> None:
    torch.manual_seed(0)
    mlp = GRKAN(512, 2048)
    x = torch.randn(400, 512)
    hidden = mlp.fc1(mlp.act1(x))
    assert hidden.var().item() == pytest.approx(1.0, rel=0.05)
    assert mlp(x).var().item() == pytest.approx(1.0, rel=0.1)
    assert GRKAN(512, 2048, init="official").fc1.weight.std().item() == pytest.approx(0.02, rel=0.03)


class TestDescribeRationals:
    def test_untrained_rationals_are_where_they_started(self) -> None:
        facts = describe_rationals(KAT(**SMALL, act_init="tanh"))
        assert [(f["layer"], f["group"]) for f in facts[7:9]] == [("blocks.0.mlp.act1", 7), ("blocks.0.mlp.act2", 0)]
        assert len(facts) == 2 * 2 * 8
        assert {f["nearest"] for f in facts} == {"identity", "tanh"}
        assert all(f["from_start"] < 1e-12 for f in facts)
        identity, tanh = facts[0], facts[8]
        assert (identity["slope"], identity["far_slope"]) == pytest.approx((1.0, 1.0))
        assert tanh["slope"] == pytest.approx(1.0, abs=5e-3)
        assert tanh["far_slope"] == pytest.approx(tanh["numerator"][5] / tanh["denominator"][3])

    def test_each_group_has_its_own_numbers(self) -> None:
        """F = x / (1 + c |x|) in the second group: F - x is largest at the ends, and F stays below 1 / c."""
        layer = Rational("identity", 2)
        with torch.no_grad():
            layer.weight_denominator[1, 0] = -0.5
        first, second = describe_rationals(layer, -2.0, 2.0)
        assert (first["from_start"], first["nearest"]) == (0.0, "identity")
        assert second["from_start"] == pytest.approx(1.0)
        assert second["slope"] == pytest.approx(1.0)
        assert second["far_slope"] == 0.0
        assert second["denominator"] == [-0.5, 0.0, 0.0, 0.0]
        assert layer.weight_denominator.requires_grad
        assert layer.weight_denominator.grad is None

    def test_bad_questions(self) -> None:
        with pytest.raises(ValueError, match="ViT has no rationals"):
            describe_rationals(ViT(**SMALL))
        with pytest.raises(ValueError, match="is empty"):
            describe_rationals(Rational(), 1.0, 1.0)


def test_a_network_can_be_made_without_memory() -> None:
    with torch.device("meta"):
        network = KAT(img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=48, depth=1, num_heads=3)
        assert network(torch.empty(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("heads", [3, 8])
def test_mimetic_attention_resembles_the_identity(heads: int) -> None:
    """Per head the query-key product is the best rank-hd fit of 0.7 Z + 0.7 I; value-projection has -0.4 d trace."""
    torch.manual_seed(0)
    dim, rank = 192, 192 // heads
    attention = Attention(dim, heads)
    attention.init_mimetic()
    query, key, value = attention.qkv.weight.detach().chunk(3)
    torch.manual_seed(0)
    Attention(dim, heads)
    a = 0.7 * torch.empty(dim, dim).uniform_(-1, 1) * (3 / dim) ** 0.5 + 0.7 * torch.eye(dim)
    best = torch.linalg.svdvals(a)[rank:].norm()
    product = query[:rank].T @ key[:rank]
    assert best * 0.999 <= (a - product).norm() <= 1.01 * best
    assert product.diagonal().mean() > 5 * (product - torch.diag(product.diagonal())).abs().mean()
    trace = (attention.proj.weight.detach() @ value).trace().item()
    assert trace == pytest.approx(-0.4 * dim, rel=0.15)
    assert attention.qkv.bias.abs().max() == 0


def test_drop_path_keeps_the_mean_and_is_off_in_eval() -> None:
    torch.manual_seed(0)
    layer = DropPath(0.3)
    x = torch.ones(20_000, 2)
    y = layer(x)
    assert y[:, 0].unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert (y[:, 0] == y[:, 1]).all()
    assert y.mean().item() == pytest.approx(1.0, abs=0.02)
    assert layer.eval()(x) is x


def test_pooling_norms_and_scales_follow_timm_names() -> None:
    network = KAT(**SMALL, global_pool="avg", qk_norm=True, init_values=0.1)
    keys = network.state_dict().keys()
    assert {"fc_norm.weight", "blocks.0.ls1.gamma", "blocks.1.attn.q_norm.bias"} <= keys
    assert "norm.weight" not in keys
    network.load_state_dict(zoo.convert_official("kat/kat", network.state_dict()))
    tokens = network.forward_features(x := torch.rand(2, 3, 32, 32))
    assert torch.allclose(network(x), network.head(network.fc_norm(tokens[:, 1:].mean(1))))


def test_attention_maps_are_those_of_the_forward_pass() -> None:
    network = ViT(**SMALL).eval()
    image = torch.rand(2, 3, 32, 32)
    maps = network.attention_maps(image)
    assert maps.shape == (2, 2, 2, 17, 17)
    assert torch.allclose(maps.sum(-1), torch.ones(2, 2, 2, 17))
    block = network.blocks[0]
    x = block.norm1(network.embed(image))
    value = block.attn.qkv(x).chunk(3, -1)[2].unflatten(-1, (2, 16)).transpose(1, 2)
    mixed = (maps[:, 0] @ value).transpose(1, 2).flatten(2)
    assert torch.allclose(block.attn.proj(mixed), block.attn(x), atol=1e-5)


def test_attention_is_equivariant_to_the_order_of_tokens() -> None:
    attention = Attention(24, 2)
    x, order = torch.randn(3, 7, 24), torch.randperm(7)
    assert torch.allclose(attention(x[:, order]), attention(x)[:, order], atol=1e-6)


class TestConvert:
    def tensors(self) -> dict[str, Tensor]:
        return KAT(**SMALL).state_dict()

    @pytest.mark.parametrize("wrapper", ["model", "state_dict", "state_dict_ema"])
    def test_wrappers_and_prefixes(self, wrapper: str) -> None:
        tensors = self.tensors()
        wrapped = {wrapper: {f"module.{name}": tensor for name, tensor in tensors.items()}, "epoch": 3}
        converted = zoo.convert_official("kat/kat", wrapped)
        assert converted.keys() == tensors.keys()
        assert all(converted[name] is tensors[name] for name in tensors)

    def test_averaged_weights_are_preferred(self) -> None:
        tensors = self.tensors()
        other = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        converted = zoo.convert_official("kat/kat", {"state_dict": other, "state_dict_ema": tensors})
        assert converted["head.weight"] is tensors["head.weight"]

    def test_flashkat_names(self) -> None:
        renamed = {
            name.replace("weight_numerator", "numerator_v").replace("weight_denominator", "denominator_v"): tensor
            for name, tensor in self.tensors().items()
        }
        assert "blocks.0.mlp.act1.numerator_v" in renamed
        assert zoo.convert_official("kat/kat", renamed).keys() == self.tensors().keys()

    def test_what_is_no_kat_is_refused(self) -> None:
        tensors = self.tensors()
        del tensors["blocks.1.mlp.act2.weight_numerator"]
        with pytest.raises(WeightsError, match=r"missing: blocks\.1\.mlp\.act2\.weight_numerator"):
            zoo.convert_official("kat/kat", tensors)
        with pytest.raises(WeightsError, match="unknown: decoder"):
            zoo.convert_official("kat/kat", {**self.tensors(), "decoder": torch.zeros(1)})
        with pytest.raises(WeightsError, match="holds no tensors"):
            zoo.convert_official("kat/kat", {"epoch": 3})
        with pytest.raises(WeightsError, match="mapping of names to tensors, not a list"):
            zoo.convert_official("kat/kat", [torch.zeros(1)])  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["kat/kat", "kat/vit"])
    def test_what_is_no_augreg_is_refused(self, name: str) -> None:
        arrays = {
            key: torch.zeros(1)
            for key in ("embedding/kernel", "cls", "Transformer/posembed_input/pos_embedding", "embedding/bias")
        }
        with pytest.raises(WeightsError, match="arrays do not fit together"):
            zoo.convert_official(name, arrays)
        arrays["embedding/kernel"] = torch.zeros(4, 4, 3, 8)
        with pytest.raises(WeightsError, match="missing: Transformer/encoder_norm/scale"):
            zoo.convert_official(name, arrays)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="takes 32 x 32 images, not 16 x 16"):
        KAT(**SMALL)(torch.rand(1, 3, 16, 16))
    with pytest.raises(ValueError, match="do not tile"):
        KAT(**{**SMALL, "patch_size": 7})
    with pytest.raises(ValueError, match="heads can't share"):
        KAT(**{**SMALL, "num_heads": 5})
    with pytest.raises(ValueError, match=r"no initial coefficients are called 'swsh'. Did you mean 'swish'"):
        KAT(**SMALL, act_init="swsh")
    with pytest.raises(ValueError, match="there is no form 'C': use 'A', 'B', 'legacy_cpu'"):
        Rational(form="C")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 5}, "kat/kat can't be built: 5 heads can't share 32 channels evenly"),
        ({"embed_dim": 36}, "8 groups can't share the MLP's 36 and 144 channels evenly"),
        ({"num_groups": 0}, "num_groups should be 1 or more, not 0"),
        ({"patch_size": 0}, "patch_size should be 1 or more, not 0"),
        ({"depth": 0}, "depth should be 1 or more"),
        ({"mlp_ratio": 0.0}, r"mlp_ratio \* embed_dim should be 1 or more"),
        ({"num_classes": 1}, "num_classes"),
        ({"drop_path_rate": 1.0}, "drop_path_rate should be from 0 to below 1"),
        ({"act_init": "gleu"}, "Did you mean 'gelu'"),
    ],
)
def test_impossible_options_are_refused_before_any_work(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        zoo.create_model("kat/kat", **{**SMALL, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": (2,)}, "two or more numbers of channels"),
        ({"features": (2, 30, 1)}, r"8 groups can't share hidden layers of \(30,\) channels"),
    ],
)
def test_impossible_networks_of_gr_kan_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        zoo.create_model("kat/gr-kan", **arguments)
    assert zoo.create_model("kat/gr-kan", features=(2, 30, 1), activation="gelu")
