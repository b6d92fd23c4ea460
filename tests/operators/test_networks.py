"""Networks against the official code: weights, outputs and gradients; initialisation; exact block form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo
from tests import goldens
from tests.goldens import relative_error, section
from zoo.errors import WeightsError
from zoo.operators.convolutions import SIZES, UNet
from zoo.operators.fno.network import SpectralConv
from zoo.operators.initialisation import COMPLEX_GAIN, convolution_std, mixing_std
from zoo.operators.metrics import relative_h1
from zoo.operators.t1.network import T1, T1Layer
from zoo.operators.transforms import dct2, idct2, synthesise

SYSTEM = "operators-t1"
LAYER_CASES = [
    {"modes": (5, 5), "width": 3, "resolution": (12, 12), "act": "gelu"},
    {"modes": (4, 4), "width": 4, "resolution": (16, 16), "act": "sin", "keep_high": True},
    {"modes": (6, 6), "width": 2, "resolution": (16, 10), "act": "gelu", "residual": False, "weight_init": 4},
]
T1_CASES = [
    {"modes": 6, "width": 8, "nlayers": 2, "signal_resolution": (16, 16), "act": "gelu"},
    {
        "modes": 5,
        "width": 6,
        "nlayers": 3,
        "signal_resolution": (12, 12),
        "in_channels": 3,
        "out_channels": 3,
        "act": "gelu",
        "perform_inverse": True,
    },
]


def network(name: str, **arguments: object) -> nn.Module:
    return zoo.create_model(f"operators/{name}", **arguments).network


def load(name: str, weights: dict[str, Tensor], **arguments: object) -> nn.Module:
    built = network(name, **arguments)
    built.load_state_dict(zoo.convert_official(f"operators/{name}", weights))
    return built


@pytest.mark.parametrize("case", range(3))
def test_t1_layer_forward_and_backward(case: int) -> None:
    golden = section(goldens.load(SYSTEM, "t1_layer2d"), f"case{case}/")
    layer = T1Layer(**LAYER_CASES[case])
    layer.load_state_dict(section(golden, "w/"))
    x = golden["x"].requires_grad_()
    y = layer(x)
    assert torch.allclose(y, golden["y"], atol=2e-5, rtol=2e-5)
    (golden["R"] * y).sum().backward()
    assert relative_error(x.grad, golden["grad_x"]) < 1e-4
    for name, parameter in layer.named_parameters():
        assert relative_error(parameter.grad, golden[f"grad_w/{name}"]) < 1e-4, name


@pytest.mark.parametrize("case", range(2))
def test_t1_forward_and_backward(case: int) -> None:
    golden = section(goldens.load(SYSTEM, "t1_2d"), f"case{case}/")
    t1 = load("t1", section(golden, "w/"), **T1_CASES[case])
    x = golden["x"].requires_grad_()
    y = t1(x)
    assert y.shape == golden["y"].shape
    assert relative_error(y, golden["y"]) < 1e-4
    (golden["R"] * y).sum().backward()
    assert relative_error(x.grad, golden["grad_x"]) < 5e-4
    for name, parameter in t1.named_parameters():
        assert relative_error(parameter.grad, golden[f"grad_w/{name}"]) < 5e-4, name


def released_form(t1: T1, x: Tensor) -> Tensor:
    """The published order of work: lift in space, transform all channels, work on whole spectra."""
    height, width = x.shape[2:]
    rows, columns = torch.linspace(0, 1, height), torch.linspace(0, 1, width)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(x), -1, -1, -1)
    z = dct2(t1.fc0(torch.cat((x, grid), 1).movedim(1, -1)).movedim(-1, 1))
    for layer in t1.layers:
        m = layer.modes[0]
        block = z[..., :m, :m]
        h = F.gelu(torch.einsum("bixy,ioxy->boxy", block, layer.ch_mixing_1))
        h = torch.einsum("bciq,ioc->bcoq", h, layer.spatial_mixing_1)
        h = torch.einsum("bcpi,ioc->bcpo", h, layer.spatial_mixing_2)
        z = F.pad(h + block, (0, width - m, 0, height - m))
    return (torch.sin(z.movedim(1, -1) @ t1.fc1) @ t1.fc2).movedim(-1, 1)


def test_the_block_form_is_the_released_form() -> None:
    """At the size of the CPU config: the outputs differ by rounding only."""
    t1 = network("t1", modes=24, width=20, nlayers=4, signal_resolution=(64, 64), act="gelu", head_init="scaled")
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        assert relative_error(t1(x), released_form(t1, x)) < 1e-4


def test_t1u_in_training_and_evaluation() -> None:
    golden = goldens.load(SYSTEM, "t1u_2d")
    t1u = load("t1u", section(golden, "w/"), modes=24, signal_resolution=(32, 32), channel_exponent=2).train()
    x = golden["x"].requires_grad_()
    y = t1u(x)
    assert relative_error(y, golden["y_train"]) < 2e-4
    (golden["R"] * y).sum().backward()
    assert relative_error(x.grad, golden["grad_x"]) < 2e-3
    parameters = dict(t1u.named_parameters())
    for name, expected in section(golden, "grad_w/").items():
        assert relative_error(parameters[name].grad, expected) < 2e-3, name
    state = t1u.state_dict()
    for name, expected in section(golden, "after_one_train_step_of_bn/").items():
        assert relative_error(state[name], expected) < 2e-4, name
    assert relative_error(t1u.eval()(x), golden["y_eval"]) < 2e-4


def test_kairos_fno_with_and_without_the_imaginary_part() -> None:
    golden = goldens.load(SYSTEM, "fno2d_kairos")
    size = {"modes": 4, "width": 5, "nlayers": 2, "signal_resolution": (16, 16)}
    for dropped, name in ((False, "y_complex_correct"), (True, "y_released_code")):
        fno = load("fno-kairos", section(golden, "w/"), **size, drop_imaginary=dropped)
        assert relative_error(fno(golden["x"]), golden[name]) < 1e-4, name


def test_kairos_fno_takes_all_columns_of_a_half_spectrum() -> None:
    """Ten columns have six in their real transform; on too few points the network says so."""
    fno = network("fno-kairos", modes=6, width=3, signal_resolution=(16, 10))
    assert fno(torch.randn(2, 16, 10)).shape == (2, 16, 10)
    with pytest.raises(ValueError, match="do not fit"):
        fno(torch.randn(2, 8, 10))


def test_ffno_forward_and_backward() -> None:
    golden = goldens.load(SYSTEM, "ffno2d_kairos")
    ffno = load("ffno", section(golden, "w/"), modes=5, width=8, n_layers=3)
    x = golden["x"].requires_grad_()
    y = ffno(x)
    assert relative_error(y, golden["y"]) < 1e-4
    (golden["R"] * y).sum().backward()
    assert relative_error(x.grad, golden["grad_x"]) < 1e-4


def test_fno_is_neuraloperators() -> None:
    golden = goldens.load(SYSTEM, "neuralop_fno2d")
    fno = load("fno", section(golden, "w/"), n_modes=(6, 6), hidden_channels=6, n_layers=2)
    x = golden["x"].requires_grad_()
    y = fno(x)
    assert relative_error(y, golden["y"]) < 1e-4
    errors = (y - golden["target"]).flatten(1).norm(dim=1) / golden["target"].flatten(1).norm(dim=1)
    assert errors.sum().item() == pytest.approx(golden["lp_rel_sum"].item(), rel=1e-4)
    errors.sum().backward()
    assert relative_error(x.grad, golden["grad_x_lp"]) < 1e-4
    sobolev = relative_h1(golden["y"], golden["target"], 2).sum()
    assert sobolev.item() == pytest.approx(golden["h1_sum"].item(), rel=1e-4)


def test_fno_rounds_halves_as_neuraloperator_does() -> None:
    for channels, hidden in ((5, 2), (7, 4)):
        fno = network("fno", n_modes=(4,), hidden_channels=channels, n_layers=1)
        assert fno.fno_blocks.channel_mlp[0].fcs[0].weight.shape == (hidden, channels, 1)


@pytest.mark.parametrize(
    ("modes", "space"),
    [((8, 5), (7, 9)), ((8, 8), (6, 6)), ((7, 8), (4, 16)), ((10, 6), (3, 3)), ((9, 8), (8, 5)), ((8,), (5,))],
)
def test_grids_too_coarse_for_the_modes(modes: tuple[int, ...], space: tuple[int, ...]) -> None:
    """As the library cuts its weights: from half of the missing places on, on the last axis from the first."""
    conv = SpectralConv(2, 3, modes)
    x = torch.randn(2, 2, *space)
    axes, shifted = tuple(range(-len(space), 0)), tuple(range(-len(space), -1))
    spectrum = torch.fft.rfftn(x, dim=axes, norm="forward")
    out = torch.zeros(2, 3, *spectrum.shape[2:], dtype=spectrum.dtype)
    places: list[slice] = [slice(None), slice(None)]
    weight = torch.view_as_complex(conv.weight.detach())
    for axis, size in enumerate(spectrum.shape[2:], start=2):
        count = min(weight.shape[axis], size)
        first = 0 if axis == x.ndim - 1 else size // 2 - count // 2
        weight = weight.narrow(axis, 0 if axis == x.ndim - 1 else (weight.shape[axis] - count) // 2, count)
        places.append(slice(first, first + count))
    if shifted:
        spectrum = torch.fft.fftshift(spectrum, shifted)
    out[tuple(places)] = torch.einsum("bi...,io...->bo...", spectrum[tuple(places)], weight)
    if shifted:
        out = torch.fft.fftshift(out, shifted)
    expected = torch.fft.irfftn(out, s=space, dim=axes, norm="forward") + conv.bias.detach()
    assert relative_error(conv(x), expected) < 1e-5


@pytest.mark.parametrize(("case", "cin", "cout", "modes"), [(0, 3, 4, (6,)), (1, 3, 2, (6, 6)), (2, 2, 2, (8, 5))])
def test_spectral_convolutions(case: int, cin: int, cout: int, modes: tuple[int, ...]) -> None:
    """Case 2: an odd number of points and modes, as the library treats them."""
    golden = section(goldens.load(SYSTEM, "neuralop_spectral_conv"), f"case{case}/")
    conv = SpectralConv(cin, cout, modes)
    weights = section(golden, "w/")
    conv.load_state_dict({"weight": weights["weight.tensor"], "bias": weights["bias"]})
    x = golden["x"].requires_grad_()
    y = conv(x)
    assert torch.allclose(y, golden["y"], atol=2e-5)
    (golden["R"] * y).sum().backward()
    assert torch.allclose(x.grad, golden["grad_x"], atol=2e-5)
    assert torch.allclose(conv.bias.grad, golden["grad_w/bias"], atol=1e-4)
    assert relative_error(conv.weight.grad, golden["grad_w/weight.tensor"]) < 1e-5


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("t1", {"modes": 24, "width": 48, "nlayers": 8, "signal_resolution": (64, 64)}, 11_065_664),
        ("t1u", {"modes": 24, "signal_resolution": (64, 64), "channel_exponent": 4}, 650_381),
        ("t1u", {"modes": 24, "signal_resolution": (64, 64), "channel_exponent": 6}, 10_230_989),
        (
            "t1u",
            {
                "modes": 100,
                "signal_resolution": (128, 128),
                "channel_exponent": 6,
                "in_channels": 3,
                "out_channels": 3,
            },
            13_167_185,
        ),
        ("fno-kairos", {"modes": 24, "width": 32, "nlayers": 6, "signal_resolution": (64, 64)}, 14_166_593),
        ("ffno", {"modes": 32, "width": 82, "n_layers": 10}, 8_889_057),
        ("unet", {"size": 64, "channel_exponent": 6}, 7_729_921),
        ("unet", {"size": 128, "channel_exponent": 6, "in_channels": 3, "out_channels": 3}, 12_978_947),
    ],
)
def test_published_parameter_counts(name: str, arguments: dict[str, object], count: int) -> None:
    assert sum(p.numel() for p in network(name, **arguments).parameters()) == count


@pytest.mark.parametrize("size", SIZES)
def test_the_u_net_keeps_its_size(size: int) -> None:
    unet = UNet(size, 2, 1, 1)
    assert unet(torch.randn(2, 2, size, size)).shape == (2, 1, size, size)


def test_initial_scales() -> None:
    golden = goldens.load_json(SYSTEM, "vp_init")
    for scale in golden["scales"]:
        rule, width, modes = scale["weight_init"], scale["width"], scale["modes"]
        points = math.prod(scale["res"])
        kept = modes * modes
        assert mixing_std(rule, width, width, points, kept) == pytest.approx(scale["std_channel_mixing"], rel=1e-6)
        assert mixing_std(rule, width, width, points, kept, COMPLEX_GAIN) == pytest.approx(
            scale["std_channel_mixing_dft_gain_half"], rel=1e-6
        )
        assert mixing_std(4, modes, modes, 1, 1) == pytest.approx(scale["std_spatial_mixing"], rel=1e-6)
    layer = T1Layer(48, (24, 24), (64, 64))
    for weight, std in ((layer.ch_mixing_1, 0.3849001795), (layer.spatial_mixing_1, 0.2041241452)):
        assert weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * weight.numel()))


@pytest.mark.parametrize(("size", "modes", "width"), [(64, 16, 32), (128, 24, 16)])
def test_the_rule_preserves_variance(size: int, modes: int, width: int) -> None:
    """White noise through a DCT convolution that keeps m of N modes has the variance it had."""
    std = convolution_std(2, "dct", width, width, (modes,), (size,))
    assert std == pytest.approx(math.sqrt(size / (width * modes)))
    weight = torch.randn(modes, width, width) * std
    z = torch.randn(400, width, modes)  # the kept coefficients of unit white noise
    y = synthesise(torch.einsum("bim,mio->bom", z, weight), (size,), "dct")
    assert y.var().item() == pytest.approx(1.0, rel=0.1)


def test_one_dimensional_t1_transforms_once() -> None:
    """Against its formula, written down directly."""
    t1 = network("t1", modes=5, width=4, nlayers=2, signal_resolution=(16,), act="gelu", head_init="scaled")
    x = torch.randn(3, 1, 16)
    from zoo.operators.transforms import dct

    grid = torch.linspace(0, 1, 16).expand(3, 1, -1)
    z = dct(t1.fc0(torch.cat((x, grid), 1).movedim(1, -1)).movedim(-1, 1))[..., :5]
    for layer in t1.layers:
        h = F.gelu(torch.einsum("bix,iox->box", z, layer.ch_mixing_1))
        z = torch.einsum("bcx,xyc->bcy", h, layer.spatial_mixing_1) + z
    expected = F.pad((torch.sin(z.movedim(1, -1) @ t1.fc1) @ t1.fc2).movedim(-1, 1), (0, 11))
    assert relative_error(t1(x), expected) < 1e-4
    assert t1(x[:, 0]).shape == (3, 16)


def test_padding_is_transformed_with_the_field() -> None:
    t1 = network("t1", modes=5, width=4, signal_resolution=(12, 12), padding=3, keep_high=False, head_init="scaled")
    whole = network("t1", modes=5, width=4, signal_resolution=(12, 12), padding=3, keep_high=True)
    whole.load_state_dict(t1.state_dict())
    x = torch.randn(2, 1, 12, 12)
    assert t1(x).shape == whole(x).shape == (2, 1, 15, 15)
    lifted = t1.fc0(torch.cat((x, grid_of(x)), 1).movedim(1, -1)).movedim(-1, 1)
    block = dct2(F.pad(lifted, (0, 3, 0, 3)))[..., :5, :5]
    for layer in t1.layers:
        block = layer(block)
    expected = (torch.sin(block.movedim(1, -1) @ t1.fc1) @ t1.fc2).movedim(-1, 1)
    assert relative_error(t1(x)[..., :5, :5], expected) < 1e-4


@pytest.mark.parametrize(("points", "modes"), [((10, 16), 6), ((13, 9), 7), ((8, 8), 8), ((16, 16), 6)])
def test_high_modes_are_passed_on_beside_any_block(points: tuple[int, int], modes: int) -> None:
    """Also one larger than half of the spectrum, where no rows are left to copy."""
    layer = T1Layer(2, (modes, modes), points, keep_high=True, residual=False)
    x = torch.randn(3, 2, *points)
    expected = torch.zeros_like(x)
    expected[..., modes : max(modes, points[0] - modes), :] = x[..., modes : max(modes, points[0] - modes), :]
    expected[..., modes:] = x[..., modes:]
    block = x[..., :modes, :modes].permute(2, 3, 0, 1)
    with torch.no_grad():
        expected[..., :modes, :modes] = layer.block(block).permute(2, 3, 0, 1)
        assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("keep_high", [False, True])
@pytest.mark.parametrize("modes", [5, 14])
def test_a_spectrum_is_taken_as_it_is(keep_high: bool, modes: int) -> None:
    """With perform_forward off the coordinates are added to the spectrum itself; padding comes after the lift."""
    size = {"modes": modes, "width": 4, "nlayers": 2, "signal_resolution": (12, 13), "padding": 2}
    t1 = network("t1", **size, perform_forward=False, keep_high=keep_high, head_init="scaled")
    x = torch.randn(2, 1, 12, 13)
    z = F.pad(t1.fc0(torch.cat((x, grid_of(x)), 1).movedim(1, -1)).movedim(-1, 1), (0, 2, 0, 2))
    for layer in t1.layers:
        z = layer(z)
    expected = (torch.sin(z.movedim(1, -1) @ t1.fc1) @ t1.fc2).movedim(-1, 1)
    assert relative_error(t1(x), expected) < 1e-4


def grid_of(x: Tensor) -> Tensor:
    axes = [torch.linspace(0, 1, n) for n in x.shape[2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(x), -1, -1, -1)


@pytest.mark.parametrize(("name", "arguments"), [("t1", {"act": "gelu"}), ("t1u", {"channel_exponent": 2})])
def test_inverse_gives_the_field_of_the_spectrum(name: str, arguments: dict[str, object]) -> None:
    size = {"modes": 24, "signal_resolution": (32, 28), **arguments}
    if name == "t1":
        size |= {"width": 3, "head_init": "scaled"}
    spectral, spatial = network(name, **size).eval(), network(name, **size, perform_inverse=True).eval()
    spatial.load_state_dict(spectral.state_dict())
    x = torch.randn(2, 1, 32, 28)
    with torch.no_grad():
        assert relative_error(spatial(x), idct2(spectral(x))) < 1e-4


def test_a_finer_grid_changes_nothing_for_periodic_band_limited_fields() -> None:
    """With the Fourier basis coefficients of the same function are the same function's at any resolution."""
    t1 = network(
        "t1",
        modes=7,
        width=6,
        nlayers=2,
        signal_resolution=(16, 16),
        perform_inverse=True,
        head_init="scaled",
        basis="fourier",
        act="gelu",
    )
    with torch.no_grad():
        t1.fc0.weight[:, 1:] = 0  # the coordinates' own Fourier coefficients do depend on the grid
        block = torch.randn(2, 1, 7, 7)
        coarse = synthesise(block, (16, 16), "fourier")
        fine = synthesise(2 * block, (32, 32), "fourier")
        assert relative_error(fine[..., ::2, ::2], coarse) < 1e-5
        assert relative_error(t1(fine)[..., ::2, ::2], t1(coarse)) < 1e-4


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("t1", {"modes": 7, "width": 3, "signal_resolution": (18, 18)}),
        ("t1u", {"modes": 24, "channel_exponent": 1, "signal_resolution": (30, 30)}),
        ("fno", {"n_modes": (6, 6), "hidden_channels": 3, "n_layers": 1, "grid": 11}),
    ],
)
def test_inference_mode_leaves_nothing_behind(name: str, arguments: dict[str, object]) -> None:
    """Matrices made when a model first runs are kept; those made without gradients have to serve with them too."""
    module = zoo.create_model(f"operators/{name}", **arguments)
    points = arguments.get("signal_resolution", (19, 19))
    x = torch.randn(2, 1, *points)
    with torch.inference_mode():
        module(x)
    module(x.requires_grad_()).square().sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "file", "prefix"),
    [
        ("t1", "t1_2d", "case0/w/"),
        ("t1u", "t1u_2d", "w/"),
        ("fno", "neuralop_fno2d", "w/"),
        ("fno-kairos", "fno2d_kairos", "w/"),
        ("ffno", "ffno2d_kairos", "w/"),
    ],
)
class TestConverters:
    def test_a_lightning_checkpoint_is_looked_into(self, name: str, file: str, prefix: str) -> None:
        weights = section(goldens.load(SYSTEM, file), prefix)
        plain = zoo.convert_official(f"operators/{name}", {**weights, "_metadata": {"version": 1}})
        wrapped = {"state_dict": {f"model.{key}": tensor for key, tensor in weights.items()}, "epoch": 3}
        inside = zoo.convert_official(f"operators/{name}", wrapped)
        assert plain.keys() == inside.keys()
        assert all(torch.equal(plain[key], inside[key]) for key in plain)

    def test_a_missing_or_unknown_key_is_named(self, name: str, file: str, prefix: str) -> None:
        weights = section(goldens.load(SYSTEM, file), prefix)
        lost = next(key for key in weights if key.endswith("bias") or "mixing" in key)
        with pytest.raises(WeightsError, match=f"missing: {lost}"):
            zoo.convert_official(f"operators/{name}", {k: v for k, v in weights.items() if k != lost})
        with pytest.raises(WeightsError, match="unknown: surplus"):
            zoo.convert_official(f"operators/{name}", {**weights, "surplus": torch.zeros(1)})
        with pytest.raises(WeightsError, match="no tensors"):
            zoo.convert_official(f"operators/{name}", {"epoch": 3})


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("t1", {"modes": 24, "width": 4, "signal_resolution": (16, 16)}, "more than the"),
        ("t1", {"modes": (4, 4, 4), "width": 4, "signal_resolution": (16, 16)}, "one number for each of 2 axes"),
        ("t1", {"modes": 4, "width": 4, "signal_resolution": (16, 16, 16)}, "one or two dimensions, not 3"),
        ("t1u", {"modes": 20, "signal_resolution": (64, 64)}, "has kernels for inputs of 24, 64"),
        ("fno-kairos", {"modes": 9, "width": 4, "signal_resolution": (16, 16)}, "do not fit"),
        ("fno-kairos", {"modes": 6, "width": 4, "signal_resolution": (16, 9)}, "do not fit"),
        ("t1", {"modes": 0, "width": 4, "signal_resolution": (16, 16)}, "should be 1 or more"),
        ("t1", {"modes": 4, "padding": -1, "signal_resolution": (16, 16)}, "0 or more"),
        ("fno", {"n_modes": ()}, "one per axis"),
        ("fno", {"n_modes": (0, 4)}, "should be 1 or more"),
        ("ffno", {"modes": 0}, "should be 1 or more"),
    ],
)
def test_impossible_sizes_are_named(name: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(name, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"act": "relu"}, "no activation 'relu': use sin or gelu"),
        ({"basis": "dst"}, "not 'dst'"),
        ({"weight_init": 7}, "one of 1, 2, 3, 4, not 7"),
    ],
)
def test_impossible_choices_of_the_network_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        T1(modes=4, width=4, signal_resolution=(16, 16), **arguments)
