"""The compiled kernels on the CPU against the reference: any shape, layout and format; accuracy; same bits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT, needs_kernels
from tests.ops.cases import Case, error, magnitudes, make_case, rounding_error
from zoo import ops
from zoo.errors import ZooError

# Half the distance between neighbouring numbers of the format, over the number, and that of the arithmetic.
ROUNDING = {torch.float16: 2**-11 + 1e-6, torch.bfloat16: 2**-8 + 1e-6, torch.float32: 1e-6, torch.float64: 2e-15}
COEFFICIENTS = {torch.float16: 2e-6, torch.bfloat16: 2e-6, torch.float32: 2e-6, torch.float64: 4e-15}

formats = st.sampled_from(list(ROUNDING))


def check(case: Case) -> None:
    """Compiled against the reference in float64."""
    results = case.run(implementation="compiled")
    assert results[0].dtype == results[1].dtype == case.x.dtype
    tolerances = (*[ROUNDING[case.x.dtype]] * 2, *[COEFFICIENTS[case.x.dtype]] * 2)
    expected, scales = case.run_in_double(), magnitudes(case)
    for name, *values, tolerance in zip(("y", "dx", "da", "db"), results, expected, scales, tolerances, strict=True):
        assert values[0].shape == values[1].shape
        # Below the smallest normal float16, numbers are 2^-24 apart.
        floor = 2**-14 if case.x.dtype == torch.float16 and name in ("y", "dx") else 0
        assert rounding_error(values[0], values[1], values[2].clamp_min(floor)) <= tolerance, name


@given(data=st.data(), dtype=formats, groups=st.integers(1, 9), width=st.integers(1, 40), seed=st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_like_the_reference(data: st.DataObject, dtype: torch.dtype, groups: int, width: int, seed: int) -> None:
    shape = data.draw(st.lists(st.integers(0, 6), max_size=3))
    dim = data.draw(st.integers(0, len(shape)))
    shape.insert(dim, groups * width)
    orders = data.draw(st.tuples(st.integers(0, 7), st.integers(1, 7)))
    check(make_case(tuple(shape), groups, orders, dtype, dim, data.draw(st.booleans()), seed))


@given(data=st.data(), dtype=formats, seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_any_memory_layout(data: st.DataObject, dtype: torch.dtype, seed: int) -> None:
    """Permuted, cut out of something larger, expanded: for input and upstream gradient on their own."""
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=3)))
    dim = data.draw(st.integers(0, len(shape)))
    shape = (*shape[:dim], 12, *shape[dim:])
    case = make_case(shape, 4, dtype=dtype, dim=dim, seed=seed)

    def relaid(t: torch.Tensor) -> torch.Tensor:
        kind = data.draw(st.sampled_from(["permuted", "sliced", "strided", "expanded"]))
        if kind == "permuted":
            order = data.draw(st.permutations(range(t.ndim)))
            back = [order.index(d) for d in range(t.ndim)]
            return t.permute(order).contiguous().permute(back)
        if kind == "expanded":
            d = data.draw(st.integers(0, t.ndim - 1))
            return t.narrow(d, 0, 1).expand_as(t)
        larger = torch.full([2 * n + 1 for n in t.shape], float("nan"), dtype=t.dtype)
        step = 2 if kind == "strided" else 1
        view = larger[tuple(slice(1, 1 + step * n, step) for n in t.shape)]
        return view.copy_(t)

    check(Case(relaid(case.x), case.numerator, case.denominator, relaid(case.grad), dim))


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize(
    ("shape", "groups", "dim"),
    [
        ((2, 197, 768), 8, -1),  # groups a multiple of every vector
        ((2, 197, 192), 8, -1),  # groups of 24: lanes of different groups
        ((3, 20000), 8, -1),  # rows longer than a chunk, groups that end in the middle of a vector
        ((40, 20000), 10000, -1),  # more groups than fit a chunk of usual size
        ((2, 64, 56, 57), 8, 1),  # images
        ((100000, 1), 1, -1),  # one channel
        ((5, 2048), 2048, -1),  # a group per channel
    ],
)
def test_large_shapes(shape: tuple[int, ...], groups: int, dim: int, dtype: torch.dtype) -> None:
    check(make_case(shape, groups, dtype=dtype, dim=dim))


def test_accuracy() -> None:
    """Forward to 2e-6; gradients of the coefficients to 1e-5 when 50,000 rows are summed, all of one sign."""
    case = make_case((50_000, 64), groups=8)
    case = Case(case.x.abs(), case.numerator.abs(), case.denominator.abs(), case.grad.abs())
    y, dx, da, db = case.run(implementation="compiled")
    expected = case.run_in_double()
    assert ((y - expected[0]).abs() / expected[0]).max() < 1e-6
    assert error(dx, expected[1]) < 2e-6
    assert ((da - expected[2]).abs() / expected[2].abs()).max() < 2e-6
    assert ((db - expected[3]).abs() / expected[3].abs()).max() < 2e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_precision_number(dtype: torch.dtype) -> None:
    """The identity returns each of the 65,536 bit patterns, subnormal numbers included."""
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).reshape(-1, 64)
    a, b = torch.tensor([[0.0, 1]]), torch.zeros(1, 1)
    y = ops.rational(x, a, b, implementation="compiled")
    finite = x.isfinite()  # infinity becomes 0 * infinity
    assert y[~finite].isnan().all()
    assert torch.equal(y[finite], x[finite])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_to_half_precision(dtype: torch.dtype) -> None:
    """Results are the float32 results rounded to nearest even, as torch rounds."""
    x = torch.randn(4096, 64).to(dtype)
    a, b = torch.randn(1, 6) * 1e-3, torch.randn(8, 4)
    narrow = ops.rational(x, a, b, implementation="compiled")
    wide = ops.rational(x.float(), a, b, implementation="compiled")
    assert torch.equal(narrow, wide.to(dtype))


def test_same_bits_with_any_number_of_threads() -> None:
    case = make_case((40, 197, 192), groups=8)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3, 2, 1):
            torch.set_num_threads(count)
            results.append(case.run(implementation="compiled"))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], result, strict=True))


def test_memory_layout_of_the_result() -> None:
    image = torch.randn(2, 16, 4, 5).to(memory_format=torch.channels_last)
    y = ops.rational(image, torch.randn(1, 6), torch.randn(4, 4), dim=1, implementation="compiled")
    assert y.stride() == image.stride()


def test_compiled_is_an_error_where_nothing_is_compiled() -> None:
    x, a, b = torch.zeros(2, 8), torch.zeros(1, 6), torch.zeros(1, 4)
    for options in ({"form": "B"}, {"numerator": torch.zeros(1, 9)}, {"denominator": torch.zeros(1, 8)}):
        arguments = {"numerator": a, "denominator": b, **options}
        assert ops.rational(x, **arguments).shape == x.shape
        with pytest.raises(ZooError, match="compiled for form A"):
            ops.rational(x, **arguments, implementation="compiled")
    with pytest.raises(ZooError, match="no compiled kernels for meta"):
        ops.rational(x.to("meta"), a.to("meta"), b.to("meta"), implementation="compiled")


def test_environment_chooses_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case((50, 64), groups=8)
    compiled, reference = case.run(implementation="compiled"), case.run(implementation="reference")
    assert not torch.equal(compiled[2], reference[2])  # they differ in the last bits
    assert torch.equal(case.run()[2], compiled[2])
    monkeypatch.setenv("ZOO_OPS", "reference")
    assert torch.equal(case.run()[2], reference[2])
    monkeypatch.setenv("ZOO_OPS", "refrence")
    with pytest.raises(ZooError, match="Did you mean 'reference'"):
        case.run()


@needs_kernels
@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_every_instruction_set(capability: str) -> None:
    """The variants for other processors, chosen the way torch's own are."""
    script = """
import ctypes, sys, torch
from tests.ops.test_rational_kernels import *
from zoo.ops import native
library = ctypes.CDLL(str(native.load("rational").built.path))
library.zoo_instruction_set.restype = ctypes.c_char_p
print(library.zoo_instruction_set().decode())
for dtype in ROUNDING:
    for shape, groups in (((37, 96), 8), ((9, 50), 5), ((3, 7, 24), 8), ((2, 2001), 3)):
        check(make_case(shape, groups, (5, 4), dtype))
        check(make_case(shape, groups, (7, 6), dtype))
for dtype in (torch.float16, torch.bfloat16):
    test_every_half_precision_number(dtype)
    test_rounding_to_half_precision(dtype)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        assert done.stdout.strip() == {"default": "baseline"}.get(capability, capability)
