"""``python -m zoo.predict``: run pretrained weights on a file."""

from __future__ import annotations

from typing import Any

from zoo import cli
from zoo.errors import ConfigError
from zoo.signature import check_arguments

USAGE = """\
usage: python -m zoo.predict weights=NAME input=FILE output=FILE [key=value ...]

  weights=kat/digits         a pretrained name (python -m zoo lists them), a weights file or a run folder
  input=, output=            files; python -m zoo.models show NAME says which formats a model takes and writes
  key=value                  further arguments of that model's predict_file
"""


def main(argv: list[str]) -> None:
    """Predicts what the command line asks for."""
    arguments, rest = cli.split_arguments(argv, ("weights",))
    cli.reject_flags(rest, ("weights=", "input=", "output="))
    source = cli.require(arguments, "weights", "kat/digits")
    options = parse_options(rest)

    from zoo.pretrained import load_module

    module = load_module(source)
    predict_file = getattr(module, "predict_file", None)
    if predict_file is None:
        raise ConfigError(f"{module.zoo_name} does not predict from files.")
    facts: dict[str, Any] = predict_file(**check_arguments(predict_file, options, where="predict"))
    out = cli.console()
    for key, value in facts.items():
        out.print(f"{key}: {value}")


def parse_options(overrides: list[str]) -> dict[str, Any]:
    """``key=value`` with YAML values, as in a config."""
    from omegaconf import OmegaConf

    from zoo.config import readable_errors

    with readable_errors():
        content = OmegaConf.to_container(OmegaConf.from_dotlist(overrides), resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


if __name__ == "__main__":
    cli.run(main, USAGE)
