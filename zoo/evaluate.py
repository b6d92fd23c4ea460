"""``python -m zoo.evaluate``: test weights, with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo import cli
from zoo.config import compose, compose_run, compose_weights
from zoo.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

RUN_DIR = "run_dir=runs/${config}/${run_id:}_evaluate"

USAGE = """\
usage: python -m zoo.evaluate weights=NAME [config=NAME] [key=value ...]
       python -m zoo.evaluate run=RUN_FOLDER [key=value ...]

  weights=kat/digits         a pretrained name (python -m zoo lists them), a weights file or a run folder
  config=kat/digits          the config whose data and model to use; by default the one the weights were trained with
  run=runs/...               short for that run's weights and config
  data.batch_size=64         any key of the config
"""


def main(argv: list[str]) -> None:
    """Evaluates what the command line asks for."""
    arguments, overrides = cli.split_arguments(argv, ("config", "weights", "run"))
    cli.reject_flags(overrides, ("config=", "weights=", "run="))
    config, weights, recorded = _what(arguments, overrides)

    from zoo.engine.run import evaluate, figure_paths

    out = cli.console()
    run_dir = Path(str(config.run_dir))
    out.print(f"[bold]{weights}[/] on {config.config} -> {run_dir}")
    summary = evaluate(config, weights)
    columns = {"measured": summary["metrics"], **({"recorded": recorded} if recorded else {})}
    cli.print_metrics(out, f"{weights} on {config.config}", columns)
    cli.print_paths(out, "pictures", figure_paths(run_dir))
    out.print(f"run folder: {run_dir}")


def _what(arguments: dict[str, str], overrides: list[str]) -> tuple[DictConfig, str, dict[str, float]]:
    """(config, weights, metrics recorded for those weights)."""
    from zoo.engine.run_folder import RunFolder
    from zoo.pretrained import get_entry

    overrides = [RUN_DIR, *overrides]
    if "run" in arguments:
        if arguments.keys() != {"run"}:
            raise ConfigError("run= stands for config= and weights=: give it alone.")
        run = RunFolder(Path(arguments["run"]))
        return compose_run(run.path, overrides), str(run.path), run.read_summary()["metrics"]
    weights = cli.require(arguments, "weights", "kat/digits")
    config_name = arguments.get("config")
    recorded: dict[str, float] = {}
    if config_name is None and Path(weights).is_dir():
        return _what({"run": weights}, overrides)
    if not Path(weights).exists():
        entry = get_entry(weights)
        if config_name in (None, entry.config):
            recorded = entry.metrics
        config_name = config_name or entry.config
        if config_name is not None:
            return compose_weights(config_name, entry.model, overrides), weights, recorded
    if config_name is None:
        raise ConfigError(f"{weights} does not say which config it belongs to: give config=NAME.")
    return compose(config_name, overrides), weights, recorded


if __name__ == "__main__":
    cli.run(main, USAGE)
