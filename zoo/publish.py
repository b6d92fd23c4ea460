"""``python -m zoo.publish``: make the weights of a finished run a pretrained entry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from zoo import cli, weights
from zoo.config import compose_run, plain
from zoo.download import cache_dir, sha256
from zoo.engine.run_folder import RunFolder
from zoo.errors import ConfigError, WeightsError
from zoo.files import atomic_path, write_text
from zoo.registry import is_registry_name

USAGE = """\
usage: python -m zoo.publish run=RUN_FOLDER name=FAMILY/NAME licence=LICENCE description="..." [into=FOLDER] [half=true]

  run=runs/...               a finished run
  name=kat/mine              what zoo.load_pretrained will take
  licence=Apache-2.0         of the weights
  description="..."          one sentence
  into=FOLDER                where to write (default: published/ in the cache folder, from which zoo reads too)
  half=true                  16-bit numbers: a file of half the size, for the same model
"""


def main(argv: list[str]) -> None:
    """Publishes what the command line names."""
    arguments, rest = cli.split_arguments(argv, ("run", "name", "licence", "description", "into", "half"))
    if rest:
        raise ConfigError(f"'{rest[0]}' is no argument of publish.\n{USAGE}")
    half = arguments.get("half", "false")
    if half not in ("true", "false"):
        raise ConfigError(f"half is true or false, not {half}.")
    files = publish(
        Path(cli.require(arguments, "run", "runs/kat/digits/...")),
        cli.require(arguments, "name", "kat/mine"),
        cli.require(arguments, "licence", "Apache-2.0"),
        cli.require(arguments, "description", '"Tiny KAT on digits."'),
        Path(arguments["into"]) if "into" in arguments else cache_dir() / "published",
        half == "true",
    )
    cli.print_paths(cli.console(), "written", files)


def publish(run_dir: Path, name: str, licence: str, description: str, into: Path, half: bool = False) -> list[Path]:
    """Writes ``<into>/<name>.safetensors``, its manifest entry ``.yaml`` and its card ``.md``.

    Args:
        run_dir: a finished run.
        name: the new entry's name, ``"family/name"``.
        licence: licence of the weights.
        description: one sentence.
        into: a manifest folder (see `zoo.pretrained.manifest_folders`).
        half: stores floating-point tensors in 16 bits; they are read into the model's own precision.

    Returns:
        The three files.

    Raises:
        ConfigError: the run is not finished, or the name is no registry name.
        WeightsError: the run's weights are damaged or hold NaN.
    """
    if not is_registry_name(name):
        raise ConfigError(f"'{name}' is no registry name: use 'family/name' in lower-case kebab-case.")
    run = RunFolder(run_dir)
    summary = run.read_summary()
    tensors, metadata = weights.read(run.weights)
    broken = [key for key, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise WeightsError(f"{run.weights} holds NaN or infinity in {', '.join(broken[:3])}: the training diverged.")

    target = into.joinpath(*name.split("/"))
    files = [target.with_name(target.name + suffix) for suffix in (".safetensors", ".yaml", ".md")]
    with atomic_path(files[0]) as path:
        if half:
            _save_half(tensors, metadata, path)
        else:
            shutil.copyfile(run.weights, path)
    entry: dict[str, Any] = {
        "name": name,
        "description": description,
        "model": metadata["model"],
        "arguments": json.loads(metadata["arguments"]),
        "file": files[0].name,
        "sha256": sha256(files[0]),
        "size": files[0].stat().st_size,
        "licence": licence,
        "config": summary["config"],
        "seed": summary["seed"],
        "metrics": summary["metrics"],
    }
    write_text(files[2], _card(entry, summary, plain(compose_run(run_dir))))
    write_text(files[1], yaml.safe_dump(entry, sort_keys=False, allow_unicode=True))
    return files


def _save_half(tensors: dict[str, Any], metadata: dict[str, str], path: Path) -> None:
    from safetensors.torch import save_file

    small = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    overflown = [name for name, tensor in small.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if overflown:
        raise WeightsError(f"{overflown[0]} holds numbers beyond 16 bits: publish without half=true.")
    save_file(small, path, metadata)


def _card(entry: dict[str, Any], summary: dict[str, Any], config: dict[str, Any]) -> str:
    environment = summary["environment"]
    metrics = "\n".join(f"| {name} | {value:.6g} |" for name, value in entry["metrics"].items())
    return f"""\
# {entry["name"]}

{entry["description"]}

- model: `{entry["model"]}`, {summary["parameters"]:,} parameters
- licence: {entry["licence"]}
- trained with `python -m zoo.train config={entry["config"]} seed={entry["seed"]}` in {summary["wall_time_s"]} s
  on {environment["processor"]} ({environment["threads"]} threads), torch {environment["torch"]}
- git revision: {summary["git_revision"]}
- load: `zoo.load_pretrained("{entry["name"]}")`

| metric | value |
|---|---|
{metrics}

The config it was trained with:

```yaml
{yaml.safe_dump({key: config[key] for key in ("seed", "model", "data", "trainer")}, sort_keys=False).rstrip()}
```
"""


if __name__ == "__main__":
    cli.run(main, USAGE)
