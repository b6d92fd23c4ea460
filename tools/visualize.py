"""``python -m tools.visualize``: draw the pictures and films of a run or of pretrained weights."""

from __future__ import annotations

from pathlib import Path

from zoo import cli
from zoo.config import compose, compose_run
from zoo.engine.run import draw
from zoo.errors import ConfigError
from zoo.pretrained import get_entry

USAGE = """\
usage: python -m tools.visualize run=RUN_FOLDER [key=value ...]
       python -m tools.visualize weights=NAME [config=NAME] [key=value ...]

  run=runs/...               draws the run's figures anew, in its folder
  weights=kat/digits         shows what pretrained weights do, in runs/visualize/<name>
  config=NAME                on the data of another config than the one they were trained with
"""


def main(argv: list[str]) -> None:
    """Draws what the command line asks for."""
    arguments, overrides = cli.split_arguments(argv, ("run", "weights", "config"))
    cli.reject_flags(overrides, ("run=", "weights=", "config="))
    if "run" in arguments:
        source = arguments["run"]
        folder = Path(source)
        config = compose_run(folder, overrides)
    else:
        source = cli.require(arguments, "weights", "kat/digits")
        folder = Path("runs", "visualize", source)
        name = arguments.get("config") or get_entry(source).config
        if name is None:
            raise ConfigError(f"{source} does not say which config it belongs to: give config=NAME.")
        config = compose(name, overrides)
    draw(config, source, folder)
    cli.print_paths(
        cli.console(), "pictures", sorted(p for p in folder.glob("figures/*") if p.suffix in (".png", ".gif"))
    )


if __name__ == "__main__":
    cli.run(main, USAGE)
