"""Checks arguments against the signature of the class that will take them, before any work is done."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from zoo.errors import ConfigError, did_you_mean


def parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The named parameters of a class's constructor or of a function, without ``self``, ``*args``, ``**kwargs``."""
    function = target.__init__ if inspect.isclass(target) else target
    found = inspect.signature(function).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name: p for p in found if p.name != "self" and p.kind not in variadic}


def type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Evaluated annotations of those parameters; one that can't be evaluated is left out."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):
        return {}


def describe(hint: Any) -> str:
    """A type the way a person writes it: ``float``, ``'tiny' | 'small'``, ``int | None``."""
    if hint is type(None):
        return "null"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " | ".join(repr(a) for a in arguments)
    if origin is typing.Union or type(hint).__name__ == "UnionType":
        return " | ".join(describe(a) for a in arguments)
    if origin is not None and arguments:
        inner = ", ".join("..." if a is Ellipsis else describe(a) for a in arguments)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return getattr(hint, "__name__", str(hint))


def check_names(target: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> None:
    """Raises `ConfigError` for an argument that `target` does not have, or one it needs and did not get.

    Args:
        target: the class or function that will be called with `arguments`.
        arguments: keyword arguments.
        where: what the message calls the place, such as ``"model"`` or ``"kat/kat"``.
    """
    known = parameters(target)
    function = target.__init__ if inspect.isclass(target) else target
    open_ended = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())
    for name in arguments:
        if name not in known and not open_ended:
            raise ConfigError(f"{where} has no argument '{name}'. {did_you_mean(name, known)}")
    hints = type_hints(target)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in arguments:
            expected = f" ({describe(hints[name])})" if name in hints else ""
            raise ConfigError(f"{where} needs a value for '{name}'{expected}: give {where}.{name}=...")


def check_choices(target: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> None:
    """Raises `ConfigError` for a value that is none of those its parameter's ``Literal`` lists.

    For arguments given in Python, of which any type may be right that `target` makes something of: a number of NumPy,
    a list for a tuple. The closed choices alone can be told from outside.

    Args:
        target: the class or function that will be called with `arguments`.
        arguments: keyword arguments.
        where: what the message calls the place, such as ``"kat/kat"``.
    """
    hints = type_hints(target)
    for name, value in arguments.items():
        if name in hints and not _is_choice(hints[name], value):
            raise ConfigError(f"{where}.{name} should be {describe(hints[name])}, not {value!r}.")


def _is_choice(hint: Any, value: Any) -> bool:
    """Whether no ``Literal`` within a type forbids a value."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return isinstance(value, tuple({type(choice) for choice in arguments})) and value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(_is_choice(argument, value) for argument in arguments)
    if (origin is list or arguments[1:] == (...,)) and isinstance(value, tuple | list):
        return all(_is_choice(arguments[0], element) for element in value)
    return hint is not types.NoneType or value is None


def check_arguments(target: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checks names and types of arguments that came from a config file or the command line.

    The values are what YAML can hold. They are checked as JSON in pydantic's strict mode: an int passes for
    a float and a list for a tuple, but no string passes for a number.

    Returns:
        The arguments converted to the annotated types (a list to a tuple, a string to a Path).

    Raises:
        ConfigError: naming the key, what was expected and what was given.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    check_names(target, arguments, where)
    hints = type_hints(target)
    checked: dict[str, Any] = {}
    for name, value in arguments.items():
        checked[name] = value
        if name not in hints:
            continue
        try:
            adapter = TypeAdapter(hints[name], config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUserError:  # the type brings a config of its own (a dataclass, a pydantic model)
            adapter = TypeAdapter(hints[name])
        try:
            checked[name] = adapter.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            inside = "".join(f".{part}" for part in error.errors()[0]["loc"] if isinstance(part, int))
            raise ConfigError(
                f"{where}.{name}{inside} should be {describe(hints[name])}, not {value!r} ({type(value).__name__})."
            ) from None
    return checked
