"""Transforms, coil operations and the measurement: official numbers, adjointness, gradients in double precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.goldens import section
from tests.mri.golden import cplx, error, load
from zoo.mri import wavelets
from zoo.mri.fourier import fft2, ifft2, move_origin, shift, unshift
from zoo.mri.operators import (
    SenseOperator,
    center_crop,
    conjugate_gradient,
    expand,
    from_channels,
    inner,
    normalize_maps,
    reduce,
    rss,
    safe_divide,
    to_channels,
)

SIZES = st.integers(4, 13)


def random_complex(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def dot(a: Tensor, b: Tensor) -> complex:
    return complex((a.conj() * b).sum())


def problem(height: int, width: int, coils: int, seed: int, centered: bool = True) -> SenseOperator:
    maps = normalize_maps(random_complex(2, coils, height, width, seed=seed))
    mask = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(seed)) < 0.4
    return SenseOperator(maps, mask, centered)


@pytest.mark.parametrize("size", ["even", "odd", "mixed"])
class TestOfficialNumbers:
    @pytest.mark.parametrize("centered", [True, False])
    @pytest.mark.parametrize("ortho", [True, False])
    def test_transforms(self, size: str, centered: bool, ortho: bool) -> None:
        golden = section(load("transforms"), f"{size}/")
        suffix, norm = f"c{int(centered)}_n{int(ortho)}", "ortho" if ortho else "backward"
        x = cplx(golden["in"])
        assert error(fft2(x, centered, norm), golden[f"fft_{suffix}"]) < 1e-5
        assert error(ifft2(x, centered, norm), golden[f"ifft_{suffix}"]) < 1e-5

    def test_coils(self, size: str) -> None:
        golden = section(load("transforms"), f"{size}/")
        x, maps, image = (cplx(golden[name]) for name in ("in", "sens", "image"))
        assert error(expand(image, maps), golden["expand"]) < 1e-5
        assert error(reduce(x, maps), golden["reduce"]) < 1e-5
        assert error(rss(x), golden["rss"]) < 1e-5
        assert error(safe_divide(x, cplx(golden["div_den"])), golden["complex_div"]) < 1e-5
        expected = golden["center_crop"]
        assert torch.equal(center_crop(golden["image"][..., 0], *expected.shape[-2:]), expected)


@given(height=SIZES, width=SIZES, seed=st.integers(0, 1000))
def test_the_origin_of_images_can_be_moved(height: int, width: int, seed: int) -> None:
    """The same magnitudes at the same places in the other convention, and back."""
    k = random_complex(2, height, width, seed=seed)
    for centered in (True, False):
        moved = move_origin(k, centered)
        assert torch.allclose(ifft2(moved, centered).abs(), ifft2(k, not centered).abs())
        assert torch.allclose(move_origin(moved, not centered), k)


@given(height=SIZES, width=SIZES, centered=st.booleans(), seed=st.integers(0, 1000))
def test_the_transform_is_unitary(height: int, width: int, centered: bool, seed: int) -> None:
    x, k = random_complex(2, height, width, seed=seed), random_complex(2, height, width, seed=seed + 1)
    assert torch.allclose(ifft2(fft2(x, centered), centered), x)
    assert dot(fft2(x, centered), k) == pytest.approx(dot(x, ifft2(k, centered)))
    assert torch.equal(unshift(shift(x)), x)


@given(height=SIZES, width=SIZES)
def test_the_origin_is_at_half(height: int, width: int) -> None:
    """A constant image has all of its k-space at index n // 2, and the other way round."""
    k = fft2(torch.ones(height, width, dtype=torch.complex128))
    expected = torch.zeros_like(k)
    expected[height // 2, width // 2] = (height * width) ** 0.5
    assert torch.allclose(k, expected, atol=1e-9)


@given(height=SIZES, width=SIZES, coils=st.integers(1, 4), centered=st.booleans(), seed=st.integers(0, 1000))
def test_adjoint(height: int, width: int, coils: int, centered: bool, seed: int) -> None:
    """<A x, y> = <x, A^H y> in double precision, and ||A|| <= 1."""
    operator = problem(height, width, coils, seed, centered)
    x, y = random_complex(2, height, width, seed=seed + 1), random_complex(2, coils, height, width, seed=seed + 2)
    assert dot(operator.forward(x), y) == pytest.approx(dot(x, operator.adjoint(y)), rel=1e-10)
    assert dot(operator.normal(x), x).real == pytest.approx(operator.forward(x).abs().square().sum().item())
    assert operator.forward(x).norm() <= x.norm() * (1 + 1e-12)


@given(height=SIZES, width=SIZES, coils=st.integers(1, 4), seed=st.integers(0, 1000))
def test_reduce_undoes_expand(height: int, width: int, coils: int, seed: int) -> None:
    raw = random_complex(2, coils, height, width, seed=seed)
    raw[:, :, 0] = 0  # no signal there
    maps, x = normalize_maps(raw), random_complex(2, height, width, seed=seed + 1)
    support = torch.ones(height, width, dtype=torch.bool)
    support[0] = False
    assert torch.allclose(reduce(expand(x, maps), maps), x * support)
    assert torch.allclose(rss(maps), support.double())


def test_gradients_in_double_precision() -> None:
    operator = problem(5, 6, 3, 0)
    x = random_complex(2, 5, 6).requires_grad_()
    y = random_complex(2, 3, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: operator.gradient(x, y), (x, y))
    assert torch.autograd.gradcheck(lambda y: rss(y), (y,))
    raw = random_complex(1, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(normalize_maps, (raw,))


def test_gradient_of_the_likelihood() -> None:
    """`gradient` is what autograd gives for 1/2 ||A x - y||^2."""
    operator = problem(7, 6, 3, 1)
    x, y = random_complex(2, 7, 6).requires_grad_(), random_complex(2, 3, 7, 6) * operator.mask
    loss = 0.5 * (operator.forward(x) - y).abs().square().sum()
    (expected,) = torch.autograd.grad(loss, x)
    assert torch.allclose(operator.gradient(x, y), expected)


def test_no_nan_where_there_is_no_signal() -> None:
    empty = torch.zeros(1, 2, 8, 8, dtype=torch.complex64, requires_grad=True)
    maps = normalize_maps(empty)
    image = rss(maps)
    image.sum().backward()
    assert empty.grad is not None
    assert (empty.grad == 0).all()
    assert (image == 0).all()


def test_channels_and_back() -> None:
    x = random_complex(2, 3, 5)
    assert torch.equal(from_channels(to_channels(x)), x)
    assert torch.equal(to_channels(x)[:, 0], x.real)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_conjugate_gradients_solve(seed: int) -> None:
    """n steps solve an n x n system, each sample by itself, and a solved one stays solved."""
    a = random_complex(2, 6, 6, seed=seed)
    matrix = a @ a.mH + 0.5 * torch.eye(6)
    right = random_complex(2, 6, seed=seed + 1)
    right[1] = 0

    def normal(x: Tensor) -> Tensor:
        return (matrix @ x.unsqueeze(-1)).squeeze(-1)

    x = conjugate_gradient(normal, right, torch.zeros_like(right), iterations=12)
    assert torch.allclose(normal(x), right, atol=1e-6)
    assert (x[1] == 0).all()
    assert torch.allclose(inner(x, x), x.abs().square().sum(1))


@given(height=st.sampled_from([32, 48, 96]), width=st.sampled_from([32, 64]), seed=st.integers(0, 100))
@settings(max_examples=10)
def test_wavelets_are_orthogonal(height: int, width: int, seed: int) -> None:
    image = torch.randn(1, 2, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    levels = wavelets.levels_for(height, width)
    assert levels > 0
    coarse, details = wavelets.analyse(image, levels)
    energy = coarse.square().sum() + sum(d.square().sum() for d in details)
    assert energy.item() == pytest.approx(image.square().sum().item())
    assert torch.allclose(wavelets.synthesise(coarse, details), image)


def test_a_smooth_image_has_no_details() -> None:
    """Daubechies-4 has four vanishing moments: a cubic leaves nothing in the details, but at the borders."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 64, dtype=torch.float64)] * 2, indexing="ij")
    _, (detail,) = wavelets.analyse((x**3 + x * y**2 - y)[None, None], 1)
    assert detail[..., :28, :28].abs().max() < 1e-9
    assert detail.abs().max() > 0.01
