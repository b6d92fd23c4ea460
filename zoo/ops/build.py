"""Building kernels: the C++ and CUDA sources of an op become one shared object, kept in the user's cache.

The sources of an op are the files of ``kernels/<op>/`` by their endings:

- ``*.simd.cpp`` is compiled once per instruction set of the processor family, with ``ZOO_ISA`` defined as
  the set's name; which one runs is chosen when the object is loaded, so that the object is safe to move;
- any other ``*.cpp`` is compiled once;
- ``*.cu`` is compiled if there is a GPU and nvcc, or on request; ``ZOO_CUDA`` is then defined everywhere.

They use nothing of torch but its stable ABI (``kernels/common/torch.h``), so an object serves every torch from
2.11 on, and one with CUDA kernels also loads on a machine without a GPU.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from zoo import assets, download, files
from zoo.errors import UnknownNameError, ZooError, did_you_mean

# The oldest stable ABI with all we use; TORCH_TARGET_VERSION holds major and minor in its two highest bytes.
OLDEST_TORCH = (2, 11)

# Code for these, and PTX of the last for anything newer; TORCH_CUDA_ARCH_LIST overrides it as in torch.
CUDA_ARCHITECTURES = ("8.0", "9.0")

_INSTRUCTION_SETS = {
    "baseline": (),
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c", "-mprefer-vector-width=512"),
}
_CXX_FLAGS = ("-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wno-psabi", "-Wno-maybe-uninitialized")
_COMMON = "common"
_ERROR_LINES = 12


class BuildError(ZooError):
    """An op can't be compiled here; the message says why and what to do."""


@dataclass(frozen=True)
class Toolchain:
    """The compilers in use.

    Attributes:
        cxx: command of the C++ compiler.
        cxx_version: first line of what it says of itself.
        nvcc: path of CUDA's compiler; None for an object that runs on the CPU only.
        nvcc_version: last line of what it says of itself.
        architectures: compute capabilities to generate code for, such as ``"9.0"``.
    """

    cxx: tuple[str, ...]
    cxx_version: str
    nvcc: str | None = None
    nvcc_version: str = ""
    architectures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """A shared object.

    Attributes:
        path: where it lies.
        devices: ``("cpu",)``, or ``("cpu", "cuda")`` if it holds CUDA kernels.
        seconds: how long it took to build.
    """

    path: Path
    devices: tuple[str, ...]
    seconds: float


def names() -> list[str]:
    """The ops that have kernels."""
    folders = sorted(path for path in assets.path("kernels").glob("*") if path.is_dir())
    return [path.name for path in folders if path.name != _COMMON and any(path.glob("*.cpp"))]


def find_cxx() -> tuple[tuple[str, ...], str]:
    """The C++ compiler, ``$CXX`` or the usual names, and its version.

    Raises:
        BuildError: there is none.
    """
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "c++", "clang++"]
    for candidate in candidates:
        command = tuple(shlex.split(candidate))
        if shutil.which(command[0]):
            return command, _version(command)[0]
    raise BuildError(f"no C++ compiler was found ({', '.join(candidates)}). Install g++, or set CXX to another.")


