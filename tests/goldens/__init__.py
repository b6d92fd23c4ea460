"""Reference numbers: inputs, weights under official names, outputs and gradients of the official systems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_HERE = Path(__file__).parent


def load(system: str, file: str) -> dict[str, Tensor]:
    """The arrays of ``<system>/<file>.npz`` as tensors."""
    with np.load(_HERE / system / f"{file}.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def load_json(system: str, file: str) -> Any:
    """The content of ``<system>/<file>.json``."""
    return json.loads((_HERE / system / f"{file}.json").read_text())


def section(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The arrays whose name begins with `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected magnitude."""
    scale = expected.detach().abs().max().clamp_min(1e-30)
    return float((actual - expected).detach().abs().max() / scale)
