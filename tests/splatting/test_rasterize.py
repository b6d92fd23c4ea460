"""The rasterizer: goldens, the kernels against the reference, and input that leaves little to render."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.goldens import load, relative_error
from zoo.ops import native, rasterize_reference
from zoo.ops.rasterize import rasterize
from zoo.ops.spherical_harmonics import evaluate_sh

IMPLEMENTATIONS = ["compiled", "reference"]
NAMES = ("means", "quats", "scales", "opacities", "colors")


def golden_render(name: str, implementation: str) -> tuple[dict[str, Tensor], list[Tensor], Tensor, Tensor, Any]:
    golden = load("splatting-edgs", name)
    dtype = torch.float64 if implementation == "reference" else torch.float32
    colors = golden.get("colors", golden.get("sh"))
    assert colors is not None
    inputs = [golden[k] if k != "colors" else colors for k in NAMES]
    inputs = [x.to(dtype).clone().requires_grad_() for x in inputs]
    degree = {"render_sh": 3, "render_aa": 1, "render_dense": None}[name]
    height, width = golden["render_colors"].shape[1:3]
    background = golden["background"].to(dtype).expand(len(golden["viewmats"]), -1) if "background" in golden else None
    image, alpha, meta = rasterize(
        *inputs,
        golden["viewmats"].to(dtype),
        golden["Ks"].to(dtype),
        width,
        height,
        sh_degree=degree,
        rasterize_mode="antialiased" if name == "render_aa" else "classic",
        backgrounds=background,
        absgrad=True,
        implementation=implementation,  # type: ignore[arg-type]
    )
    meta["means2d"].retain_grad()
    return golden, inputs, image, alpha, meta


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ["render_sh", "render_aa", "render_dense"])
def test_images_and_gradients_are_those_of_the_official_reference(name: str, implementation: str) -> None:
    golden, inputs, image, alpha, meta = golden_render(name, implementation)
    assert (image - golden["render_colors"]).abs().max() < 1e-5
    assert (alpha - golden["render_alphas"]).abs().max() < 1e-5
    ((image * golden["w_color"]).sum() + (alpha * golden["w_alpha"]).sum()).backward()
    for key, tensor in zip(NAMES, inputs, strict=True):
        assert relative_error(tensor.grad, golden[f"v_{key}"]) < 1e-5, key  # type: ignore[arg-type]
    assert relative_error(meta["means2d"].grad, golden["v_means2d"]) < 1e-5
    assert relative_error(meta["means2d"].absgrad, golden["absgrad_means2d"]) < 1e-5
    seen = (meta["radii"] > 0).all(-1)  # by opacity, which the official reference does not look at
    assert (golden["radii"][seen] >= meta["radii"][seen]).all()
    for key in ("means2d", "depths", "conics", "compensations"):
        if key in golden:
            assert torch.allclose(meta[key][seen].float(), golden[key][seen], rtol=1e-4, atol=1e-5), key


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("by_opacity", [False, True])
def test_projection(implementation: str, by_opacity: bool) -> None:
    golden = load("splatting-edgs", "gs_ops")
    from zoo.ops import rasterize_op

    native.require("splat", torch.device("cpu"))
    dtype = torch.float64 if implementation == "reference" else torch.float32
    module: Any = rasterize_reference if implementation == "reference" else rasterize_op
    means, quats, scales = (golden[k].to(dtype).requires_grad_() for k in ("means", "quats", "scales"))
    opacities = golden["opacities"].to(dtype) if by_opacity else torch.zeros(0)
    if implementation == "reference" and not by_opacity:
        opacities = None  # type: ignore[assignment]
    width, height = 96, 64
    found = module.project(
        *(means, quats, scales, opacities, golden["viewmats"].to(dtype), golden["Ks"].to(dtype), width, height),
        *(0.01, 1e10, 0.0, 0.3, False),
    )
    assert torch.equal(found.radii, golden["radii_opacity_aware" if by_opacity else "radii"])
    if by_opacity:
        return
    seen = (golden["radii"] > 0).all(-1)
    loss = torch.zeros((), dtype=dtype)
    weights = {"means2d": "w_means2d", "depths": "w_depths", "conics": "w_conics", "compensations": "w_comp"}
    for key, weight in weights.items():
        value = getattr(found, key)
        assert torch.allclose(value[seen].float(), golden[key][seen], rtol=1e-4, atol=1e-5), key
        loss = loss + (value[seen] * golden[weight][seen]).sum()
    loss.backward()
    assert relative_error(means.grad, golden["v_means"]) < 1e-4  # type: ignore[arg-type]
    covars = rasterize_reference.covariances(golden["quats"].double(), golden["scales"].double())
    assert relative_error(covars, golden["covars"]) < 1e-5


def test_covariance_gradients_and_tile_lists() -> None:
    golden = load("splatting-edgs", "gs_ops")
    means, covars = (golden[k].double().requires_grad_() for k in ("means", "covars"))
    assert relative_error(torch.linalg.inv(covars), golden["precis"]) < 1e-4
    cameras = (golden["viewmats"].double(), golden["Ks"].double(), 96, 64)
    found = rasterize_reference.project(means, None, None, None, *cameras, covars=covars)
    assert torch.equal(found.radii, golden["radii"])
    weights = {"means2d": "w_means2d", "depths": "w_depths", "conics": "w_conics", "compensations": "w_comp"}
    sum((getattr(found, key) * golden[weight]).sum() for key, weight in weights.items()).backward()  # type: ignore[union-attr]
    assert relative_error(means.grad, golden["v_means"]) < 1e-5  # type: ignore[arg-type]
    assert covars.grad is not None
    assert relative_error(covars.grad + covars.grad.mT, golden["v_covars"] + golden["v_covars"].mT) < 1e-5
    quats, scales = (golden[k].double().requires_grad_() for k in ("quats", "scales"))
    (rasterize_reference.covariances(quats, scales) * golden["w_covar"]).sum().backward()
    assert relative_error(quats.grad, golden["v_quats_from_covar"]) < 1e-5  # type: ignore[arg-type]
    assert relative_error(scales.grad, golden["v_scales_from_covar"]) < 1e-5  # type: ignore[arg-type]
    projected = rasterize_reference.Projected(
        *(golden[k] for k in ("radii", "means2d", "depths", "conics", "compensations"))
    )
    lists = rasterize_reference.tile_lists(projected, 96, 64)
    assert torch.equal(lists.tiles_per_gauss, golden["tiles_per_gauss"])
    assert torch.equal(lists.isect_ids, golden["isect_ids"])
    assert torch.equal(lists.flatten_ids, golden["flatten_ids"])
    assert torch.equal(lists.offsets, golden["isect_offsets"])


@pytest.mark.parametrize("degree", range(4))
def test_spherical_harmonics(degree: int) -> None:
    golden = load("splatting-edgs", "gs_ops")
    directions, coefficients = (golden[k].double().requires_grad_() for k in ("dirs", "sh_coeffs"))
    color = evaluate_sh(directions, coefficients, degree)
    assert relative_error(color, golden[f"sh{degree}_color"]) < 1e-6
    (color * golden["w_sh"]).sum().backward()
    count = (degree + 1) ** 2
    assert relative_error(coefficients.grad[:, :count], golden[f"sh{degree}_v_coeffs"]) < 1e-6  # type: ignore[index]
    expected = golden[f"sh{degree}_v_dirs"]
    got = directions.grad if directions.grad is not None else torch.zeros_like(directions)
    assert (got - expected).abs().max() < 1e-5 * max(float(expected.abs().max()), 1.0)


def scene(count: int, seed: int, channels: int = 3, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    viewmat = torch.eye(4, dtype=dtype)
    viewmat[:3, 3] = torch.tensor([0.1, -0.2, 4.0])
    turned = viewmat.clone()
    turned[:3, :3] = rasterize_reference.rotation_matrices(torch.tensor([0.9, 0.1, 0.3, -0.1], dtype=dtype))
    return {
        "means": normal(count, 3) * 1.5,
        "quats": normal(count, 4),
        "scales": (normal(count, 3) * 0.6 - 2).exp(),
        "opacities": torch.sigmoid(1.5 * normal(count)),
        "colors": torch.rand(count, channels, generator=generator, dtype=dtype),
        "viewmats": torch.stack([viewmat, turned]),
        "Ks": torch.tensor([[40.0, 0, 17.3], [0, 44.0, 11.8], [0, 0, 1]], dtype=dtype).repeat(2, 1, 1),
    }


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 300), st.integers(1, 50), st.integers(1, 50), st.integers(0, 10**6))
def test_kernels_agree_with_the_reference(count: int, width: int, height: int, seed: int) -> None:
    inputs = scene(count, seed)
    results = {}
    for implementation in IMPLEMENTATIONS:
        leaves = {k: v.clone().requires_grad_(k != "Ks") for k, v in inputs.items()}
        image, alpha, _ = rasterize(**leaves, width=width, height=height, implementation=implementation)
        weight = torch.linspace(-1, 1, image.numel()).view_as(image)
        ((image * weight).sum() + alpha.square().sum()).backward()
        results[implementation] = (image.detach(), {k: v.grad for k, v in leaves.items() if k != "Ks"})
    image, grads = results["compiled"]
    expected, expected_grads = results["reference"]
    flips = (image - expected).abs().amax(-1) > 1e-4  # a threshold passed by rounding changes single pixels a little
    assert flips.float().mean() <= 1 / max(flips.numel(), 200) * 2
    assert (image - expected).abs().max() < 4.5e-3 if image.numel() else True
    if not flips.any():
        for key, grad in grads.items():
            reference = expected_grads[key]
            if reference is None or reference.numel() == 0 or not reference.any():
                continue
            assert (grad - reference).abs().max() <= 2e-3 * reference.abs().max() + 1e-5, key


def test_gradients_of_the_reference_are_those_of_differences() -> None:
    inputs = scene(6, 3, dtype=torch.float64)
    inputs["colors"] = torch.randn(6, 4, 3, dtype=torch.float64) * 0.3
    names = [k for k in inputs if k != "Ks"]
    leaves = [inputs[k].requires_grad_() for k in names]

    def render(*values: Tensor) -> tuple[Tensor, Tensor]:
        given_ = {**dict(zip(names, values, strict=True)), "Ks": inputs["Ks"]}
        image, alpha, _ = rasterize(
            **given_, width=9, height=7, sh_degree=1, rasterize_mode="antialiased", render_mode="RGB+D"
        )
        return image, alpha

    assert torch.autograd.gradcheck(render, leaves, eps=1e-6, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_many_channels_depth_and_background(implementation: Any) -> None:
    inputs = scene(80, 5, channels=7)
    options: dict[str, Any] = {"width": 33, "height": 21, "implementation": implementation}
    background = torch.rand(2, 7)
    image, alpha, meta = rasterize(**inputs, **options, backgrounds=background, render_mode="RGB+ED")
    assert image.shape == (2, 21, 33, 8)
    parts = [rasterize(**{**inputs, "colors": inputs["colors"][:, k : k + 1]}, **options)[0] for k in range(7)]
    assert torch.allclose(image[..., :7], torch.cat(parts, -1) + (1 - alpha) * background[:, None, None], atol=1e-5)
    depth, _, _ = rasterize(**inputs, **options, render_mode="D")
    assert torch.allclose(image[..., 7:], depth / alpha.clamp_min(1e-10), rtol=1e-4, atol=1e-5)
    assert meta["n_cameras"] == 2
    per_camera = inputs["colors"].expand(2, -1, -1).contiguous()
    again, _, _ = rasterize(**{**inputs, "colors": per_camera}, **options)
    assert torch.allclose(again, torch.cat(parts, -1), atol=1e-5)


def test_covariances_in_place_of_quaternions() -> None:
    inputs = scene(60, 6)
    plain, _, _ = rasterize(**inputs, width=32, height=24)
    covars = rasterize_reference.covariances(inputs.pop("quats"), inputs.pop("scales"))
    other, _, _ = rasterize(**inputs, quats=None, scales=None, covars=covars, width=32, height=24)
    assert torch.allclose(plain, other, atol=1e-4)


def test_shifting_the_world_and_its_cameras_changes_nothing() -> None:
    inputs = scene(100, 8)
    before, _, _ = rasterize(**inputs, width=40, height=30)
    shift = torch.tensor([0.5, -1.0, 2.0])
    moved = inputs["viewmats"].clone()
    moved[:, :3, 3] -= moved[:, :3, :3] @ shift
    after, _, _ = rasterize(**{**inputs, "means": inputs["means"] + shift, "viewmats": moved}, width=40, height=30)
    assert (before - after).abs().mean() < 1e-5


def test_the_order_of_gaussians_does_not_matter() -> None:
    inputs = scene(150, 9)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    shuffled = {k: v[order] if len(v) == 150 else v for k, v in inputs.items()}
    assert torch.equal(rasterize(**inputs, width=40, height=30)[0], rasterize(**shuffled, width=40, height=30)[0])


@pytest.mark.parametrize("threads", [2, 3])
def test_any_number_of_threads_gives_the_same_bits(threads: int) -> None:
    def run() -> list[Tensor]:
        inputs = scene(400, 4)
        means = inputs["means"].requires_grad_()
        image, _, _ = rasterize(**inputs, width=70, height=50)
        image.square().sum().backward()
        assert means.grad is not None
        return [image.detach(), means.grad]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run()
        torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(one, run(), strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
class TestDegenerateInput:
    def render(self, implementation: Any, change: dict[str, Any], size: int = 20) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = {**scene(12, 1), **change}
        leaves = {k: v.clone().requires_grad_(k != "Ks") for k, v in inputs.items()}
        image, alpha, _ = rasterize(**leaves, width=size, height=size, implementation=implementation)
        (image.sum() + alpha.sum()).backward()
        return image.detach(), {k: v.grad for k, v in leaves.items() if v.grad is not None}

    def test_nothing_in_view(self, implementation: str) -> None:
        image, grads = self.render(implementation, {"means": torch.full((12, 3), -50.0)})
        assert not image.any()
        assert all(not g.any() for g in grads.values())

    def test_no_gaussians(self, implementation: str) -> None:
        empty = {k: v[:0] for k, v in scene(1, 0).items() if len(v) == 1}
        image, _ = self.render(implementation, empty)
        assert image.shape == (2, 20, 20, 3)
        assert not image.any()

    def test_one_gaussian_one_pixel(self, implementation: str) -> None:
        inputs = {k: v[:1] if len(v) == 12 else v for k, v in scene(12, 1).items()}
        inputs["means"], inputs["scales"] = torch.zeros(1, 3), torch.full((1, 3), 3.0)
        inputs["Ks"][:, 0, 2], inputs["Ks"][:, 1, 2] = -0.5, 2.5  # so that the mean lies on the pixel
        image, _ = self.render(implementation, inputs, size=1)
        alpha = min(0.99, float(inputs["opacities"]))
        assert image[0, 0, 0].tolist() == pytest.approx((alpha * inputs["colors"][0]).tolist(), rel=0.05)

    @pytest.mark.parametrize("field", ["means", "quats", "scales", "opacities"])
    def test_nan_stays_with_its_gaussian(self, implementation: str, field: str) -> None:
        broken = scene(12, 1)[field].clone()
        broken[3] = float("nan")
        image, grads = self.render(implementation, {field: broken})
        assert image.isfinite().all()
        rest = torch.arange(12) != 3
        assert all(grads[k][rest].isfinite().all() for k in ("means", "quats", "scales", "opacities"))

    @pytest.mark.parametrize("change", [{"scales": torch.zeros(12, 3)}, {"quats": torch.zeros(12, 4)}])
    def test_zero_scales_and_rotations(self, implementation: str, change: dict[str, Tensor]) -> None:
        image, grads = self.render(implementation, change)
        assert image.isfinite().all()
        if "scales" in change:
            assert image.any()  # eps2d keeps points visible
        assert all(g.isfinite().all() for g in grads.values())

    def test_opacity_below_the_threshold(self, implementation: str) -> None:
        image, _ = self.render(implementation, {"opacities": torch.full((12,), 1 / 256)})
        assert not image.any()

    def test_infinitely_large(self, implementation: str) -> None:
        image, _ = self.render(implementation, {"scales": torch.full((12, 3), 1e15)})
        assert image.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quats": torch.zeros(5, 4)}, r"quats should be \(12, 4\), not \(5, 4\)"),
        ({"viewmats": torch.zeros(4, 4)}, "viewmats should be"),
        ({"colors": torch.zeros(12, 1, 2, 3)}, "colors should be"),
        ({"sh_degree": 3, "colors": torch.zeros(12, 4, 3)}, "16 or more"),
        ({"sh_degree": 4, "colors": torch.zeros(12, 25, 3)}, "degrees 0 to 3"),
        ({"render_mode": "RGBD"}, "RGB\\+D"),
        ({"width": 0}, "can't be rendered"),
        ({"covars": torch.zeros(12, 3, 3)}, "either quats and scales, or covars"),
        ({"rasterize_mode": "antialias"}, "antialiased"),
        ({"backgrounds": torch.zeros(3)}, r"backgrounds should be \(2, 3\), not \(3,\)"),
        ({"colors": torch.zeros(12, 0)}, "colors should be"),
        ({"Ks": torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)}, "Ks is torch.float64.*convert it"),
        ({"means": torch.zeros(12, 3).double(), "implementation": "compiled"}, "implementation='reference'"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rasterize(**{"width": 8, "height": 8, **scene(12, 1), **change})


def test_the_picture_does_not_depend_on_tiles() -> None:
    """A render of a part of the image is that part of the render."""
    inputs = scene(120, 11)
    whole, _, _ = rasterize(**inputs, width=48, height=48)
    shifted = inputs["Ks"].clone()
    shifted[:, 0, 2] -= 5
    shifted[:, 1, 2] -= 9
    part, _, _ = rasterize(**{**inputs, "Ks": shifted}, width=43, height=39)
    # Only the limits on the Jacobian follow the image's size; they matter outside it.
    difference = (whole[:, 9:, 5:] - part).abs().numpy()
    assert np.quantile(difference, 0.95) < 1e-5
