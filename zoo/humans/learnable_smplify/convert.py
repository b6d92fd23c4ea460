"""Official checkpoints of Learnable SMPLify -> the state dict of our `OfficialNetwork`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.humans.learnable_smplify.graph import Labeling
from zoo.humans.learnable_smplify.stgcn import OfficialNetwork

_WRAPPERS = ("model", "state_dict")


def convert_official(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Maps an official checkpoint to what the network of ``architecture="official"`` loads.

    Args:
        state_dict: ``best_ckpt.pth.tar`` or the state dict within. Networks of other widths, units and partitions of
            the graph are taken too.

    Raises:
        WeightsError: keys are missing or unknown.
    """
    for wrapper in _WRAPPERS:
        if isinstance(state_dict.get(wrapper), Mapping):
            return convert_official(state_dict[wrapper])
    tensors = {key.removeprefix("module."): value for key, value in state_dict.items() if isinstance(value, Tensor)}
    for key in [key for key in tensors if key.endswith("running_mean")]:
        tensors.setdefault(key.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    expected = _expected(tensors)
    missing, unknown = sorted(expected - tensors.keys()), sorted(tensors.keys() - expected)
    if missing or unknown:
        raise WeightsError(
            "This is no checkpoint of Learnable SMPLify"
            + (f"; missing: {', '.join(missing[:5])}" if missing else "")
            + (f"; unknown: {', '.join(unknown[:5])}" if unknown else "")
            + "."
        )
    return tensors


def _expected(tensors: Mapping[str, Tensor]) -> set[str]:
    """Names that a network of as many units, of the same kinds, has."""
    units = {key.split(".")[2] for key in tensors if key.startswith("backbone.backbone.")}
    config, channels = [], 4
    for k in range(max(1, len(units))):
        wider = any(key.startswith(f"backbone.backbone.{k}.down1.") for key in tensors)
        before, channels = channels, 2 * channels if wider else channels
        config.append((before, channels, 1))
    parts = len({key.split(".")[3] for key in tensors if key.startswith("backbone.gcn0.conv_list.")})
    labelings: dict[int, Labeling] = {1: "uniform", 2: "distance"}
    with torch.device("meta"):
        network = OfficialNetwork(tuple(config), 1, 1, labeling_mode=labelings.get(parts, "spatial"), vertices=1)
    return set(network.state_dict())
