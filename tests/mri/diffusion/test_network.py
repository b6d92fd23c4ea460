"""The U-Net against MC-DDPM's and diffusers' numbers; sizes, shapes, precision, checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from tests.goldens import section
from tests.mri.diffusion.golden import config, load
from zoo.errors import WeightsError
from zoo.mri.diffusion.convert import convert_official, to_diffusers
from zoo.mri.diffusion.mcddpm import KSpaceProcess, KSpaceUNet, sample_kspace, to_image, to_kspace
from zoo.mri.diffusion.network import AttentionBlock, DiffusionUNet, timestep_embedding
from zoo.mri.diffusion.process import NoiseSchedule
from zoo.mri.fourier import fft2, ifft2
from zoo.mri.operators import from_channels, to_channels
from zoo.ops.udno import UDNO

DIFFUSERS = {
    "in_channels": 5,
    "model_channels": 16,
    "num_res_blocks": 1,
    "channel_mult": (1, 2),
    "attention_resolutions": (2,),
    "num_head_channels": 8,
    "norm_groups": 8,
    "use_scale_shift_norm": False,
    "resblock_updown": False,
    "use_new_attention_order": True,
}


def randomized(network: torch.nn.Module) -> torch.nn.Module:
    """Weights that leave no branch at zero."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def tiny(**changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    arguments = {"model_channels": 8, "num_res_blocks": 1, "channel_mult": (1, 2, 2), "norm_groups": 4, **changes}
    return randomized(DiffusionUNet(5, **arguments))  # type: ignore[arg-type]


def test_mcddpm_network() -> None:
    golden, arguments = load("mcddpm_unet"), config("mcddpm_unet")
    del arguments["image_size"]
    network = KSpaceUNet(**arguments)
    network.load_state_dict(convert_official(section(golden, "w:")))
    x_t = golden["x_t"].clone().requires_grad_()
    output = network(x_t, golden["t"], golden["kspace_zf"], golden["image_zf"], golden["mask_c"])
    assert (output - golden["out"]).abs().max() < 2e-4
    (output * golden["loss_weight"]).sum().backward()
    assert x_t.grad is not None
    assert (x_t.grad - golden["grad_x_t"]).abs().max() < 2e-4
    for parameter, name in (
        (network.input_blocks[0][0], "grad_input_conv"),
        (network.time_embed[0], "grad_time_embed_0"),
    ):
        torch.testing.assert_close(parameter.weight.grad, golden[name], rtol=1e-3, atol=2e-3)


def test_mcddpm_transform() -> None:
    golden = load("mcddpm_unet")
    image = from_channels(golden["image"])
    assert (to_channels(to_kspace(image)) - golden["fftc_image"]).abs().max() < 1e-5
    torch.testing.assert_close(to_image(to_kspace(image)), image)


@pytest.mark.parametrize(
    ("case", "schedule", "scale", "steps"),
    [
        ("cosine_bs0.5", "cosine", 0.5, None),
        ("cosine_bs0.5_ddim20", "cosine", 0.5, 20),
        ("linear_bs1", "linear", 1.0, None),
    ],
)
def test_mcddpm_process(case: str, schedule: str, scale: float, steps: int | None) -> None:
    golden = load("mcddpm_diffusion")
    mine = section(golden, f"{case}.")
    process = KSpaceProcess.create(NoiseSchedule.create(schedule), scale, steps)  # type: ignore[arg-type]
    assert np.array_equal(process.timestep_map, mine["timestep_map"].numpy())
    assert np.abs(process.bar_alphas - mine["bar_alphas_f64"].numpy()).max() < 1e-12
    assert np.abs(process.bar_betas - mine["bar_betas_f64"].numpy()).max() < 1e-12
    x_t, mask_c, kspace = golden["x_t"], golden["mask_c"], golden["kspace_c"]
    for index in (len(process.timestep_map) - 1, 333 if steps is None else 6, 0):
        step = section(mine, f"t{index}.")
        noisy = process.noisy(kspace, mine["noise"], index, mask_c)
        assert (noisy - step["q_sample"]).abs().max() < 1e-5
        scale_of_state = float(1 / process.bar_alphas[index])  # the published constants are float32
        ddpm = process.ddpm(x_t, mine["eps"], index, mask_c, mine["noise"])
        assert (ddpm - step["ddpm"]).abs().max() < 1e-5 * max(1.0, scale_of_state / 10)
        ddim = process.ddim(x_t, mine["eps"], index, mask_c, published_scale=True)
        assert (ddim - step["ddim"]).abs().max() < 1e-5 * max(1.0, scale_of_state / 10)


