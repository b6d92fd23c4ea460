"""``python -m tools.visualize``: draw the pictures and films of a run or of pretrained weights."""

from __future__ import annotations

import signal
from pathlib import Path

from zoo import cli
from zoo.config import compose_run, compose_weights
from zoo.engine.run import draw
from zoo.errors import ConfigError
from zoo.pretrained import get_entry, load_module

USAGE = """\
usage: python -m tools.visualize run=RUN_FOLDER [key=value ...]
       python -m tools.visualize weights=NAME [config=NAME] [key=value ...]
       python -m tools.visualize weights=NAME --viewer [port=8080]

  run=runs/...               draws the run's figures anew, in its folder
  weights=kat/digits         shows what pretrained weights do, in runs/visualize/<name>
  config=NAME                on the data of another config than the one they were trained with
  --viewer                   shows a scene in the browser, where the model has a viewer, until Ctrl-C
"""


def main(argv: list[str]) -> None:
    """Draws what the command line asks for."""
    if "--viewer" in argv:
        _view([argument for argument in argv if argument != "--viewer"])
        return
    arguments, overrides = cli.split_arguments(argv, ("run", "weights", "config"))
    cli.reject_flags(overrides, ("run=", "weights=", "config="))
    if "run" in arguments:
        source = arguments["run"]
        folder = Path(source)
        config = compose_run(folder, overrides)
    else:
        source = cli.require(arguments, "weights", "kat/digits")
        folder = Path("runs", "visualize", source)
        entry = get_entry(source)
        name = arguments.get("config") or entry.config
        if name is None:
            raise ConfigError(f"{source} does not say which config it belongs to: give config=NAME.")
        config = compose_weights(name, entry.model, overrides)
    draw(config, source, folder)
    cli.print_paths(
        cli.console(), "pictures", sorted(p for p in folder.glob("figures/*") if p.suffix in (".png", ".gif"))
    )


def _view(argv: list[str]) -> None:
    arguments, rest = cli.split_arguments(argv, ("run", "weights", "port"))
    if rest:
        raise ConfigError(f"'{rest[0]}' is no argument of the viewer.\n{USAGE}")
    source = arguments.get("run") or cli.require(arguments, "weights", "splatting/edgs")
    module = load_module(source)
    view = getattr(module, "view", None)
    if view is None:
        raise ConfigError(f"{module.zoo_name} has no viewer.")
    server = view(int(arguments.get("port", "8080")))
    cli.console().print(f"{source}: http://localhost:{server.get_port()} (Ctrl-C stops it)")
    signal.pause()


if __name__ == "__main__":
    cli.run(main, USAGE)
