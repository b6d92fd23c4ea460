"""Muon: momentum whose update of a matrix is the nearest orthogonal one; Adam for what is no matrix.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. torch has a Muon from 2.9 on,
for matrices of two axes alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Of the quintic iteration that takes all singular values near 1, and how often it is done.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
# Weights with fewer rows or columns than this are left to Adam.
_SMALLEST = 16


def nearly_orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (..., R, C) with singular values between about 0.7 and 1.2, and the singular vectors they had."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    first, third, fifth = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = first * x + (third * gram + fifth * gram @ gram) @ x
    return x.mT if tall else x


def matrices_and_others(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The weights of layers that are matrices, or are when all axes but the first are one, and other parameters."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        rows, columns = parameter.shape[0], parameter[0].numel()
        is_matrix = name.endswith("weight") and parameter.ndim > 1 and min(rows, columns) >= _SMALLEST
        (matrices if is_matrix else others).append(parameter)
    return matrices, others


class Muon(torch.optim.Optimizer):
    """Muon for the matrices of a network, Adam for its other parameters.

    Args:
        network: see `matrices_and_others`.
        lr: of Adam.
        matrix_lr: of Muon, times sqrt(rows / columns) for tall matrices.
        weight_decay: of Muon: each step takes this times the learning rate off a weight, so that singular values stay
            below about the inverse, times sqrt(rows / columns) for tall matrices.
        momentum: of Muon, after Nesterov.
        betas: of Adam.
        eps: of Adam.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float,
        matrix_lr: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        matrices, others = matrices_and_others(network)
        groups: list[dict[str, Any]] = [
            {"params": matrices, "lr": matrix_lr, "weight_decay": weight_decay, "orthogonal": True},
            {"params": others, "lr": lr, "orthogonal": False},
        ]
        super().__init__(groups, {"momentum": momentum, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            move = self._muon if group["orthogonal"] else self._adam
            move([p for p in group["params"] if p.grad is not None], group)
        return loss

    def _muon(self, matrices: Iterable[Tensor], group: dict[str, Any]) -> None:
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for p in matrices:
            assert p.grad is not None
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            ahead = p.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
            alike[ahead.shape].append((p, ahead))
        for shape, pairs in alike.items():  # one iteration for all matrices of a shape
            size = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
            for (p, _), move in zip(pairs, nearly_orthogonal(torch.stack([m for _, m in pairs])), strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(move.view_as(p), alpha=size)

    def _adam(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        for p in parameters:
            assert p.grad is not None
            state = self.state[p]
            if not state:
                state["step"], state["mean"], state["square"] = 0, torch.zeros_like(p), torch.zeros_like(p)
            state["step"] += 1
            state["mean"].lerp_(p.grad, 1 - first)
            state["square"].lerp_(p.grad.square(), 1 - second)
            root = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
            p.addcdiv_(state["mean"], root, value=-group["lr"] / (1 - first ** state["step"]))
