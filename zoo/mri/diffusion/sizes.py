"""Sizes of the denoiser."""

from __future__ import annotations

from typing import Any, Literal

Size = Literal["tiny", "small", "paper"]

_SIZES: dict[Size, dict[str, Any]] = {
    "tiny": {
        "model_channels": 32,
        "num_res_blocks": 1,
        "channel_mult": (1, 2, 2),
        "attention_resolutions": (),
        "use_scale_shift_norm": False,
        "resblock_updown": False,
    },
    "small": {
        "model_channels": 32,
        "num_res_blocks": 2,
        "channel_mult": (1, 2, 4),
        "attention_resolutions": (4,),
        "use_scale_shift_norm": False,
        "resblock_updown": False,
    },
    # MC-DDPM's network for images of 320 x 320.
    "paper": {
        "model_channels": 128,
        "num_res_blocks": 2,
        "channel_mult": (1, 1, 2, 2, 4),
        "attention_resolutions": (16,),
        "use_scale_shift_norm": True,
        "resblock_updown": True,
    },
}


def resolve_size(size: Size, **given: Any) -> dict[str, Any]:
    """The arguments of a `DiffusionUNet` that a size sets, with those given (not None) in their place."""
    return {**_SIZES[size], **{name: value for name, value in given.items() if value is not None}}
