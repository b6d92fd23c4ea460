"""The torch ops of form A of `zoo.ops.rational`, and their derivatives.

``zoo::rational`` and ``zoo::rational_backward`` carry their derivatives with them, for torch.compile and
torch.export. That costs a call from C++ to Python and back each time, so eager mode uses ``zoo::rational_kernel``
and ``zoo::rational_backward_kernel``, which have none, within autograd functions: half the overhead, as little as
that of one of torch's own ops.

Kernels (``kernels/rational``) register themselves for CPU and CUDA when their library is loaded. Until then, and on
any other device, the implementations here are called: they load it, or compute the reference.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from zoo.ops import native, rational_reference

Gradients = tuple[Tensor, Tensor, Tensor]

_FORWARD = ("zoo::rational", "zoo::rational_kernel")
_BACKWARD = ("zoo::rational_backward", "zoo::rational_backward_kernel")

for _name in _FORWARD:
    torch.library.define(_name, "(Tensor x, Tensor numerator, Tensor denominator, int dim) -> Tensor")
for _name in _BACKWARD:
    torch.library.define(
        _name, "(Tensor grad, Tensor x, Tensor numerator, Tensor denominator, int dim) -> (Tensor, Tensor, Tensor)"
    )
_forward_op = torch.ops.zoo.rational.default
_backward_op = torch.ops.zoo.rational_backward.default
_forward_kernel = torch.ops.zoo.rational_kernel.default
_backward_kernel = torch.ops.zoo.rational_backward_kernel.default


def rational(x: Tensor, numerator: Tensor, denominator: Tensor, dim: int) -> Tensor:
    """Form A, differentiable.

    Args:
        x: any shape.
        numerator: (G, m + 1) or (1, m + 1), in the dtype of the computation.
        denominator: (G, n) or (1, n), likewise.
        dim: the channel dimension, not negative.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return _forward_op(x, numerator, denominator, dim)
    if rational_reference.is_transformed():
        return _TransformedRational.apply(x, numerator, denominator, dim)
    if torch.is_grad_enabled():
        return _Rational.apply(x, numerator, denominator, dim)
    return _forward_kernel(x, numerator, denominator, dim)


def _gradients(grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, dim: int) -> Gradients:
    """The derivative of `rational`, differentiable."""
    if torch.compiler.is_compiling():
        return _backward_op(grad, x, numerator, denominator, dim)
    if rational_reference.is_transformed():
        return _TransformedGradients.apply(grad, x, numerator, denominator, dim)
    if torch.is_grad_enabled():
        return _Gradients.apply(grad, x, numerator, denominator, dim)
    return _backward_kernel(grad, x, numerator, denominator, dim)


# What runs where there is no kernel, or only shapes.


def _forward(x: Tensor, numerator: Tensor, denominator: Tensor, dim: int) -> Tensor:
    if native.covers("rational", x.device):
        return _forward_kernel(x, numerator, denominator, dim)
    return torch.empty_like(x).copy_(rational_reference.evaluate(x, numerator, denominator, "A", dim))


def _backward(grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, dim: int) -> Gradients:
    if native.covers("rational", x.device):
        return _backward_kernel(grad, x, numerator, denominator, dim)
    dx, da, db = rational_reference.differentiate(grad, x, numerator, denominator, "A", dim)
    return torch.empty_like(x).copy_(dx), da, db


def _fake_forward(x: Tensor, numerator: Tensor, denominator: Tensor, dim: int) -> Tensor:
    return torch.empty_like(x)


def _fake_backward(grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, dim: int) -> Gradients:
    return torch.empty_like(x), numerator.new_empty(numerator.shape), denominator.new_empty(denominator.shape)


for _name in _FORWARD:
    torch.library.impl(_name, "CompositeExplicitAutograd", _forward)
    torch.library.register_fake(_name, _fake_forward)
for _name in _BACKWARD:
    torch.library.impl(_name, "CompositeExplicitAutograd", _backward)
    torch.library.register_fake(_name, _fake_backward)


# Derivatives. The second one is rarely needed: it is the reference's, in plain torch, and can be differentiated on.


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.dim = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, numerator, denominator = ctx.saved_tensors
    return *_gradients(grad, x, numerator, denominator, ctx.dim), None


