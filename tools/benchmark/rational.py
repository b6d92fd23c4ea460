"""The rational function of KAT, forward and backward: our kernels, plain torch, torch.compile, GELU and a copy."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.benchmark.report import Report
from tools.benchmark.rivals.rational import horner
from tools.benchmark.timing import interleaved
from zoo import ops
from zoo.errors import ConfigError
from zoo.ops import native

GROUPS = 8
CPU_SHAPES = ((16, 197, 768), (64, 197, 384), (8, 197, 3072), (64, 197, 192))
GPU_WIDTHS = (192, 384, 768, 1536, 3072)
MIB = 1 << 20


@dataclass
class Problem:
    """Leaves, and an upstream gradient."""

    x: Tensor
    numerator: Tensor
    denominator: Tensor
    grad: Tensor

    def both_passes(self, function: Callable[..., Tensor]) -> Callable[[], object]:
        """Forward and backward of a function of all leaves."""
        leaves = (self.x, self.numerator, self.denominator)
        return lambda: torch.autograd.grad(function(*leaves), leaves, self.grad)


def make_problem(shape: Iterable[int], dtype: torch.dtype, device: str) -> Problem:
    """Normal input; coefficients near those of swish."""
    generator = torch.Generator().manual_seed(0)
    shape = tuple(shape)
    x, grad = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(2))
    numerator = torch.tensor([[0.05, 0.5, 0.4, 0.1, 0.02, 0.003]])
    denominator = torch.tensor([[0.2, 0.3, 0.04, 0.006]]) * (1 + 0.1 * torch.rand(GROUPS, 4, generator=generator))
    x, numerator, denominator = (t.to(device).requires_grad_() for t in (x, numerator, denominator))
    return Problem(x, numerator, denominator, grad)


def run(dtype: str = "float32", repeats: int = 30, device: str = "auto", compiled: bool = True) -> Report:
    """Times all contenders in turns.

    Args:
        dtype: float32, bfloat16 or float16.
        repeats: rounds that count; the shortest on a CPU, the median on a GPU.
        device: cpu, cuda or auto.
        compiled: whether to include torch.compile, which takes minutes to compile on a CPU.
    """
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ConfigError(f"dtype={dtype}: use float32, bfloat16 or float16.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    measure = _run_gpu if device == "cuda" else _run_cpu
    return measure(getattr(torch, dtype), repeats, compiled)


def _run_cpu(dtype: torch.dtype, repeats: int, compiled: bool) -> Report:
    report = Report(f"rational, {GROUPS} groups, {dtype}, {torch.get_num_threads()} CPU threads, ms", reference="zoo")
    alone = torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    for shape in CPU_SHAPES:
        problem = make_problem(shape, dtype, "cpu")
        work = _contenders(problem, compiled)
        # Forward reads x and writes y; backward reads the gradient and x and writes dx: as much as 2.5 copies.
        source = torch.empty(5 * problem.x.numel() // 2, dtype=dtype).normal_()
        target = torch.empty_like(source)
        work["copy of the same bytes"] = lambda target=target, source=source: target.copy_(source)  # type: ignore[misc]
        times = interleaved(work, repeats, clock=clock)
        column = "x".join(map(str, shape))
        for name, seconds in times.items():
            report.rows.setdefault(name, {})[column] = 1e3 * seconds
        fraction = times["copy of the same bytes"] / times["zoo"]
        report.notes.append(f"{column}: {100 * fraction:.0f} % of the speed of copying")
    report.notes.append("forward and backward with gradients of input and coefficients; shortest of the repeats")
    report.notes.append("processor time" if alone else "wall-clock time")
    return report


def _contenders(problem: Problem, compiled: bool) -> dict[str, Callable[[], object]]:
    work = {
        "zoo": problem.both_passes(partial(ops.rational, implementation="compiled")),
        "zoo, reference": problem.both_passes(partial(ops.rational, implementation="reference")),
        "eager Horner and autograd": problem.both_passes(horner),
        "F.gelu": lambda: torch.autograd.grad(F.gelu(problem.x), problem.x, problem.grad),
    }
    if compiled:
        torch._dynamo.reset()
        work["torch.compile of it"] = problem.both_passes(torch.compile(horner, dynamic=False))
    return work


def _run_gpu(dtype: torch.dtype, repeats: int, compiled: bool) -> Report:
    name = torch.cuda.get_device_name()
    report = Report(f"rational, {GROUPS} groups, {dtype}, 128x197 rows, {name}, ms", reference="zoo")
    native.require("rational", torch.device("cuda"))
    speed = _copy_speed()
    for width in GPU_WIDTHS:
        problem = make_problem((128, 197, width), dtype, "cuda")
        forward, both = _gpu_contenders(problem, compiled)
        times = {"fwd": _interleaved_events(forward, repeats), "fwd+bwd": _interleaved_events(both, repeats)}
        for passes, seconds in times.items():
            for contender, value in seconds.items():
                report.rows.setdefault(contender, {})[f"{width} {passes}"] = 1e3 * value
        size = problem.x.numel() * problem.x.element_size()
        parts = [2 * size / times["fwd"]["zoo"] / speed, 5 * size / times["fwd+bwd"]["zoo"] / speed]
        report.notes.append(f"{width}: {100 * parts[0]:.0f} % (fwd), {100 * parts[1]:.0f} % (fwd+bwd) of copying speed")
    report.notes.append(f"copying moves {speed / 1e9:.0f} GB/s, read and written; caches are flushed before each call")
    report.notes.append("Triton rivals cast to float32 and back where the tensors are in half precision, as published")
    return report


def _gpu_contenders(problem: Problem, compiled: bool) -> tuple[dict[str, Callable[[], object]], ...]:
    """Contenders of the forward pass, and of both. Autograd is left out where it isn't part of the contender."""
    x, a, b = (t.detach() for t in (problem.x, problem.numerator, problem.denominator))
    grad, dim = problem.grad, x.ndim - 1
    evaluate, differentiate = torch.ops.zoo.rational, torch.ops.zoo.rational_backward
    forward: dict[str, Callable[[], object]] = {
        "zoo": lambda: evaluate(x, a, b, dim),
        "eager Horner and autograd": lambda: horner(x, a, b),
        "F.gelu": lambda: F.gelu(x),
    }
    both: dict[str, Callable[[], object]] = {
        "zoo": lambda: (evaluate(x, a, b, dim), differentiate(grad, x, a, b, dim)),
        "eager Horner and autograd": problem.both_passes(horner),
        "F.gelu": lambda: (F.gelu(x), torch.ops.aten.gelu_backward(grad, x)),
    }
    if compiled:
        torch._dynamo.reset()
        function = torch.compile(horner, dynamic=False)
        forward["torch.compile of it"] = lambda: function(x, a, b)
        both["torch.compile of it"] = problem.both_passes(function)
    if importlib.util.find_spec("triton"):
        from tools.benchmark.rivals.rational_triton import TritonRational

        for name, rival in (
            ("Triton, an atomic per element", TritonRational(atomic=True)),
            ("Triton, FlashKAT's tiles", TritonRational(atomic=False)),
        ):
            forward[name] = lambda rival=rival: rival.forward(x, a, b)  # type: ignore[misc]
            both[name] = lambda rival=rival: rival.backward(grad, rival.forward(x, a, b)[1], a, b)  # type: ignore[misc]
    return forward, both


def _interleaved_events(work: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median time of each contender in seconds by CUDA events, with caches flushed before each call."""
    flush = torch.empty(256 * MIB, dtype=torch.uint8, device="cuda")
    times: dict[str, list[float]] = {name: [] for name in work}
    for round_ in range(3 + repeats):
        for name, function in work.items():
            flush.zero_()
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            function()
            end.record()
            end.synchronize()
            if round_ >= 3:
                times[name].append(1e-3 * start.elapsed_time(end))
    return {name: statistics.median(values) for name, values in times.items()}


def _copy_speed() -> float:
    """Bytes per second of a large copy, read and written."""
    source = torch.empty(1024 * MIB, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / _interleaved_events({"copy": lambda: target.copy_(source)}, 20)["copy"]
