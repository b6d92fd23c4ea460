"""The group-wise rational function of KAT: y = P(x) / Q(x), elementwise, with coefficients per channel group.

Source: Yang and Wang, "Kolmogorov-Arnold Transformer", ICLR 2025 (arXiv 2409.10594), section 4.

Form ``"A"`` ("safe Pade") is what all released models compute; with a_i the numerator's and b_j the
denominator's coefficients,

    P(x) = sum_{i=0..m} a_i x^i        Q(x) = 1 + sum_{j=1..n} |b_j| |x|^j

and backward, for an upstream gradient g, with u = g / Q, t = -u y and s(v) = -1 for v < 0, else +1,

    dx = u P'(x) + t s(x) Q'(|x|)      da_i = sum u x^i      db_j = s(b_j) sum t |x|^j

s(0) = +1 matters: a rational starts as the identity with b = 0, where the derivative of ``torch.abs`` is 0
and the denominator would never learn.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Form = Literal["A", "B", "legacy_cpu"]


def rational(x: Tensor, numerator: Tensor, denominator: Tensor, form: Form = "A", dim: int = -1) -> Tensor:
    """Evaluates a rational function on every element of `x`.

    Channel c of D uses row ``c // (D / G)`` of the coefficients, G being the number of groups: groups are
    contiguous runs of channels.

    Args:
        x: any shape, floating point; float16 and bfloat16 are computed in float32.
        numerator: (G, m + 1) or (1, m + 1) to share it, constant term first.
        denominator: (G, n) or (1, n), for the powers 1..n.
        form: ``"A"`` as above; ``"B"``, the paper's equation, Q = 1 + \\|sum_j b_j x^j\\|; ``"legacy_cpu"``,
            Q = 1 + sum_j \\|b_j\\| x^j, which the authors' CPU code computes by mistake (it has poles).
        dim: the channel dimension.

    Returns:
        A tensor like `x`.

    Raises:
        ValueError: coefficients of the wrong shape, or channels that G does not divide.
        TypeError: `x` is not floating point.
    """
    if not x.is_floating_point():
        raise TypeError(f"rational takes floating-point input, not {x.dtype}")
    groups = _check_shapes(x, numerator, denominator, dim)
    dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    # (..., D) -> (..., G, D / G): the coefficients of a group then broadcast over its channels.
    grouped = x.movedim(dim, -1).unflatten(-1, (groups, -1)).to(dtype)
    y = _Rational.apply(grouped, numerator.to(dtype), denominator.to(dtype), form)
    return y.flatten(-2).movedim(-1, dim).to(x.dtype)


def _check_shapes(x: Tensor, numerator: Tensor, denominator: Tensor, dim: int) -> int:
    if numerator.ndim != 2 or denominator.ndim != 2:
        raise ValueError(
            f"coefficients are matrices of one row per group, not {tuple(numerator.shape)}, {tuple(denominator.shape)}"
        )
    groups = max(numerator.shape[0], denominator.shape[0])
    if numerator.shape[0] not in (1, groups) or denominator.shape[0] not in (1, groups):
        raise ValueError(
            f"numerator and denominator have {numerator.shape[0]} and {denominator.shape[0]} groups: "
            "both must have the same number, or one of them 1"
        )
    if x.ndim == 0:
        raise ValueError("rational needs a channel dimension; x is a scalar tensor")
    if x.shape[dim] % groups:
        raise ValueError(f"{x.shape[dim]} channels can't be divided into {groups} groups")
    return groups


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
    """(G, k) -> k tensors of shape (G, 1), which broadcast against (..., G, D / G)."""
    return list(coefficients.unsqueeze(-1).unbind(1))


def _derivative(coefficients: list[Tensor]) -> list[Tensor]:
    return [k * c for k, c in enumerate(coefficients)][1:]


class _Rational(torch.autograd.Function):
    """Analytic backward. It is built of differentiable operations, so double backward works."""

    @staticmethod
    def forward(ctx, x: Tensor, numerator: Tensor, denominator: Tensor, form: Form) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, numerator, denominator)
        ctx.form = form
        q, _, _ = _denominator(x, denominator, form)
        return _horner(x, _columns(numerator)) / q

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        x, numerator, denominator = ctx.saved_tensors
        a = _columns(numerator)
        q, q_slope, basis = _denominator(x, denominator, ctx.form)
        u = grad / q
        t = -u * _horner(x, a) / q
        dx = da = db = None
        if ctx.needs_input_grad[0]:
            slope = _horner(x, _derivative(a)) if len(a) > 1 else torch.zeros_like(x)
            dx = u * slope + t * q_slope
        if ctx.needs_input_grad[1]:
            da = _project(u, x, range(len(a)), numerator)
        if ctx.needs_input_grad[2]:
            sign, power_of, outer = basis
            db = _project(t if outer is None else t * outer, power_of, range(1, denominator.shape[1] + 1), denominator)
            db = db if sign is None else db * sign
        return dx, da, db, None


def _denominator(
    x: Tensor, denominator: Tensor, form: Form
) -> tuple[Tensor, Tensor, tuple[Tensor | None, Tensor, Tensor | None]]:
    """Q, dQ/dx, and the parts of dQ/db_j = sign * outer * power_of^j."""
    sign_b = _sign(denominator)
    if form == "A":
        magnitude, b = x * _sign(x), _columns(denominator * sign_b)
        q = _horner(magnitude, [torch.ones_like(b[0]), *b])
        slope = _sign(x) * _horner(magnitude, _derivative([b[0], *b]))
        return q, slope, (sign_b, magnitude, None)
    if form == "legacy_cpu":
        b = _columns(denominator * sign_b)
        return _horner(x, [torch.ones_like(b[0]), *b]), _horner(x, _derivative([b[0], *b])), (sign_b, x, None)
    if form == "B":
        b = _columns(denominator)
        inner = _horner(x, [torch.zeros_like(b[0]), *b])
        outer = _sign(inner)
        return 1 + inner * outer, outer * _horner(x, _derivative([b[0], *b])), (None, x, outer)
    raise ValueError(f"there is no form {form!r}: use 'A', 'B' or 'legacy_cpu'")


def _project(weight: Tensor, x: Tensor, powers: range, like: Tensor) -> Tensor:
    """sum over elements of weight * x^k for each k, per group: the gradient of the coefficients `like`."""
    over = [d for d in range(x.ndim) if d != x.ndim - 2]  # all but the group dimension
    term = weight * x if powers.start == 1 else weight
    sums = []
    for _ in powers:
        sums.append(term.sum(over))
        term = term * x
    gradient = torch.stack(sums, -1)  # (G, k)
    return gradient.sum(0, keepdim=True) if like.shape[0] == 1 else gradient
