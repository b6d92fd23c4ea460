"""Checkpoints of the Transform Once repository -> the state dict of our T1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.operators.checkpoints import check_keys, layers_in, state_dict_of


def convert_official(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Maps a checkpoint to what ``create_model("operators/t1", ...).network`` loads.

    Args:
        state_dict: of a T1 in one or two dimensions, or the Lightning checkpoint around it.

    Returns:
        The tensors; names and shapes are the published ones.

    Raises:
        WeightsError: keys are missing or unknown.
    """
    tensors = state_dict_of(state_dict)
    two_axes = "layers.0.spatial_mixing_2" in tensors
    parts = ["ch_mixing_1", "spatial_mixing_1", *(["spatial_mixing_2"] if two_axes else [])]
    layers = layers_in(tensors, "layers.")
    names = ["fc0.weight", "fc0.bias", "fc1", "fc2", *(f"layers.{i}.{part}" for i in layers for part in parts)]
    check_keys(tensors, "T1", names)
    return tensors
