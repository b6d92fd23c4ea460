"""Checks that the numbers among the options of a model or a data module make sense."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from zoo.errors import ConfigError

_WITHIN: dict[str, Callable[[float], bool]] = {
    "positive": lambda x: x > 0,
    "0 or more": lambda x: x >= 0,
    "1 or more": lambda x: x >= 1,
    "from 0 to 1": lambda x: 0 <= x <= 1,
    "between 0 and 1": lambda x: 0 < x < 1,
    "from 0 to 3": lambda x: 0 <= x <= 3,
}


def check_ranges(options: Mapping[str, Any], part: str, ranges: Mapping[str, Iterable[str]]) -> None:
    """Refuses numbers out of their range, NaN and infinity.

    Args:
        options: name -> number, several numbers, or None for none.
        part: of the config that they stand in, ``"model"`` or ``"data"``.
        ranges: ``"positive"``, ``"0 or more"``, ``"1 or more"``, ``"from 0 to 1"``, ``"between 0 and 1"`` or
            ``"from 0 to 3"`` -> the options that should be; those that are not there are passed over.

    Raises:
        ConfigError: a number is out of its range.
    """
    for words, names in ranges.items():
        for name in names:
            value = options.get(name)
            numbers = value if isinstance(value, Sequence) else [] if value is None else [value]
            if not all(math.isfinite(number) and _WITHIN[words](number) for number in numbers):
                raise ConfigError(f"{part}.{name} should be {words}, not {value}.")


def check_positive(part: str, **numbers: float | None) -> None:
    """Refuses numbers that are not positive and finite; None stands for one that was not given.

    Args:
        part: of the config that they stand in, ``"model"`` or ``"data"``.

    Raises:
        ConfigError: names the first of them.
    """
    check_ranges(numbers, part, {"positive": numbers})
