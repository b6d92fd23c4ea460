"""Official checkpoints -> the state dict of our network: guided diffusion and MC-DDPM (same names), diffusers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.mri.official_keys import Tensors, count, plain_tensors, refuse_rest, take

_RES = r"(in_layers\.[02]|emb_layers\.1|out_layers\.[03]|skip_connection)"
_BLOCK = rf"({_RES}|norm|qkv|proj_out|op|conv)"
_KEY = re.compile(
    r"(time_embed\.[02]|input_blocks\.0\.0"
    rf"|(input|output)_blocks\.\d+\.[012]\.{_BLOCK}|middle_block\.[012]\.{_BLOCK}|out\.[02])\.(weight|bias)"
)
_WRAPPERS = ("ema", "state_dict", "model")
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
}
_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def convert_official(state_dict: Mapping[str, Any]) -> Tensors:
    """Maps an official checkpoint to what ``create_model("mri/diffusion", ...).network`` loads.

    Args:
        state_dict: a state dict of guided diffusion or MC-DDPM (their EMA files too), or of the
            ``UNet2DModel`` of diffusers; possibly one level down, with the prefix of distributed training.
            diffusers' attention has the new order of channels and its blocks add the timestep: build the
            network with ``use_new_attention_order=True``, ``use_scale_shift_norm=False`` and
            ``resblock_updown=False``.

    Raises:
        WeightsError: there are no tensors, or unknown or missing ones.
    """
    for wrapper in _WRAPPERS:
        if isinstance(state_dict.get(wrapper), Mapping):
            state_dict = state_dict[wrapper]
    tensors = plain_tensors(state_dict)
    if "conv_in.weight" in tensors:
        return from_diffusers(tensors)
    unknown = sorted(key for key in tensors if not _KEY.fullmatch(key))
    if unknown:
        raise WeightsError(f"This is no guided-diffusion checkpoint; unknown: {', '.join(unknown[:5])}.")
    if "input_blocks.0.0.weight" not in tensors:
        raise WeightsError("The checkpoint has no 'input_blocks.0.0.weight'.")
    return tensors


def from_diffusers(official: Mapping[str, Tensor]) -> Tensors:
    """Maps the state dict of a ``UNet2DModel`` with attention in any of its blocks.

    Raises:
        WeightsError: unknown or missing tensors.
    """
    tensors = dict(official)
    converted: Tensors = {}

    def move(ours: str, theirs: str) -> None:
        for part in ("weight", "bias"):
            converted[f"{ours}.{part}"] = take(tensors, f"{theirs}.{part}")

    def resnet(ours: str, theirs: str) -> None:
        for mine, name in _RESNET.items():
            move(f"{ours}.{mine}", f"{theirs}.{name}")
        if f"{theirs}.conv_shortcut.weight" in tensors:
            move(f"{ours}.skip_connection", f"{theirs}.conv_shortcut")

    def attention(ours: str, theirs: str) -> bool:
        if f"{theirs}.to_q.weight" not in tensors:
            return False
        move(f"{ours}.norm", f"{theirs}.group_norm")
        for part in ("weight", "bias"):
            qkv = torch.cat([take(tensors, f"{theirs}.to_{name}.{part}") for name in "qkv"])
            out = take(tensors, f"{theirs}.to_out.0.{part}")
            converted[f"{ours}.qkv.{part}"] = qkv.unsqueeze(-1) if part == "weight" else qkv
            converted[f"{ours}.proj_out.{part}"] = out.unsqueeze(-1) if part == "weight" else out
        return True

    for ours, theirs in _ENDS.items():
        move(ours, theirs)
    index = 1
    for level in range(count(tensors, r"down_blocks\.(\d+)\.")):
        theirs = f"down_blocks.{level}"
        for layer in range(count(tensors, rf"down_blocks\.{level}\.resnets\.(\d+)\.")):
            resnet(f"input_blocks.{index}.0", f"{theirs}.resnets.{layer}")
            attention(f"input_blocks.{index}.1", f"{theirs}.attentions.{layer}")
            index += 1
        if f"{theirs}.downsamplers.0.conv.weight" in tensors:
            move(f"input_blocks.{index}.0.op", f"{theirs}.downsamplers.0.conv")
            index += 1
    for layer in (0, 1):
        resnet(f"middle_block.{2 * layer}", f"mid_block.resnets.{layer}")
    attention("middle_block.1", "mid_block.attentions.0")
    index = 0
    for level in range(count(tensors, r"up_blocks\.(\d+)\.")):
        theirs = f"up_blocks.{level}"
        layers = count(tensors, rf"up_blocks\.{level}\.resnets\.(\d+)\.")
        for layer in range(layers):
            resnet(f"output_blocks.{index}.0", f"{theirs}.resnets.{layer}")
            attended = attention(f"output_blocks.{index}.1", f"{theirs}.attentions.{layer}")
            if layer == layers - 1 and f"{theirs}.upsamplers.0.conv.weight" in tensors:
                move(f"output_blocks.{index}.{1 + attended}.conv", f"{theirs}.upsamplers.0.conv")
            index += 1
    refuse_rest(tensors, "UNet2DModel")
    return converted


def to_diffusers(tensors: Mapping[str, Tensor]) -> Tensors:
    """The reverse of `from_diffusers`, for networks built as `convert_official` says.

    Raises:
        WeightsError: the network has blocks that a ``UNet2DModel`` does not have.
    """
    levels = sum(".op.weight" in key for key in tensors)
    if levels != sum(".conv.weight" in key for key in tensors) or not levels:
        raise WeightsError("Only networks built with resblock_updown=False can go to diffusers.")
    official: Tensors = {}
    for ours, theirs in _ENDS.items():
        for part in ("weight", "bias"):
            official[f"{theirs}.{part}"] = tensors[f"{ours}.{part}"]
    level = layer = 0
    for index in range(1, count(dict(tensors), r"input_blocks\.(\d+)\.")):
        if f"input_blocks.{index}.0.op.weight" in tensors:
            _copy(tensors, official, f"input_blocks.{index}.0.op", f"down_blocks.{level}.downsamplers.0.conv")
            level, layer = level + 1, 0
            continue
        _export_block(tensors, official, f"input_blocks.{index}", f"down_blocks.{level}", layer)
        layer += 1
    _export_resnet(tensors, official, "middle_block.0", "mid_block.resnets.0")
    _export_attention(tensors, official, "middle_block.1", "mid_block.attentions.0")
    _export_resnet(tensors, official, "middle_block.2", "mid_block.resnets.1")
    level = layer = 0
    for index in range(count(dict(tensors), r"output_blocks\.(\d+)\.")):
        _export_block(tensors, official, f"output_blocks.{index}", f"up_blocks.{level}", layer)
        layer += 1
        for child in (1, 2):
            if f"output_blocks.{index}.{child}.conv.weight" in tensors:
                _copy(tensors, official, f"output_blocks.{index}.{child}.conv", f"up_blocks.{level}.upsamplers.0.conv")
                level, layer = level + 1, 0
    return official


def _copy(tensors: Mapping[str, Tensor], official: Tensors, ours: str, theirs: str) -> None:
    for part in ("weight", "bias"):
        official[f"{theirs}.{part}"] = tensors[f"{ours}.{part}"]


def _export_block(tensors: Mapping[str, Tensor], official: Tensors, ours: str, theirs: str, layer: int) -> None:
    _export_resnet(tensors, official, f"{ours}.0", f"{theirs}.resnets.{layer}")
    if f"{ours}.1.qkv.weight" in tensors:
        _export_attention(tensors, official, f"{ours}.1", f"{theirs}.attentions.{layer}")


def _export_resnet(tensors: Mapping[str, Tensor], official: Tensors, ours: str, theirs: str) -> None:
    for mine, name in _RESNET.items():
        _copy(tensors, official, f"{ours}.{mine}", f"{theirs}.{name}")
    if f"{ours}.skip_connection.weight" in tensors:
        _copy(tensors, official, f"{ours}.skip_connection", f"{theirs}.conv_shortcut")


def _export_attention(tensors: Mapping[str, Tensor], official: Tensors, ours: str, theirs: str) -> None:
    _copy(tensors, official, f"{ours}.norm", f"{theirs}.group_norm")
    for part in ("weight", "bias"):
        flat = {name: tensors[f"{ours}.{name}.{part}"] for name in ("qkv", "proj_out")}
        if part == "weight":
            flat = {name: tensor.squeeze(-1) for name, tensor in flat.items()}
        for name, third in zip("qkv", flat["qkv"].chunk(3), strict=True):
            official[f"{theirs}.to_{name}.{part}"] = third.clone()
        official[f"{theirs}.to_out.0.{part}"] = flat["proj_out"]
