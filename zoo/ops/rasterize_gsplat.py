"""Gaussian splatting on CUDA through the library gsplat."""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from typing import Any

from torch import Tensor

from zoo.ops.build import BuildError

_REMEDY = "Install it: pip install gsplat (its kernels are compiled at first use)."


def is_available(required: bool = False) -> bool:
    """Whether gsplat is installed; a warning says so once if it is not.

    Raises:
        BuildError: it is required and not installed.
    """
    found = importlib.util.find_spec("gsplat") is not None
    if not found and required:
        raise BuildError(f"zoo.ops.rasterize needs gsplat on CUDA. {_REMEDY}")
    if not found:
        _warn()
    return found


@cache
def _warn() -> None:
    warnings.warn(
        f"zoo.ops.rasterize runs its reference implementation on cuda, which is right but slow: no gsplat. {_REMEDY}",
        RuntimeWarning,
        stacklevel=4,
    )


def rasterize_gsplat(
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    **options: Any,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """`zoo.ops.rasterize` by gsplat, with the same arguments and results."""
    from gsplat import rasterization

    image, alpha, meta = rasterization(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, packed=False, **options
    )
    if meta["radii"].ndim == 2:  # releases before 1.5 give one radius
        meta["radii"] = meta["radii"].unsqueeze(-1).expand(-1, -1, 2)
    return image, alpha, meta