def _differentiate_twice(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    reference = partial(rational_reference.differentiate, form="A", dim=ctx.dim)
    return *torch.func.vjp(reference, *ctx.saved_tensors)[1](grads), None


torch.library.register_autograd(_FORWARD[0], _differentiate, setup_context=_save)
torch.library.register_autograd(_BACKWARD[0], _differentiate_twice, setup_context=_save)


class _Rational(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, numerator: Tensor, denominator: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(x, numerator, denominator)
        ctx.dim = dim
        return _forward_kernel(x, numerator, denominator, dim)

    backward = staticmethod(_differentiate)


class _Gradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, dim: int) -> Gradients:
        ctx.save_for_backward(grad, x, numerator, denominator)
        ctx.dim = dim
        return _backward_kernel(grad, x, numerator, denominator, dim)

    backward = staticmethod(_differentiate_twice)


# For the transforms of torch.func and for forward mode, which would take an op's derivative for zero without a word.


def _save_for_both_modes(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _save(ctx, inputs, output)
    ctx.save_for_forward(*inputs[:-1])


class _TransformedRational(torch.autograd.Function):
    generate_vmap_rule = True
    forward = staticmethod(_forward_kernel)
    setup_context = staticmethod(_save_for_both_modes)
    backward = staticmethod(_differentiate)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        reference = partial(rational_reference.evaluate, form="A", dim=ctx.dim)
        return rational_reference.push_forward(reference, ctx.saved_tensors, tangents)


class _TransformedGradients(torch.autograd.Function):
    generate_vmap_rule = True
    forward = staticmethod(_backward_kernel)
    setup_context = staticmethod(_save_for_both_modes)
    backward = staticmethod(_differentiate_twice)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Gradients:
        reference = partial(rational_reference.differentiate, form="A", dim=ctx.dim)
        return rational_reference.push_forward(reference, ctx.saved_tensors, tangents)


# torch.vmap: a batch of inputs is one more dimension of them; a batch of coefficients, more groups of channels.


def _batch_first(t: Tensor, batch_dim: int | None, size: int) -> Tensor:
    return t.expand(size, *t.shape) if batch_dim is None else t.movedim(batch_dim, 0)


def _channels_of_all(x: Tensor, dim: int) -> Tensor:
    """(N, ..., D, ...) -> (..., N D, ...)."""
    return x.movedim(0, dim).flatten(dim, dim + 1)


def _channels_of_each(x: Tensor, dim: int, size: int) -> Tensor:
    return x.unflatten(dim, (size, -1)).movedim(dim, 0)


def _groups_of_all(coefficients: Tensor, groups: int) -> Tensor:
    """(N, G or 1, k) -> (N G, k)."""
    return coefficients.expand(-1, groups, -1).flatten(0, 1)


def _batched_forward(
    info: Any, in_dims: tuple[int | None, ...], x: Tensor, numerator: Tensor, denominator: Tensor, dim: int
) -> tuple[Tensor, int]:
    x_dim, a_dim, b_dim, _ = in_dims
    size = info.batch_size
    x = _batch_first(x, x_dim, size)
    if a_dim is None and b_dim is None:
        return _forward_kernel(x, numerator, denominator, dim + 1), 0
    a, b = _batch_first(numerator, a_dim, size), _batch_first(denominator, b_dim, size)
    groups = max(a.shape[1], b.shape[1])
    y = _forward_kernel(_channels_of_all(x, dim), _groups_of_all(a, groups), _groups_of_all(b, groups), dim)
    return _channels_of_each(y, dim, size), 0


def _batched_backward(
    info: Any,
    in_dims: tuple[int | None, ...],
    grad: Tensor,
    x: Tensor,
    numerator: Tensor,
    denominator: Tensor,
    dim: int,
) -> tuple[Gradients, tuple[int, int, int]]:
    size = info.batch_size
    g, x, a, b = (_batch_first(t, d, size) for t, d in zip((grad, x, numerator, denominator), in_dims[:4], strict=True))
    groups = max(a.shape[1], b.shape[1])
    dx, da, db = _backward_kernel(
        _channels_of_all(g, dim), _channels_of_all(x, dim), _groups_of_all(a, groups), _groups_of_all(b, groups), dim
    )
    da, db = da.unflatten(0, (size, groups)), db.unflatten(0, (size, groups))
    da = da.sum(1, keepdim=True) if a.shape[1] < groups else da
    db = db.sum(1, keepdim=True) if b.shape[1] < groups else db
    return (_channels_of_each(dx, dim, size), da, db), (0, 0, 0)


for _name in _FORWARD:
    torch.library.register_vmap(_name, _batched_forward)
for _name in _BACKWARD:
    torch.library.register_vmap(_name, _batched_backward)
