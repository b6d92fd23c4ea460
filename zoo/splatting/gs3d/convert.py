"""Checkpoints of 3DGS and of gsplat as the state dict of a `GaussianModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.splatting.gaussians import PARAMETERS, GaussianModel

CHECKPOINT_TYPES = (Mapping, tuple, list)  # gsplat saves a dictionary, 3DGS a tuple
# Of the first 7 entries of the tuple in chkpntN.pth.
_INRIA = ("active_sh_degree", "means", "sh0", "shN", "scales", "quats", "opacities")


def convert_official(content: Any) -> dict[str, Tensor]:
    """Takes what gsplat's ``ckpt_*.pt`` or 3DGS's ``chkpnt*.pth`` holds; .ply files are read by `read_ply`.

    Args:
        content: ``{"splats": {...}}`` or those six tensors themselves (gsplat), or ``((degree, xyz, ...), iteration)``
            (3DGS).

    Raises:
        WeightsError: tensors are missing or of another shape.
    """
    if isinstance(content, tuple | list) and len(content) == 2 and isinstance(content[0], tuple | list):
        tensors = dict(zip(_INRIA, content[0], strict=False))
    else:
        tensors = content.get("splats", content) if isinstance(content, Mapping) else content
    if not isinstance(tensors, Mapping):
        raise WeightsError(f"This is no checkpoint of 3DGS or gsplat: it is a {type(tensors).__name__}.")
    missing = [name for name in PARAMETERS if not isinstance(tensors.get(name), Tensor)]
    if missing:
        raise WeightsError(f"This is no checkpoint of 3DGS or gsplat: it lacks {', '.join(missing)}.")
    shape = tuple(tensors["shN"].shape)
    degree = next((d for d in range(4) if shape[1:] == ((d + 1) ** 2 - 1, 3)), None)
    if degree is None:
        raise WeightsError(f"shN should be (N, 0, 3), (N, 3, 3), (N, 8, 3) or (N, 15, 3), not {shape}.")
    model = GaussianModel(degree)
    try:
        model.set_rows({name: torch.as_tensor(tensors[name]) for name in PARAMETERS})
    except RuntimeError as error:
        raise WeightsError(f"The checkpoint's tensors do not fit together: {error}") from None
    return model.state_dict()