def find_nvcc() -> str | None:
    """CUDA's compiler: in ``$CUDA_HOME``, on the PATH, in the usual folder, or installed by pip."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    by_pip = [Path(folder, "nvidia") for folder in sys.path if Path(folder, "nvidia").is_dir()]
    candidates = [
        *([Path(home, "bin", "nvcc")] if home else []),
        *([Path(found)] if (found := shutil.which("nvcc")) else []),
        Path("/usr/local/cuda/bin/nvcc"),
        *(path for folder in by_pip for path in sorted(folder.glob("cu*/bin/nvcc"))),
    ]
    return next((str(path) for path in candidates if os.access(path, os.X_OK)), None)


def find_toolchain(cuda: bool | None = None) -> tuple[Toolchain, str]:
    """The compilers, and why there is none for CUDA (empty if there is).

    Args:
        cuda: whether to build CUDA kernels; None for "if torch sees a GPU".

    Raises:
        BuildError: no C++ compiler, another system than Linux, or no nvcc though `cuda` is True.
    """
    if not sys.platform.startswith("linux"):
        raise BuildError(f"kernels are built on Linux only, not on {sys.platform}.")
    cxx, cxx_version = find_cxx()
    if cuda is None and not torch.cuda.is_available():
        return Toolchain(cxx, cxx_version), "torch sees no GPU."
    if cuda is False:
        return Toolchain(cxx, cxx_version), "they were not asked for."
    nvcc = find_nvcc()
    if nvcc is None:
        why = (
            f"nvcc was not found. Install the CUDA toolkit (or `pip install nvidia-cuda-nvcc`) of version "
            f"{torch.version.cuda or '12 or later'}, or set CUDA_HOME."
        )
        if cuda:
            raise BuildError(why)
        return Toolchain(cxx, cxx_version), why
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").replace("+PTX", "").split()
    architectures = tuple(listed) or CUDA_ARCHITECTURES
    return Toolchain(cxx, cxx_version, nvcc, _version((nvcc,))[-1], architectures), ""


@lru_cache
def _version(command: tuple[str, ...]) -> list[str]:
    try:
        output = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"{' '.join(command)} --version fails: {error}") from error
    return output.strip().splitlines() or ["unknown"]


def build(name: str, toolchain: Toolchain, rebuild: bool = False) -> Built:
    """The shared object of an op, from the cache or newly compiled.

    A lock lets one process at a time build an object; the others wait and find it done. An object whose
    checksum is not the recorded one is built again.

    Args:
        name: a folder of ``kernels/``.
        toolchain: the compilers.
        rebuild: compile even if the cache has it.

    Raises:
        BuildError: the compiler's first errors, and where all it said is.
    """
    from filelock import FileLock

    if name not in names():
        raise UnknownNameError(f"No op with kernels is called '{name}'. {did_you_mean(name, names())}")
    key = _key(name, toolchain)
    folder = download.cache_dir() / "ops"
    target, record = folder / f"{name}-{key}.so", folder / f"{name}-{key}.json"
    if not rebuild and (found := _read(name, target, record)):
        return found
    started = time.time()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}-{key}.lock"):
            # Another process may have built it, or failed to, while this one waited.
            if not rebuild and (found := _read(name, target, record)):
                return found
            log = folder / f"{name}-{key}.log"
            if log.is_file() and log.stat().st_mtime > started:
                raise BuildError(_failure(name, log))
            with tempfile.TemporaryDirectory(dir=folder, prefix=".building-") as scratch:
                _compile(name, toolchain, Path(scratch, "op.so"), log)
                digest = download.sha256(Path(scratch, "op.so"))
                record.unlink(missing_ok=True)
                # A new file under the name, never new bytes in the old one: it may be loaded somewhere.
                Path(scratch, "op.so").replace(target)
            built = Built(target, _devices(name, toolchain.nvcc), round(time.time() - started, 1))
            files.write_json(record, {**_identity(toolchain), "sha256": digest, "seconds": built.seconds})
            log.unlink(missing_ok=True)
            return built
    except OSError as error:
        raise BuildError(f"the cache {folder} can't be used ({error}). Set ZOO_CACHE to another folder.") from error


def _devices(name: str, nvcc: str | None) -> tuple[str, ...]:
    return ("cpu", "cuda") if nvcc and any(assets.path("kernels", name).glob("*.cu")) else ("cpu",)


def _identity(toolchain: Toolchain) -> dict[str, Any]:
    """All that decides the object besides its sources."""
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cxx11_abi": torch.compiled_with_cxx11_abi(),
        "cxx": [*toolchain.cxx, toolchain.cxx_version],
        "nvcc": [toolchain.nvcc, toolchain.nvcc_version],
        "architectures": toolchain.architectures,
        "system": [platform.machine(), *platform.libc_ver()],
        "flags": _CXX_FLAGS,
    }


def _key(name: str, toolchain: Toolchain) -> str:
    digest = hashlib.sha256(json.dumps(_identity(toolchain)).encode())
    for folder in (_COMMON, name):
        for path in sorted(assets.path("kernels", folder).iterdir()):
            if path.suffix in (".h", ".cuh", ".cpp", ".cu"):
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _read(name: str, target: Path, record: Path) -> Built | None:
    """What the cache has, if it is whole."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        if download.sha256(target) != known["sha256"]:
            return None
    except (OSError, ValueError, KeyError):
        return None
    return Built(target, _devices(name, known["nvcc"][0]), known["seconds"])


