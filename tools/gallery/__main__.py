"""``python -m tools.gallery``: evaluates every pretrained entry and writes a page about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tools.gallery.page import Exhibit, render
from zoo import cli
from zoo.config import compose_weights
from zoo.engine.run import evaluate, figure_paths
from zoo.engine.run_folder import RunFolder
from zoo.errors import UnknownNameError, did_you_mean
from zoo.files import write_text
from zoo.pretrained import WeightsEntry, get_entry, list_weights
from zoo.viz.space import Space

USAGE = """\
usage: python -m tools.gallery [weights=PATTERN] [output=FOLDER]

  weights=kat/*     which pretrained entries; by default all that were trained by a config
  output=gallery    the page is FOLDER/index.html; entries evaluated there already are not evaluated again
"""


def main(argv: list[str]) -> None:
    """Evaluates the entries that the command line asks for, and writes the page."""
    arguments, rest = cli.split_arguments(argv, ("weights", "output"))
    cli.reject_flags(rest, ("weights=", "output="))
    pattern, output = arguments.get("weights", "*"), Path(arguments.get("output", "gallery"))
    entries = [entry for name in list_weights(pattern) if (entry := get_entry(name)).config is not None]
    if not entries:
        raise UnknownNameError(f"No pretrained weights match '{pattern}'. {did_you_mean(pattern, list_weights())}")
    out = cli.console()
    exhibits = []
    for number, entry in enumerate(entries, start=1):
        out.print(f"[bold]{entry.name}[/] ({number} of {len(entries)})")
        exhibits.append(_exhibit(entry, output))
    write_text(output / "index.html", render(exhibits))
    out.print(f"page: {output / 'index.html'}")


def _exhibit(entry: WeightsEntry, output: Path) -> Exhibit:
    run = RunFolder(output / entry.name)
    config = _config(entry, run.path)
    summary: dict[str, Any] = run.read_summary() if run.summary.is_file() else evaluate(config, entry.name)
    return Exhibit(
        entry=entry,
        measured=summary["metrics"],
        seconds=summary["wall_time_s"],
        figures=[path for path in figure_paths(run.path) if path.stem != "training"],
        space=Space.load(run.space) if run.space.is_file() else None,
    )


def _config(entry: WeightsEntry, folder: Path) -> DictConfig:
    assert entry.config is not None
    seed = [] if entry.seed is None else [f"seed={entry.seed}"]
    return compose_weights(entry.config, entry.model, [*seed, f"run_dir='{folder}'", "+callbacks.test_figures.space=true"])


if __name__ == "__main__":
    cli.run(main, USAGE)
