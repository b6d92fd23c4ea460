"""Composing a config with Hydra and checking it before any work is done.

A config is a file under ``configs/`` (``config=kat/digits``) or anywhere else (``config=./mine.yaml``).
Its top-level keys are those of `RunConfig`. ``model``, ``data`` and ``rival`` name a registry entry; their
other keys are constructor arguments of that class and may be given on the command line whether or not the
file mentions them. ``trainer`` holds the arguments of Lightning's Trainer, ``callbacks`` and ``logger`` one
entry per component (see `zoo.engine.components`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import assets
from zoo.errors import ConfigError, UnknownNameError, did_you_mean
from zoo.files import write_text
from zoo.launch import run_id
from zoo.registry import Kind, get_class
from zoo.signature import check_arguments

if TYPE_CHECKING:
    from omegaconf import DictConfig

# What Hydra raises besides its own exceptions when it is given a value of a kind it did not expect.
UNREADABLE = (ValueError, TypeError, AttributeError, AssertionError)
GROUPS = ("trainer", "callbacks", "logger")
_SHARED_FILES = ("base", *GROUPS)
RUN_CONFIG = "config.yaml"


@dataclass(frozen=True)
class Entry:
    """A registry entry and its checked constructor arguments."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class RunConfig:
    """A resolved and checked config.

    Attributes:
        config: name of the config, for example ``"kat/digits"``.
        seed: seeds everything.
        model: the LightningModule.
        data: the LightningDataModule.
        trainer: arguments of ``pytorch_lightning.Trainer``.
        callbacks: component name -> arguments, or None for a component switched off.
        logger: likewise.
        run_dir: the run folder.
        rival: model trained after `model` on the same data with the same trainer, for comparison.
        weights: initial weights: a pretrained name, a weights file or a run folder.
    """

    config: str
    seed: int
    model: Entry
    data: Entry
    trainer: dict[str, Any]
    callbacks: dict[str, dict[str, Any] | None]
    logger: dict[str, dict[str, Any] | None]
    run_dir: Path
    rival: Entry | None = None
    weights: str | None = None


TOP_KEYS = tuple(f.name for f in fields(RunConfig))


def list_configs() -> list[str]:
    """Names of the shipped configs, as ``config=`` takes them."""
    root = assets.path("configs")
    names = (file.relative_to(root).with_suffix("").as_posix() for file in root.rglob("*.yaml"))
    return sorted(name for name in names if name.split("/")[0] not in _SHARED_FILES)


def locate(name: str) -> tuple[Path, str]:
    """Folder and name within it of the config that ``config=name`` means.

    Raises:
        UnknownNameError: no shipped config and no file of that name.
    """
    if name.endswith((".yaml", ".yml")):
        file = Path(name).resolve()
        if not file.is_file():
            raise UnknownNameError(f"There is no config file {name}.")
        return file.parent, file.name
    if name not in list_configs():
        raise UnknownNameError(f"There is no config '{name}'. {did_you_mean(name, list_configs())}")
    return assets.path("configs"), name


def hydra_override(override: str) -> str:
    """Turns ``key=value`` as a person writes it into Hydra's grammar.

    A dotted key may be one that the file leaves at its default, so it becomes ``++key`` (set or add); whether
    the class takes it is checked later against its signature. Group choices (``trainer=ddp``), ``hydra.*``
    and anything with one of Hydra's own prefixes stay as they are.

    Raises:
        ConfigError: a top-level key that no config has.
    """
    if override.startswith(("+", "~", "-", "hydra.", "hydra/")) or "=" not in override:
        return override
    key = override.split("=", 1)[0]
    head = key.split(".", 1)[0]
    if head not in TOP_KEYS:
        raise ConfigError(f"There is no key '{head}' in a config. {did_you_mean(head, TOP_KEYS)}")
    return override if head == key and key in GROUPS else f"++{override}"


