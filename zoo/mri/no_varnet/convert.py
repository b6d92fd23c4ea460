"""Released NO-VarNet checkpoints -> the state dict of our network. The names are the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.errors import WeightsError
from zoo.mri.official_keys import plain_tensors

_UDNO = (
    r"udno\.((down_sample_layers\.\d+|bottleneck|up\.\d+(\.0)?)\.layers\.[04]\.weight"
    r"|up_transpose\.\d+\.layers\.1\.weight|up\.\d+\.1\.(weight|bias))"
)
_KEY = re.compile(rf"(sens_net\.norm_udno|kno)\.{_UDNO}|cascades\.\d+\.(dc_weight|model\.{_UDNO})")


def convert_official(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Maps an official checkpoint to what ``create_model("mri/no-varnet", published=True, ...).network`` loads.

    Args:
        state_dict: the network's state dict, or the content of a checkpoint of the authors' Lightning module
            (under ``"state_dict"`` with the prefix ``model.``).

    Raises:
        WeightsError: there are no tensors, or unknown ones.
    """
    wrapped = state_dict.get("state_dict")
    tensors = plain_tensors(wrapped if isinstance(wrapped, Mapping) else state_dict)
    # The Lightning module's checkpoint also holds the window of its SSIM loss.
    converted = {key.removeprefix("model."): value for key, value in tensors.items() if key != "criterion.w"}
    unknown = sorted(key for key in converted if not _KEY.fullmatch(key))
    if unknown:
        raise WeightsError(f"This is no NO-VarNet checkpoint; unknown: {', '.join(unknown[:5])}.")
    return converted
