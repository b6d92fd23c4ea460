"""The rational function against the official numbers and closed forms, by every implementation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests import goldens
from tests.ops.cases import make_case
from zoo import ops

IMPLEMENTATIONS = ("reference", "compiled")
CASES_1D = [f"c{k}" for k in range(7)]


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> ops.Implementation:
    return request.param


def run(
    g: dict[str, Tensor], implementation: ops.Implementation, form: ops.Form = "A", dim: int = -1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, a, b = (g[name].clone().requires_grad_() for name in ("x", "a", "b"))
    y = ops.rational(x, a, b, form, dim, implementation)
    return y, *torch.autograd.grad(y, (x, a, b), g["gy"])


@pytest.mark.parametrize("name", CASES_1D)
def test_official_numbers(name: str, implementation: ops.Implementation) -> None:
    g = goldens.section(goldens.load("kat-rational", "rational_1d"), f"{name}_")
    y, dx, da, db = run(g, implementation)
    assert goldens.relative_error(y, g["y"]) < 2e-6
    assert goldens.relative_error(dx, g["dx"]) < 2e-6
    assert goldens.relative_error(da.double(), g["da_f64"]) < 2e-6
    # Where b is 0 the float64 numbers come from autograd, which takes the sign of 0 for 0.
    expected = torch.where(g["b"] == 0, g["db"].double(), g["db_f64"])
    assert goldens.relative_error(db.double(), expected) < 2e-6


@pytest.mark.parametrize("name", ["d0", "d1"])
def test_official_numbers_of_images(name: str, implementation: ops.Implementation) -> None:
    g = goldens.section(goldens.load("kat-rational", "rational_2d"), f"{name}_")
    for actual, key in zip(run(g, implementation, dim=1), ("y", "dx", "da", "db"), strict=True):
        assert goldens.relative_error(actual, g[key]) < 1e-5, key


@pytest.mark.parametrize("name", ["o0", "o1", "o2", "o3"])
def test_official_numbers_of_other_orders(name: str, implementation: ops.Implementation) -> None:
    g = goldens.section(goldens.load("kat-rational", "rational_orders"), f"{name}_")
    g = {**g, "x": g["x"].unsqueeze(-1), "gy": g["gy"].unsqueeze(-1), "a": g["a"][None], "b": g["b"][None]}
    y, dx, da, db = run(g, implementation)
    assert goldens.relative_error(y.squeeze(-1), g["y"]) < 1e-5
    assert goldens.relative_error(dx.squeeze(-1), g["dx"]) < 1e-5
    assert goldens.relative_error(da[0], g["da"]) < 1e-5
    assert goldens.relative_error(db[0], g["db"]) < 1e-5


@pytest.mark.parametrize("name", CASES_1D)
def test_official_numbers_of_the_other_forms(name: str) -> None:
    g = goldens.section(goldens.load("kat-rational", "rational_1d"), f"{name}_")
    y, dx, da, db = run(g, "auto", "B")
    assert goldens.relative_error(y, g["formB_y"]) < 1e-5
    assert goldens.relative_error(dx, g["formB_dx"]) < 1e-5
    assert goldens.relative_error(da, g["formB_da"]) < 1e-5
    if (g["b"] != 0).all():
        assert goldens.relative_error(db, g["formB_db"]) < 1e-5
    if "y_cpufallback" in g:
        y, *_ = run(g, "auto", "legacy_cpu")
        assert goldens.relative_error(y, g["y_cpufallback"]) < 1e-4


def test_identity_is_exact_and_its_denominator_learns(implementation: ops.Implementation) -> None:
    x = torch.linspace(-4, 4, 101).repeat(2, 1).T.contiguous()
    a = torch.tensor([[0.0, 1.0, 0, 0, 0, 0]])
    b = torch.zeros(2, 4, requires_grad=True)
    y = ops.rational(x, a, b, implementation=implementation)
    assert torch.equal(y, x)
    (db,) = torch.autograd.grad(y.sum(), b)
    # dy/db_j = -x |x|^j at b = 0, for g = 1; with y = x the sum over a symmetric range would vanish.
    assert db.abs().max() < 1e-3
    (db,) = torch.autograd.grad((ops.rational(x, a, b, implementation=implementation) * x).sum(), b)
    expected = torch.stack([-(x * x * x.abs() ** j).sum(0) for j in (1, 2, 3, 4)], -1)
    torch.testing.assert_close(db, expected, rtol=1e-5, atol=0)


def test_zero_counts_as_positive(implementation: ops.Implementation) -> None:
    """At x = 0 and -0: y = a_0, dy/dx = a_1 - a_0 |b_1|."""
    x = torch.tensor([[0.0], [-0.0]], requires_grad=True)
    a, b = torch.tensor([[2.0, 3.0, 1, 1, 1, 1]]), torch.tensor([[-0.5, 1, 1, 1]])
    y = ops.rational(x, a, b, implementation=implementation)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert y.flatten().tolist() == [2.0, 2.0]
    assert dx.flatten().tolist() == [2.0, 2.0]


def test_groups_are_runs_of_channels(implementation: ops.Implementation) -> None:
    """With numerator and denominator of their own, each group is the scalar function of its coefficients."""
    case = make_case((4, 12), groups=3, shared_numerator=False)
    y = ops.rational(case.x, case.numerator, case.denominator, implementation=implementation)
    for channel in range(12):
        a, b = case.numerator[channel // 4].tolist(), case.denominator[channel // 4].tolist()
        for x, actual in zip(case.x[:, channel].tolist(), y[:, channel].tolist(), strict=True):
            p = sum(c * x**i for i, c in enumerate(a))
            q = 1 + sum(abs(c) * abs(x) ** j for j, c in enumerate(b, 1))
            assert actual == pytest.approx(p / q, rel=1e-5, abs=1e-6)


def test_numerators_per_group_with_one_denominator(implementation: ops.Implementation) -> None:
    case = make_case((5, 24), groups=4, shared_numerator=False, dtype=torch.float64)
    b = case.denominator[:1]
    shared = ops.rational(case.x, case.numerator, b, implementation=implementation)
    spelled_out = ops.rational(case.x, case.numerator, b.repeat(4, 1), implementation=implementation)
    torch.testing.assert_close(shared, spelled_out)


@pytest.mark.parametrize("value", [1e4, -1e4, 1e-30, -1e-30, 65504.0, 1e20, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("mode", ["swish", "identity"])
def test_extreme_inputs_are_like_the_reference(value: float, mode: str) -> None:
    """Large inputs give no spurious infinities, and infinities and NaNs pass through where they do there."""
    if mode == "identity":
        a, b = torch.tensor([[0.0, 1, 0, 0, 0, 0]]), torch.zeros(1, 4)
    else:
        a, b = torch.tensor([[0.1, 0.5, 0.2, -0.1, 0.05, 0.6]]), torch.tensor([[0.1, -0.2, 0.3, 1.0]])
    x = torch.tensor([[value, 1.0]])
    results = [
        ops.rational(x, a.expand(2, -1), b.expand(2, -1), implementation=implementation)
        for implementation in IMPLEMENTATIONS
    ]
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=0, equal_nan=True)
    if abs(value) <= 65504:
        expected = ops.rational(x.double(), a, b)
        assert goldens.relative_error(results[1].double(), expected) < 1e-6
        gradients = []
        for implementation in IMPLEMENTATIONS:
            leaves = [t.clone().requires_grad_() for t in (x, a, b)]
            y = ops.rational(*leaves, implementation=implementation)
            gradients.append(torch.autograd.grad(y.sum(), leaves))
        for one, other in zip(*gradients, strict=True):
            assert torch.isfinite(other).all()
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-30)


def test_slope_far_out() -> None:
    """F(x) tends to (a_5 / |b_4|) x on both sides."""
    case = make_case((1, 8), groups=1)
    x = torch.tensor([[1e4, -1e4]])
    y = ops.rational(x, case.numerator, case.denominator)
    slope = case.numerator[0, 5] / case.denominator[0, 3].abs()
    torch.testing.assert_close(y / x, slope.expand(1, 2), rtol=1e-2, atol=0)


@pytest.mark.parametrize("form", ["A", "B"])
def test_gradcheck(form: ops.Form, implementation: ops.Implementation) -> None:
    if form == "B":
        implementation = "reference"
    case = make_case((2, 3, 8), groups=4, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (case.x, case.numerator, case.denominator)]

    def function(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return ops.rational(x, a, b, form, implementation=implementation)

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_third_derivative() -> None:
    """Physics-informed losses differentiate a second derivative once more."""
    case = make_case((2, 8), groups=2, dtype=torch.float64)
    thirds = []
    for implementation in IMPLEMENTATIONS:
        x = case.x.clone().requires_grad_()
        value = ops.rational(x, case.numerator, case.denominator, implementation=implementation).sum()
        for _ in range(2):
            (value,) = (g.sum() for g in torch.autograd.grad(value, x, create_graph=True))
        thirds.append(torch.autograd.grad(value, x)[0])
    torch.testing.assert_close(thirds[0], thirds[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_autocast(dtype: torch.dtype, implementation: ops.Implementation) -> None:
    case = make_case((3, 5, 16), groups=8)
    a = case.numerator.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = case.x.to(dtype)
        y = ops.rational(x, a, case.denominator, implementation=implementation)
        wide = ops.rational(x, a, case.denominator, implementation=implementation, fp32_io=True)
        double = ops.rational(x.double(), a, case.denominator, implementation=implementation)
    assert (y.dtype, wide.dtype, double.dtype) == (torch.bfloat16, torch.float32, torch.float64)
    (da,) = torch.autograd.grad(y.sum(), a)
    assert da.dtype == torch.float32
    assert goldens.relative_error(y.double(), double.detach()) < 2**-7
    assert goldens.relative_error(wide.double(), double.detach()) < 1e-6


def test_coefficients_of_another_dtype(implementation: ops.Implementation) -> None:
    """model.bfloat16() makes the coefficients bfloat16, too; their gradients follow."""
    case = make_case((3, 16), groups=8, dtype=torch.bfloat16)
    a, b = case.numerator.bfloat16().requires_grad_(), case.denominator.bfloat16().requires_grad_()
    y = ops.rational(case.x, a, b, implementation=implementation)
    gradients = torch.autograd.grad(y.sum(), (a, b))
    assert y.dtype == torch.bfloat16
    assert all(g.dtype == torch.bfloat16 and torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize(
    ("shape", "numerator", "denominator", "options", "message"),
    [
        ((2, 10), (1, 6), (4, 4), {}, "10 channels can't be divided into 4 groups"),
        ((2, 8), (2, 6), (4, 4), {}, "2 and 4 groups"),
        ((2, 8), (6,), (4, 4), {}, "matrices"),
        ((2, 8), (1, 6), (4, 0), {}, "6 and 0 coefficients"),
        ((2, 8), (1, 6), (4, 4), {"dim": 2}, "no dimension 2"),
        ((), (1, 6), (1, 4), {}, "no dimension -1"),
        ((2, 8), (1, 6), (4, 4), {"form": "C"}, "no form 'C'"),
        ((2, 8), (1, 6), (4, 4), {"implementation": "fast"}, "no implementation 'fast'"),
    ],
)
def test_bad_arguments(
    shape: tuple[int, ...],
    numerator: tuple[int, ...],
    denominator: tuple[int, ...],
    options: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        ops.rational(torch.zeros(shape), torch.zeros(numerator), torch.zeros(denominator), **options)  # type: ignore[arg-type]


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"not torch\.int64"):
        ops.rational(torch.zeros(2, 8, dtype=torch.int64), torch.zeros(1, 6), torch.zeros(1, 4))
