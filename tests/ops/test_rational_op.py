"""The torch op: its registration, and how torch.compile, torch.export and torch.func treat it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from tests.conftest import needs_kernels
from tests.ops.cases import make_case
from zoo import ops


class Layer(nn.Module):
    def __init__(self, implementation: ops.Implementation = "auto") -> None:
        super().__init__()
        case = make_case((1, 16), groups=8)
        self.numerator, self.denominator = nn.Parameter(case.numerator), nn.Parameter(case.denominator)
        self.implementation = implementation

    def forward(self, x: Tensor) -> Tensor:
        return ops.rational(x.sin(), self.numerator, self.denominator, implementation=self.implementation)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "sliced", "empty"])
def test_opcheck(dtype: torch.dtype, layout: str) -> None:
    case = make_case((3, 4, 16), groups=8, dtype=dtype)
    x = {
        "contiguous": case.x,
        "transposed": case.x.transpose(0, 1).contiguous().transpose(0, 1),
        "sliced": case.x.repeat(1, 1, 2)[..., :16],
        "empty": case.x[:0],
    }[layout].requires_grad_()
    coefficients = case.numerator.requires_grad_(), case.denominator.requires_grad_()
    torch.library.opcheck(torch.ops.zoo.rational.default, (x, *coefficients, 2))
    # torch.compile can't differentiate twice, so the second derivative isn't traced.
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    grad = case.grad[: len(x)]
    torch.library.opcheck(torch.ops.zoo.rational_backward.default, (grad, x, *coefficients, 2), test_utils=tests)


@pytest.mark.parametrize("implementation", ["auto", pytest.param("compiled", marks=needs_kernels), "reference"])
def test_compile_without_graph_breaks(implementation: ops.Implementation) -> None:
    layer = Layer(implementation)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 16)
    torch.testing.assert_close(compiled(x), layer(x))
    for one, other in zip(
        torch.autograd.grad(compiled(x).sum(), layer.parameters()),
        torch.autograd.grad(layer(x).sum(), layer.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_compile_with_changing_shapes_and_autocast() -> None:
    layer = Layer()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (2, 3, 7):
        x = torch.randn(rows, 16)
        torch.testing.assert_close(compiled(x), layer(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert compiled(x).dtype == torch.bfloat16


@pytest.mark.slow
def test_inductor() -> None:
    layer = Layer()
    x = torch.randn(5, 16)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), layer(x))


def test_export(tmp_path: Path) -> None:
    layer = Layer()
    rows = torch.export.Dim("rows")
    program = torch.export.export(layer, (torch.randn(3, 16),), dynamic_shapes=({0: rows},))
    assert torch.ops.zoo.rational.default in [node.target for node in program.graph.nodes]
    torch.export.save(program, tmp_path / "layer.pt2")
    x = torch.randn(9, 16)
    torch.testing.assert_close(torch.export.load(tmp_path / "layer.pt2").module()(x), layer(x))


def test_meta_tensors() -> None:
    layer = Layer().to("meta")
    assert layer(torch.empty(4, 16, device="meta")).shape == (4, 16)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("in_dims", [(0, None, None), (1, None, None), (2, 0, None), (None, 0, 0), (0, None, 1)])
@pytest.mark.parametrize("shared", [True, False])
def test_vmap(dim: int, in_dims: tuple[int | None, ...], shared: bool) -> None:
    """Like a loop over the batch, and so are the gradients of each sample."""
    case = make_case((8, 16), groups=8, dtype=torch.float64, dim=dim, shared_numerator=shared)
    arguments = (case.x, case.numerator, case.denominator)
    generator = torch.Generator().manual_seed(1)
    batched = [
        t if d is None else torch.stack([t * torch.rand((), generator=generator) for _ in range(3)], d)
        for t, d in zip(arguments, in_dims, strict=True)
    ]

    def loss(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return (ops.rational(x, a, b, dim=dim) * case.grad).sum()

    actual = torch.vmap(torch.func.grad(loss, (0, 1, 2)), in_dims)(*batched)
    for k in range(3):
        sample = [t if d is None else t.select(d, k) for t, d in zip(batched, in_dims, strict=True)]
        leaves = [t.detach().requires_grad_() for t in sample]
        expected = torch.autograd.grad(loss(*leaves), leaves)
        for one, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(one[k], other)


@pytest.mark.parametrize("implementation", ["compiled", "reference"])
def test_forward_mode(implementation: ops.Implementation) -> None:
    """Directional derivatives by torch.func.jvp and by dual numbers are those of reverse mode."""
    case = make_case((3, 8), groups=4, dtype=torch.float64)
    inputs = (case.x, case.numerator, case.denominator)
    tangents = (case.grad, torch.ones_like(case.numerator), torch.ones_like(case.denominator))

    def function(*leaves: Tensor) -> Tensor:
        return ops.rational(*leaves, implementation=implementation)

    _, expected = torch.autograd.functional.jvp(function, inputs, tangents)
    torch.testing.assert_close(torch.func.jvp(function, inputs, tangents)[1], expected)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(x, t) for x, t in zip(inputs, tangents, strict=True)]
        torch.testing.assert_close(forward_ad.unpack_dual(function(*duals)).tangent, expected)


def test_hessian() -> None:
    case = make_case((2, 4), groups=2, dtype=torch.float64)

    def function(x: Tensor) -> Tensor:
        return ops.rational(x, case.numerator, case.denominator).sum()

    expected = torch.autograd.functional.hessian(function, case.x)
    torch.testing.assert_close(torch.func.hessian(function)(case.x), expected)