def compose(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The composed, unresolved config ``config=name`` with ``key=value`` overrides.

    Raises:
        UnknownNameError: no such config.
        ConfigError: an override that Hydra can't apply.
    """
    folder, file = locate(name)
    return _compose(folder, file, [*map(hydra_override, overrides), f"++config={_plain_name(name)}"])


def compose_weights(name: str, model: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The config that weights were trained with; where they are its rival's, with the rival as its model.

    Args:
        name: the config.
        model: of the weights.
        overrides: ``key=value``.

    Raises:
        UnknownNameError: no such config.
        ConfigError: an override that Hydra can't apply.
    """
    config = compose(name, overrides)
    rival = config.get("rival")
    if rival is not None and config.model.name != model == rival.name:
        config.model, config.rival = rival, None
    return config


def compose_run(run_dir: Path, overrides: Sequence[str] = ()) -> DictConfig:
    """The config that a run folder was made with, with further overrides.

    Raises:
        ConfigError: the folder holds no run, or an override that Hydra can't apply.
    """
    if not (run_dir / RUN_CONFIG).is_file():
        raise ConfigError(f"{run_dir} is no run folder: it has no {RUN_CONFIG}. Give the path that training printed.")
    # The saved file has no defaults list, so choosing a group there means appending it.
    rewritten = [f"+{o}" if o.split("=", 1)[0] in GROUPS else o for o in map(hydra_override, overrides)]
    return _compose(run_dir.resolve(), RUN_CONFIG, [f"++run_dir='{run_dir}'", *rewritten])


def _compose(folder: Path, name: str, overrides: list[str]) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    register_resolvers()
    search = f"hydra.searchpath=['file://{assets.path('configs')}']"
    try:
        with readable_errors(), initialize_config_dir(str(folder), version_base="1.3"):
            return hydra_compose(name, overrides=[search, *overrides])
    except UNREADABLE as error:
        raise ConfigError(f"The config can't be composed: {error}") from error


def register_resolvers() -> None:
    """Teaches OmegaConf ``${run_id:}``, see `zoo.launch.run_id`."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("run_id", run_id, replace=True, use_cache=True)


def _plain_name(name: str) -> str:
    """``./my/net.yaml`` -> ``net``: what run folders are called after."""
    return Path(name).stem if name.endswith((".yaml", ".yml")) else name


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turns the exceptions of Hydra, OmegaConf and YAML into a `ConfigError` of one message."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        message = str(error).split("\nConfig search path")[0].split("\n    full_key")[0]
        raise ConfigError(message.strip()) from error
    except YAMLError as error:
        raise ConfigError(f"The config is no valid YAML: {error}") from error


def resolve(config: DictConfig) -> RunConfig:
    """Resolves interpolations and checks every key and type against the classes that will take them.

    Raises:
        ConfigError: a missing value, a bad interpolation, an unknown key, or a value of the wrong type.
        UnknownNameError: a model, data module, callback or logger that does not exist.
    """
    from zoo.engine.components import check_components, check_trainer

    tree = plain(config)
    for key in tree:
        if key not in TOP_KEYS:
            raise ConfigError(f"There is no key '{key}' in a config. {did_you_mean(key, TOP_KEYS)}")
    for key in ("config", "seed", "model", "data", "run_dir"):
        if tree.get(key) is None:
            raise ConfigError(f"The config says nothing about '{key}'.")
    if not isinstance(tree["seed"], int) or isinstance(tree["seed"], bool) or not 0 <= tree["seed"] < 2**32:
        raise ConfigError(f"seed should be an int from 0 to 2**32 - 1, not {tree['seed']!r}.")
    rival = tree.get("rival")
    return RunConfig(
        config=str(tree["config"]),
        seed=tree["seed"],
        model=_entry("model", "model", tree["model"]),
        data=_entry("data", "data", tree["data"]),
        trainer=check_trainer(_mapping("trainer", tree.get("trainer"))),
        callbacks=check_components("callbacks", _mapping("callbacks", tree.get("callbacks"))),
        logger=check_components("logger", _mapping("logger", tree.get("logger"))),
        run_dir=Path(str(tree["run_dir"])),
        rival=None if rival is None else _entry("model", "rival", rival),
        weights=None if tree.get("weights") is None else str(tree["weights"]),
    )


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as plain dictionaries with every interpolation resolved.

    Raises:
        ConfigError: naming the key whose value is missing or whose interpolation can't be resolved.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        tree = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(
            f"'{error.full_key}' has no value. Give it on the command line: {error.full_key}=..."
        ) from None
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"'{error.full_key}' can't be resolved: {reason}.") from None
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{key} should be a mapping of keys to values, not {value!r}.")
    return value


def _entry(kind: Kind, key: str, value: Any) -> Entry:
    arguments = dict(_mapping(key, value))
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{key}.name should be the name of a registered {kind}, not {name!r}.")
    return Entry(name, check_arguments(get_class(kind, name), arguments, where=key))


def save(config: DictConfig, run_dir: Path) -> None:
    """Writes the resolved config to the run folder, from which `compose_run` takes it up again."""
    import yaml

    write_text(run_dir / RUN_CONFIG, yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True))
