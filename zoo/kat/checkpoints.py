"""What the checkpoints of KAT and ViT have in common: wrappers, keys, positions for another image size."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from zoo.errors import WeightsError
from zoo.kat.transformer import VisionTransformer

# Averaged weights first: they are the ones the papers evaluate.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_STEM = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "head.weight", "head.bias")
_LAYERS = ("norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
_BLOCK = (*(f"{layer}.{part}" for layer in _LAYERS for part in ("weight", "bias")), "attn.qkv.weight")
_OPTIONAL = re.compile(
    r"(fc_)?norm\.(weight|bias)|blocks\.\d+\.(attn\.qkv\.bias|attn\.[qk]_norm\.(weight|bias)|ls[12]\.gamma)"
)


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict inside a training script's checkpoint, without the prefix of distributed training.

    Raises:
        WeightsError: there are no tensors in it.
    """
    for wrapper in _WRAPPERS:
        if isinstance(checkpoint.get(wrapper), Mapping):
            return unwrap(checkpoint[wrapper])
    tensors = {key.removeprefix("module."): value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"The checkpoint holds no tensors, only {', '.join(map(str, list(checkpoint)[:5]))}.")
    return tensors


def count_blocks(tensors: Collection[str]) -> int:
    """Depth of the transformer that a state dict belongs to."""
    return 1 + max((int(key.split(".")[1]) for key in tensors if re.match(r"blocks\.\d+\.", key)), default=0)


def check_keys(tensors: Collection[str], what: str, mlp: tuple[str, ...]) -> None:
    """Raises `WeightsError` for keys that a vision transformer lacks or does not have.

    Args:
        tensors: names of a state dict.
        what: the model's name, for the message.
        mlp: names that each block's MLP has beside its two linear layers.
    """
    names = (*_BLOCK, *(f"mlp.{name}" for name in mlp))
    required = {*_STEM, *(f"blocks.{index}.{name}" for index in range(count_blocks(tensors)) for name in names)}
    missing = sorted(required - set(tensors))
    unknown = sorted(key for key in set(tensors) - required if not _OPTIONAL.fullmatch(key))
    if missing or unknown:
        raise WeightsError(
            f"This is no {what} checkpoint"
            + (f"; missing: {', '.join(missing[:5])}" if missing else "")
            + (f"; unknown: {', '.join(unknown[:5])}" if unknown else "")
            + "."
        )


def adapt(tensors: dict[str, Tensor], network: VisionTransformer) -> dict[str, Tensor]:
    """Fits weights to a network of another image size or number of classes.

    Positions are resized bicubically; a head for other classes is replaced by the network's own, fresh one.

    Args:
        tensors: a state dict in our layout.
        network: the network that is to load it.
    """
    if not {"pos_embed", "head.weight"} <= tensors.keys():  # of another architecture, which loading will say
        return tensors
    adapted = dict(tensors)
    position = tensors["pos_embed"]
    if position.shape != network.pos_embed.shape:
        side = round((position.shape[1] - 1) ** 0.5)
        grid = position[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        size = (network.patch_embed.grid_size,) * 2
        resized = F.interpolate(grid, size, mode="bicubic", antialias=True, align_corners=False)
        tokens = resized.permute(0, 2, 3, 1).flatten(1, 2).to(position.dtype)
        adapted["pos_embed"] = position.new_empty(1, 1 + tokens.shape[1], tokens.shape[2])
        adapted["pos_embed"][:, :1], adapted["pos_embed"][:, 1:] = position[:, :1], tokens
    if tensors["head.weight"].shape != network.head.weight.shape:
        adapted |= {f"head.{name}": parameter.detach() for name, parameter in network.head.named_parameters()}
    return adapted
