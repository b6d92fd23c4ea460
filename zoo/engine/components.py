"""The parts of a trainer that a config names: callbacks, loggers, and the Trainer's own arguments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from zoo.engine import callbacks as own_callbacks
from zoo.engine import loggers as own_loggers
from zoo.engine.checkpoint_io import AtomicCheckpointIO
from zoo.engine.run_folder import RunFolder
from zoo.errors import ConfigError, UnknownNameError, did_you_mean
from zoo.signature import check_arguments, parameters

Group = Literal["callbacks", "logger"]

# These are made from the other sections of a config.
_TAKEN = {"callbacks": "the callbacks: section", "logger": "the logger: section", "default_root_dir": "run_dir"}


def component_classes(group: Group) -> dict[str, type]:
    """Config key -> class.

    Callbacks are called by their class name in snake_case, loggers by theirs without "Logger": ours first,
    then Lightning's.
    """
    classes: dict[str, type] = {}
    modules = (pl.callbacks, own_callbacks) if group == "callbacks" else (pl.loggers, own_loggers)
    for module in modules:
        for name in module.__all__:
            key = _snake_case(name) if group == "callbacks" else name.removesuffix("Logger").lower()
            if key:
                classes[key] = getattr(module, name)
    return classes


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def check_components(group: Group, section: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
    """Checks a ``callbacks`` or ``logger`` section: names against the classes, arguments against signatures.

    Raises:
        UnknownNameError: no such callback or logger.
        ConfigError: an unknown argument or a wrong type.
    """
    classes = component_classes(group)
    checked: dict[str, dict[str, Any] | None] = {}
    for key, arguments in section.items():
        if key not in classes:
            raise UnknownNameError(f"{group} has no '{key}'. {did_you_mean(key, classes)}")
        if arguments is not None and not isinstance(arguments, dict):
            raise ConfigError(f"{group}.{key} should be a mapping of arguments or null, not {arguments!r}.")
        if arguments is not None:
            complete = {**_places(classes[key], RunFolder(Path())), **arguments}
            complete = check_arguments(classes[key], complete, f"{group}.{key}")
            arguments = {name: complete[name] for name in arguments}
        checked[key] = arguments
    return checked


def _places(component: type, run: RunFolder) -> dict[str, str]:
    """The arguments that say where a component writes: in the run folder, unless the config says otherwise."""
    places = {"dirpath": str(run.checkpoints), "save_dir": str(run.path)}
    return {name: place for name, place in places.items() if name in parameters(component)}


def check_trainer(section: dict[str, Any]) -> dict[str, Any]:
    """Checks a ``trainer`` section against the signature of Lightning's Trainer.

    Raises:
        ConfigError: an unknown argument, a wrong type, or one that another section decides.
    """
    for key in section:
        if key in _TAKEN:
            raise ConfigError(f"trainer.{key} is decided by {_TAKEN[key]} of the config.")
    return check_arguments(pl.Trainer, section, "trainer")


def build(group: Group, section: dict[str, dict[str, Any] | None], run: RunFolder) -> list[Any]:
    """The callbacks or loggers of a checked section; what they write goes to the run folder.

    Raises:
        ConfigError: a logger's package is not installed.
    """
    classes = component_classes(group)
    built = []
    for key, arguments in section.items():
        if arguments is None:
            continue
        try:
            built.append(classes[key](**{**_places(classes[key], run), **arguments}))
        except ModuleNotFoundError as error:
            raise ConfigError(f"{group}.{key} needs a package that is not installed: {error}") from None
        except MisconfigurationException as error:
            raise ConfigError(f"{group}.{key}: {error}") from None
    return built


def build_trainer(
    trainer: dict[str, Any],
    callbacks: dict[str, dict[str, Any] | None],
    logger: dict[str, dict[str, Any] | None],
    run: RunFolder,
) -> pl.Trainer:
    """The Trainer of a checked config.

    Raises:
        ConfigError: a combination that Lightning refuses, such as a GPU on a machine without one.
    """
    built, loggers = build("callbacks", callbacks, run), build("logger", logger, run)
    defaults = {
        "use_distributed_sampler": False,  # zoo.data.loading deals each process its share
        "plugins": [AtomicCheckpointIO()],
        # What the callbacks section leaves out, Lightning would put back.
        "enable_progress_bar": any(isinstance(callback, pl.callbacks.ProgressBar) for callback in built),
        "enable_model_summary": any(isinstance(callback, pl.callbacks.ModelSummary) for callback in built),
        "enable_checkpointing": any(isinstance(callback, pl.callbacks.Checkpoint) for callback in built),
    }
    try:
        return pl.Trainer(
            **{**defaults, **trainer},
            callbacks=built,
            logger=loggers or False,
            default_root_dir=str(run.path),
        )
    except (MisconfigurationException, ValueError, TypeError, ModuleNotFoundError) as error:
        raise ConfigError(f"Lightning's Trainer refuses this trainer section: {error}") from error
