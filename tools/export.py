"""``python -m tools.export``: a trained network as a torch.export program, which runs without this package."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
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
                         config's test data have; where the network allows, for batches of any size.
                         Operators take fields and give the states that follow, in the fields' own units
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
    exported = export(load_module(source), data, output)
    batches = "any size" if exported.batch_size is None else f"{exported.batch_size}"
    cli.console().print(
        f"{output}: for batches of {batches}; outputs differ from the network's own by "
        f"{exported.difference:.1e} of the largest value"
    )


@dataclass(frozen=True)
class Exported:
    """What became of a network.

    Attributes:
        difference: largest between the program's and the network's outputs, relative to the largest output.
        batch_size: the only one that the program takes; None if it takes any.
    """

    difference: float
    batch_size: int | None


def export(module: ZooModule, data: pl.LightningDataModule, output: Path) -> Exported:
    """Exports ``module.exportable()``, mostly the network, for inputs as it gets them in a test on `data`.

    Args:
        module: the trained module.
        data: whose first test batch gives the inputs.
        output: the file.

    Raises:
        ConfigError: the test does not call it, or it can't be exported.
    """
    captured = inputs_of(module, data)
    batch = next(leaf.shape[0] for leaf in pytree.tree_leaves(captured) if isinstance(leaf, Tensor))

    def longer(value: Any) -> Any:
        """The batch with its first example once more; by then it is no tensor of inference mode, either."""
        batched = isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == batch
        return torch.cat([value, value[:1]]) if batched else value

    inputs, keywords = pytree.tree_map(longer, captured)
    network = _PlainOutput(module.exportable()).eval()
    free = {"inputs": _free(inputs, batch + 1)}
    if keywords:
        free["keywords"] = _free(keywords, batch + 1)
    try:
        with torch.no_grad():
            program = torch.export.export(network, inputs, keywords, dynamic_shapes=free, strict=False)
    except Exception as error:  # whatever stands in the way: data-dependent control flow, an op without a meta kernel
        raise ConfigError(f"{module.zoo_name} can't be exported ({type(error).__name__}: {error}).") from error
    with atomic_path(output) as temporary:
        torch.export.save(program, temporary)
    with torch.no_grad():
        run = torch.export.load(output).module()
        expected, found = _tensors(network(*inputs, **keywords)), _tensors(run(*inputs, **keywords))
        try:
            run(*captured[0], **captured[1])
            only = None
        except (AssertionError, RuntimeError):  # what torch raises for a shape that the program was not made for
            only = batch + 1
    largest = max(float(e.abs().max()) for e in expected)
    difference = max(float((e - f).abs().max()) for e, f in zip(expected, found, strict=True)) / (largest or 1.0)
    return Exported(difference, only)


class _PlainOutput(nn.Module):
    """A network whose named tuples and dataclasses, which only this package knows, become dictionaries."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        output = self.network(*inputs, **keywords)
        if is_dataclass(output):
            return {field.name: getattr(output, field.name) for field in fields(output)}
        return output._asdict() if hasattr(output, "_asdict") else output


def _free(value: Any, batch: int) -> Any:
    """Which sizes of an argument may vary: the first, where it is that of the batch."""

    def of_leaf(leaf: Any) -> Any:
        batched = isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == batch
        return {0: torch.export.Dim.AUTO} if batched else None

    return pytree.tree_map(of_leaf, value)


class _Captured(Exception):
    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs


def inputs_of(module: ZooModule, data: pl.LightningDataModule) -> Inputs:
    """Positional and keyword arguments, in a test, of the first call of what is exported.

    Raises:
        ConfigError: it is not called.
    """

    def capture(network: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
        raise _Captured((args, kwargs))

    handle = module.exportable().register_forward_pre_hook(capture, with_kwargs=True)
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
