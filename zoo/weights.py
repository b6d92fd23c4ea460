"""Weights files: a network's state dict as safetensors, with the model's name and arguments inside.

The tensors are those of ``module.network``; the metadata says how to build the module around them, so a
weights file alone is enough to get a model back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import WeightsError
from zoo.files import atomic_path

if TYPE_CHECKING:
    import torch

    from zoo.module import ZooModule


def save(module: ZooModule, target: str | Path) -> None:
    """Writes ``module.network`` and what is needed to build `module` again.

    Raises:
        WeightsError: a constructor argument can't be written as JSON.
    """
    from safetensors.torch import save_file

    try:
        arguments = json.dumps(dict(module.hparams))
    except TypeError as error:
        raise WeightsError(
            f"The arguments of {module.zoo_name} can't be stored in a weights file ({error}). "
            "Pass what is a Python object as a file or by name instead."
        ) from None
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.network.state_dict().items()}
    with atomic_path(target) as path:
        save_file(tensors, path, metadata={"model": str(module.zoo_name), "arguments": arguments})


def read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        WeightsError: the file is absent, truncated or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is damaged or no safetensors file ({error}). Get it again from where it came."
        ) from None


def build(path: str | Path) -> ZooModule:
    """The module that a weights file describes, with these weights, in eval mode.

    Raises:
        WeightsError: the file is unusable or does not say which model it belongs to.
    """
    from zoo.registry import get_class
    from zoo.signature import check_arguments

    tensors, metadata = read(path)
    if "model" not in metadata or "arguments" not in metadata:
        raise WeightsError(
            f"{path} does not say which model it holds. Build the model with zoo.create_model, "
            "and convert an official checkpoint with zoo.convert_official."
        )
    cls = get_class("model", metadata["model"])
    module = cls(**check_arguments(cls, json.loads(metadata["arguments"]), where=metadata["model"]))
    load_into(module.network, tensors, source=str(path))
    module.eval()
    return module


def load_into(network: torch.nn.Module, tensors: dict[str, Any], source: str) -> None:
    """Loads a state dict strictly.

    A network whose size is part of its data, such as a cloud of Gaussians, has a method ``fit_to(tensors)`` that
    takes over the size first.

    Raises:
        WeightsError: naming the keys that are missing, unknown or of another shape.
    """
    fit_to = getattr(network, "fit_to", None)
    if fit_to is not None:
        fit_to(tensors)
    expected = network.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys())
    reshaped = [
        f"{name} is {tuple(tensors[name].shape)} but the model has {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    problems = [
        f"{label}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for label, names in (("missing", missing), ("not in the model", unknown), ("wrong shape", reshaped))
        if names
    ]
    if problems:
        raise WeightsError(
            f"{source} does not fit {type(network).__name__}: {'; '.join(problems)}. "
            "Use the model arguments these weights were trained with."
        )
    network.load_state_dict(tensors)
