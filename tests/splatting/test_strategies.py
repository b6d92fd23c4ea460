"""Densification, MCMC and pruning against goldens and formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.goldens import load
from zoo.splatting.gaussians import PARAMETERS, GaussianModel
from zoo.splatting.rows import keep, rearrange
from zoo.splatting.strategies import MCMC, Densify, Prune, position_noise, relocated


def golden_model() -> tuple[dict[str, Tensor], GaussianModel, torch.optim.Optimizer]:
    golden = load("splatting-edgs", "strategy")
    model = GaussianModel(3)
    model.set_rows({name: golden[f"in_{name}"] for name in PARAMETERS})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for name in PARAMETERS:
        parameter = getattr(model, name)
        moment = golden.get(f"in_expavg_{name}", torch.ones_like(parameter))
        optimizer.state[parameter] = {
            "step": torch.tensor(1.0),
            "exp_avg": moment.clone(),
            "exp_avg_sq": moment.clone(),
        }
    return golden, model, optimizer


def test_densification_is_the_official_one() -> None:
    golden, model, optimizer = golden_model()
    strategy = Densify(extent=float(golden["scene_scale"]), grad2d=golden["grad2d"], count=golden["count"])
    strategy.grow(model, optimizer, golden["split_noise"])
    for name in ("means", "scales", "opacities"):
        assert torch.allclose(getattr(model, name), golden[f"grown_{name}"], atol=1e-5), name
    assert torch.allclose(optimizer.state[model.means]["exp_avg"], golden["grown_expavg_means"], atol=1e-5)
    strategy.prune(1000, model, optimizer)
    assert torch.allclose(model.means, golden["pruned_means"], atol=1e-5)
    strategy.prune(3100, model, optimizer)
    assert torch.allclose(model.means, golden["pruned_3100_means"], atol=1e-5)
    strategy.reset_opacity(model, optimizer)
    assert torch.allclose(model.opacities, golden["reset_opacities"], atol=1e-5)
    assert not optimizer.state[model.opacities]["exp_avg"].any()
    assert optimizer.state[model.means]["exp_avg"].any()


def test_growth_stops_at_the_cap() -> None:
    golden, model, optimizer = golden_model()
    strategy = Densify(extent=2.0, cap=70, grad2d=golden["grad2d"], count=golden["count"])
    strategy.grow(model, optimizer)
    assert len(model) == 70


def test_gradients_are_collected_in_half_image_sizes() -> None:
    model = GaussianModel(0, count=3)
    strategy = Densify(extent=1.0, start=100)
    means2d = torch.zeros(1, 3, 2, requires_grad=True)
    means2d.grad = torch.tensor([[[3.0, 4.0], [1.0, 0.0], [7.0, 7.0]]])
    radii = torch.tensor([[[1, 1], [2, 2], [0, 0]]])
    meta = {"means2d": means2d, "radii": radii, "width": 20, "height": 10, "n_cameras": 1}
    for _ in range(2):
        strategy.after_step(1, model, torch.optim.Adam(model.parameters()), meta, 0.0)
    assert strategy.grad2d.tolist() == pytest.approx([2 * math.hypot(30, 20), 20.0, 0.0])
    assert strategy.count.tolist() == [2, 2, 0]


def test_relocation_and_noise_follow_the_formulas() -> None:
    golden = load("splatting-edgs", "strategy")
    opacity, scale = relocated(golden["reloc_opacity"], golden["reloc_scale"], golden["reloc_ratio"])
    assert torch.allclose(opacity, golden["reloc_new_opacity"], atol=1e-5)
    assert torch.allclose(scale, golden["reloc_new_scale"], atol=1e-5)
    offset = position_noise(
        golden["noise_quats"],
        golden["reloc_scale"],
        golden["reloc_opacity"],
        golden["noise_eps"],
        float(golden["noise_scale"]),
    )
    assert torch.allclose(golden["noise_means"] + offset, golden["noise_out_means"], atol=1e-4)


def test_mcmc_moves_the_dead_and_grows_to_its_cap() -> None:
    torch.manual_seed(0)
    _, model, optimizer = golden_model()
    model.opacities.data[:10] = -9.0
    dead = model.means.data[:10].clone()
    strategy = MCMC(cap=62, start=0, every=1, noise=0.0)
    strategy.after_step(1, model, optimizer, {}, 1e-4)
    assert len(model) == 62
    assert (model.means.data[:10] != dead).any(1).all()
    assert model.opacities.sigmoid().min() >= 0.005
    assert all(len(optimizer.state[getattr(model, n)]["exp_avg"]) == 62 for n in PARAMETERS)


def test_pruning_fades_and_removes() -> None:
    _, model, optimizer = golden_model()
    model.opacities.data[:] = torch.linspace(-8, 4, 60)
    strategy = Prune(every=20, stop=30)
    before = model.opacities.data.clone()
    strategy.after_step(10, model, optimizer, {}, 0.0)
    assert torch.allclose(model.opacities, before + math.log(0.99))
    strategy.after_step(19, model, optimizer, {}, 0.0)
    assert 0 < len(model) < 60
    assert model.opacities.sigmoid().min() >= 0.005
    count = len(model)
    strategy.after_step(39, model, optimizer, {}, 0.0)
    assert len(model) == count


def test_rearranging_keeps_parameters_and_moments_together() -> None:
    _, model, optimizer = golden_model()
    parameters = [getattr(model, name) for name in PARAMETERS]
    old = model.means.data.clone()
    moments = optimizer.state[model.means]["exp_avg"].clone()
    source = torch.tensor([5, 5, 0, 59])
    rearrange(model, optimizer, source, torch.tensor([False, True, False, False]))
    assert [getattr(model, name) for name in PARAMETERS] == parameters or all(
        getattr(model, n) is p for n, p in zip(PARAMETERS, parameters, strict=True)
    )
    assert torch.equal(model.means, old[source])
    expected = moments[source]
    expected[1] = 0
    assert torch.equal(optimizer.state[model.means]["exp_avg"], expected)
    keep(model, optimizer, torch.tensor([True, False, False, True]))
    assert torch.equal(model.means, old[[5, 59]])
