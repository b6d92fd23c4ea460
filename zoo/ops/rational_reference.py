"""The group-wise rational function in plain torch, with its analytic derivative: `zoo.ops.rational`, readable.

With u = g / Q, t = -u y, g being the upstream gradient, and s(v) = -1 for v < 0, else +1, form A has

    dx = u P'(x) + t s(x) Q'(|x|)      da_i = sum u x^i      db_j = s(b_j) sum t |x|^j

s(0) = +1 matters: a rational starts as the identity with b = 0, where the derivative of ``torch.abs`` is 0
and the denominator would never learn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

Form = Literal["A", "B", "legacy_cpu"]
FORMS = ("A", "B", "legacy_cpu")


def evaluate(x: Tensor, numerator: Tensor, denominator: Tensor, form: Form = "A", dim: int = -1) -> Tensor:
    """y = P(x) / Q(x), computed in the coefficients' dtype and returned in that of `x`."""
    rows = _to_rows(x, numerator, denominator, dim)
    q = _denominator(rows, denominator, form).value
    return _from_rows(_horner(rows, _columns(numerator)) / q, x, dim)


def differentiate(
    grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, form: Form = "A", dim: int = -1
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the input, the numerator and the denominator for an upstream gradient `grad`.

    It is built of differentiable operations, so that it can be differentiated again.
    """
    rows, g = (_to_rows(t, numerator, denominator, dim) for t in (x, grad))
    a = _columns(numerator)
    q = _denominator(rows, denominator, form)
    u = g / q.value
    t = -u * _horner(rows, a) / q.value
    slope = _horner(rows, _derivative(a)) if len(a) > 1 else torch.zeros_like(rows)
    dx = torch.addcmul(t * q.slope, u, slope)
    da = _moments(u, rows, range(len(a)), numerator)
    db = _moments(t * q.factor, q.base, range(1, denominator.shape[1] + 1), denominator) * q.sign
    return _from_rows(dx, x, dim), da, db


class _Rational(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, numerator: Tensor, denominator: Tensor, form: Form, dim: int) -> Tensor:
        ctx.save_for_backward(x, numerator, denominator)
        ctx.form, ctx.dim = form, dim
        return evaluate(x, numerator, denominator, form, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, numerator, denominator = ctx.saved_tensors
        return *differentiate(grad, x, numerator, denominator, ctx.form, ctx.dim), None, None


def rational(x: Tensor, numerator: Tensor, denominator: Tensor, form: Form, dim: int) -> Tensor:
    """`evaluate` with `differentiate` as its derivative; coefficients are in the dtype of the computation."""
    if is_transformed():
        # Differentiating the operations one by one gives the same; it only keeps more in memory.
        return evaluate(x, numerator, denominator, form, dim)
    return _Rational.apply(x, numerator, denominator, form, dim)


def is_transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work. torch.compile traces those on its own."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def push_forward(function: Callable[..., Any], inputs: tuple[Tensor, ...], tangents: tuple[Tensor | None, ...]) -> Any:
    """Directional derivatives of a function made of differentiable operations.

    They come from differentiating u -> u J, since torch.func.jvp can't be used within itself.

    Args:
        function: tensors to a tensor or a tuple of them.
        inputs: where to differentiate.
        tangents: the direction, None for zero; more than there are inputs are ignored.
    """
    known = tuple(torch.zeros_like(x) if t is None else t for x, t in zip(inputs, tangents, strict=False))
    outputs, pull_back = torch.func.vjp(function, *inputs)  # type: ignore[misc]
    zeros = tuple(map(torch.zeros_like, outputs)) if isinstance(outputs, tuple) else torch.zeros_like(outputs)
    return torch.func.vjp(pull_back, zeros)[1](known)[0]


def _to_rows(x: Tensor, numerator: Tensor, denominator: Tensor, dim: int) -> Tensor:
    """(..., D, ...) -> (G, all elements of a group): coefficients broadcast along rows, and sums run along them."""
    groups = max(numerator.shape[0], denominator.shape[0])
    channels_last = x.movedim(dim, -1)
    grouped = channels_last.unflatten(-1, (groups, channels_last.shape[-1] // groups))
    return grouped.movedim(-2, 0).flatten(1).to(numerator.dtype)


def _from_rows(rows: Tensor, like: Tensor, dim: int) -> Tensor:
    channels_last = like.movedim(dim, -1).shape
    grouped = rows.reshape(len(rows), *channels_last[:-1], channels_last[-1] // len(rows))
    return grouped.movedim(0, -2).flatten(-2).movedim(-1, dim).to(like.dtype)


def _sign(v: Tensor) -> Tensor:
    """-1 where v < 0, else +1 (torch.sign is 0 at 0)."""
    return torch.where(v < 0, -1.0, 1.0).to(v.dtype)


def _horner(x: Tensor, coefficients: list[Tensor]) -> Tensor:
    """c_0 + c_1 x + c_2 x^2 + ..."""
    result = coefficients[-1].expand_as(x)
    for c in reversed(coefficients[:-1]):
        result = torch.addcmul(c, result, x)
    return result


def _columns(coefficients: Tensor) -> list[Tensor]:
    """(G, k) -> k tensors of shape (G, 1), which broadcast against rows."""
    return list(coefficients.unsqueeze(-1).unbind(1))


def _derivative(coefficients: list[Tensor]) -> list[Tensor]:
    return [k * c for k, c in enumerate(coefficients)][1:]


@dataclass
class _Denominator:
    """Q, dQ/dx, and the parts of dQ/db_j = sign * factor * base^j."""

    value: Tensor
    slope: Tensor
    sign: Tensor | float
    factor: Tensor | float
    base: Tensor


def _denominator(x: Tensor, denominator: Tensor, form: Form) -> _Denominator:
    if form == "B":
        b = _columns(denominator)
        inner = _horner(x, [torch.zeros_like(b[0]), *b])
        outer = _sign(inner)
        return _Denominator(1 + inner * outer, outer * _horner(x, _derivative([b[0], *b])), 1.0, outer, x)
    sign = _sign(denominator)
    b = _columns(denominator * sign)
    turn = _sign(x) if form == "A" else 1.0
    base = x * turn
    q = _horner(base, [torch.ones_like(b[0]), *b])
    return _Denominator(q, turn * _horner(base, _derivative([b[0], *b])), sign, 1.0, base)


def _moments(weight: Tensor, x: Tensor, powers: range, like: Tensor) -> Tensor:
    """sum over a row of weight * x^k for each k: the gradient of the coefficients `like`."""
    term = weight * x if powers.start == 1 else weight
    sums = []
    for k in powers:
        sums.append(term.sum(1))
        term = term * x if k < powers[-1] else term
    gradient = torch.stack(sums, -1)  # (G, k)
    return gradient.sum(0, keepdim=True) if like.shape[0] == 1 else gradient
