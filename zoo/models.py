"""``python -m zoo.models``: list and show what the registry holds."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import assets, cli
from zoo.config import list_configs
from zoo.errors import ConfigError, did_you_mean
from zoo.pretrained import get_entry, list_weights
from zoo.registry import get_class, list_data, list_models, module_file
from zoo.signature import describe, parameters, type_hints

if TYPE_CHECKING:
    from rich.console import Console

USAGE = """\
usage: python -m zoo.models list ["kat/*"]      models, data modules, weights and configs that match
       python -m zoo.models show NAME           a model's card, arguments, weights and configs;
                                                or an entry of the data modules or the weights
"""


def main(argv: list[str]) -> None:
    """Lists or shows."""
    if not argv or argv[0] not in ("list", "show"):
        raise ConfigError(f"Say list or show.\n{USAGE}")
    command, *names = argv
    if command == "list":
        if len(names) > 1:
            raise ConfigError('list takes one pattern: quote it, as in list "kat/*".')
        print_list(cli.console(), names[0] if names else "*")
    elif len(names) != 1:
        raise ConfigError("show takes one name.")
    else:
        show(cli.console(), names[0])


def print_list(out: Console, pattern: str) -> None:
    """Everything whose name matches a glob, one table per kind."""
    from rich.table import Table

    rows = {
        "models": [(name, first_line(card_path(name))) for name in list_models(pattern)],
        "data": [(name, "") for name in list_data(pattern)],
        "weights": [(name, get_entry(name).description) for name in list_weights(pattern)],
        "configs": [(name, describe_config(name)) for name in list_configs() if fnmatchcase(name, pattern)],
    }
    if not any(rows.values()):
        raise ConfigError(f"Nothing matches '{pattern}'. python -m zoo lists everything.")
    for kind, entries in rows.items():
        if entries:
            table = Table(title=kind, title_justify="left", title_style="bold", box=None, show_header=False)
            for name, text in entries:
                table.add_row(name, text)
            out.print(table)
            out.print()


def card_path(name: str) -> Path:
    """The model card of a registered model: README.md beside its module."""
    return module_file("model", name).parent / "README.md"


def first_line(card: Path) -> str:
    """What a card says of its model in a line: its first paragraph's first line."""
    if not card.is_file():
        return ""
    lines = [line.strip() for line in card.read_text(encoding="utf-8").splitlines()]
    return next((line for line in lines if line and not line.startswith("#")), "")


def describe_config(config: str) -> str:
    """The first comment line of a config file, which says what it is."""
    lines = assets.path("configs", f"{config}.yaml").read_text(encoding="utf-8").splitlines()
    return next((x[1:].strip() for x in lines if x.startswith("#") and "@package" not in x), "")


def show(out: Console, name: str) -> None:
    """A model, a data module or an entry of pretrained weights.

    Raises:
        ConfigError: there is nothing of that name.
    """
    found = False
    if name in list_models():
        found = True
        _show_model(out, name)
    if name in list_data():
        found = True
        _show_data(out, name)
    if name in list_weights():
        found = True
        _show_weights(out, name)
    if not found:
        known = {*list_models(), *list_data(), *list_weights()}
        raise ConfigError(f"There is no model, data module or weights '{name}'. {did_you_mean(name, known)}")


def _show_model(out: Console, name: str) -> None:
    from rich.markdown import Markdown

    card = card_path(name)
    if card.is_file():
        out.print(Markdown(card.read_text(encoding="utf-8")))
    cls = get_class("model", name)
    _print_arguments(out, f"model {name}", cls)
    if hasattr(cls, "predict_file"):
        _print_arguments(out, "predict", cls.predict_file)
    for label, names in (
        ("weights", [w for w in list_weights() if get_entry(w).model == name]),
        ("configs", _configs_with(f"name: {name}")),
    ):
        out.print(f"[bold]{label}:[/] {', '.join(names) or 'none'}")


def _show_data(out: Console, name: str) -> None:
    from zoo.data.cards import cards_of

    cls = get_class("data", name)
    out.print(f"[bold]data {name}[/]\n{(cls.__doc__ or '').strip()}")
    _print_arguments(out, f"data {name}", cls)
    for card in cards_of(name):
        out.print(f"[bold]{card.title}[/]: {card.what.strip()}\n  where: {card.where.strip()}")
        out.print(f"  licence: {card.licence.strip()}")
    out.print(f"[bold]configs:[/] {', '.join(_configs_with(f'name: {name}')) or 'none'}")


def _show_weights(out: Console, name: str) -> None:
    entry = get_entry(name)
    out.print(f"[bold]weights {name}[/]: {entry.description}")
    for label in ("model", "arguments", "config", "seed", "licence", "size", "sha256", "origin"):
        value = getattr(entry, label)
        if value not in (None, {}):
            out.print(f"  {label}: {value}")
    if entry.metrics:
        cli.print_metrics(out, "measured with these weights", {"value": dict(entry.metrics)})


def _configs_with(line: str) -> list[str]:
    files = {name: assets.path("configs", f"{name}.yaml") for name in list_configs()}
    return [n for n, f in files.items() if line in map(str.strip, f.read_text(encoding="utf-8").splitlines())]


def _print_arguments(out: Console, title: str, target: Any) -> None:
    from rich.table import Table

    table = Table(title=f"arguments of {title}", title_justify="left")
    for heading in ("argument", "type", "default"):
        table.add_column(heading)
    hints = type_hints(target)
    for name, parameter in parameters(target).items():
        default = "required" if parameter.default is parameter.empty else repr(parameter.default)
        table.add_row(name, describe(hints[name]) if name in hints else "", default)
    out.print(table)


if __name__ == "__main__":
    cli.run(main, USAGE)
