"""The reference numbers of the diffusion system and the exactly solvable denoiser they use."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from tests import goldens

SYSTEM = "mri-diffusion"


def load(file: str) -> dict[str, Tensor]:
    return goldens.load(SYSTEM, file)


def config(file: str) -> dict[str, Any]:
    arguments: dict[str, Any] = goldens.load_json(SYSTEM, "meta")["files"][f"{file}.npz"]["config"]
    return arguments


def gaussian_x0(x: Tensor, alpha: float, mean: Tensor, variance: float) -> Tensor:
    """E[x0 | x_t] under the prior N(mean, variance) of every element."""
    gain = variance * math.sqrt(alpha) / (alpha * variance + 1 - alpha)
    return mean + gain * (x - math.sqrt(alpha) * mean)
