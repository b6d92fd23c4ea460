"""What the command lines share: ``key=value`` arguments, readable errors, tables."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ConfigError, Interrupted, ZooError, did_you_mean
from zoo.launch import is_main_process

if TYPE_CHECKING:
    from rich.console import Console

USAGE_ERROR = 2


def split_arguments(argv: Sequence[str], own: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Parts a command line into this command's own keys and the rest, which override the config.

    Args:
        argv: the arguments after the program's name.
        own: keys of the command itself, such as ``config``.

    Raises:
        ConfigError: an own key given twice or without a value.
    """
    mine: dict[str, str] = {}
    rest: list[str] = []
    for argument in argv:
        key, equals, value = argument.partition("=")
        if key not in own or not equals:
            if key.lstrip("-") in own:
                raise ConfigError(f"Write {key.lstrip('-')}=VALUE instead of {argument}.")
            rest.append(argument)
        elif not value:
            raise ConfigError(f"{key}= has no value.")
        elif key in mine:
            raise ConfigError(f"{key}= is given twice.")
        else:
            mine[key] = value
    return mine, rest


def require(arguments: dict[str, str], key: str, example: str) -> str:
    """The value of a key that a command can't do without."""
    if key not in arguments:
        raise ConfigError(f"{key}= is missing, for example {key}={example}.")
    return arguments[key]


def reject_flags(arguments: Sequence[str], known: Sequence[str]) -> None:
    """Raises `ConfigError` for an argument that is neither an override nor known here."""
    for argument in arguments:
        if argument.startswith("-") or "=" not in argument:
            hint = did_you_mean(argument.lstrip("-"), [*known])
            raise ConfigError(f"'{argument}' is no key=value argument. {hint}")


def console(stderr: bool = False) -> Console:
    """Where to print; silent in all processes of a run but the first."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True, quiet=not is_main_process())


def run(main: Callable[[list[str]], None], usage: str | None) -> None:
    """Runs a command line and turns its exceptions into messages and exit codes.

    Exit codes: 2 for a `ZooError`, 130 for Ctrl-C, 143 for SIGTERM. With ``ZOO_DEBUG=1`` errors keep their
    traceback.
    """
    argv = sys.argv[1:]
    if usage is not None and any(argument in ("-h", "--help", "help") for argument in argv):
        print(usage)
        return
    # Hydra would print its own shortened traceback otherwise; its errors are made readable by us.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with exit_on_error():
        main(argv)


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Prints the errors that a user can mend as one message and exits; see `run` for the codes."""
    try:
        yield
    except (ZooError, KeyboardInterrupt) as error:
        if os.environ.get("ZOO_DEBUG") == "1":
            raise
        out = console(stderr=True)
        if isinstance(error, KeyboardInterrupt):
            out.print("[bold yellow]stopped.[/]")
            sys.exit(128 + signal.SIGINT)
        if isinstance(error, Interrupted):
            out.print(f"[bold yellow]stopped:[/] {_escape(str(error))}")
            sys.exit(128 + error.signum)
        out.print(f"[bold red]error:[/] {_escape(str(error))}")
        sys.exit(USAGE_ERROR)
    except BrokenPipeError:  # `python -m zoo.models list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or os.environ.get("ZOO_DEBUG") == "1":
            raise
        where = f" ({error.filename})" if error.filename else ""
        console(stderr=True).print(
            f"[bold red]error:[/] No space left on the disk{where}. Free some; "
            "a run goes on from its last checkpoint with resume=<run folder>."
        )
        sys.exit(USAGE_ERROR)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def print_metrics(out: Console, title: str, columns: dict[str, dict[str, Any]]) -> None:
    """A table of metrics, one column per model, and for two columns their ratio.

    Args:
        out: where to print.
        title: above the table.
        columns: heading -> metrics by name; values that are no numbers are left out.
    """
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    for heading in columns:
        table.add_column(heading, justify="right")
    if len(columns) == 2:
        table.add_column("ratio", justify="right")
    names = list(dict.fromkeys(name for metrics in columns.values() for name in metrics))
    for name in names:
        values = [metrics.get(name) for metrics in columns.values()]
        if not any(isinstance(value, int | float) for value in values):
            continue
        cells = ["" if value is None else f"{value:.6g}" for value in values]
        if len(columns) == 2:
            first, second = values
            cells.append(f"{first / second:.3g}" if first is not None and second else "")
        table.add_row(name, *cells)
    out.print(table)


def print_paths(out: Console, label: str, paths: Sequence[Path]) -> None:
    """A labelled list of files."""
    if paths:
        out.print(f"{label}:")
        for path in paths:
            out.print(f"  {path}")
