"""Names -> models and data modules.

A LightningModule class carries ``@register_model("family/model")`` and stands in
``zoo/<family>/<model>/module.py``; a LightningDataModule class carries ``@register_data("family/source")``
and stands in a file under ``zoo/data/``. The decorators are found by reading those files as text, so that
listing the names imports nothing, and looking one up imports that one module only.

A package outside this one adds its own by naming its modules in the entry-point group ``zoo.plugins``
(any key; the value is the dotted module), or simply by being imported first.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from zoo.errors import UnknownNameError, WeightsError, did_you_mean
from zoo.signature import check_choices, check_names

if TYPE_CHECKING:
    import pytorch_lightning as pl
    import torch

    from zoo.module import ZooModule

Kind = Literal["model", "data"]
C = TypeVar("C", bound=type)

PLUGIN_GROUP = "zoo.plugins"

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*(/[a-z0-9]+(-[a-z0-9]+)*)+")
_DECORATOR = re.compile(r'^@register_(model|data)\("([^"]+)"\)', re.MULTILINE)
_CLASSES: dict[Kind, dict[str, type]] = {"model": {}, "data": {}}


def register_model(name: str) -> Callable[[C], C]:
    """Class decorator that gives a LightningModule its name, ``"family/model"`` in kebab-case."""
    return _register("model", name)


def register_data(name: str) -> Callable[[C], C]:
    """Class decorator that gives a LightningDataModule its name, ``"family/source"`` in kebab-case."""
    return _register("data", name)


def is_registry_name(name: str) -> bool:
    """Whether a string has the form of a registry name, ``"family/name"`` in lower-case kebab-case."""
    return _NAME.fullmatch(name) is not None


def _register(kind: Kind, name: str) -> Callable[[C], C]:
    if not is_registry_name(name):
        raise ValueError(f"'{name}' is no registry name: use 'family/name' in lower-case kebab-case")

    def decorate(cls: C) -> C:
        other = _CLASSES[kind].get(name)
        if other is not None and other.__qualname__ != cls.__qualname__:
            raise ValueError(f"{kind} '{name}' is registered twice: {other.__qualname__} and {cls.__qualname__}")
        cls.zoo_name = name  # type: ignore[attr-defined]
        _CLASSES[kind][name] = cls
        return cls

    return decorate


@cache
def _index() -> dict[Kind, dict[str, str]]:
    """Registered name -> dotted module, for everything shipped in this package."""
    root = Path(__file__).resolve().parent
    index: dict[Kind, dict[str, str]] = {"model": {}, "data": {}}
    for file in sorted([*root.glob("*/*/module.py"), *root.glob("data/*.py")]):
        module = ".".join(("zoo", *file.relative_to(root).with_suffix("").parts))
        for kind, name in _DECORATOR.findall(file.read_text(encoding="utf-8")):
            if name in index[kind]:
                raise ValueError(f"{kind} '{name}' is registered in {index[kind][name]} and in {module}")
            index[kind][name] = module
    return index


@cache
def _load_plugins() -> None:
    for entry in metadata.entry_points(group=PLUGIN_GROUP):
        importlib.import_module(entry.value)


def _names(kind: Kind) -> list[str]:
    _load_plugins()
    return sorted({*_index()[kind], *_CLASSES[kind]})


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registered models that match a glob, sorted: ``list_models("mri/*")``."""
    return [name for name in _names("model") if fnmatchcase(name, pattern)]


def list_data(pattern: str = "*") -> list[str]:
    """Names of the registered data modules that match a glob, sorted."""
    return [name for name in _names("data") if fnmatchcase(name, pattern)]


def get_class(kind: Kind, name: str) -> type:
    """The class behind a registered name; imports only the module that defines it.

    Raises:
        UnknownNameError: the name is not registered; the message lists near matches.
    """
    if name not in _CLASSES[kind]:
        module = _index()[kind].get(name)
        if module is not None:
            importlib.import_module(module)
        else:
            _load_plugins()
    try:
        return _CLASSES[kind][name]
    except KeyError:
        what = "model" if kind == "model" else "data module"
        raise UnknownNameError(f"There is no {what} '{name}'. {did_you_mean(name, _names(kind))}") from None


def module_file(kind: Kind, name: str) -> Path:
    """The source file that defines a registered name, without importing it where that can be avoided."""
    module = _index()[kind].get(name)
    if module is not None:
        return Path(__file__).resolve().parent.parent.joinpath(*module.split(".")).with_suffix(".py")
    return Path(inspect.getfile(get_class(kind, name)))


def create_model(name: str, **arguments: Any) -> ZooModule:
    """Builds a registered model with fresh weights.

    Args:
        name: registry name, for example ``"kat/kat"``.
        arguments: constructor arguments of that LightningModule (``python -m zoo.models show NAME`` lists
            them). The result's ``.network`` is the plain torch network.

    Raises:
        UnknownNameError: no such model.
        ConfigError: an argument the constructor does not have, one it needs and did not get, or a value that is
            none of the choices.
    """
    return _create("model", name, arguments)


def create_data(name: str, **arguments: Any) -> pl.LightningDataModule:
    """Builds a registered data module; arguments and errors as in `create_model`."""
    return _create("data", name, arguments)


def _create(kind: Kind, name: str, arguments: dict[str, Any]) -> Any:
    cls = get_class(kind, name)
    check_names(cls, arguments, where=name)
    check_choices(cls, arguments, where=name)
    return cls(**arguments)


def convert_official(name: str, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Maps an official checkpoint to the state dict of ``create_model(name, ...).network``.

    Args:
        name: registry name of the model.
        state_dict: what the authors' file holds (a wrapper such as ``{"state_dict": ...}`` is looked into
            where the authors used one): a mapping, unless the model's ``convert.py`` names other
            ``CHECKPOINT_TYPES``.

    Raises:
        UnknownNameError: no such model, or no official checkpoints of it are known.
        WeightsError: keys are missing or unknown; the message names them. Or it is no mapping at all.
    """
    converter = _converter(name)
    if not isinstance(state_dict, getattr(converter, "CHECKPOINT_TYPES", Mapping)):
        raise WeightsError(f"A checkpoint should be a mapping of names to tensors, not a {type(state_dict).__name__}.")
    converted: dict[str, torch.Tensor] = converter.convert_official(state_dict)
    return converted


def read_official_folder(name: str, folder: Path) -> dict[str, torch.Tensor]:
    """Maps an official checkpoint that is a folder of several files, as `convert_official` does one that is a file.

    Raises:
        UnknownNameError: no such model, or its official checkpoints are no folders.
        ZooError: files are missing or damaged.
    """
    module = _converter(name)
    if not hasattr(module, "read_folder"):
        raise UnknownNameError(f"The official checkpoints of '{name}' are files; {folder} is a folder.")
    return convert_official(name, module.read_folder(folder))


def _converter(name: str) -> Any:
    room = get_class("model", name).__module__.rpartition(".")[0]
    try:
        return importlib.import_module(f"{room}.convert")
    except ModuleNotFoundError as error:
        if error.name != f"{room}.convert":
            raise
        raise UnknownNameError(f"'{name}' has no official checkpoints to convert: nothing was published.") from None