@pytest.mark.parametrize(
    ("case", "schedule", "scale", "steps"),
    [
        ("cosine_bs0.5", "cosine", 0.5, None),
        ("cosine_bs0.5_ddim20", "cosine", 0.5, 20),
        ("linear_bs1", "linear", 1, None),
    ],
)
def test_mcddpm_posterior(case: str, schedule: Any, scale: float, steps: int | None) -> None:
    """Its mean's coefficients and its standard deviation, by steps from unit vectors."""
    golden = section(load("mcddpm_diffusion"), f"{case}.")
    process = KSpaceProcess.create(NoiseSchedule.create(schedule), scale, steps)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for index in range(0, process.schedule.steps, 1 if steps else 37):
        # A prediction that says the state is noise alone gives x0 = 0; one of -1 / bbar at state 0 gives abar x0 = 1.
        x_t = process.ddpm(one, one / float(process.bar_betas[index]), index, one, zero)
        x0 = process.ddpm(zero, -one * float(process.bar_alphas[index] / process.bar_betas[index]), index, one, zero)
        std = process.ddpm(zero, zero, index, one, one, tilde_beta=True)
        for value, name in ((x_t, "mean_coef_xt"), (x0, "mean_coef_x0"), (std, "std")):
            assert float(value) == pytest.approx(float(golden[f"posterior_{name}_f64"][index]), abs=1e-10)


def test_mcddpm_states_have_the_noise_of_the_process() -> None:
    """From a state with the right noise, a step with the right answer leads to one again; not as published."""
    process = KSpaceProcess.create(NoiseSchedule.create("cosine"))
    kspace, noise = torch.randn(2, 1, 2, 8, 8, dtype=torch.float64)
    mask_c = torch.ones(1, dtype=torch.float64)
    x_t = process.noisy(kspace, noise, 500, mask_c)
    expected = process.noisy(kspace, noise, 499, mask_c)
    torch.testing.assert_close(process.ddim(x_t, noise, 500, mask_c), expected)
    assert (process.ddim(x_t, noise, 500, mask_c, published_scale=True) - expected).abs().max() > 0.1


