"""The optimizer of ArtEq and its rival."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from zoo.humans.arteq.muon import Muon, matrices_and_others, nearly_orthogonal


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(8, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(320, 16), nn.Linear(16, 4))


def loss_of(network: nn.Module) -> torch.Tensor:
    x = torch.randn(20, 8, 12, generator=torch.Generator().manual_seed(1))
    loss: torch.Tensor = (network(x) - x[:, :4, :4].mean(2)).square().mean()
    return loss


@pytest.mark.parametrize("shape", [(3, 20, 50), (50, 20)])
def test_singular_values_near_one_and_the_same_vectors(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ nearly_orthogonal(matrices) @ vh.mT
    values = inner.diagonal(dim1=-2, dim2=-1)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    assert (inner - torch.diag_embed(values)).abs().max() < 1e-9


def test_which_parameters_are_matrices() -> None:
    network = small()
    matrices, others = matrices_and_others(network)
    assert {id(p) for p in matrices} == {id(network[0].weight), id(network[3].weight)}
    assert len(others) == 4


def test_steps_of_both_kinds() -> None:
    network, rival = small(), small()
    ours = Muon(network, lr=1e-2, matrix_lr=0.03, weight_decay=2.0)
    matrices, others = matrices_and_others(rival)
    adam = torch.optim.Adam(others, lr=1e-2)
    for step in range(3):
        before = [p.detach().clone() for p in matrices_and_others(network)[0]]
        for one, optimizer in ((network, ours), (rival, adam)):
            optimizer.zero_grad()
            loss_of(one).backward()
            optimizer.step()
        for p, q, old in zip(matrices_and_others(network)[0], matrices, before, strict=True):
            if step == 0:  # one step of momentum is a multiple of the gradient
                move = nearly_orthogonal(q.grad.flatten(1)).view_as(q)
                size = 0.03 * max(1.0, len(q) / q[0].numel()) ** 0.5
                assert torch.allclose(p, (1 - 0.03 * 2.0) * old - size * move, atol=1e-5)
            q.data.copy_(p.data)
        for p, q in zip(matrices_and_others(network)[1], others, strict=True):
            assert torch.allclose(p, q, atol=1e-6)


def test_weight_decay_bounds_singular_values() -> None:
    weight = nn.Linear(24, 16, bias=False)
    optimizer = Muon(weight, lr=1e-3, matrix_lr=0.1, weight_decay=2.0)
    for _ in range(200):  # pushed the same way for ever
        weight.weight.grad = torch.eye(16, 24)
        optimizer.step()
    values = torch.linalg.svdvals(weight.weight.detach())
    assert float(values.max()) < 1.3 / 2.0
    assert float(values.min()) > 0.6 / 2.0


def test_it_goes_on_where_it_stopped() -> None:
    def steps(network: nn.Module, optimizer: Muon, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            loss_of(network).backward()
            optimizer.step()

    network = small()
    optimizer = Muon(network, lr=1e-3)
    start = loss_of(network).item()
    steps(network, optimizer, 5)
    other = copy.deepcopy(network)
    resumed = Muon(other, lr=1.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(network, optimizer, 15)
    steps(other, resumed, 15)
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), other.parameters(), strict=True))
    assert loss_of(network).item() < 0.5 * start
