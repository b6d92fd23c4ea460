"""``python -m tools.export``: a trained network as a torch.export program, which runs without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zoo import cli
from zoo.config import compose, compose_run, resolve
from zoo.engine.components import build_trainer
from zoo.engine.run_folder import RunFolder
from zoo.errors import ConfigError
from zoo.files import atomic_path
from zoo.module import ZooModule
from zoo.pretrained import get_entry, load_module
from zoo.registry import create_data

USAGE = """\
usage: python -m tools.export weights=NAME output=FILE.pt2 [data.key=value ...]
       python -m tools.export run=RUN_FOLDER output=FILE.pt2 [data.key=value ...]

  weights=kat/digits     a pretrained name, a weights file or a run folder
  output=model.pt2       torch.export.load("model.pt2").module()(...) runs it, for inputs of the shapes that the
                         config's test data have
"""

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def main(argv: list[str]) -> None:
    """Exports what the command line asks for."""
    arguments, overrides = cli.split_arguments(argv, ("weights", "run", "output"))
    cli.reject_flags(overrides, ("weights=", "run=", "output="))
    output = Path(cli.require(arguments, "output", "model.pt2"))
    if output.suffix != ".pt2":
        raise ConfigError(f"The output {output} should end in .pt2.")
    if "run" in arguments:
        source = arguments["run"]
        config = compose_run(Path(source), overrides)
    else:
        source = cli.require(arguments, "weights", "kat/digits")
        name = get_entry(source).config
        if name is None:
            raise ConfigError(f"{source} does not say which config it belongs to: give run= of a training.")
        config = compose(name, overrides)
    checked = resolve(config)
    data = create_data(checked.data.name, **checked.data.arguments)
    difference = export(load_module(source), data, output)
    cli.console().print(f"{output}: outputs differ by {difference:.1e} of the largest value from the network's own")


def export(module: ZooModule, data: pl.LightningDataModule, output: Path) -> float:
    """Exports ``module.network`` for inputs as it gets them in a test on `data`.

    Args:
        module: the trained module.
        data: whose first test batch gives the inputs.
        output: the file.

    Returns:
        The largest difference between the program's and the network's outputs, relative to the largest output.

    Raises:
        ConfigError: the test does not call the network, or the network can't be exported.
    """
    inputs, keywords = network_inputs(module, data)
    network = module.network.eval()
    try:
        with torch.no_grad():
            program = torch.export.export(network, inputs, keywords, strict=False)
    except Exception as error:  # whatever stands in the way: data-dependent control flow, an op without a meta kernel
        raise ConfigError(f"{module.zoo_name} can't be exported ({type(error).__name__}: {error}).") from error
    with atomic_path(output) as temporary:
        torch.export.save(program, temporary)
    with torch.no_grad():
        expected = _tensors(network(*inputs, **keywords))
        found = _tensors(torch.export.load(output).module()(*inputs, **keywords))
    largest = max(float(e.abs().max()) for e in expected)
    return max(float((e - f).abs().max()) for e, f in zip(expected, found, strict=True)) / (largest or 1.0)


class _Captured(Exception):
    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs


def network_inputs(module: ZooModule, data: pl.LightningDataModule) -> Inputs:
    """Positional and keyword arguments of the network's first call in a test.

    Raises:
        ConfigError: the network is not called.
    """

    def capture(network: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
        raise _Captured((args, kwargs))

    handle = module.network.register_forward_pre_hook(capture, with_kwargs=True)
    one_batch = {"accelerator": "cpu", "devices": 1, "limit_test_batches": 1}
    trainer = build_trainer(one_batch, {"progress_bar": None}, {}, RunFolder(Path()))
    try:
        trainer.test(module, datamodule=data, verbose=False)
    except _Captured as captured:
        return captured.inputs
    finally:
        handle.remove()
    raise ConfigError(f"In a test {module.zoo_name} does not call its network as a whole: there is nothing to export.")


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


if __name__ == "__main__":
    cli.run(main, USAGE)
