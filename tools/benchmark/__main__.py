"""Command line of the benchmarks."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

from tools.benchmark.report import Report
from zoo import cli
from zoo.errors import ConfigError, UnknownNameError, did_you_mean
from zoo.predict import parse_options
from zoo.signature import check_arguments

USAGE = """\
usage: python -m tools.benchmark list
       python -m tools.benchmark NAME [key=value ...]
"""

_NOT_BENCHMARKS = ("__init__", "__main__", "report", "timing")


def names() -> dict[str, Path]:
    """Benchmark name -> file."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return {file.stem.replace("_", "-"): file for file in files if file.stem not in _NOT_BENCHMARKS}


def main(argv: list[str]) -> None:
    """Lists or runs."""
    if not argv:
        raise ConfigError(f"Which benchmark?\n{USAGE}")
    known = names()
    out = cli.console()
    if argv == ["list"]:
        for name, file in known.items():
            docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            out.print(f"[bold]{name:<22}[/] {docstring.splitlines()[0]}")
        return
    name, *options = argv
    if name not in known:
        raise UnknownNameError(f"There is no benchmark '{name}'. {did_you_mean(name, known)}")
    module = importlib.import_module(f"tools.benchmark.{known[name].stem}")
    report: Report = module.run(**check_arguments(module.run, parse_options(options), where=name))
    report.print()
    cli.print_paths(out, "pictures", report.figures)
    out.print(f"written: {report.write(name)}")


if __name__ == "__main__":
    cli.run(main, USAGE)
