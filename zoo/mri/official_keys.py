"""Official parameter names of the convolutional GRU and the state initialiser <-> ours.

Officially every gate is a convolution of its own; here update and reset gate are one convolution with the
update gate first, and the initialiser's heads are one convolution.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightsError

Tensors = dict[str, Tensor]


def plain_tensors(checkpoint: Mapping[str, Any]) -> Tensors:
    """The tensors of a state dict without the prefix of distributed training.

    Raises:
        WeightsError: there are none.
    """
    tensors = {key.removeprefix("module."): value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"The checkpoint holds no tensors, only {', '.join(map(str, list(checkpoint)[:5]))}.")
    return tensors


def unwrap_direct(checkpoint: Mapping[str, Any]) -> tuple[Tensors, Tensors]:
    """The network and the refinement of coil maps in a checkpoint of DIRECT.

    Args:
        checkpoint: the content of ``model_<iteration>.pt``, with the network under ``"model"`` and the
            refinement, if any, under ``"sensitivity_model"``; the same in one state dict with the prefixes
            ``model.`` and ``sensitivity_model.``; or the state dict of the network alone.

    Returns:
        (network's tensors, refinement's tensors under our names).

    Raises:
        WeightsError: there are no tensors in it.
    """
    prefix = "sensitivity_model."
    if isinstance(checkpoint.get("model"), Mapping):
        tensors = plain_tensors(checkpoint["model"])
        sensitivity = checkpoint.get("sensitivity_model")
        refinement = plain_tensors(sensitivity) if isinstance(sensitivity, Mapping) else {}
    else:
        tensors = plain_tensors(checkpoint)
        refinement = {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
        tensors = {key.removeprefix("model."): value for key, value in tensors.items()}
    return tensors, {f"{prefix}unet.{key}": value for key, value in refinement.items()}


def take(tensors: Tensors, key: str) -> Tensor:
    """Removes and returns an entry.

    Raises:
        WeightsError: it is not there.
    """
    try:
        return tensors.pop(key)
    except KeyError:
        raise WeightsError(f"The checkpoint has no '{key}'.") from None


def refuse_rest(tensors: Tensors, what: str) -> None:
    """Raises `WeightsError` if there is anything left that nothing has taken."""
    if tensors:
        raise WeightsError(f"This is no {what} checkpoint; unknown: {', '.join(sorted(tensors)[:5])}.")


def count(tensors: Tensors, pattern: str) -> int:
    """One more than the largest number that the group of a pattern finds in the keys; 0 if none does."""
    found = (re.match(pattern, key) for key in tensors)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def gru_from_official(tensors: Tensors, theirs: str, ours: str) -> Tensors:
    """Takes the GRU under the prefix `theirs` (with its dot) out of `tensors`, named under `ours`."""
    if f"{theirs}convgru.conv_blocks.0.1.weight" in tensors:
        theirs = f"{theirs}convgru."
    prefix = re.escape(theirs)
    converted: Tensors = {}
    layers = count(tensors, rf"{prefix}reset_gates\.(\d+)\.")
    for index in range(layers + 1):
        for part in ("weight", "bias"):
            converted[f"{ours}convs.{index}.{part}"] = take(tensors, f"{theirs}conv_blocks.{index}.1.{part}")
    place = "1" if f"{theirs}reset_gates.0.1.weight" in tensors else "0"  # 1 after an instance norm
    for index in range(layers):
        for part in ("weight", "bias"):
            update, reset, candidate = (
                take(tensors, f"{theirs}{gate}_gates.{index}.{place}.{part}") for gate in ("update", "reset", "out")
            )
            converted[f"{ours}gates.{index}.{part}"] = torch.cat((update, reset))
            converted[f"{ours}candidates.{index}.{part}"] = candidate
    return converted


def gru_to_official(
    tensors: Tensors, ours: str, theirs: str, normalized: bool = False, instance_norm: bool = False
) -> Tensors:
    """The reverse of `gru_from_official`; `normalized` and `instance_norm` as in the network."""
    theirs = f"{theirs}convgru." if normalized else theirs
    place = "1" if instance_norm else "0"
    official: Tensors = {}
    for key in [key for key in tensors if key.startswith(ours)]:
        kind, index, part = key.removeprefix(ours).split(".")
        tensor = take(tensors, key)
        if kind == "convs":
            official[f"{theirs}conv_blocks.{index}.1.{part}"] = tensor
        elif kind == "candidates":
            official[f"{theirs}out_gates.{index}.{place}.{part}"] = tensor
        else:
            for gate, half in zip(("update", "reset"), tensor.chunk(2), strict=True):
                official[f"{theirs}{gate}_gates.{index}.{place}.{part}"] = half.clone()
    return official


def initializer_from_official(tensors: Tensors) -> Tensors:
    """Takes the state initialiser out of `tensors`; nothing if there is none."""
    converted: Tensors = {}
    for index in range(count(tensors, r"initializer\.conv_blocks\.(\d+)\.")):
        for part in ("weight", "bias"):
            converted[f"initializer.convs.{index}.{part}"] = take(tensors, f"initializer.conv_blocks.{index}.1.{part}")
    heads = range(count(tensors, r"initializer\.out_blocks\.(\d+)\."))
    for part in ("weight", "bias") if heads else ():
        converted[f"initializer.heads.{part}"] = torch.cat(
            [take(tensors, f"initializer.out_blocks.{index}.0.{part}") for index in heads]
        )
    return converted


def initializer_to_official(tensors: Tensors, num_layers: int) -> Tensors:
    """The reverse of `initializer_from_official`."""
    official: Tensors = {}
    for key in [key for key in tensors if key.startswith("initializer.")]:
        tensor = take(tensors, key)
        part = key.rpartition(".")[2]
        if ".heads." in key:
            for index, head in enumerate(tensor.chunk(num_layers)):
                official[f"initializer.out_blocks.{index}.0.{part}"] = head.clone()
        else:
            official[f"initializer.conv_blocks.{key.split('.')[2]}.1.{part}"] = tensor
    return official
