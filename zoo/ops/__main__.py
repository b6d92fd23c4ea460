"""Command line of the ops: what runs here, and building kernels ahead of time."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from zoo import cli
from zoo.errors import ConfigError, did_you_mean
from zoo.ops import build, native

USAGE = """\
usage: python -m zoo.ops info                             which implementation of each op runs here
       python -m zoo.ops build [NAME ...] [cuda=true]     compile kernels into the cache, all of them by default

Kernels are otherwise compiled when an op is first used. cuda=true builds CUDA kernels (for compute capability
8.0, 9.0 and later, or TORCH_CUDA_ARCH_LIST) on a machine without a GPU, too; cuda=false leaves them out.
The compilers are CXX, g++, c++ or clang++, and nvcc from CUDA_HOME or the PATH.
"""


def main(argv: list[str]) -> None:
    """Prints or builds."""
    if not argv:
        raise ConfigError(f"What is to be done?\n{USAGE}")
    action, *rest = argv
    if action == "info":
        cli.reject_flags(rest, [])
        info()
    elif action == "build":
        options, ops = cli.split_arguments(rest, ("cuda",))
        if options.get("cuda") not in (None, "true", "false"):
            raise ConfigError(f"cuda={options['cuda']}: write cuda=true or cuda=false.")
        build_all(ops or build.names(), {None: None, "true": True, "false": False}[options.get("cuda")])
    else:
        raise ConfigError(f"'{action}' can't be done with ops. {did_you_mean(action, ('info', 'build'))}")


def info() -> None:
    """Prints a table of ops and devices; builds what is not built yet."""
    from rich.table import Table

    out = cli.console()
    table = Table(title=f"torch {torch.__version__}", title_justify="left")
    for heading in ("op", "cpu", "cuda", "object"):
        table.add_column(heading, overflow="fold")
    notes = []
    for name in build.names():
        loaded = native.load(name)
        forced = native.is_reference("auto")
        cells = [
            "reference" if forced or device not in loaded.devices else f"compiled{_detail(device, loaded)}"
            for device in ("cpu", "cuda")
        ]
        table.add_row(name, *cells, str(loaded.built.path) if loaded.built else "")
        if forced:
            notes.append(f"{name}: ZOO_OPS=reference is set.")
        elif loaded.reason:
            notes.append(f"{name}: {loaded.reason}")
    out.print(table)
    for note in notes:
        out.print(note)


def _detail(device: str, loaded: native.Loaded) -> str:
    if device != "cpu" or loaded.built is None:
        return ""
    function: Any = ctypes.CDLL(str(loaded.built.path)).zoo_instruction_set
    function.restype = ctypes.c_char_p
    return f" ({function().decode()})"


def build_all(names: list[str], cuda: bool | None) -> None:
    """Compiles the kernels of some ops.

    Args:
        names: folders of ``kernels/``.
        cuda: whether with CUDA kernels; None for "if torch sees a GPU".

    Raises:
        BuildError: no compiler, or it reports errors.
    """
    out = cli.console()
    toolchain, why_no_cuda = build.find_toolchain(cuda)
    out.print(f"C++   {toolchain.cxx_version}")
    if toolchain.nvcc:
        out.print(f"CUDA  {toolchain.nvcc_version}, for {', '.join(toolchain.architectures)} and later")
    else:
        out.print(f"CUDA  no kernels: {why_no_cuda}")
    for name in names:
        built = build.build(name, toolchain)
        out.print(f"{name}: {built.path} ({', '.join(built.devices)}; built in {built.seconds:g} s)")


if __name__ == "__main__":
    cli.run(main, USAGE)
