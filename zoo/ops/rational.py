"""The group-wise rational function of KAT: y = P(x) / Q(x), elementwise, with coefficients per channel group.

Source: Yang and Wang, "Kolmogorov-Arnold Transformer", ICLR 2025 (arXiv 2409.10594), section 4.

Form ``"A"`` ("safe Pade") is what all released models compute; with a_i the numerator's and b_j the
denominator's coefficients,

    P(x) = sum_{i=0..m} a_i x^i        Q(x) = 1 + sum_{j=1..n} |b_j| |x|^j

It is computed by C++ and CUDA kernels (``kernels/rational``, `zoo.ops.rational_op`) where they can be built, else
by the reference (`zoo.ops.rational_reference`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.ops import native, rational_op, rational_reference
from zoo.ops.native import Implementation
from zoo.ops.rational_reference import FORMS, Form

# The highest powers that the kernels are compiled for (kernels/rational/layout.h).
_MAX_NUMERATOR, _MAX_DENOMINATOR = 7, 7

# The dtypes of the input, and what they are computed in.
_COMPUTED = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}


def rational(
    x: Tensor,
    numerator: Tensor,
    denominator: Tensor,
    form: Form = "A",
    dim: int = -1,
    implementation: Implementation = "auto",
    fp32_io: bool = False,
) -> Tensor:
    """Evaluates a rational function on every element of `x`.

    Channel c of D uses row ``c // (D / G)`` of the coefficients, G being the number of groups: groups are
    contiguous runs of channels.

    Differentiable any number of times. Runs in the dtype of `x`, under autocast in autocast's; the arithmetic
    is float32 for half precision, and the gradients of the coefficients are the same bits in every run,
    whatever the number of threads.

    Args:
        x: any shape and memory layout, floating point.
        numerator: (G, m + 1) or (1, m + 1) to share it, constant term first.
        denominator: (G, n) or (1, n), for the powers 1..n.
        form: ``"A"`` as above; ``"B"``, the paper's equation, Q = 1 + \\|sum_j b_j x^j\\|; ``"legacy_cpu"``,
            Q = 1 + sum_j \\|b_j\\| x^j, which the authors' CPU code computes by mistake (it has poles).
        dim: the channel dimension.
        implementation: ``"auto"``, the kernels where there are any: form A, m and n up to 7, on a CPU or CUDA;
            ``"reference"``, also chosen by the environment variable ``ZOO_OPS=reference``; ``"compiled"``,
            the kernels or an error.
        fp32_io: under autocast, take and return float32 as the authors' code does.

    Returns:
        A tensor like `x`.

    Raises:
        ValueError: coefficients of the wrong shape, or channels that G does not divide.
        TypeError: `x` is not float16, bfloat16, float32 or float64.
        BuildError: ``implementation="compiled"`` for what no kernel does here.
    """
    if form not in FORMS:
        raise ValueError(f"there is no form {form!r}: use 'A', 'B' or 'legacy_cpu'")
    m, n = _check(x, numerator, denominator, dim)
    device = x.device
    # Autocast doesn't know of meta tensors.
    if device.type != "meta" and torch.is_autocast_enabled(device.type) and x.dtype != torch.float64:
        x = x.to(torch.float32 if fp32_io else torch.get_autocast_dtype(device.type))
    computed = _COMPUTED[x.dtype]
    if numerator.dtype != computed or denominator.dtype != computed:
        numerator, denominator = numerator.to(computed), denominator.to(computed)

    has_kernel = form == "A" and m <= _MAX_NUMERATOR and n <= _MAX_DENOMINATOR
    if implementation == "compiled":
        if not has_kernel:
            raise native.BuildError(
                f"rational is compiled for form A and orders up to ({_MAX_NUMERATOR}, {_MAX_DENOMINATOR}), not for "
                f"form {form} and ({m}, {n})"
            )
        native.require("rational", device)
    if native.is_reference(implementation) or not has_kernel:
        return rational_reference.rational(x, numerator, denominator, form, dim % x.ndim)
    return rational_op.rational(x, numerator, denominator, dim % x.ndim)


def _check(x: Tensor, numerator: Tensor, denominator: Tensor, dim: int) -> tuple[int, int]:
    """The orders of numerator and denominator, once everything is found to match."""
    if x.dtype not in _COMPUTED:
        raise TypeError(f"rational takes {', '.join(str(t).removeprefix('torch.') for t in _COMPUTED)}, not {x.dtype}")
    if numerator.ndim != 2 or denominator.ndim != 2:
        raise ValueError(
            "coefficients are matrices of one row per group, not of the shapes "
            f"{tuple(numerator.shape)} and {tuple(denominator.shape)}"
        )
    (numerator_groups, terms), (denominator_groups, n) = numerator.shape, denominator.shape
    groups = max(numerator_groups, denominator_groups)
    if not terms or not n:
        raise ValueError(f"numerator and denominator have {terms} and {n} coefficients per group: each needs one")
    if numerator_groups not in (1, groups) or denominator_groups not in (1, groups):
        raise ValueError(
            f"numerator and denominator have {numerator_groups} and {denominator_groups} groups: "
            "both must have the same number, or one of them 1"
        )
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"x of shape {tuple(x.shape)} has no dimension {dim}")
    if x.shape[dim] % groups:
        raise ValueError(f"{x.shape[dim]} channels can't be divided into {groups} groups")
    return terms - 1, n
