"""Which implementation of an op runs: the compiled kernels, built and loaded when first needed, or the reference."""

from __future__ import annotations

import os
import threading
import warnings
from dataclasses import dataclass
from typing import Literal

import torch

from zoo.errors import ConfigError, did_you_mean
from zoo.ops import build
from zoo.ops.build import BuildError

Implementation = Literal["auto", "reference", "compiled"]

_IMPLEMENTATIONS = ("auto", "reference", "compiled")


@dataclass(frozen=True)
class Loaded:
    """The outcome of loading an op's kernels.

    Attributes:
        devices: device types that the kernels serve; empty if there are none.
        reason: why a device isn't among them.
        built: the object.
    """

    devices: tuple[str, ...]
    reason: str
    built: build.Built | None = None


_loaded: dict[str, Loaded] = {}
_warned: set[tuple[str, str]] = set()
_lock = threading.RLock()


def is_reference(implementation: str) -> bool:
    """Whether the reference is asked for, by an op's argument or by the variable ``ZOO_OPS``.

    Raises:
        ValueError: there is no such implementation.
        ConfigError: ``ZOO_OPS`` is neither ``auto`` nor ``reference``.
    """
    if implementation not in _IMPLEMENTATIONS:
        raise ValueError(f"there is no implementation {implementation!r}: use one of {', '.join(_IMPLEMENTATIONS)}")
    if implementation != "auto":
        return implementation == "reference"
    return _environment() == "reference"


# torch.compile calls this while it traces and takes the answer for constant.
@torch.compiler.assume_constant_result
def _environment() -> str:
    value = os.environ.get("ZOO_OPS", "auto") or "auto"
    if value not in ("auto", "reference"):
        hint = did_you_mean(value, ("auto", "reference"))
        raise ConfigError(f"ZOO_OPS={value} is not known. {hint}")
    return value


def load(name: str) -> Loaded:
    """Builds and loads an op's kernels, once per process; never raises."""
    with _lock:
        if name not in _loaded:
            _loaded[name] = _try_load(name)
        return _loaded[name]


def covers(name: str, device: torch.device) -> bool:
    """Whether an op has kernels for a device; the first time it has not, a warning says why."""
    loaded = load(name)
    if device.type in loaded.devices:
        return True
    with _lock:
        if (name, device.type) not in _warned and device.type != "meta":
            _warned.add((name, device.type))
            reason = loaded.reason or f"there are no kernels for {device.type}."
            warnings.warn(
                f"zoo.ops.{name} runs its reference implementation on {device.type}, which is right but slow: {reason} "
                "(ZOO_OPS=reference chooses it without this warning.)",
                RuntimeWarning,
                stacklevel=2,
            )
    return False


def available(name: str, device: torch.device) -> bool:
    """Whether an op has kernels for a device; no word is said if not, and torch.compile takes it for constant."""
    return not _missing(name, device.type)


def require(name: str, device: torch.device) -> None:
    """Raises `BuildError` unless an op has kernels for a device."""
    if missing := _missing(name, device.type):
        raise BuildError(f"zoo.ops.{name} has no compiled kernels for {device.type}: {missing}")


@torch.compiler.assume_constant_result
def _missing(name: str, device_type: str) -> str:
    loaded = load(name)
    return "" if device_type in loaded.devices else loaded.reason or "none are written."


def _try_load(name: str) -> Loaded:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < build.OLDEST_TORCH:
        oldest = ".".join(map(str, build.OLDEST_TORCH))
        return Loaded((), f"the kernels need torch {oldest} or later, this is {torch.__version__}.")
    try:
        toolchain, why_no_cuda = build.find_toolchain()
        try:
            built = build.build(name, toolchain)
        except BuildError as error:
            if toolchain.nvcc is None:
                raise
            # What can be had without CUDA is better than nothing.
            toolchain, why_no_cuda = build.find_toolchain(cuda=False)[0], str(error)
            built = build.build(name, toolchain)
        try:
            torch.ops.load_library(built.path)
        except OSError:
            # Linked against system libraries that are gone or changed, say.
            built = build.build(name, toolchain, rebuild=True)
            torch.ops.load_library(built.path)
    except (BuildError, OSError) as error:
        return Loaded((), str(error))
    return Loaded(built.devices, why_no_cuda, built)
