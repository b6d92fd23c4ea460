"""DIRECT's RecurrentVarNet checkpoints -> the state dict of our network, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.errors import WeightsError
from zoo.mri.official_keys import (
    Tensors,
    count,
    gru_from_official,
    gru_to_official,
    initializer_from_official,
    initializer_to_official,
    refuse_rest,
    take,
    unwrap_direct,
)
from zoo.mri.recurrentvarnet.network import RecurrentVarNet, RecurrentVarNetBlock


def convert_official(state_dict: Mapping[str, Any]) -> Tensors:
    """Maps an official checkpoint to what ``create_model("mri/recurrentvarnet", ...).network`` loads.

    Args:
        state_dict: see `zoo.mri.official_keys.unwrap_direct`.

    Raises:
        WeightsError: keys are missing or unknown.
    """
    tensors, converted = unwrap_direct(state_dict)
    converted |= initializer_from_official(tensors)
    blocks = count(tensors, r"block_list\.(\d+)\.")
    for index in range(blocks):
        block = f"block_list.{index}."
        converted[f"{block}learning_rate"] = take(tensors, f"{block}learning_rate")
        converted |= gru_from_official(tensors, f"{block}regularizer.", f"{block}regularizer.")
    if not blocks:
        raise WeightsError(f"This is no RecurrentVarNet checkpoint; it has {', '.join(sorted(tensors)[:5])}.")
    refuse_rest(tensors, "RecurrentVarNet")
    return converted


def export_official(network: RecurrentVarNet) -> dict[str, dict[str, Tensor]]:
    """The reverse: ``{"model": ..., "sensitivity_model": ...}`` as DIRECT's checkpoints hold them."""
    tensors = dict(network.state_dict())
    first = network.block_list[0]
    assert isinstance(first, RecurrentVarNetBlock)
    gru = first.regularizer
    prefix = "sensitivity_model.unet."
    refinement = {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
    official = initializer_to_official(tensors, gru.num_layers)
    for index in range(len(network.block_list)):
        block = f"block_list.{index}."
        official[f"{block}learning_rate"] = take(tensors, f"{block}learning_rate")
        official |= gru_to_official(tensors, f"{block}regularizer.", f"{block}regularizer.", gru.normalized)
    return {"model": official, **({"sensitivity_model": refinement} if refinement else {})}
