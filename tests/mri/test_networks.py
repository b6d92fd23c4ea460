"""RecurrentVarNet, its parts and RIM against the official numbers: outputs, states and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoo
from tests.goldens import section
from tests.mri.golden import cplx, error, load, mask_of, meta
from zoo.errors import WeightsError
from zoo.mri.baselines import SenseCG
from zoo.mri.convgru import ConvGRU
from zoo.mri.fourier import ifft2
from zoo.mri.official_keys import gru_from_official
from zoo.mri.operators import SenseOperator, from_channels, normalize_maps, reduce, rss, to_channels
from zoo.mri.recurrentvarnet.convert import export_official
from zoo.mri.recurrentvarnet.network import CLOSING_WEIGHT, OPENING_WEIGHT
from zoo.mri.rim.cells import CELLS
from zoo.mri.rim.network import log_likelihood_gradient
from zoo.mri.unet import NormUNet, UNet

RVN = ["rvn_sense_unshared", "rvn_zerofilled_shared_norm", "rvn_noinit_uncentered", "rvn_inputimage_onelayer"]
OUTPUT, GRADIENT = 1e-5, 1e-4


def inputs(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    complex_ones = {
        name: cplx(golden[f"in/{name}"]).requires_grad_()
        for name in ("masked_kspace", "sensitivity_map", "initial_image")
        if f"in/{name}" in golden
    }
    return {**complex_ones, "sampling_mask": mask_of(golden)}


def check_gradients(network: nn.Module, expected: dict[str, Tensor], tolerance: float = GRADIENT) -> None:
    """`expected` under our names; a parameter without a gradient counts as one of zeros."""
    parameters = dict(network.named_parameters())
    assert parameters.keys() == expected.keys()
    for name, parameter in parameters.items():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert error(gradient, expected[name]) < tolerance or expected[name].abs().max() < 1e-9, name


class TestRecurrentVarNet:
    @pytest.fixture(params=RVN)
    def case(self, request: pytest.FixtureRequest) -> tuple[Any, dict[str, Tensor], dict[str, Any]]:
        golden, config = load(request.param), meta(request.param)["config"]
        network = zoo.create_model("mri/recurrentvarnet", **config).network
        network.load_state_dict(zoo.convert_official("mri/recurrentvarnet", section(golden, "w/")))
        return network, golden, config

    def test_every_step(self, case: Any) -> None:
        network, golden, _ = case
        steps = network.trajectory(**inputs(golden))
        for index, kspace in enumerate(steps):
            assert error(kspace, golden[f"out/kspace_after_block{index}"]) < OUTPUT
        assert len(steps) == network.num_steps
        assert error(network(**inputs(golden)), golden["out/kspace"]) < OUTPUT

    def test_state_after_the_first_step(self, case: Any) -> None:
        network, golden, config = case
        given = inputs(golden)
        kspace, maps = given["masked_kspace"], given["sensitivity_map"]
        image = reduce(ifft2(kspace, config["fft_centered"], config["fft_norm"]), maps)
        start = network.initial_state(kspace, maps, given.get("initial_image"))
        _, state = network.block_list[0].regularizer(to_channels(image), start)
        assert error(torch.stack(state, dim=-1), golden["out/hidden_after_block0"]) < OUTPUT

    def test_initial_state(self, case: Any) -> None:
        network, golden, _ = case
        given = inputs(golden)
        seen: list[Tensor] = []
        if network.initializer is not None:
            network.initializer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        state = network.initial_state(
            given["masked_kspace"], given["sensitivity_map"], given.get("initial_image", None)
        )
        if "out/init_state" in golden:
            assert error(torch.stack(state, dim=-1), golden["out/init_state"]) < OUTPUT
            assert error(seen[0], golden["out/init_input"]) < OUTPUT
        else:
            assert state is None

    @pytest.mark.parametrize("checkpoint_steps", [False, True])
    def test_loss_and_gradients(self, case: Any, checkpoint_steps: bool) -> None:
        network, golden, config = case
        network.checkpoint_steps = checkpoint_steps
        given = inputs(golden)
        kspace = network(**given)
        image = rss(ifft2(kspace, config["fft_centered"], config["fft_norm"]))
        assert error(image, golden["out/rss"]) < OUTPUT
        # The mean over real and imaginary parts.
        loss = (image - golden["in/target_rss"]).square().mean() + 0.1 * kspace.abs().square().mean() / 2
        assert loss.item() == pytest.approx(golden["out/loss"].item(), rel=1e-5)
        loss.backward()
        for name in ("masked_kspace", "sensitivity_map"):
            assert error(given[name].grad, golden[f"gin/{name}"]) < GRADIENT
        check_gradients(network, zoo.convert_official("mri/recurrentvarnet", section(golden, "g/")))

    def test_export_returns_the_checkpoint_bit_for_bit(self, case: Any) -> None:
        network, golden, _ = case
        exported = export_official(network)["model"]
        official = section(golden, "w/")
        assert exported.keys() == official.keys()
        assert all(torch.equal(exported[name], official[name]) for name in official)


class TestOpeningAndClosing:
    """Conjugate gradients before the first step and after the last."""

    @pytest.fixture
    def scan(self) -> tuple[Tensor, Tensor, Tensor]:
        """Samples, mask and maps of an image that is not centred at any symmetric place."""
        torch.manual_seed(0)
        maps = normalize_maps(torch.randn(2, 3, 13, 10, dtype=torch.complex64))
        mask = torch.rand(2, 1, 13, 10) < 0.6
        image = torch.randn(2, 13, 10, dtype=torch.complex64)
        return SenseOperator(maps, mask).forward(image), mask, maps

    @staticmethod
    def network(**options: Any) -> Any:
        sizes = {"num_steps": 1, "recurrent_hidden_channels": 4, "recurrent_num_layers": 1, "rms_scaling": True}
        return zoo.create_model("mri/recurrentvarnet", **sizes, **options).network

    @pytest.mark.parametrize("centered", [True, False])
    def test_without_steps_the_opening_is_sense(self, scan: tuple[Tensor, Tensor, Tensor], centered: bool) -> None:
        """Steps of weight 0 leave k-space as it is; SENSE begins at 0 and the opening one iteration later."""
        network = self.network(opening_iterations=40, fft_centered=centered)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
            kspace, mask, maps = scan
            image = SenseCG(OPENING_WEIGHT, iterations=40)(kspace, mask, maps, centered)
            expected = SenseOperator(maps, torch.ones_like(mask), centered).forward(image)
            assert error(network(kspace, mask, maps), expected) < 1e-4

    @pytest.mark.parametrize("centered", [True, False])
    def test_closing_balances_the_samples_and_the_steps(
        self, scan: tuple[Tensor, Tensor, Tensor], centered: bool
    ) -> None:
        """The gradient of ||A x - y||^2 + weight ||x - x_steps||^2 vanishes, and the weight has one of its own."""
        torch.manual_seed(1)
        network = self.network(closing_iterations=60, fft_centered=centered)
        kspace, mask, maps = scan
        closed = network(kspace, mask, maps)
        before = self.network(fft_centered=centered)
        before.load_state_dict({k: v for k, v in network.state_dict().items() if k != "log_closing_weight"})
        prior, image = (reduce(ifft2(k, centered), maps) for k in (before(kspace, mask, maps), closed))
        gradient = SenseOperator(maps, mask, centered).gradient(image, kspace) + CLOSING_WEIGHT * (image - prior)
        assert gradient.abs().max() < 1e-4 * kspace.abs().max()
        closed.abs().square().sum().backward()
        assert network.log_closing_weight.grad.abs() > 0


def test_checkpoints_in_all_their_wrappings() -> None:
    official = section(load("e2e_pipeline"), "w/")
    network = zoo.create_model("mri/recurrentvarnet", **e2e_arguments()).network
    parts = {"model": section(official, "model."), "sensitivity_model": section(official, "sensitivity_model.")}
    plain = zoo.convert_official("mri/recurrentvarnet", official)
    network.load_state_dict(plain)
    distributed = {key: {f"module.{name}": value for name, value in part.items()} for key, part in parts.items()}
    for checkpoint in (parts, {**distributed, "optimizer": {}, "__version__": "2.1.0"}):
        converted = zoo.convert_official("mri/recurrentvarnet", checkpoint)
        assert converted.keys() == plain.keys()
        assert all(torch.equal(converted[name], plain[name]) for name in plain)
    exported = export_official(network)
    assert exported.keys() == parts.keys()
    assert all(torch.equal(exported["sensitivity_model"][k], v) for k, v in parts["sensitivity_model"].items())


def e2e_arguments() -> dict[str, Any]:
    config = meta("e2e_pipeline")["config"]
    arguments = {**config["model"], "initializer_initialization": config["model"]["initializer"]}
    del arguments["initializer"]
    unet = config["unet"]
    return {**arguments, "sensitivity_filters": unet["num_filters"], "sensitivity_pools": unet["num_pool_layers"]}


@pytest.mark.parametrize("name", ["mri/recurrentvarnet", "mri/rim", "mri/varnet"])
def test_foreign_checkpoints_are_refused(name: str) -> None:
    with pytest.raises(WeightsError, match=r"unknown|it has"):
        zoo.convert_official(name, {"encoder.weight": torch.zeros(2)})
    with pytest.raises(WeightsError, match="holds no tensors"):
        zoo.convert_official(name, {"epoch": 3})
    incomplete = section(load("rvn_sense_unshared"), "w/")
    del incomplete["block_list.1.regularizer.out_gates.2.0.bias"]
    if name == "mri/recurrentvarnet":
        with pytest.raises(WeightsError, match=r"has no 'block_list\.1\.regularizer\.out_gates\.2\.0\.bias'"):
            zoo.convert_official(name, incomplete)


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({}, 6_918_424),
        ({"sensitivity_filters": 8}, 7_403_322),
        ({"num_steps": 12}, 10_303_780),
        ({"no_parameter_sharing": False}, 994_051),
        ({"learned_initializer": False}, 6_770_712),
        ({"num_steps": 11, "recurrent_num_layers": 3}, 6_727_841),
        ({"recurrent_hidden_channels": 96, "recurrent_num_layers": 3}, 2_827_320),
        ({"num_steps": 6, "recurrent_num_layers": 2}, 2_229_266),
        (
            {"num_steps": 15, "recurrent_hidden_channels": 64, "initializer_multiscale": 1},
            3_296_045,
        ),
    ],
)
def test_published_sizes(arguments: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        network = zoo.create_model("mri/recurrentvarnet", **arguments).network
    assert sum(p.numel() for p in network.parameters()) == parameters


GRU_CASES = ("plain", "dense2", "inorm_k3", "norm", "onelayer")


@pytest.mark.parametrize("case", GRU_CASES)
def test_convgru(case: str) -> None:
    golden = section(load("convgru"), f"{case}/")
    arguments = dict(meta("convgru")["configs"][case])
    normalized = arguments.pop("class") == "NormConv2dGRU"
    network = ConvGRU(**arguments, normalized=normalized)
    network.load_state_dict(gru_from_official(section(golden, "w/"), "", ""))
    x = golden["in/x"].requires_grad_()
    state = golden["in/state"].requires_grad_()
    y, new_state = network(x, list(state.unbind(-1)))
    stacked = torch.stack(new_state, dim=-1)
    assert error(y, golden["out/y"]) < OUTPUT
    assert error(stacked, golden["out/state"]) < OUTPUT
    assert error(network(x)[0], golden["out/y_nostate"]) < OUTPUT
    loss = (y * golden["in/wo"]).mean() + (stacked * golden["in/wh"]).mean()
    loss.backward()
    assert loss.item() == pytest.approx(golden["out/loss"].item(), rel=1e-5)
    assert error(x.grad, golden["gin/x"]) < GRADIENT
    assert error(state.grad, golden["gin/state"]) < GRADIENT
    check_gradients(network, gru_from_official(section(golden, "g/"), "", ""))


def test_unet_on_odd_sizes() -> None:
    golden = load("unet")
    weights = section(golden, "w/")
    norm_weights = section(weights, "norm.")
    plain = UNet(2, 2, 3, 3)
    plain.load_state_dict({k: v for k, v in weights.items() if not k.startswith("norm")})
    x = golden["in/x"].requires_grad_()
    y = plain(x)
    loss = (y * golden["in/w"]).mean()
    loss.backward()
    assert error(y, golden["out/y"]) < OUTPUT
    assert loss.item() == pytest.approx(golden["out/loss"].item(), rel=1e-5)
    assert error(x.grad, golden["gin/x"]) < GRADIENT
    expected = {k: v for k, v in section(golden, "g/").items() if not k.startswith("norm")}
    check_gradients(plain, expected)
    normalised = NormUNet(2, 3)
    normalised.unet.load_state_dict({k.removeprefix("unet2d."): v for k, v in norm_weights.items()})
    assert error(to_channels(normalised(from_channels(golden["in/x"]))), golden["out/norm_y"]) < OUTPUT


class TestRIM:
    @pytest.mark.parametrize("case", ["rim_shared_sense", "rim_unshared_init_dense"])
    def test_challenge_form(self, case: str) -> None:
        golden, config = load(case), meta(case)["config"]
        network = zoo.create_model("mri/rim", cell="conv-gru", **config).network
        network.load_state_dict(zoo.convert_official("mri/rim", section(golden, "w/")))
        given, scaling = inputs(golden), golden["in/loglikelihood_scaling"]
        operator = SenseOperator(given["sensitivity_map"], given["sampling_mask"])
        image = cplx(golden["in/image_for_grad"])
        gradient = log_likelihood_gradient(image, given["masked_kspace"], operator, scaling)
        assert error(to_channels(gradient), golden["out/grad_loglikelihood_of_target_image"]) < OUTPUT
        images, state = network(**given, loglikelihood_scaling=scaling)
        for step, x in enumerate(images):
            assert error(to_channels(x), golden[f"out/image_{step}"]) < OUTPUT
        assert error(torch.stack(state, dim=-1), golden["out/state"]) < OUTPUT
        loss = torch.stack([(x.abs() - golden["in/target"]).square().mean() for x in images]).mean()
        loss.backward()
        assert loss.item() == pytest.approx(golden["out/loss"].item(), rel=1e-5)
        assert error(given["masked_kspace"].grad, golden["gin/masked_kspace"]) < GRADIENT
        check_gradients(network, zoo.convert_official("mri/rim", section(golden, "g/")))

    @pytest.mark.parametrize("cell", ["gru", "mgu", "indrnn"])
    def test_efficient_form(self, cell: str) -> None:
        golden, config = load(f"mridc_rim_{cell}"), meta(f"mridc_rim_{cell}")["config"]
        module = zoo.create_model(
            "mri/rim",
            cell=cell,
            hidden_channels=config["filters"],
            length=config["time_steps"],
            **{name: config[name] for name in ("conv_kernels", "conv_dilations", "recurrent_kernels", "sigma")},
            step_weights="log",
        )
        module.network.load_state_dict(zoo.convert_official("mri/rim", section(golden, "w/")))
        given = inputs(golden)
        images, state = module.network(**given)
        for step, x in enumerate(images):
            assert error(x, golden[f"out/eta_{step}"]) < OUTPUT
        for index, h in enumerate(state):
            assert error(h, golden[f"out/hidden_{index}"]) < OUTPUT
        weights = [w for _, w in module._weighted({**given})]
        loss = sum(w * (x.abs() - golden["in/target"]).abs().mean() for w, x in zip(weights, images, strict=True))
        loss.backward()
        assert loss.item() == pytest.approx(golden["out/loss"].item(), rel=1e-5)
        assert error(given["masked_kspace"].grad, golden["gin/masked_kspace"]) < GRADIENT
        check_gradients(module.network, zoo.convert_official("mri/rim", section(golden, "g/")))

    @pytest.mark.parametrize(("cell", "parameters"), [("gru", 94_080), ("mgu", 77_568), ("indrnn", 52_992)])
    def test_efficient_sizes(self, cell: str, parameters: int) -> None:
        network = zoo.create_model("mri/rim", cell=cell, hidden_channels=64, length=8).network
        assert sum(p.numel() for p in network.parameters()) == parameters

    @pytest.mark.parametrize(("arguments", "parameters"), [({}, 360_194), ({"hidden_channels": 64}, 94_082)])
    def test_challenge_sizes(self, arguments: dict[str, Any], parameters: int) -> None:
        network = zoo.create_model("mri/rim", **arguments).network
        assert sum(p.numel() for p in network.parameters()) == parameters

    def test_without_skip_connections_the_output_is_the_next_image(self) -> None:
        golden = load("rim_shared_sense")
        sizes: dict[str, Any] = {"hidden_channels": 6, "length": 2}
        added, plain = (zoo.create_model("mri/rim", **sizes, skip_connections=s).network for s in (True, False))
        plain.load_state_dict(added.state_dict())
        given = inputs(golden)
        (x1, x2), _ = plain(**given)
        start = added.first_image(*first(given))
        first_of_added = added(**given)[0][0]
        assert torch.allclose(start + x1, first_of_added, atol=1e-6)
        again = zoo.create_model("mri/rim", **{**sizes, "length": 1}, image_initialization="input_image").network
        again.load_state_dict(added.state_dict())
        state = added.cell_list[0](gru_input(start, given))[1]
        assert torch.allclose(again(**given, initial_image=x1, state=state)[0][0], x1 + x2, atol=1e-6)

    def test_goes_on_from_a_state(self) -> None:
        """Two calls of two steps are one of four."""
        golden = load("rim_shared_sense")
        long = zoo.create_model("mri/rim", hidden_channels=6, length=4).network
        short = zoo.create_model("mri/rim", hidden_channels=6, length=2, image_initialization="input_image").network
        short.load_state_dict(long.state_dict())
        given = inputs(golden)
        images, _ = long(**given)
        _, state = long_half = short(**given, initial_image=long.first_image(*first(given)))
        again, _ = short(**given, initial_image=long_half[0][-1], state=state)
        assert torch.allclose(again[-1], images[-1], atol=1e-6)


def gru_input(image: Tensor, given: dict[str, Tensor]) -> Tensor:
    operator = SenseOperator(given["sensitivity_map"], given["sampling_mask"])
    gradient = log_likelihood_gradient(image, given["masked_kspace"], operator)
    return torch.cat((to_channels(image), to_channels(gradient)), dim=1)


def first(given: dict[str, Tensor]) -> tuple[Tensor, Tensor, None]:
    return given["masked_kspace"], given["sensitivity_map"], None


@pytest.mark.parametrize("case", [f"{cell}_k{k}" for cell in ("GRU", "MGU", "IndRNN") for k in (1, 3)])
def test_cells(case: str) -> None:
    golden, config = section(load("mridc_cells"), f"{case}/"), meta("mridc_cells")["configs"][case]
    cell = CELLS[config["cell"].lower()](4, 5, config["kernel_size"], config["dilation"])
    cell.load_state_dict(section(golden, "w/"))
    x, h = golden["in/x"].requires_grad_(), golden["in/h"].requires_grad_()
    new = cell(x, h)
    assert error(new, golden["out/h"]) < OUTPUT
    loss = (new * golden["in/w"]).mean()
    loss.backward()
    assert loss.item() == pytest.approx(golden["out/loss"].item(), rel=1e-5)
    assert error(x.grad, golden["gin/x"]) < GRADIENT
    assert error(h.grad, golden["gin/h"]) < GRADIENT
    check_gradients(cell, section(golden, "g/"))