@pytest.mark.parametrize("shape", [(8, 10), (9, 7)])
@pytest.mark.parametrize("deterministic", [True, False])
def test_mcddpm_with_the_true_noise_returns_the_image(shape: tuple[int, int], deterministic: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.view_as_complex(torch.randn(2, *shape, 2, generator=generator))
    mask = torch.rand(1, *shape, generator=generator) < 0.4
    process = KSpaceProcess.create(NoiseSchedule.create("cosine"), steps=12)
    measured = mask * fft2(image)
    scale = ifft2(measured).abs().amax((-2, -1)).view(-1, 1, 1)
    truth = to_channels(to_kspace(image / scale))
    seen: list[int] = []

    def oracle(x_t: Tensor, timesteps: Tensor, kspace_zf: Tensor, image_zf: Tensor, mask_c: Tensor) -> Tensor:
        torch.testing.assert_close(kspace_zf, (1 - mask_c) * truth, rtol=1e-4, atol=1e-5)
        seen.append(int(timesteps[0]))
        index = process.timestep_map.tolist().index(seen[-1])
        return mask_c * (x_t - float(process.bar_alphas[index]) * truth) / float(process.bar_betas[index])

    def draw() -> Tensor:
        return torch.randn(2, 2, *shape, generator=generator)

    result = sample_kspace(oracle, measured, mask, process, draw, deterministic)
    torch.testing.assert_close(result, image, rtol=1e-3, atol=1e-3)
    assert seen == process.timestep_map.tolist()[::-1]


def test_diffusers_network() -> None:
    golden = load("diffusers_unet2d")
    network = DiffusionUNet(**DIFFUSERS)  # type: ignore[arg-type]
    official = section(golden, "w:")
    network.load_state_dict(convert_official(official))
    x = golden["x"].clone().requires_grad_()
    output = network(x, golden["t"])
    assert (output - golden["out"]).abs().max() < 1e-4
    (output * golden["loss_weight"]).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, golden["grad_x"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(network.input_blocks[0][0].weight.grad, golden["grad_conv_in"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(network.time_embed[0].weight.grad, golden["grad_time_linear_1"], rtol=1e-3, atol=1e-3)
    exported = to_diffusers(network.state_dict())
    assert exported.keys() == official.keys()
    assert all(torch.equal(exported[name], official[name]) for name in official)


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({"in_channels": 4}, 86_325_634),
        (
            {
                "in_channels": 5,
                "model_channels": 32,
                "num_res_blocks": 1,
                "channel_mult": (1, 2, 2),
                "attention_resolutions": (),
                "use_scale_shift_norm": False,
                "resblock_updown": False,
            },
            1_063_938,
        ),
    ],
)
def test_number_of_parameters(arguments: dict[str, object], parameters: int) -> None:
    with torch.device("meta"):
        network = DiffusionUNet(**arguments)  # type: ignore[arg-type]
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("shape", [(16, 16), (13, 10), (3, 5)])
@pytest.mark.parametrize("updown", [True, False])
def test_any_size(shape: tuple[int, int], updown: bool) -> None:
    output = tiny(resblock_updown=updown)(torch.randn(2, 5, *shape), torch.tensor([3, 700]))
    assert output.shape == (2, 2, *shape)
    assert output.isfinite().all()


def test_a_fresh_network_says_zero() -> None:
    assert (
        DiffusionUNet(5, 32, num_res_blocks=1, channel_mult=(1,))(torch.randn(1, 5, 8, 8), torch.zeros(1)).eq(0).all()
    )


def test_samples_and_timesteps_do_not_mix() -> None:
    network = tiny(attention_resolutions=(2,), num_heads=2)
    x, t = torch.randn(3, 5, 8, 8), torch.tensor([5, 400, 900])
    together = network(x, t)
    apart = torch.cat([network(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
    assert (together - network(x, t.flip(0))).abs().max() > 1e-3


def test_attention_orders_are_permutations_of_each_other() -> None:
    torch.manual_seed(0)
    old, new = AttentionBlock(8, 2, 4, False), AttentionBlock(8, 2, 4, True)
    torch.nn.init.normal_(old.proj_out.weight)
    state = dict(old.state_dict())
    for name in ("qkv.weight", "qkv.bias"):
        state[name] = state[name].unflatten(0, (2, 3, 4)).transpose(0, 1).flatten(0, 2)
    new.load_state_dict(state)
    x = torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(old(x), new(x))


def test_attention_is_softmax_attention() -> None:
    torch.manual_seed(0)
    block = AttentionBlock(4, 1, 2, True)
    torch.nn.init.normal_(block.proj_out.weight)
    x = torch.randn(1, 4, 2, 3)
    flat = x.flatten(2)
    q, k, v = block.qkv(block.norm(flat)).chunk(3, 1)
    weights = torch.softmax(q.transpose(1, 2) @ k / 2, dim=-1)
    expected = flat + block.proj_out(v @ weights.transpose(1, 2))
    torch.testing.assert_close(block(x).flatten(2), expected)


def test_checkpoints_change_nothing() -> None:
    x, t = torch.randn(2, 5, 8, 8), torch.tensor([5, 400])
    gradients = []
    for use in (False, True):
        network = tiny(use_checkpoint=use)
        network(x, t).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_bfloat16_stays_near_float32() -> None:
    network = tiny()
    x, t = torch.randn(2, 5, 16, 16), torch.tensor([5, 400])
    with torch.autocast("cpu", torch.bfloat16):
        half = network(x, t)
    full: Tensor = network(x, t)
    assert (half.float() - full).abs().max() < 0.05 * full.abs().max()


def test_float64_stays_float64() -> None:
    network = tiny().double()
    x, t = torch.randn(1, 5, 8, 8, dtype=torch.float64), torch.tensor([400])
    a, b = network(x, t), network(x + 1e-11, t)
    assert 0 < (a - b).abs().max() < 1e-8


def test_heads_have_equal_sizes() -> None:
    for heads in ({"num_heads": 3}, {"num_head_channels": 3}, {"num_head_channels": 0}):
        with pytest.raises(ValueError, match="of 16 channels can't have"):
            tiny(**heads)
    keys = tiny(num_head_channels=-1).state_dict().keys()
    assert keys == tiny().state_dict().keys()


def test_embedding() -> None:
    embedded = timestep_embedding(torch.tensor([0.0, 7.0]), 6)
    torch.testing.assert_close(embedded[0], torch.tensor([1.0, 1, 1, 0, 0, 0]))
    frequencies = torch.tensor([1, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)])
    torch.testing.assert_close(embedded[1], torch.cat(((7 * frequencies).cos(), (7 * frequencies).sin())))


def test_foreign_checkpoints_are_refused() -> None:
    with pytest.raises(WeightsError, match="unknown: encoder"):
        convert_official({"encoder.weight": torch.zeros(2)})
    with pytest.raises(WeightsError, match="no tensors"):
        convert_official({"epoch": 3})
    official = section(load("diffusers_unet2d"), "w:")
    with pytest.raises(WeightsError, match="unknown: extra"):
        convert_official({**official, "extra": torch.zeros(1)})
    del official["mid_block.resnets.1.norm1.bias"]
    with pytest.raises(WeightsError, match=r"has no 'mid_block\.resnets\.1\.norm1\.bias'"):
        convert_official(official)
    with pytest.raises(WeightsError, match="resblock_updown=False"):
        to_diffusers(tiny(resblock_updown=True).state_dict())


def test_wrapped_checkpoints() -> None:
    official = section(load("mcddpm_unet"), "w:")
    wrapped = {"model": {f"module.{name}": tensor for name, tensor in official.items()}, "step": 3}
    assert convert_official(wrapped).keys() == official.keys()


def test_a_neural_operator_as_the_denoiser() -> None:
    torch.manual_seed(0)
    module = zoo.create_model("mri/diffusion", architecture="udno", model_channels=4, radius_cutoff=0.2, steps=2)
    x, t = torch.randn(2, 5, 32, 32), torch.tensor([3, 900])
    plain = UDNO(5, 2, 4, 2, 0.2, (3, 4))
    plain.load_state_dict({k: v for k, v in module.network.state_dict().items() if k in plain.state_dict()})
    torch.testing.assert_close(module.network(x, t), plain(x))  # a fresh one does not heed the time yet
    randomized(module.network)
    output = module.network(x, t)
    assert output.shape == (2, 2, 32, 32)
    assert (output - module.network(x, t.flip(0))).abs().max() > 1e-3
    posterior = module.reconstruct(torch.randn(48, 32, dtype=torch.complex64), torch.rand(48, 32) < 0.5, n_samples=2)
    assert posterior.samples.shape == (1, 2, 48, 32)
