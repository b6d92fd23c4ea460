"""Inputs for the tests of the rational function, and its value and gradients in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo import ops


@dataclass
class Case:
    """An input, coefficients and an upstream gradient."""

    x: Tensor
    numerator: Tensor
    denominator: Tensor
    grad: Tensor
    dim: int = -1

    def run(self, **options: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """y, dx, da and db."""
        x, a, b = (t.detach().requires_grad_() for t in (self.x, self.numerator, self.denominator))
        y = ops.rational(x, a, b, dim=self.dim, **options)  # type: ignore[arg-type]
        return y.detach(), *torch.autograd.grad(y, (x, a, b), self.grad)

    def run_in_double(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same from the reference implementation in float64."""
        wide = Case(self.x.double(), self.numerator.double(), self.denominator.double(), self.grad.double(), self.dim)
        return wide.run(implementation="reference")


def make_case(
    shape: tuple[int, ...],
    groups: int,
    orders: tuple[int, int] = (5, 4),
    dtype: torch.dtype = torch.float32,
    dim: int = -1,
    shared_numerator: bool = True,
    seed: int = 0,
) -> Case:
    """Normal inputs and coefficients."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    computed = torch.float64 if dtype == torch.float64 else torch.float32
    numerator = normal(1 if shared_numerator else groups, orders[0] + 1).to(computed)
    denominator = normal(groups, orders[1]).to(computed)
    return Case(normal(*shape).to(dtype), numerator, denominator, normal(*shape).to(dtype), dim)


def error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected magnitude."""
    if expected.numel() == 0:
        return 0.0
    return float((actual.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def magnitudes(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What y, dx, da and db would be if no two terms of them cancelled: what rounding errors are relative to."""
    r, g = (t.double().abs().movedim(case.dim, -1) for t in (case.x, case.grad))
    groups = max(len(case.numerator), len(case.denominator))
    width = r.shape[-1] // groups
    a, b = (c.double().abs().expand(groups, -1) for c in (case.numerator, case.denominator))
    a, b = (c.repeat_interleave(width, 0).unbind(-1) for c in (a, b))
    p, p_slope = sum(c * r**i for i, c in enumerate(a)), sum(i * c * r ** (i - 1) for i, c in enumerate(a) if i)
    q, q_slope = 1 + sum(c * r**j for j, c in enumerate(b, 1)), sum(j * c * r ** (j - 1) for j, c in enumerate(b, 1))
    y, u = p / q, g / q

    def total(terms: Tensor, like: Tensor) -> Tensor:
        sums = terms.reshape(-1, groups * width).sum(0).unflatten(0, (groups, width)).sum(1)
        return sums if len(like) == groups else sums.sum(0, keepdim=True)

    da = torch.stack([total(u * r**i, case.numerator) for i in range(len(a))], -1)
    db = torch.stack([total(u * y * r**j, case.denominator) for j in range(1, len(b) + 1)], -1)
    return y.movedim(-1, case.dim), (u * (p_slope + y * q_slope)).movedim(-1, case.dim), da, db


def rounding_error(actual: Tensor, expected: Tensor, magnitude: Tensor) -> float:
    """Largest difference relative to `magnitude`."""
    if expected.numel() == 0:
        return 0.0
    return float(((actual.double() - expected).abs() / magnitude.clamp_min(1e-30)).max())
