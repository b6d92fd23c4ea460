"""Official KAT and FlashKAT checkpoints -> the state dict of our network.

The official names are ours, so little is to be done: look into the training script's wrapper, drop the
prefix of distributed training, and rename FlashKAT's coefficients (same shapes).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.errors import WeightsError

# Averaged weights first: they are the ones the papers evaluate.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_FLASHKAT = {"numerator_v": "weight_numerator", "denominator_v": "weight_denominator"}
_STEM = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "head.weight", "head.bias")
_BLOCK = (
    *(
        f"{layer}.{part}"
        for layer in ("norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        for part in ("weight", "bias")
    ),
    "attn.qkv.weight",
    *(f"mlp.{act}.{part}" for act in ("act1", "act2") for part in _FLASHKAT.values()),
)
_OPTIONAL = re.compile(
    r"(fc_)?norm\.(weight|bias)|blocks\.\d+\.(attn\.qkv\.bias|attn\.[qk]_norm\.(weight|bias)|ls[12]\.gamma)"
)


def convert_official(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Maps an official checkpoint to what ``create_model("kat/kat", ...).network`` loads.

    Args:
        state_dict: the content of a KAT or FlashKAT checkpoint, or the state dict within.

    Returns:
        Tensors under our names; shapes are unchanged.

    Raises:
        WeightsError: keys are missing or unknown.
    """
    tensors = {_our_name(key): value for key, value in unwrap(state_dict).items()}
    depth = 1 + max((int(key.split(".")[1]) for key in tensors if re.match(r"blocks\.\d+\.", key)), default=0)
    required = {*_STEM, *(f"blocks.{index}.{name}" for index in range(depth) for name in _BLOCK)}
    missing = sorted(required - tensors.keys())
    unknown = sorted(key for key in tensors.keys() - required if not _OPTIONAL.fullmatch(key))
    if missing or unknown:
        raise WeightsError(
            "This is no KAT checkpoint"
            + (f"; missing: {', '.join(missing[:5])}" if missing else "")
            + (f"; unknown: {', '.join(unknown[:5])}" if unknown else "")
            + ". For a plain ViT use convert_official('kat/vit', ...)."
        )
    return tensors


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


def _our_name(key: str) -> str:
    head, _, last = key.rpartition(".")
    return f"{head}.{_FLASHKAT.get(last, last)}" if head else last
