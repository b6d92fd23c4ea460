"""CUDA kernels compiled as plain C++, in which a CPU takes the part of the GPU."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

from tests.conftest import ROOT
from zoo.ops import build


def emulated_library(op: str, folder: Path) -> ctypes.CDLL:
    """``<op>_emulated.cpp``, with checks of alignment, bounds and overflow that abort the process."""
    library = folder / f"{op}.so"
    includes = [f"-I{ROOT / 'kernels' / name}" for name in ("common", op)]
    checks = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
    source = Path(__file__).with_name(f"{op}_emulated.cpp")
    options = ["-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-Wno-unknown-pragmas", *checks, *includes]
    subprocess.run([*build.find_cxx()[0], *options, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))
