"""Checkpoints of the T1 repository's F-FNO -> the state dict of our network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.operators.checkpoints import check_keys, layers_in, state_dict_of


def convert_official(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Maps a checkpoint to what ``create_model("operators/ffno", ...).network`` loads.

    Args:
        state_dict: a state dict, or the Lightning checkpoint around it.

    Returns:
        The tensors; names and shapes are the published ones.

    Raises:
        WeightsError: keys are missing or unknown.
    """
    tensors = state_dict_of(state_dict)
    parts = [f"{name}.{part}" for name in ("in_proj", "out.0", "out.1") for part in ("weight", "bias")]
    for layer in layers_in(tensors, "spectral_layers."):
        block = f"spectral_layers.{layer}"
        parts += [f"{block}.fourier_weight.{axis}" for axis in layers_in(tensors, f"{block}.fourier_weight.")]
        parts += [f"{block}.backcast_ff.layers.{i}.0.{part}" for i in (0, 1) for part in ("weight", "bias")]
    check_keys(tensors, "F-FNO", parts)
    return tensors
