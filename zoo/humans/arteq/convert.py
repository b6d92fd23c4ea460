"""Official ArtEq checkpoints -> the state dict of our network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightsError

_HEADS = {
    "part_encoder.fc_": "part_segmentation.fc_",
    "part_encoder.block_0.": "part_segmentation.blocks.0.",
    "part_encoder.block_1.": "part_segmentation.blocks.1.",
    "part_encoder.block_3.": "part_segmentation.blocks.2.",
    "part_encoder.block_4.": "part_segmentation.blocks.3.",
    "pose_encoder.self_attention_layers.": "pose_head.attention.layers.",
    "shape_encoder.self_attention_layers.": "shape_head.attention.layers.",
    "pose_predictor.net.": "pose_head.mlp.",
    "shape_predictor.net.": "shape_head.mlp.",
    "so3_reg.": "pose_head.weigh.",
}
_ATTENTION = {"_transform.": ".", "head_combine.": "combine."}
_BLOCK = re.compile(r"encoder\.backbone\.(\d+)\.blocks\.(\d+)\.(inter_conv|intra_conv|skip_conv)\.(?:conv\.)?(.+)")
_PER_BLOCK = {
    ("inter_conv", "kernels"): "inter.points",
    ("inter_conv", "basic_conv.W"): "inter.weight",
    ("inter_conv", "basic_conv.bias"): "inter.bias",
    ("intra_conv", "basic_conv.W"): "intra.weight",
    ("intra_conv", "basic_conv.bias"): "intra.bias",
    ("skip_conv", "weight"): "skip.weight",
    ("skip_conv", "bias"): "skip.bias",
}
_SHARED = {"anchors": "encoder.rotations", "intra_idx": "encoder.neighbours"}


def convert_official(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Maps an official checkpoint to what ``create_model("humans/arteq", kernel="epn", ...).network`` loads.

    Args:
        state_dict: the official file's content, a bare state dict.

    Raises:
        WeightsError: a key is unknown or missing, or the blocks' tables differ.
    """
    tensors = {key: torch.as_tensor(value) for key, value in state_dict.items()}
    stages = sorted({(int(m[1]), int(m[2])) for m in map(_BLOCK.fullmatch, tensors) if m})
    converted: dict[str, Tensor] = {}
    unknown = []
    for key, value in tensors.items():
        if match := _BLOCK.fullmatch(key):
            name = f"encoder.blocks.{stages.index((int(match[1]), int(match[2])))}."
            if match[4] in _SHARED:
                shared = _SHARED[match[4]]
                if shared in converted and not torch.equal(converted[shared], value):
                    raise WeightsError(f"The rotations of this checkpoint differ between its blocks: see {key}.")
                converted[shared] = value
                continue
            known = _PER_BLOCK.get((match[3], match[4]))
            if known is None:
                unknown.append(key)
            else:
                converted[name + known] = value
            continue
        head = next((start for start in _HEADS if key.startswith(start)), None)
        if head is None:
            unknown.append(key)
            continue
        name = _HEADS[head] + key.removeprefix(head)
        for old, new in _ATTENTION.items():
            name = name.replace(old, new)
        converted[name] = value
    missing = _missing(tensors, stages)
    if unknown or missing:
        raise WeightsError(
            "This is no ArtEq checkpoint"
            + (f"; missing: {', '.join(missing[:5])}" if missing else "")
            + (f"; unknown: {', '.join(unknown[:5])}" if unknown else "")
            + "."
        )
    return {name: _reshape(name, value, converted) for name, value in converted.items()}


def _missing(tensors: Mapping[str, Tensor], stages: list[tuple[int, int]]) -> list[str]:
    needed = [start for start in _HEADS if not any(key.startswith(start) for key in tensors)]
    for stage, place in stages or [(0, 0)]:
        block = f"encoder.backbone.{stage}.blocks.{place}."
        names = [f"{kind}.{rest}" if kind == "skip_conv" else f"{kind}.conv.{rest}" for kind, rest in _PER_BLOCK]
        names += ["inter_conv.conv.anchors", "intra_conv.conv.intra_idx"]
        needed += [block + name for name in names if block + name not in tensors]
    return needed


def _reshape(name: str, value: Tensor, converted: Mapping[str, Tensor]) -> Tensor:
    """Convolutions of size 1 are linear layers here, and kernels have their own dimension."""
    if name.endswith("inter.weight"):
        return value.unflatten(1, (-1, len(converted[name.replace("weight", "points")])))
    if name.endswith("intra.weight"):
        return value.unflatten(1, (-1, converted["encoder.neighbours"].shape[1]))
    if name.endswith(("inter.bias", "intra.bias")):
        return value.flatten()
    if name.endswith("skip.weight"):
        return value.flatten(1)
    return value.squeeze(-1) if name == "pose_head.weigh.weight" else value
