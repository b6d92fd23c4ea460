"""DISCO convolution, UDNO and NO-VarNet against the official numbers, and what was mended."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from tests.goldens import relative_error, section
from tests.mri.diffusion.golden import config, load
from zoo.config import compose, resolve
from zoo.engine.run import train
from zoo.errors import ConfigError, WeightsError
from zoo.mri.fourier import fft2, ifft2
from zoo.mri.masks import center_lines
from zoo.mri.no_varnet.network import NormUDNO, NOVarNet
from zoo.mri.operators import rss
from zoo.ops.disco import DiscoConv2d, basis_size, disco2d, filter_basis, smallest_radius
from zoo.ops.udno import UDNO


@pytest.mark.parametrize("case", ["a", "b", "c", "d", "e", "f"])
def test_published_filters(case: str) -> None:
    made = config("disco")[case]
    basis = filter_basis(tuple(made["in_shape"]), tuple(made["kernel_shape"]), made["radius_cutoff"], "published")
    expected = load("disco")[f"psi.{case}"]
    assert basis.shape == expected.shape == (basis_size(made["kernel_shape"]), made["local"], made["local"])
    assert (basis - expected).abs().max() < 1e-6


@pytest.mark.parametrize("padding", ["constant", "circular"])
def test_published_layer(padding: str) -> None:
    golden, made = section(load("disco"), f"layer.{padding}."), config("disco")["layer"]
    layer = DiscoConv2d(
        4, 6, made["kernel_shape"], made["radius_cutoff"], made["groups"], padding=padding, sampling="published"
    )  # type: ignore[arg-type]
    layer.load_state_dict({"weight": golden["weight"], "bias": golden["bias"]})
    x = golden["x"].clone().requires_grad_()
    output = layer(x)
    assert (output - golden["out"]).abs().max() < 1e-5
    (output * golden["loss_weight"]).sum().backward()
    assert x.grad is not None
    assert (x.grad - golden["grad_x"]).abs().max() < 1e-5
    assert relative_error(layer.weight.grad, golden["grad_weight"]) < 1e-5  # type: ignore[arg-type]


def test_filters_too_fine_for_the_grid_are_refused() -> None:
    """Where the released code lets a part of the weights, or all of them, do nothing."""
    for shape in ((320, 320), (64, 64)):
        with pytest.raises(ValueError, match="take a larger radius or a smaller kernel shape"):
            filter_basis(shape, (6, 7), 0.02)
    assert filter_basis((64, 64), (6, 7), 0.02, "published").abs().max() == 0
    radius = smallest_radius((64, 64), (3, 4))
    assert filter_basis((64, 64), (3, 4), radius).shape[0] == 9
    with pytest.raises(ValueError, match="can be told apart"):
        filter_basis((64, 64), (3, 4), 0.8 * radius)


def test_filters_sit_on_a_pixel_and_follow_the_grid() -> None:
    """Odd sizes along each axis, and the filter's values at the same distances on a grid twice as fine."""
    coarse, fine = filter_basis((40, 48), (3, 4), 0.21), filter_basis((80, 96), (3, 4), 0.21)
    assert all(n % 2 == 1 for basis in (coarse, fine) for n in basis.shape[1:])
    assert coarse.shape[2] > coarse.shape[1]
    rows, columns = (size // 2 for size in fine.shape[1:])
    inner = fine[:, rows % 2 :: 2, columns % 2 :: 2]
    top, left = ((big - small) // 2 for big, small in zip(inner.shape[1:], coarse.shape[1:], strict=True))
    inner = inner[:, top : top + coarse.shape[1], left : left + coarse.shape[2]]
    torch.testing.assert_close(4 * inner, coarse, rtol=1e-4, atol=1e-7)


def smooth(size: int) -> Tensor:
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return (torch.sin(2 * y + x) * torch.cos(3 * x - y))[None, None]


def test_a_layer_gives_the_same_function_at_another_resolution() -> None:
    torch.manual_seed(0)
    layer = DiscoConv2d(1, 3, (3, 4), 0.2).requires_grad_(False)

    def at(size: int) -> Tensor:
        return torch.nn.functional.interpolate(layer(smooth(size)), 40, mode="area")[..., 8:-8, 8:-8]

    reference = at(320)
    errors = [float((at(size) - reference).norm() / reference.norm()) for size in (80, 160)]
    assert errors[1] < errors[0] < 0.15


def test_gradients() -> None:
    basis = filter_basis((8, 8), (2, 3), 0.6).double()
    x, weight = torch.randn(1, 2, 8, 8, dtype=torch.float64), torch.randn(2, 2, 4, dtype=torch.float64)
    inputs = x.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: disco2d(a, b, None, basis), inputs)


@pytest.mark.parametrize("size", [(7, 5), (4, 4), (5, 4), (1, 3)])
@pytest.mark.parametrize("padding", ["constant", "circular"])
def test_the_definition_of_the_convolution(size: tuple[int, int], padding: Any) -> None:
    """Of filters of odd and even sizes: an even one reaches one pixel farther up and to the left."""
    x, basis = torch.randn(2, 4, 9, 11, dtype=torch.float64), torch.randn(3, *size, dtype=torch.float64)
    weight, bias = torch.randn(6, 2, 3, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    kernel = (weight[..., None, None] * basis).sum(2)
    expected = bias.view(1, -1, 1, 1).repeat(2, 1, 9, 11)
    for channel in range(6):
        mine = x[:, :2] if channel < 3 else x[:, 2:]  # of two groups
        for row, column in product(*map(range, size)):
            down, right = size[0] // 2 - row, size[1] // 2 - column
            moved = mine.roll((down, right), (-2, -1))
            if padding == "constant":
                moved[..., : max(down, 0), :] = moved[..., :, : max(right, 0)] = 0
                moved[..., 9 + min(down, 0) :, :] = moved[..., :, 11 + min(right, 0) :] = 0
            expected[:, channel] += (moved * kernel[channel, :, row, column].view(1, 2, 1, 1)).sum(1)
    output = disco2d(x, weight, bias, basis, groups=2, padding=padding)
    torch.testing.assert_close(output, expected)
    assert output.is_contiguous()


@pytest.mark.parametrize("fixed", [False, True])
def test_udno(fixed: bool) -> None:
    golden, arguments = load("udno"), config("udno")
    sizes = arguments.pop("in_shape")
    network, finer = (
        UDNO(**arguments, sampling="published", in_shape=[factor * n for n in sizes] if fixed else None)
        for factor in (1, 2)
    )
    for each in (network, finer):
        each.load_state_dict(section(golden, "w:"))
    x = golden["x"].clone().requires_grad_()
    output = network(x)
    assert (output - golden["out"]).abs().max() < 1e-4
    assert (finer(golden["x_2x"]) - golden["out_2x"]).abs().max() < 1e-4
    assert ((network(golden["x_2x"]) - golden["out_2x"]).abs().max() < 1e-4) != fixed
    (output * golden["loss_weight"]).sum().backward()
    assert x.grad is not None
    assert relative_error(x.grad, golden["grad_x"]) < 1e-3
    assert relative_error(network.down_sample_layers[0].layers[0].weight.grad, golden["grad_first"]) < 1e-3
    assert relative_error(network.up[-1][1].weight.grad, golden["grad_last"]) < 1e-3


@pytest.mark.parametrize(("reduction", "skip"), [("rss", "add"), ("batch", "replace")])
def test_no_varnet(reduction: str, skip: str) -> None:
    golden = load("no_varnet")
    case = section(golden, f"{reduction}.{skip}.")
    methods = {"reduction_method": reduction, "skip_method": skip}
    network: Any = zoo.create_model("mri/no-varnet", **config("no_varnet"), **methods, published=True).network
    network.load_state_dict(zoo.convert_official("mri/no-varnet", section(golden, "w:")))
    pairs = golden["masked_kspace"].clone().requires_grad_()
    kspace, mask = torch.view_as_complex(pairs), golden["mask"][:, :1, ..., 0]
    acs = torch.from_numpy(center_lines(32, int(golden["num_low"])))[None, None, None]
    assert relative_error(torch.view_as_real(network.sens_net(kspace, acs)), case["sens_maps"]) < 5e-4
    image = rss(ifft2(network(kspace, mask, acs)))
    assert relative_error(image, case["out"]) < 5e-4
    (image * golden["loss_weight"]).sum().backward()
    assert pairs.grad is not None
    assert relative_error(pairs.grad, case["grad_kspace"]) < 2e-3
    assert relative_error(network.cascades[0].dc_weight.grad, case["grad_dc_weight0"]) < 2e-3
    first = network.kno.udno.down_sample_layers[0].layers[0].weight.grad
    assert relative_error(first, case["grad_kno_first"]) < 2e-3


def test_combined_kspace_goes_back_to_the_coils_as_kspace() -> None:
    """With an operator that adds nothing, the combined image comes out again; not so as published."""
    arguments: dict[str, Any] = {"kernel_shape": (2, 3), "radius_cutoff": 0.3, "sens_pools": 1, "pools": 1}
    network = NOVarNet(1, 2, kno_pools=1, reduction_method="rss", skip_method="add", **arguments)
    maps = torch.ones(1, 1, 16, 16, dtype=torch.complex64)
    kspace = torch.randn(1, 1, 16, 16, dtype=torch.complex64)
    network.kno.forward = torch.zeros_like  # type: ignore[method-assign, assignment]
    torch.testing.assert_close(network.initial(kspace, maps), kspace)
    network.published = True
    torch.testing.assert_close(network.initial(kspace, maps), fft2(kspace))


def test_published_filters_may_be_made_for_images_before_padding() -> None:
    arguments = {"num_cascades": 1, "chans": 2, "pools": 1, "sens_chans": 2, "sens_pools": 1, "kno_chans": 2}
    made: Any = {**arguments, "kno_pools": 1, "radius_cutoff": 0.2, "kernel_shape": (3, 4), "in_shape": (40, 48)}
    published, ours = (zoo.create_model("mri/no-varnet", **made, published=p).network for p in (True, False))
    for network, grids in ((published, {(40, 48), (20, 24)}), (ours, {None})):
        assert {layer.grid for layer in network.modules() if isinstance(layer, DiscoConv2d)} == grids
    image = torch.randn(1, 40, 48, dtype=torch.complex64)
    padded = NormUDNO(2, 1, 0.2, (3, 4), "published")
    padded.load_state_dict(published.kno.state_dict())
    assert (padded(image) - published.kno(image)).abs().max() > 1e-3


def test_released_size() -> None:
    with torch.device("meta"):
        network = zoo.create_model("mri/no-varnet", published=True).network
    assert sum(p.numel() for p in network.parameters()) == 76_297_534
    assert sum(p.numel() for p in network.sens_net.parameters()) == 2_157_138
    assert sum(p.numel() for p in network.kno.parameters()) == 8_627_362


def test_any_image_size() -> None:
    torch.manual_seed(0)
    image = torch.randn(2, 37, 30, dtype=torch.complex64)
    assert NormUDNO(2, 2, 0.3, (2, 3), "pixels")(image).shape == image.shape


def test_bad_input_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.radius_cutoff and model\.kernel_shape do not fit"):
        zoo.create_model("mri/no-varnet", in_shape=(64, 64))
    for kernel_shape in ((), (0, 4), (3, 4, 5)):
        with pytest.raises(ValueError, match=r"a kernel shape is \(rings, angles\) or \(rings,\)"):
            UDNO(2, 2, 4, 1, 0.2, kernel_shape)
    with pytest.raises(ValueError, match="radius of a filter should be positive, not 0"):
        filter_basis((16, 16), (3, 4), 0.0)
    with pytest.raises(ValueError, match="levels below the first, not 4 and 0"):
        UDNO(2, 2, 4, 0, 0.2, (3, 4))
    with pytest.raises(WeightsError, match="unknown: encoder"):
        zoo.convert_official("mri/no-varnet", {"encoder.weight": torch.zeros(2)})
    official = section(load("no_varnet"), "w:")
    wrapped = {
        "state_dict": {f"model.{key}": value for key, value in official.items()} | {"criterion.w": torch.ones(1)}
    }
    assert zoo.convert_official("mri/no-varnet", wrapped).keys() == official.keys()


QUIET = ["callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}"]


@pytest.mark.slow
def test_short_training_beats_zero_filling(in_tmp: Path) -> None:
    assert resolve(compose("mri/no-varnet")).model.name == "mri/no-varnet"
    model = ["num_cascades=2", "chans=4", "radius_cutoff=0.2", "in_shape=[32,32]", "lr=1e-2", "warmup_steps=10"]
    data = ["size=[32,32]", "coils=3", "slices=2", "train_volumes=30", "val_volumes=1", "test_volumes=2"]
    rates = ["accelerations=[4]", "center_fractions=[0.12]", "masks=[equispaced]"]
    options = [*(f"model.{x}" for x in [*model, "baselines=[zero-filled]"]), *(f"data.{x}" for x in [*data, *rates])]
    metrics = train(compose("mri/no-varnet", [*QUIET, *options, "trainer.max_epochs=6", "run_dir=run"]))["metrics"]
    assert metrics["test/4x/psnr"] > metrics["test/4x/zero-filled/psnr"] + 0.3
    assert metrics["test/4x/ssim"] > metrics["test/4x/zero-filled/ssim"] + 0.05
