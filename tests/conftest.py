"""Fixtures that tests of all kinds share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from zoo.ops.build import OLDEST_TORCH, BuildError

ROOT = Path(__file__).resolve().parent.parent

# As many threads as the machine's two cores allow next to a second pytest worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# The same examples in every run, so that a change is judged by what it changes. To look for new ones:
# python -m pytest --hypothesis-profile=default
settings.register_profile("zoo", derandomize=True, deadline=None)
settings.load_profile("zoo")


KERNELS = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= OLDEST_TORCH
needs_kernels = pytest.mark.skipif(not KERNELS, reason="this torch is too old for compiled kernels")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """Tests that ask for compiled kernels are skipped where torch is too old for any."""
    try:
        return (yield)
    except BuildError as error:
        if KERNELS:
            raise
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or changes the user's cache. Compiled kernels are shared by all tests of a run."""
    cache = tmp_path_factory.mktemp("cache")
    # Beside the folders of pytest-xdist's workers, which lie one level deeper than those of a single process.
    base = tmp_path_factory.getbasetemp()
    kernels = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kernels"
    kernels.mkdir(exist_ok=True)
    (cache / "ops").symlink_to(kernels)
    monkeypatch.setenv("ZOO_CACHE", str(cache))


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs the test in an empty folder, which it returns."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


RunCommand = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def zoo_command(tmp_path: Path) -> RunCommand:
    """Runs ``python -m MODULE ARGUMENTS...`` in an empty folder."""

    def run(module: str, *arguments: str, timeout: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **env},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
