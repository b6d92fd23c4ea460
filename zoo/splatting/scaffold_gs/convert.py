"""Official checkpoints as the state dict of an `AnchorModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.splatting.scaffold_gs.anchors import ANCHOR_ROWS
from zoo.splatting.scaffold_gs.files import NETWORKS, check_complete
from zoo.splatting.scaffold_gs.files import read_folder as read_folder
from zoo.splatting.scaffold_gs.network import AnchorModel

# Sub-dictionaries of the second official form, checkpoints.pth.
_UNITED = {
    "opacity_mlp": "mlp_opacity",
    "cov_mlp": "mlp_cov",
    "color_mlp": "mlp_color",
    "feature_bank_mlp": "mlp_feature_bank",
    "appearance": "embedding_appearance",
}


def convert_official(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Takes what `zoo.splatting.scaffold_gs.files.read_folder` gives: anchors and networks by official names.

    Networks may also come as sub-dictionaries (``opacity_mlp``, ...), as in ``checkpoints.pth``.

    Raises:
        WeightsError: tensors are missing, unknown or of shapes that do not fit together.
    """
    if not isinstance(content, Mapping):
        raise WeightsError(f"This is no checkpoint of Scaffold-GS or Momentum-GS: it is a {type(content).__name__}.")
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            if key not in _UNITED:
                raise WeightsError(f"This is no checkpoint of Scaffold-GS or Momentum-GS: what is '{key}'?")
            tensors |= {f"{_UNITED[key]}.{name}": _tensor(name, part) for name, part in value.items()}
        else:
            tensors[key] = _tensor(key, value)
    check_complete(tensors)
    try:
        model = AnchorModel(**decoder_arguments(tensors))
        model.set_rows({name: tensors[name] for name in ANCHOR_ROWS})
        model.decoder(0).load_state_dict({k: v for k, v in tensors.items() if k not in ANCHOR_ROWS})
    except (RuntimeError, ValueError, IndexError) as error:  # of load_state_dict, and of tensors with too few axes
        raise WeightsError(f"The checkpoint's tensors do not fit together: {error}") from None
    return model.state_dict()


def _tensor(name: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"'{name}' in the checkpoint is no tensor: {error}.") from None


def decoder_arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of the `GaussianDecoder` that official tensors belong to."""
    _, n_offsets, _ = tensors["offset"].shape
    feat_dim = tensors["anchor_feat"].shape[1]
    table = tensors.get("embedding_appearance.embedding.weight")
    appearances, appearance_dim = (1, 0) if table is None else table.shape
    extra = [tensors[f"{m}.0.weight"].shape[1] - feat_dim - 3 for m in NETWORKS.values()]
    extra[2] -= appearance_dim
    return {
        "feat_dim": feat_dim,
        "n_offsets": n_offsets,
        **dict(zip(("add_opacity_dist", "add_cov_dist", "add_color_dist"), map(bool, extra), strict=True)),
        "appearance_dim": appearance_dim,
        "appearances": appearances,
        "use_feat_bank": "mlp_feature_bank.0.weight" in tensors,
    }
