"""Official KAT and FlashKAT checkpoints -> the state dict of our network; and a plain ViT as its start.

The official names are ours, so little is to be done: look into the training script's wrapper, drop the
prefix of distributed training, and rename FlashKAT's coefficients (same shapes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.kat.checkpoints import check_keys, count_blocks, unwrap
from zoo.kat.coefficients import INITIAL_COEFFICIENTS
from zoo.kat.vit.convert import convert_official as convert_vit

_FLASHKAT = {"numerator_v": "weight_numerator", "denominator_v": "weight_denominator"}
_RATIONALS = tuple(f"{act}.{part}" for act in ("act1", "act2") for part in _FLASHKAT.values())
_GROUPS = 8


def convert_official(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Maps an official checkpoint to what ``create_model("kat/kat", ...).network`` loads.

    Args:
        state_dict: the content of a KAT or FlashKAT checkpoint, or the state dict within. A ViT checkpoint
            (see `zoo.kat.vit.convert`) becomes the paper's "from ViT" start: its weights, with the rationals
            as the identity and GELU, which leaves the function as it was.

    Returns:
        Tensors under our names.

    Raises:
        WeightsError: keys are missing or unknown.
    """
    if "embedding/kernel" in state_dict:
        return _with_rationals(convert_vit(state_dict))
    tensors = {_our_name(key): value for key, value in unwrap(state_dict).items()}
    if not any(".act" in key for key in tensors):
        return _with_rationals(convert_vit(tensors))
    check_keys(tensors, "KAT", mlp=_RATIONALS)
    return tensors


def _with_rationals(vit: dict[str, Tensor]) -> dict[str, Tensor]:
    for index in range(count_blocks(vit)):
        for act, mode in (("act1", "identity"), ("act2", "gelu")):
            numerator, denominator = INITIAL_COEFFICIENTS[mode]
            name = f"blocks.{index}.mlp.{act}"
            vit[f"{name}.weight_numerator"] = torch.tensor([numerator])
            vit[f"{name}.weight_denominator"] = torch.tensor([denominator]).repeat(_GROUPS, 1)
    return vit


def _our_name(key: str) -> str:
    head, _, last = key.rpartition(".")
    return f"{head}.{_FLASHKAT.get(last, last)}" if head else last
