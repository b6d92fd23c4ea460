"""Reading the checkpoints of the Transform Once repository, whose networks keep their names here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from zoo.errors import WeightsError

_LIGHTNING_PREFIX = "model."


def state_dict_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, or of the Lightning checkpoint around it, without the task's prefix.

    Raises:
        WeightsError: there are no tensors in it.
    """
    inside = checkpoint.get("state_dict")
    if isinstance(inside, Mapping):
        return state_dict_of(inside)
    tensors = {k.removeprefix(_LIGHTNING_PREFIX): v for k, v in checkpoint.items() if isinstance(v, Tensor)}
    if not tensors:
        raise WeightsError(f"The checkpoint holds no tensors, only {', '.join(map(str, list(checkpoint)[:5]))}.")
    return tensors


def layers_in(tensors: Mapping[str, Tensor], prefix: str) -> range:
    """0, 1, ... up to the highest number that follows `prefix` in a name; at least one."""
    numbers = [name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)]
    return range(1 + max((int(number) for number in numbers if number.isdigit()), default=0))


def check_keys(tensors: Mapping[str, Tensor], what: str, required: Iterable[str]) -> None:
    """Raises `WeightsError` unless the names are the required ones.

    Args:
        tensors: a state dict.
        what: what it should be, for the message: ``"This is no ..."``.
        required: names.
    """
    names = set(required)
    problems = [
        f"{label}: {', '.join(sorted(keys)[:5])}"
        for label, keys in (("missing", names - tensors.keys()), ("unknown", tensors.keys() - names))
        if keys
    ]
    if problems:
        raise WeightsError(f"This is no {what} checkpoint; {'; '.join(problems)}.")
