"""Errors of the rational function and its gradients against float64: our kernels, and plain torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tools.benchmark.rational import Problem, make_problem
from tools.benchmark.report import Report
from tools.benchmark.rivals.rational import horner
from zoo import ops

_RESULTS = ("y", "dx", "da", "db")


def run(rows: int = 50_000, width: int = 192, device: str = "cpu") -> Report:
    """Compares results that are summed over many rows.

    Args:
        rows: B L, the number of tokens.
        width: channels, in 8 groups.
        device: cpu or cuda.
    """
    report = Report(f"rational, {rows} x {width}, error / largest magnitude", reference="zoo, float32")
    compiled = partial(ops.rational, implementation="compiled")
    contenders: dict[str, tuple[Callable[..., Tensor], torch.dtype]] = {
        "zoo, float32": (compiled, torch.float32),
        "eager Horner and autograd, float32": (horner, torch.float32),
        "zoo, bfloat16": (compiled, torch.bfloat16),
        "zoo, float16": (compiled, torch.float16),
    }
    for name, (function, dtype) in contenders.items():
        problem = make_problem((rows, width), dtype, device)
        wide = Problem(*(t.detach().double().requires_grad_() for t in vars(problem).values()))
        exact = _results(wide, partial(ops.rational, implementation="reference"))
        report.rows[name] = {
            result: float((actual.double() - expected).abs().max() / expected.abs().max())
            for result, actual, expected in zip(
                ("y", "dx", "da", "db"), _results(problem, function), exact, strict=True
            )
        }
    report.notes.append("float64 results are of the same input, rounded to each format beforehand")
    return report


def _results(problem: Problem, function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
    leaves = (problem.x, problem.numerator, problem.denominator)
    y = function(*leaves)
    return y.detach(), *torch.autograd.grad(y, leaves, problem.grad)
