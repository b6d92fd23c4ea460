"""Bodies brought to their clouds."""

from __future__ import annotations

import pytest
import roma
import torch
from torch import Tensor

import zoo
from zoo.data.body_clouds import BodyClouds, CloudBatch
from zoo.errors import ConfigError
from zoo.humans.arteq import registration
from zoo.humans.arteq.network import ArtEqOutput
from zoo.humans.arteq.parts import global_rotations
from zoo.humans.arteq.registration import Registration
from zoo.humans.arteq.regression import CloudRegression
from zoo.humans.body import Body, load_body
from zoo.humans.rotations import rotvec_to_rotmat


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body().double()


@pytest.fixture(scope="module")
def batch() -> CloudBatch:
    found: CloudBatch = next(iter(BodyClouds(points=256, test_size=2, batch_size=4, mocap=0.0).test_dataloader()))
    return found


def person(seed: int) -> tuple[Tensor, Tensor]:
    """Rotations (1, 22, 3, 3) and betas (1, 10)."""
    random = torch.Generator().manual_seed(seed)
    local = rotvec_to_rotmat(0.3 * torch.randn(1, 22, 3, generator=random, dtype=torch.float64))
    return global_rotations(local), torch.randn(1, 10, generator=random, dtype=torch.float64)


@torch.no_grad()
def test_the_surface_is_the_body_s(body: Body) -> None:
    rotations, betas = person(0)
    surface = Registration(body, 3).surface(rotations, betas)
    local = registration.body_rotations(rotations)
    assert torch.allclose(surface.vertices, body(local[:, :1], local[:, 1:], betas).vertices[:, ::3], atol=1e-12)
    assert torch.allclose(surface.normals.norm(dim=-1), torch.ones_like(surface.vertices[..., 0]))


@torch.no_grad()
def test_derivatives_agree_with_finite_differences(body: Body) -> None:
    rotations, betas = person(1)
    register = Registration(body, 16)
    register.corrections = torch.zeros_like(register.corrections)  # derivatives leave them out
    which = torch.arange(0, len(register.template), 7)[None]
    found = register.jacobian(which, register.surface(rotations, betas))
    step = 1e-5
    for number in range(76):
        turns, shape = torch.zeros(1, 22, 3).double(), torch.zeros(1, 10).double()
        (turns.view(-1) if number < 66 else shape.view(-1))[number % 66] = step
        ahead, behind = (
            register.surface(registration._turned(rotations, sign * turns), betas + sign * shape).vertices[:, which[0]]
            for sign in (1, -1)
        )
        assert torch.allclose(found[..., number], (ahead - behind) / (2 * step), atol=1e-8)


@torch.no_grad()
def test_a_body_nearby_is_found(body: Body) -> None:
    rotations, betas = person(2)
    register = Registration(body, 4)
    shift = torch.tensor([[0.3, -1.0, 2.0]]).double()
    surface = Registration(body, 1).surface(rotations, betas)
    chosen = torch.randperm(surface.vertices.shape[1], generator=torch.Generator().manual_seed(2))[:400]
    points = surface.vertices[:, chosen] + shift
    parts = Registration(body, 1).parts[chosen][None]
    start = registration._turned(rotations, torch.full((1, 22, 3), 0.06).double())
    before = (register.surface(start, 0 * betas).vertices - surface.vertices[:, ::4]).norm(dim=-1).mean()
    found = register(points, parts, start, 0 * betas, 12)
    after = (register.surface(found.rotations, found.betas).vertices - surface.vertices[:, ::4]).norm(dim=-1).mean()
    assert before > 0.08
    assert after < 0.02
    assert (found.translation - shift).norm() < 0.05
    assert (found.rotations @ found.rotations.mT - torch.eye(3)).abs().max() < 1e-9


@torch.no_grad()
def test_what_is_turned_and_moved_is_found_turned_and_moved(body: Body) -> None:
    rotations, betas = person(3)
    register = Registration(body, 8)
    points = register.surface(rotations, betas).vertices[:, ::3]
    parts = register.parts[::3][None]
    start = registration._turned(rotations, torch.full((1, 22, 3), 0.04).double())
    turn = rotvec_to_rotmat(torch.tensor([[0.7, -1.9, 1.1]]).double())
    shift = torch.tensor([[5.0, 1.0, -3.0]]).double()
    one = register(points, parts, start, 0 * betas, 4)
    two = register(points @ turn.mT + shift.unsqueeze(1), parts, turn.unsqueeze(1) @ start, 0 * betas, 4)
    assert (two.rotations - turn.unsqueeze(1) @ one.rotations).abs().max() < 1e-5
    assert (two.betas - one.betas).abs().max() < 1e-3


@torch.no_grad()
def test_shipped_weights_are_refined(batch: CloudBatch) -> None:
    module = zoo.load_pretrained("humans/arteq-standin")
    assert isinstance(module, CloudRegression)
    module.hparams.update(refine=5)
    truth = module._truth(module.body, batch)
    output = module(batch["points"])
    refined = module.predict_step(batch, 0)
    errors = [
        (module._state(module.body, pose, betas).vertices - truth.vertices).norm(dim=-1).mean(1)
        for pose, betas in ((output.pose, output.betas), (refined["pose"], refined["betas"]))
    ]
    near = batch["condition"] < 2  # wide poses may be too far off
    assert errors[1][near].mean() < 0.7 * errors[0][near].mean()
    assert errors[1][near].mean() < 0.03
    # The registration finds the shape without the network's, too.
    nothing = torch.zeros_like(truth.betas)
    alone = Registration(module.body)(batch["points"], output.segmentation, output.pose, nothing, 5)
    shapes = [(betas - truth.betas)[near].square().mean() for betas in (nothing, alone.betas, output.betas)]
    assert shapes[1] < 0.8 * shapes[0]
    assert shapes[2] < 0.8 * shapes[0]


@pytest.mark.parametrize(("rounds", "views"), [(-1, 1), (1, 0)])
def test_impossible_settings_are_named(rounds: int, views: int) -> None:
    module = zoo.load_pretrained("humans/arteq-standin")
    assert isinstance(module, CloudRegression)
    with pytest.raises(ConfigError, match="views 1 or more"):
        module.fit(torch.zeros(1, 64, 3), rounds, views)


@torch.no_grad()
def test_the_view_that_fits_best_is_kept(body: Body) -> None:
    """A network that sees the right body only when the cloud is not as it was given."""
    rotations, betas = person(4)
    register = Registration(body, 8)
    points = register.surface(rotations, betas).vertices[:, ::3]
    parts, seen = register.parts[::3][None], []

    def network(cloud: Tensor) -> ArtEqOutput:
        turn = roma.rigid_points_registration(points[0], cloud[0])[0]
        seen.append(turn)
        wrong = rotvec_to_rotmat(torch.tensor([0.0, 0.0, 3.1 if len(seen) == 1 else 0.05]).double())
        return ArtEqOutput(parts, turn @ wrong @ rotations, betas, parts.log())

    one, _ = register.best_of_views(network, points, 3, 1)
    assert len(seen) == 1
    seen.clear()
    best, segmentation = register.best_of_views(network, points, 3, 3)
    assert torch.equal(segmentation, parts)
    assert torch.allclose(seen[0], torch.eye(3).double(), atol=1e-6)
    assert all((turn - torch.eye(3)).norm() > 0.1 for turn in seen[1:])
    errors = [(found.rotations - rotations).norm() for found in (one, best)]
    assert errors[0] > 3.0
    assert errors[1] < 0.3
