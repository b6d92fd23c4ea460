"""The official numbers of RecurrentVarNet's room, in this package's shapes and dtypes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests import goldens
from tests.goldens import relative_error

SYSTEM = "mri-recurrentvarnet"


def load(file: str) -> dict[str, Tensor]:
    return goldens.load(SYSTEM, file)


def meta(file: str) -> dict[str, Any]:
    entry: dict[str, Any] = goldens.load_json(SYSTEM, "meta")["files"][f"{file}.npz"]
    return entry


def cplx(pairs: Tensor) -> Tensor:
    """(..., 2) real -> (...) complex."""
    return torch.view_as_complex(pairs.contiguous())


def pairs(x: Tensor) -> Tensor:
    """(...) complex -> (..., 2) real."""
    return torch.view_as_real(x.resolve_conj().contiguous())


def mask_of(golden: dict[str, Tensor]) -> Tensor:
    return golden["in/sampling_mask"][..., 0].bool()


def error(actual: Tensor, expected: Tensor) -> float:
    """`relative_error` that also takes complex against real pairs."""
    if actual.is_complex() and not expected.is_complex():
        actual = pairs(actual)
    assert actual.shape == expected.shape
    return relative_error(actual, expected)
