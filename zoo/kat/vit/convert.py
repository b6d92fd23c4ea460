"""Published ViT checkpoints -> the state dict of our ViT: timm's and DeiT's layout, and AugReg's Flax arrays.

Sources: Dosovitskiy et al. 2021; Steiner et al., "How to train your ViT?", 2021 (arXiv 2106.10270), whose .npz
files the KAT paper starts its "from ViT" models with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.kat.checkpoints import check_keys, unwrap

_ATTENTION = "MultiHeadDotProductAttention_1"


def convert_official(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Maps a ViT checkpoint to what ``create_model("kat/vit", ...).network`` loads.

    Args:
        state_dict: a checkpoint in timm's layout, or the arrays of an AugReg .npz file.

    Raises:
        WeightsError: keys are missing or unknown.
    """
    if "embedding/kernel" in state_dict:
        try:
            tensors = _from_flax({name: torch.as_tensor(array) for name, array in state_dict.items()})
        except KeyError as error:
            raise WeightsError(f"This is no ViT checkpoint of AugReg; missing: {error.args[0]}.") from None
        except RuntimeError as error:
            raise WeightsError(f"This is no ViT checkpoint of AugReg; arrays do not fit together: {error}.") from None
    else:
        tensors = unwrap(state_dict)
    check_keys(tensors, "ViT", mlp=())
    return tensors


def _from_flax(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Flax keeps a linear layer's kernel as (in, out), a convolution's as (H, W, in, out), heads unflattened."""
    names = {
        "cls_token": arrays["cls"],
        "pos_embed": arrays["Transformer/posembed_input/pos_embedding"],
        "patch_embed.proj.weight": arrays["embedding/kernel"].permute(3, 2, 0, 1),
        "patch_embed.proj.bias": arrays["embedding/bias"],
        "norm.weight": arrays["Transformer/encoder_norm/scale"],
        "norm.bias": arrays["Transformer/encoder_norm/bias"],
        "head.weight": arrays["head/kernel"].T,
        "head.bias": arrays["head/bias"],
    }
    blocks = map(re.compile(r".*encoderblock_(\d+)/").match, arrays)
    depth = 1 + max((int(found[1]) for found in blocks if found), default=-1)
    for index in range(depth):
        theirs, ours = f"Transformer/encoderblock_{index}", f"blocks.{index}"
        attention = f"{theirs}/{_ATTENTION}"
        dim = arrays[f"{theirs}/LayerNorm_0/scale"].numel()
        projections = [f"{attention}/{name}" for name in ("query", "key", "value")]
        names |= {
            f"{ours}.attn.qkv.weight": torch.cat([arrays[f"{p}/kernel"].reshape(dim, dim).T for p in projections]),
            f"{ours}.attn.qkv.bias": torch.cat([arrays[f"{p}/bias"].flatten() for p in projections]),
            f"{ours}.attn.proj.weight": arrays[f"{attention}/out/kernel"].reshape(dim, dim).T,
            f"{ours}.attn.proj.bias": arrays[f"{attention}/out/bias"],
        }
        for norm, layer in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            names[f"{ours}.{norm}.weight"] = arrays[f"{theirs}/{layer}/scale"]
            names[f"{ours}.{norm}.bias"] = arrays[f"{theirs}/{layer}/bias"]
        for linear, layer in (("fc1", "MlpBlock_3/Dense_0"), ("fc2", "MlpBlock_3/Dense_1")):
            names[f"{ours}.mlp.{linear}.weight"] = arrays[f"{theirs}/{layer}/kernel"].T
            names[f"{ours}.mlp.{linear}.bias"] = arrays[f"{theirs}/{layer}/bias"]
    return {name: tensor.contiguous() for name, tensor in names.items()}
