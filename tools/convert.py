"""``python -m tools.convert``: turn an official checkpoint into a weights file of ours."""

from __future__ import annotations

from pathlib import Path

from zoo import cli, weights
from zoo.predict import parse_options
from zoo.pretrained import read_official
from zoo.registry import get_class
from zoo.signature import check_arguments

USAGE = """\
usage: python -m tools.convert model=NAME input=CHECKPOINT output=FILE.safetensors [argument=value ...]

  model=kat/kat              registry name; python -m zoo.models show NAME lists its arguments
  input=kat_tiny.pth         the authors' checkpoint (plain tensors; a pickle with code is refused)
  size=tiny ...              arguments of the model that is to hold it
"""


def main(argv: list[str]) -> None:
    """Converts what the command line names."""
    arguments, rest = cli.split_arguments(argv, ("model", "input", "output"))
    cli.reject_flags(rest, ("model=", "input=", "output="))
    name = cli.require(arguments, "model", "kat/kat")
    source = Path(cli.require(arguments, "input", "kat_tiny.pth"))
    target = Path(cli.require(arguments, "output", "kat_tiny.safetensors"))
    cls = get_class("model", name)
    module = cls(**check_arguments(cls, parse_options(rest), where=name))
    tensors = module.adapt_weights(read_official(name, source))
    weights.load_into(module.network, tensors, source=str(source))
    weights.save(module, target)
    cli.console().print(f"written: {target}")


if __name__ == "__main__":
    cli.run(main, USAGE)
