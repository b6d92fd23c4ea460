"""The published algorithms that the benchmark measures ours against: they compute the same."""

from __future__ import annotations

import os

import pytest
import torch

from tests.ops.cases import error, make_case


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "width"), [(70, 24), (3, 96), (130, 8)])
def test_triton(atomic: bool, dtype: torch.dtype, rows: int, width: int) -> None:
    """Tiles and blocks that the shape doesn't fill, and several tiles to a group."""
    pytest.importorskip("triton")
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton needs a GPU, or TRITON_INTERPRET=1")
    from tools.benchmark.rivals.rational_triton import TritonRational

    device = "cuda" if torch.cuda.is_available() else "cpu"
    case = make_case((rows, 8 * width), groups=8, dtype=dtype)
    expected = case.run_in_double()
    x, a, b, grad = (t.to(device) for t in (case.x, case.numerator, case.denominator, case.grad))
    rival = TritonRational(atomic)
    y, wide = rival.forward(x, a, b)
    assert wide.dtype == torch.float32
    actual = (y, *rival.backward(grad, wide, a, b))
    assert actual[0].dtype == actual[1].dtype == dtype
    for one, other, tolerance in zip(actual, expected, (*[2**-8] * 2, *[1e-5] * 2), strict=True):
        assert error(one.cpu(), other) < (tolerance if dtype == torch.bfloat16 else 1e-5)