def _failure(name: str, log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if "error:" in line or "undefined" in line] or lines
    return f"the kernels of '{name}' don't compile; all of the compiler's output is in {log}:\n" + "\n".join(
        errors[:_ERROR_LINES]
    )


def _compile(name: str, toolchain: Toolchain, target: Path, log: Path) -> None:
    commands = compile_commands(name, toolchain, target.parent)
    objects = [command[command.index("-o") + 1] for command in commands]
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            finished = list(pool.map(_run, commands))
        if all(process.returncode == 0 for process in finished):
            finished.append(_run(link_command(toolchain, objects, target)))
    except OSError as error:
        raise BuildError(f"the compiler can't be started: {error}") from error
    if any(process.returncode for process in finished):
        said = [f"$ {shlex.join(p.args)}\n{p.stdout}{p.stderr}" for p in finished if p.returncode]
        files.write_text(log, "\n".join(said))
        raise BuildError(_failure(name, log))


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def compile_commands(name: str, toolchain: Toolchain, folder: Path) -> list[list[str]]:
    """One command per object, with ``-o`` before the object's path in `folder`."""
    version = OLDEST_TORCH[0] << 56 | OLDEST_TORCH[1] << 48
    defines = [f"-DTORCH_TARGET_VERSION={version:#x}", *(["-DZOO_CUDA"] if toolchain.nvcc else [])]
    torch_headers = str(Path(torch.__file__).parent / "include")
    cxx = [*toolchain.cxx, "-std=c++20", *_CXX_FLAGS, *defines, "-isystem", torch_headers]
    commands = []
    for source in sorted(assets.path("kernels", name).iterdir()):
        if source.name.endswith(".simd.cpp"):
            sets = _INSTRUCTION_SETS if platform.machine() in ("x86_64", "AMD64") else {"baseline": ()}
            for isa, flags in sets.items():
                output = folder / f"{source.stem}.{isa}.o"
                commands.append([*cxx, f"-DZOO_ISA={isa}", *flags, "-c", str(source), "-o", str(output)])
        elif source.suffix == ".cpp":
            commands.append([*cxx, "-c", str(source), "-o", str(folder / f"{source.stem}.o")])
        elif source.suffix == ".cu" and toolchain.nvcc:
            output = folder / f"{source.stem}.cu.o"
            commands.append([*_nvcc(toolchain), *defines, "-c", str(source), "-o", str(output)])
    return commands


def link_command(toolchain: Toolchain, objects: Sequence[str], target: Path) -> list[str]:
    """The command that makes one shared object of the others."""
    linker = [toolchain.nvcc, "-ccbin", *toolchain.cxx] if toolchain.nvcc else [*toolchain.cxx]
    library = Path(torch.__file__).parent / "lib"
    return [*linker, "-shared", "-o", str(target), *objects, f"-L{library}", "-ltorch_cpu", "-ldl"]


def _nvcc(toolchain: Toolchain) -> list[str]:
    assert toolchain.nvcc is not None
    numbers = [architecture.replace(".", "") for architecture in toolchain.architectures]
    targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]
    newer = f"-gencode=arch=compute_{numbers[-1]},code=compute_{numbers[-1]}"
    host = ["-ccbin", *toolchain.cxx, "-Xcompiler", "-fPIC,-fvisibility=hidden"]
    return [toolchain.nvcc, "-std=c++17", "-O3", "--threads=0", *host, *targets, newer]
