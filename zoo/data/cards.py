"""Data cards: what a data set is, where to get it, and what to tell a user who does not have it.

A card is ``data/<set>.yaml``; `DataCard` says what stands in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from zoo import assets
from zoo.errors import DataError, UnknownNameError, did_you_mean


@dataclass(frozen=True)
class DataCard:
    """A data set.

    Attributes:
        name: the card's file name.
        title: the data set's own name.
        what: what it contains, in a sentence or two, with sizes.
        licence: its terms of use.
        where: where to get it: addresses, or "embedded" for what ships or is generated.
        used_by: registry names of the data modules that read it.
        layout: expected folder layout, line by line.
        checksums: file -> SHA-256, for what ships.
        citation: how to cite it.
    """

    name: str
    title: str
    what: str
    licence: str
    where: str
    used_by: tuple[str, ...]
    layout: str = ""
    checksums: dict[str, str] = field(default_factory=dict)
    citation: str = ""


def list_cards() -> list[str]:
    """Names of the data cards."""
    return sorted(file.stem for file in assets.path("data").glob("*.yaml"))


def read_card(name: str) -> DataCard:
    """The card ``data/<name>.yaml``.

    Raises:
        UnknownNameError: there is none.
        DataError: it holds unknown keys or lacks some.
    """
    import yaml

    if name not in list_cards():
        raise UnknownNameError(f"There is no data card '{name}'. {did_you_mean(name, list_cards())}")
    content: dict[str, Any] = yaml.safe_load(assets.path("data", f"{name}.yaml").read_text(encoding="utf-8"))
    unknown = content.keys() - {f.name for f in fields(DataCard)}
    if unknown:
        raise DataError(f"The data card '{name}' has unknown keys: {', '.join(sorted(unknown))}.")
    return DataCard(name=name, **{**content, "used_by": tuple(content.get("used_by", ()))})


def cards_of(data_name: str) -> list[DataCard]:
    """The cards of the data sets that a registered data module reads."""
    return [card for card in map(read_card, list_cards()) if data_name in card.used_by]


def require_files(card_name: str, root: str | Path | None, needed: list[str], key: str = "data.root") -> Path:
    """Checks that a data set's files are where the config says.

    Args:
        card_name: name of the data card.
        root: the configured folder; None if none was given.
        needed: glob patterns below `root`, each of which must match something.
        key: the config key that gives `root`.

    Returns:
        `root` as a path.

    Raises:
        DataError: with the card's instructions.
    """
    path = None if root is None else Path(root).expanduser()
    if path is None:
        problem = f"{key} is not set"
    elif not path.is_dir():
        problem = f"there is no folder {path} ({key})"
    else:
        absent = [pattern for pattern in needed if next(path.glob(pattern), None) is None]
        if not absent:
            return path
        problem = f"{path} ({key}) has no {', '.join(absent)}"
    raise DataError(missing_data_message(read_card(card_name), problem, key))


def missing_data_message(card: DataCard, problem: str, key: str) -> str:
    """What a user who lacks a data set needs to know: what, where, licence, layout and the key that points to it."""
    lines = [
        f"The data set '{card.title}' is not there: {problem}.",
        f"  what:    {card.what.strip()}",
        f"  where:   {card.where.strip()}",
        f"  licence: {card.licence.strip()}",
    ]
    if card.layout:
        lines.append("  layout:")
        lines += [f"    {line}" for line in card.layout.rstrip().splitlines()]
    lines.append(f"  then give {key}=/path/to/it")
    return "\n".join(lines)
