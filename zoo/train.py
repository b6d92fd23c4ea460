"""``python -m zoo.train``: train, test and summarise a config."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import assets, cli
from zoo.config import (
    UNREADABLE,
    compose_run,
    hydra_override,
    list_configs,
    locate,
    readable_errors,
    register_resolvers,
)
from zoo.errors import ConfigError, Interrupted

if TYPE_CHECKING:
    from omegaconf import DictConfig

USAGE = """\
usage: python -m zoo.train config=NAME [key=value ...]
       python -m zoo.train resume=RUN_FOLDER [key=value ...]

  config=kat/digits          a shipped config (python -m zoo lists them) or a YAML file
  resume=runs/...            go on with an interrupted run
  trainer.max_epochs=3       any key of the config, or any argument of the model, the data module, Lightning's
                             Trainer, a callback or a logger
  trainer=ddp                another file of the group configs/trainer (also callbacks=..., logger=...)
  --cfg job                  print the resolved config and stop
  --multirun seed=1,2,3      one run per value (Hydra's sweepers and launchers work)
"""


def main(argv: list[str]) -> None:
    """Trains what the command line asks for."""
    arguments, rest = cli.split_arguments(argv, ("config", "resume"))
    if "resume" in arguments:
        run_dir = Path(arguments["resume"])
        overrides = [o for o in rest if not o.startswith("hydra.")]  # Lightning adds those for its processes
        cli.reject_flags(overrides, ())
        config = compose_run(run_dir, overrides)
        if "config" in arguments and arguments["config"] != config.config:
            raise ConfigError(f"{run_dir} is a run of config={config.config}, not of {arguments['config']}.")
        _train_and_report(config, resume=True)
        return
    if "config" not in arguments:
        raise ConfigError(f"Which config? Give config=NAME with one of: {', '.join(list_configs())}.")
    if "," in arguments["config"]:
        raise ConfigError("A sweep runs over the keys of one config: start one command per config.")
    folder, name = locate(arguments["config"])
    flags = ["--config-name", name]
    if folder != assets.path("configs"):
        flags += ["--config-dir", str(folder)]
    config_name = name.removesuffix(".yaml").removesuffix(".yml")
    # Hydra's parser wants its flags before the overrides.
    overrides = [o for o in rest if ("=" in o and not o.startswith("-")) or o.startswith("~")]
    flags += [o for o in rest if o not in overrides]
    sys.argv[1:] = [*flags, *map(hydra_override, overrides), f"++config={config_name}"]

    import hydra

    register_resolvers()
    summaries: list[dict[str, Any]] = []
    composed = False

    def job(config: DictConfig) -> dict[str, Any]:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        nonlocal composed
        composed = True
        hydra_config = HydraConfig.get()
        if hydra_config.mode == RunMode.MULTIRUN:
            config.run_dir = hydra_config.runtime.output_dir
            cli.console().rule(" ".join(hydra_config.overrides.task[:-1]))
        with cli.exit_on_error():  # here, before Hydra adds its own words
            summaries.append(_train_and_report(config, resume=False))
        return summaries[-1]

    app = hydra.main(version_base="1.3", config_path=str(assets.path("configs")), config_name=None)(job)
    try:
        with readable_errors():
            app()
    except UNREADABLE as error:
        if composed:
            raise
        raise ConfigError(f"The config can't be composed: {error}") from error
    if len(summaries) > 1:
        columns = {str(k): {"seed": s["seed"], **s["metrics"]} for k, s in enumerate(summaries)}
        cli.print_metrics(cli.console(), "all runs", columns)


def _train_and_report(config: DictConfig, resume: bool) -> dict[str, Any]:
    from zoo.engine.run import figure_paths, train

    out = cli.console()
    run_dir = Path(str(config.run_dir))
    # Processes that Lightning starts beside this one (trainer=ddp) take part in this very run.
    sys.argv[1:] = [f"resume={run_dir}"]
    try:
        summary = train(config, resume)
    except Interrupted:
        out.print(f"Go on with: python -m zoo.train resume={shlex.quote(str(run_dir))}")
        raise
    columns = {summary["model"]: _rows(summary)}
    if "rival" in summary:
        columns[_rival_name(summary["model"], config)] = _rows(summary["rival"])
    cli.print_metrics(out, f"{config.config}: test", columns)
    cli.print_paths(out, "pictures", figure_paths(run_dir))
    out.print(f"run folder: {run_dir}")
    return summary


def _rival_name(model: str, config: DictConfig) -> str:
    """The rival's name, and where it is the same model the arguments in which it differs."""
    if config.rival.name != model:
        return str(config.rival.name)
    return " ".join([model, *(f"{k}={v}" for k, v in config.rival.items() if config.model.get(k) != v)])


def _rows(summary: dict[str, Any]) -> dict[str, Any]:
    keys = ("parameters", "epochs", "wall_time_s")
    return {**summary["metrics"], **{key: summary[key] for key in keys}}


if __name__ == "__main__":
    cli.run(main, USAGE)
