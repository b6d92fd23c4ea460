"""The compiled steps of Gaussian splatting on a CPU, with the signatures of `zoo.ops.rasterize_reference`.

The kernels are in ``kernels/splat``; they compute in float32 and give the same numbers with any number of threads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.ops.rasterize_reference import Projected

MAX_CHANNELS = 4  # of one call of the compositing kernel

_CAMERA = "Tensor viewmats, Tensor Ks"
_GAUSSIANS = "Tensor means, Tensor quats, Tensor scales"
_PROJECTED = "Tensor means2d, Tensor conics, Tensor colors, Tensor opacities, Tensor depths, Tensor radii"
_SCHEMAS = {
    "splat_project": f"({_GAUSSIANS}, Tensor opacities, {_CAMERA}, int width, int height, float near, float far, "
    "float radius_clip, float eps2d, bool antialiased) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "splat_project_backward": f"({_GAUSSIANS}, {_CAMERA}, Tensor radii, Tensor conics, Tensor compensations, "
    "Tensor v_means2d, Tensor v_depths, Tensor v_conics, Tensor v_compensations, int width, int height, float eps2d, "
    "bool poses) -> (Tensor, Tensor, Tensor, Tensor)",
    "splat_harmonics": "(Tensor means, Tensor centres, Tensor coefficients, Tensor radii, int degree) -> Tensor",
    "splat_harmonics_backward": "(Tensor means, Tensor centres, Tensor coefficients, Tensor radii, Tensor colors, "
    "Tensor v_colors, int degree, bool poses) -> (Tensor, Tensor, Tensor)",
    "splat_composite": f"({_PROJECTED}, int width, int height) -> (Tensor, Tensor, Tensor, Tensor)",
    "splat_composite_backward": f"({_PROJECTED}, Tensor clear, Tensor last, Tensor lists, Tensor v_image, "
    "Tensor v_alpha, int width, int height, bool absgrad) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "plane_sweep": "(Tensor reference, Tensor neighbours, Tensor homographies, Tensor offsets, Tensor inverse_depths, "
    "int radius) -> (Tensor, Tensor)",
    "ssim_with_gradient": "(Tensor image, Tensor target, bool with_gradient) -> (Tensor, Tensor)",
}
for _name, _schema in _SCHEMAS.items():
    torch.library.define(f"zoo::{_name}", _schema)
_ops = torch.ops.zoo


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        width: int,
        height: int,
        near: float,
        far: float,
        radius_clip: float,
        eps2d: float,
        antialiased: bool,
    ) -> tuple[Tensor, ...]:
        outputs = _ops.splat_project(
            *(means, quats, scales, opacities, viewmats, Ks, width, height),
            *(near, far, radius_clip, eps2d, antialiased),
        )
        radii, _, _, conics, compensations = outputs
        ctx.mark_non_differentiable(radii)
        ctx.save_for_backward(means, quats, scales, viewmats, Ks, radii, conics, compensations)
        ctx.image = (width, height, eps2d)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, *grads: Tensor) -> tuple[Tensor | None, ...]:
        v_means2d, v_depths, v_conics, v_compensations = grads
        poses = ctx.needs_input_grad[4]
        means, quats, scales, viewmats = _ops.splat_project_backward(
            *ctx.saved_tensors, v_means2d, v_depths, v_conics, v_compensations, *ctx.image, poses
        )
        return means, quats, scales, None, viewmats if poses else None, *[None] * 8


class _Harmonics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, means: Tensor, centres: Tensor, coefficients: Tensor, radii: Tensor, degree: int) -> Tensor:
        colors = _ops.splat_harmonics(means, centres, coefficients, radii, degree)
        ctx.save_for_backward(means, centres, coefficients, radii, colors)
        ctx.degree = degree
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        poses = ctx.needs_input_grad[1]
        means, centres, coefficients = _ops.splat_harmonics_backward(*ctx.saved_tensors, grad, ctx.degree, poses)
        return means, centres.view(-1, 3) if poses else None, coefficients, None, None


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,
        conics: Tensor,
        colors: Tensor,
        opacities: Tensor,
        depths: Tensor,
        radii: Tensor,
        width: int,
        height: int,
        absgrad: bool,
    ) -> tuple[Tensor, Tensor]:
        inputs = (means2d, conics, colors, opacities, depths, radii)
        image, *kept = _ops.splat_composite(*inputs, width, height)
        ctx.save_for_backward(*inputs, *kept)
        ctx.image = (width, height, absgrad)
        return image, 1 - kept[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_image: Tensor, v_alpha: Tensor) -> tuple[Tensor | None, ...]:
        v_means2d, v_conics, v_colors, v_opacities, absolute = _ops.splat_composite_backward(
            *ctx.saved_tensors, v_image, v_alpha, *ctx.image
        )
        if ctx.image[2]:
            ctx.saved_tensors[0].absgrad = absolute
        return v_means2d, v_conics, v_colors, v_opacities, *[None] * 5


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float,
    far_plane: float,
    radius_clip: float,
    eps2d: float,
    antialiased: bool,
) -> Projected:
    """See `zoo.ops.rasterize_reference.project`."""
    limits = (near_plane, far_plane, radius_clip, eps2d, antialiased)
    return Projected(
        *_Project.apply(means, quats, scales, opacities.detach(), viewmats, Ks.detach(), width, height, *limits)
    )


def harmonics(means: Tensor, centres: Tensor, coefficients: Tensor, radii: Tensor, degree: int) -> Tensor:
    """See `zoo.ops.rasterize_reference.harmonics`."""
    return _Harmonics.apply(means, centres, coefficients, radii, degree)


def composite(
    projected: Projected, colors: Tensor, opacities: Tensor, width: int, height: int, absgrad: bool = False
) -> tuple[Tensor, Tensor]:
    """See `zoo.ops.rasterize_reference.composite`; many channels are rendered a few at a time.

    Raises:
        ValueError: absolute gradients of more channels than the kernel renders at once.
    """
    channels = colors.shape[-1]
    if absgrad and channels > MAX_CHANNELS:
        raise ValueError(f"absgrad is there for up to {MAX_CHANNELS} channels, not {channels}")
    radii, means2d, depths, conics, _ = projected
    images, alphas = zip(
        *(
            _Composite.apply(means2d, conics, part, opacities, depths.detach(), radii, width, height, absgrad)
            for part in colors.split(MAX_CHANNELS, dim=-1)
        ),
        strict=True,
    )
    return images[0] if len(images) == 1 else torch.cat(images, dim=-1), alphas[0]
