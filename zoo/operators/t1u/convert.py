"""Checkpoints of the Transform Once repository's T1U -> the state dict of our network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from zoo.operators.checkpoints import check_keys, state_dict_of
from zoo.operators.convolutions import UNet


def convert_official(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Maps a checkpoint to what ``create_model("operators/t1u", ...).network`` loads.

    Args:
        state_dict: a state dict, or the Lightning checkpoint around it.

    Returns:
        The tensors; names and shapes are the published ones.

    Raises:
        WeightsError: keys are missing or unknown.
    """
    tensors = state_dict_of(state_dict)
    unet: nn.Module = UNet(24, 1, 1, 1)  # every size has the same names
    check_keys(
        tensors,
        "T1U",
        [
            *("fc0.weight", "fc0.bias"),
            *(f"op_layer.{part}" for part in ("ch_mixing_1", "spatial_mixing_1", "spatial_mixing_2")),
            *(f"dfpnet.{name}" for name in unet.state_dict()),
        ],
    )
    return tensors
