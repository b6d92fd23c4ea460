"""Checkpoints of the neuraloperator library and of the T1 repository's FNO -> the state dict of our networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.operators.checkpoints import check_keys, layers_in, state_dict_of

_PARTS = ("weight", "bias")


def convert_official(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Maps a checkpoint to what ``create_model("operators/fno", ...).network`` loads.

    Args:
        state_dict: of neuraloperator's ``FNO`` (version 2, dense weights), for ``layout="neuralop"``; or of the
            T1 repository's FNO, for ``layout="kairos"``. Complex weights may be complex tensors or real ones
            with a last axis of two.

    Returns:
        Tensors under our names, complex ones as real tensors with a last axis of two.

    Raises:
        WeightsError: keys are missing or unknown.
    """
    tensors = state_dict_of(state_dict)
    ours = {
        name.replace(".weight.tensor", ".weight"): torch.view_as_real(tensor) if tensor.is_complex() else tensor
        for name, tensor in tensors.items()
    }
    if "fc0.weight" in ours:
        check_keys(ours, "kairos FNO", _kairos_names(layers_in(ours, "layers.")))
    else:
        check_keys(ours, "neuraloperator FNO", _neuralop_names(layers_in(ours, "fno_blocks.convs.")))
    return ours


def _neuralop_names(layers: range) -> Iterator[str]:
    for part in _PARTS:
        for index in (0, 1):
            yield f"lifting.fcs.{index}.{part}"
            yield f"projection.fcs.{index}.{part}"
        for layer in layers:
            yield f"fno_blocks.convs.{layer}.{part}"
            yield f"fno_blocks.channel_mlp.{layer}.fcs.0.{part}"
            yield f"fno_blocks.channel_mlp.{layer}.fcs.1.{part}"
    for layer in layers:
        yield f"fno_blocks.fno_skips.{layer}.conv.weight"
        yield f"fno_blocks.channel_mlp_skips.{layer}.weight"


def _kairos_names(layers: range) -> Iterator[str]:
    for part in _PARTS:
        for head in ("fc0", "fc1", "fc2"):
            yield f"{head}.{part}"
        for layer in layers:
            yield f"layers.{layer}.w.{part}"
    for layer in layers:
        yield f"layers.{layer}.conv.weights1"
        yield f"layers.{layer}.conv.weights2"
