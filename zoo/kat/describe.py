"""What the rationals of a trained network have become, in numbers."""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor, nn

from zoo import ops
from zoo.kat.coefficients import INITIAL_COEFFICIENTS
from zoo.kat.layers import Rational


class LearnedRational(TypedDict):
    """One group of a rational layer.

    Keys:
        layer: the layer's name in the network.
        group: index of the group.
        numerator: a_0, a_1, ..., constant term first.
        denominator: b_1, b_2, ...
        from_start: largest difference from the function that the layer started as.
        nearest: name of the nearest function of `zoo.kat.coefficients.INITIAL_COEFFICIENTS`.
        from_nearest: largest difference from that.
        slope: largest magnitude of the derivative.
        far_slope: what abs(F(x) / x) tends to for large abs(x); infinite where the numerator outgrows the denominator
            by more.
    """

    layer: str
    group: int
    numerator: list[float]
    denominator: list[float]
    from_start: float
    nearest: str
    from_nearest: float
    slope: float
    far_slope: float


def describe_rationals(network: nn.Module, low: float = -3.0, high: float = 3.0) -> list[LearnedRational]:
    """A line for each group of every `Rational` of a network: its coefficients, and how far it has come.

    Args:
        network: any module; left as it is.
        low, high: the interval on which functions are compared, in the layer's own input. The initial functions
            are good on [-3, 3].

    Returns:
        Layer by layer, group by group; ``csv.DictWriter`` or ``json.dump`` takes it.

    Raises:
        ValueError: the network has no rational, or the interval is empty.
    """
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, Rational)]
    if not layers:
        raise ValueError(f"{type(network).__name__} has no rationals")
    if not low < high:
        raise ValueError(f"the interval from {low} to {high} is empty")
    x = torch.linspace(low, high, 1001, dtype=torch.float64)
    named = {
        name: _evaluate(torch.tensor([c.numerator]), torch.tensor([c.denominator]), "A", x)[0]
        for name, c in INITIAL_COEFFICIENTS.items()
    }
    facts: list[LearnedRational] = []
    for name, module in layers:
        a, b = module.weight_numerator.detach().cpu(), module.weight_denominator.detach().cpu()
        points = x.clone().requires_grad_()
        values = _evaluate(a, b, module.form, points)
        start = Rational(module.mode, 1, form=module.form)
        start_values = _evaluate(start.weight_numerator, start.weight_denominator, module.form, x)[0].detach()
        for group, row in enumerate(values):
            (slope,) = torch.autograd.grad(row.sum(), points, retain_graph=True)
            value = row.detach()
            distances = {known: float((value - target).abs().max()) for known, target in named.items()}
            nearest = min(distances, key=lambda known: distances[known])
            facts.append(
                {
                    "layer": name,
                    "group": group,
                    "numerator": a[0].tolist(),
                    "denominator": b[group].tolist(),
                    "from_start": float((value - start_values).abs().max()),
                    "nearest": nearest,
                    "from_nearest": distances[nearest],
                    "slope": float(slope.abs().max()),
                    "far_slope": _far_slope(a[0].tolist(), b[group].tolist()),
                }
            )
    return facts


def _evaluate(numerator: Tensor, denominator: Tensor, form: ops.Form, x: Tensor) -> Tensor:
    """F at points x (P,) for each group: (G, P)."""
    columns = x.unsqueeze(1).expand(-1, len(denominator))
    return ops.rational(columns, numerator, denominator, form, implementation="reference").T


def _far_slope(numerator: list[float], denominator: list[float]) -> float:
    p = max((i for i, a in enumerate(numerator) if a), default=0)
    q = max((j for j, b in enumerate(denominator, 1) if b), default=0)
    if p != q + 1:
        return math.inf if p > q + 1 else 0.0
    return abs(numerator[p] / denominator[q - 1]) if q else abs(numerator[p])
