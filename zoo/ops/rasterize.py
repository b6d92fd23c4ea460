"""Differentiable rendering of 3-D Gaussians: colours, any features, depth.

On a CPU compiled kernels run, on CUDA the library gsplat, elsewhere the reference; all with the same arguments.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from zoo.ops import native, rasterize_reference
from zoo.ops.precision import in_full_precision

RasterizeMode = Literal["classic", "antialiased"]
RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]

_RENDER_MODES = get_args(RenderMode)


@in_full_precision
def rasterize(
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    rasterize_mode: RasterizeMode = "classic",
    render_mode: RenderMode = "RGB",
    backgrounds: Tensor | None = None,
    absgrad: bool = False,
    covars: Tensor | None = None,
    implementation: native.Implementation = "auto",
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Renders N Gaussians into C images.

    Differentiable in Gaussians, colours, backgrounds and view matrices. The arguments are those of gsplat's
    ``rasterization``. Alpha is clamped at 0.99, as in gsplat 1.6 and the original 3DGS (PyPI's gsplat 1.5.3, which
    runs on CUDA, clamps at 0.999). Autocast changes nothing.

    Args:
        means: (N, 3) centres.
        quats: (N, 4) rotations w, x, y, z, of any length; None with `covars`.
        scales: (N, 3) standard deviations along the axes; None with `covars`.
        opacities: (N,) in [0, 1].
        colors: (N, D) or (C, N, D) values, or with `sh_degree` (N, K, 3) spherical-harmonic coefficients.
        viewmats: (C, 4, 4) world to camera; x right, y down, z forward.
        Ks: (C, 3, 3) intrinsics; the first pixel's centre is at (0.5, 0.5).
        width, height: of the images in pixels.
        near_plane, far_plane: Gaussians whose depth is outside are left out.
        radius_clip: Gaussians whose radii are at most this many pixels are left out.
        eps2d: blur in square pixels, so that no Gaussian falls between pixels.
        sh_degree: degree of the coefficients to use, 0 to 3; colours are max(0, 0.5 + sum). None for plain values.
        rasterize_mode: ``"antialiased"`` lowers opacities by what the blur adds to areas.
        render_mode: colours, accumulated (``D``) or expected (``ED``) depth, or both, depth last.
        backgrounds: (C, D) values behind everything; depth has 0 there.
        absgrad: leave in ``meta["means2d"].absgrad`` the sum over pixels of the absolute gradients of the 2-D means.
        covars: (N, 3, 3) covariances in place of quaternions and scales.
        implementation: ``"auto"``, ``"reference"`` or ``"compiled"``; ZOO_OPS=reference changes ``"auto"``.

    Returns:
        Images (C, H, W, D), alphas (C, H, W, 1), and what came up on the way: ``radii`` (C, N, 2), 0 where culled;
        ``means2d`` (C, N, 2), whose gradient densification uses (call ``retain_grad()``); ``depths`` (C, N);
        ``conics`` (C, N, 3); ``compensations`` (C, N); ``width``, ``height``, ``n_cameras``.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together, or an unknown mode.
    """
    if rasterize_mode not in get_args(RasterizeMode):
        raise ValueError(
            f"there is no rasterize mode {rasterize_mode!r}: use one of {', '.join(get_args(RasterizeMode))}"
        )
    _check(
        *(means, quats, scales, opacities, colors, viewmats, Ks, width, height),
        *(sh_degree, render_mode, backgrounds, covars),
    )
    backend = _backend(means, implementation)
    if backend is not None and backend is not rasterize_reference:
        given = {"means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors}
        for name, tensor in {**given, "viewmats": viewmats, "Ks": Ks, "covars": covars}.items():
            if tensor is not None and tensor.dtype != torch.float32:
                raise ValueError(
                    f"{name} is {tensor.dtype}, and the kernels compute in float32: convert it, or take "
                    "implementation='reference', which computes in any precision"
                )
    options: dict[str, Any] = {
        "near_plane": near_plane,
        "far_plane": far_plane,
        "radius_clip": radius_clip,
        "eps2d": eps2d,
    }
    antialiased = rasterize_mode == "antialiased"
    if backend is None:
        from zoo.ops.rasterize_gsplat import rasterize_gsplat

        return rasterize_gsplat(
            *(means, quats, scales, opacities, colors, viewmats, Ks, width, height),
            **options,
            sh_degree=sh_degree,
            rasterize_mode=rasterize_mode,
            render_mode=render_mode,
            backgrounds=backgrounds,
            absgrad=absgrad,
            covars=covars,
        )
    if covars is None:
        projected = backend.project(
            means, quats, scales, opacities, viewmats, Ks, width, height, **options, antialiased=antialiased
        )
    else:
        projected = rasterize_reference.project(
            means, None, None, opacities, viewmats, Ks, width, height, **options, antialiased=antialiased, covars=covars
        )
    cameras = len(viewmats)
    shown = opacities.expand(cameras, -1)
    if antialiased:
        shown = shown * projected.compensations
    features: list[Tensor] = []
    if "RGB" in render_mode:
        if sh_degree is not None:
            centres = rasterize_reference.camera_centres(viewmats)
            colors = backend.harmonics(means, centres, colors, projected.radii, sh_degree)
        features.append(colors if colors.ndim == 3 else colors.expand(cameras, -1, -1))
    if "D" in render_mode.removeprefix("RGB"):
        features.append(projected.depths.unsqueeze(-1))
    image, alpha = backend.composite(
        projected, features[0] if len(features) == 1 else torch.cat(features, dim=-1), shown, width, height, absgrad
    )
    if render_mode.endswith("ED"):
        image = torch.cat([image[..., :-1], image[..., -1:] / alpha.clamp_min(1e-10)], dim=-1)
    if backgrounds is not None and "RGB" in render_mode:
        behind = (1 - alpha) * backgrounds[:, None, None, :]
        image = torch.cat([image[..., : behind.shape[-1]] + behind, image[..., behind.shape[-1] :]], dim=-1)
    meta = {**projected._asdict(), "width": width, "height": height, "n_cameras": cameras}
    return image, alpha, meta


def _backend(means: Tensor, implementation: native.Implementation) -> ModuleType | None:
    """The module with the three steps; None for gsplat."""
    if native.is_reference(implementation):
        return rasterize_reference
    if means.device.type == "cuda":
        from zoo.ops.rasterize_gsplat import is_available

        if is_available(required=implementation == "compiled"):
            return None
        return rasterize_reference
    from zoo.ops import rasterize_op

    if implementation == "compiled":
        native.require("splat", means.device)
        return rasterize_op
    # Double precision is for checking, which is what the reference is for.
    if means.dtype != torch.float32 or not native.covers("splat", means.device):
        return rasterize_reference
    return rasterize_op


def _check(
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    sh_degree: int | None,
    render_mode: str,
    backgrounds: Tensor | None,
    covars: Tensor | None,
) -> None:
    count, cameras = len(means), len(viewmats)
    if render_mode not in _RENDER_MODES:
        raise ValueError(f"there is no render mode {render_mode!r}: use one of {', '.join(_RENDER_MODES)}")
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} x {height} pixels can't be rendered")
    if (quats is None or scales is None) == (covars is None):
        raise ValueError("give either quats and scales, or covars")
    shows_colors = "RGB" in render_mode
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "means": (means, (count, 3)),
        "quats": (quats, (count, 4)),
        "scales": (scales, (count, 3)),
        "covars": (covars, (count, 3, 3)),
        "opacities": (opacities, (count,)),
        "viewmats": (viewmats, (cameras, 4, 4)),
        "Ks": (Ks, (cameras, 3, 3)),
        "backgrounds": (backgrounds if shows_colors else None, (cameras, colors.shape[-1] if shows_colors else 0)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} should be {shape}, not {tuple(tensor.shape)}")
    if sh_degree is not None:
        from zoo.ops.spherical_harmonics import sh_count

        if colors.ndim != 3 or len(colors) != count or colors.shape[1] < sh_count(sh_degree) or colors.shape[2] != 3:
            needed = f"({count}, {sh_count(sh_degree)} or more, 3)"
            raise ValueError(f"colors of degree {sh_degree} should be {needed}, not {tuple(colors.shape)}")
    elif shows_colors and (tuple(colors.shape[:-1]) not in ((count,), (cameras, count)) or not colors.shape[-1]):
        raise ValueError(f"colors should be ({count}, D) or ({cameras}, {count}, D), not {tuple(colors.shape)}")
