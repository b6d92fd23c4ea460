"""DIRECT's RIM and mridc's efficient RIM checkpoints -> the state dict of our network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zoo.mri.official_keys import (
    Tensors,
    count,
    gru_from_official,
    initializer_from_official,
    refuse_rest,
    unwrap_direct,
)

_EFFICIENT = (
    (re.compile(r"layers\.(\d+)\.convs\.conv_layer\.(weight|bias)"), r"step.convs.\1.\2"),
    (re.compile(r"layers\.(\d+)\.rnn\.(.+)"), r"step.cells.\1.\2"),
    (re.compile(r"final_layer\.0\.conv_layer\.weight"), "step.convs.2.weight"),
)


def convert_official(state_dict: Mapping[str, Any]) -> Tensors:
    """Maps an official checkpoint to what ``create_model("mri/rim", ...).network`` loads.

    Args:
        state_dict: of DIRECT (see `zoo.mri.official_keys.unwrap_direct`) for ``cell="conv-gru"``; for the
            other cells the state dict of one cascade of mridc's network.

    Raises:
        WeightsError: keys are missing or unknown.
    """
    tensors, converted = unwrap_direct(state_dict)
    cells = count(tensors, r"cell_list\.(\d+)\.")
    if not cells:
        return _efficient(tensors)
    converted |= initializer_from_official(tensors)
    for index in range(cells):
        converted |= gru_from_official(tensors, f"cell_list.{index}.", f"cell_list.{index}.")
    refuse_rest(tensors, "RIM")
    return converted


def _efficient(tensors: Tensors) -> Tensors:
    converted: Tensors = {}
    for key in list(tensors):
        for pattern, ours in _EFFICIENT:
            if match := pattern.fullmatch(key):
                converted[match.expand(ours)] = tensors.pop(key)
    refuse_rest(tensors, "RIM")
    return converted
