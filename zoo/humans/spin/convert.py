"""Official SPIN checkpoints (and those that hold the same network) -> the state dict of our HMR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.humans.spin.network import HMR

_WRAPPERS = ("model", "state_dict", "gen_state_dict")
_PREFIXES = ("module.", "hmr.", "backbone.", "head.", "regressor.")


def convert_official(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Maps an official checkpoint to what ``create_model("humans/spin").network`` loads.

    Args:
        state_dict: SPIN's ``model_checkpoint.pt`` or the state dict within; VIBE's copy of it; mmhuman3d's, whose
            names have the prefixes ``backbone.`` and ``head.``. A plain ResNet-50 of torchvision or timm becomes
            a start for training: its regressor is fresh.

    Raises:
        WeightsError: keys are missing or unknown.
    """
    for wrapper in _WRAPPERS:
        if isinstance(state_dict.get(wrapper), Mapping):
            return convert_official(state_dict[wrapper])
    tensors = {_bare(key): value for key, value in state_dict.items() if isinstance(value, Tensor)}
    with torch.device("meta"):
        expected = HMR().state_dict()
    if "fc.weight" in tensors:  # an ImageNet classifier
        fresh = HMR().state_dict()
        tensors = {key: value for key, value in tensors.items() if not key.startswith("fc.")}
        tensors = {**{key: value for key, value in fresh.items() if _of_head(key)}, **tensors}
    for key in expected:
        if key.endswith("num_batches_tracked"):  # torch 1.1 did not write it
            tensors.setdefault(key, torch.tensor(0))
    tensors = {key: value for key, value in tensors.items() if not key.startswith("smpl.")}
    missing, unknown = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        raise WeightsError(
            "This is no SPIN checkpoint"
            + (f"; missing: {', '.join(missing[:5])}" if missing else "")
            + (f"; unknown: {', '.join(unknown[:5])}" if unknown else "")
            + "."
        )
    return tensors


def _bare(key: str) -> str:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _of_head(key: str) -> bool:
    return key.startswith(("fc1", "fc2", "dec", "init_"))
