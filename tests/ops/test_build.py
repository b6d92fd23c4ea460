"""Building kernels: the cache, and everything that can be wrong with it or with the compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, RunCommand, needs_kernels
from zoo import assets
from zoo.errors import ZooError
from zoo.ops import build, native
from zoo.ops.__main__ import main

# A kernel that compiles in a moment, for the tests that need no more.
SMALL = """
extern "C" __attribute__((visibility("default"))) int answer() { return 42; }
"""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of kernels with one op, ``small``, and a cache of its own."""
    (tmp_path / "kernels/common").mkdir(parents=True)
    (tmp_path / "kernels/small").mkdir()
    (tmp_path / "kernels/small/bindings.cpp").write_text(SMALL)
    monkeypatch.setattr(assets, "path", lambda *parts: tmp_path.joinpath(*parts))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "kernels/small"


@pytest.fixture(scope="module")
def toolchain() -> build.Toolchain:
    return build.find_toolchain(cuda=False)[0]


def test_kernels_are_found() -> None:
    assert "rational" in build.names()
    assert "common" not in build.names()


def test_an_object_is_built_once(sources: Path, toolchain: build.Toolchain) -> None:
    first = build.build("small", toolchain)
    modified = first.path.stat().st_mtime_ns
    assert build.build("small", toolchain) == first
    assert first.path.stat().st_mtime_ns == modified
    assert not list(first.path.parent.glob(".building-*"))


@pytest.mark.parametrize("change", ["source", "header", "compiler", "architectures"])
def test_a_change_makes_another_object(sources: Path, toolchain: build.Toolchain, change: str) -> None:
    first = build.build("small", toolchain)
    if change == "source":
        (sources / "bindings.cpp").write_text(SMALL.replace("42", "43"))
    elif change == "header":
        (sources.parent / "common/new.h").write_text("#pragma once\n")
    elif change == "compiler":
        toolchain = build.Toolchain(toolchain.cxx, "another version")
    else:
        toolchain = build.Toolchain(toolchain.cxx, toolchain.cxx_version, architectures=("9.0",))
    assert build.build("small", toolchain).path != first.path


@pytest.mark.skipif(build.find_nvcc() is None, reason="there is no nvcc")
def test_an_object_without_cuda_kernels_serves_the_cpu_alone(sources: Path) -> None:
    toolchain, _ = build.find_toolchain(cuda=True)
    for _ in ("built", "found in the cache"):
        assert build.build("small", toolchain).devices == ("cpu",)


@pytest.mark.parametrize("damage", ["truncated", "changed", "gone", "record"])
def test_a_damaged_object_is_built_again(sources: Path, toolchain: build.Toolchain, damage: str) -> None:
    built = build.build("small", toolchain)
    content = built.path.read_bytes()
    if damage == "truncated":
        built.path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        built.path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "gone":
        built.path.unlink()
    else:
        built.path.with_suffix(".json").write_text("{")
    again = build.build("small", toolchain)
    assert again.path == built.path
    assert again.path.read_bytes()[:4] == b"\x7fELF"


def test_errors_of_the_compiler_are_told(sources: Path, toolchain: build.Toolchain) -> None:
    (sources / "bindings.cpp").write_text("int broken( { return 1; }\n")
    with pytest.raises(ZooError, match=r"'small' don't compile.*\.log:\n.*bindings\.cpp:1:\d+: error") as info:
        build.build("small", toolchain)
    log = next((sources.parents[1] / "cache/ops").glob("small-*.log"))
    assert str(log) in str(info.value)
    assert "-fPIC" in log.read_text()


def test_unknown_op(toolchain: build.Toolchain) -> None:
    with pytest.raises(ZooError, match="Did you mean 'rational'"):
        build.build("ratoinal", toolchain)


def test_a_cache_that_is_no_folder(sources: Path, toolchain: build.Toolchain) -> None:
    (sources.parents[1] / "cache").write_text("")
    with pytest.raises(ZooError, match="Set ZOO_CACHE"):
        build.build("small", toolchain)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ZooError, match="no C\\+\\+ compiler was found"):
        build.find_toolchain()
    monkeypatch.setenv("CXX", "/nowhere/g++ -m64")
    with pytest.raises(ZooError, match="/nowhere/g\\+\\+"):
        build.find_toolchain()


def test_no_nvcc_is_an_error_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    toolchain, why = build.find_toolchain()
    assert toolchain.nvcc is None
    assert "nvcc was not found" in why
    with pytest.raises(ZooError, match="nvcc was not found"):
        build.find_toolchain(cuda=True)


def test_an_older_torch_has_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "OLDEST_TORCH", (99, 0))
    loaded = native._try_load("rational")
    assert loaded.devices == ()
    assert "need torch 99.0 or later" in loaded.reason


SCRIPT = """
import warnings, torch
warnings.simplefilter("always")
from zoo import ops
from zoo.ops import native
a, b = torch.randn(1, 6, requires_grad=True), torch.randn(8, 4, requires_grad=True)
with warnings.catch_warnings(record=True) as caught:
    for _ in range(3):
        ops.rational(torch.randn(5, 16), a, b).sum().backward()
print("warnings", sum("zoo.ops.rational" in str(w.message) for w in caught))
for w in caught:
    print(w.category.__name__, w.message)
print("devices", native._loaded["rational"].devices if native._loaded else "not loaded")
"""


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., str]:
    def run(**environment: str) -> str:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "ZOO_CACHE": str(tmp_path / "cache"), **environment}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@needs_kernels
def test_without_a_compiler_one_warning_and_the_reference(run_script: Callable[..., str]) -> None:
    output = run_script(PATH="", CXX="")
    assert "warnings 1" in output
    assert "RuntimeWarning zoo.ops.rational runs its reference implementation on cpu" in output
    assert "Install g++" in output
    assert "devices ()" in output


@needs_kernels
def test_a_broken_compiler_is_no_more_than_a_warning(run_script: Callable[..., str], tmp_path: Path) -> None:
    compiler = tmp_path / "bad-compiler"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo bad 1.0 && exit 0\necho "error: I am broken"; exit 1\n'
    )
    compiler.chmod(0o755)
    output = run_script(CXX=str(compiler))
    assert "warnings 1" in output
    assert "error: I am broken" in output


def test_the_reference_by_choice_builds_nothing_and_warns_of_nothing(
    run_script: Callable[..., str], tmp_path: Path
) -> None:
    output = run_script(ZOO_OPS="reference", PATH="")
    assert "warnings 0" in output
    assert "not loaded" in output
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
@needs_kernels
def test_a_corrupted_object_is_rebuilt_before_it_is_loaded(run_script: Callable[..., str], tmp_path: Path) -> None:
    whole = native.load("rational").built
    assert whole is not None
    cache = tmp_path / "cache/ops"
    cache.mkdir(parents=True)
    (cache / whole.path.name).write_bytes(whole.path.read_bytes()[:5000])
    shutil.copy(whole.path.with_suffix(".json"), cache)
    assert "devices ('cpu'" in run_script()
    (built,) = cache.glob("rational-*.so")
    assert built.stat().st_size > 5000


BUILDING = """
import ctypes, sys
from pathlib import Path
from zoo import assets
from zoo.ops import build
assets.path = lambda *parts: Path(sys.argv[1], *parts)
print("ready", flush=True)
input()
print(ctypes.CDLL(str(build.build("small", build.find_toolchain(cuda=False)[0]).path)).answer())
"""


@pytest.mark.slow
def test_two_processes_build_at_once(sources: Path, tmp_path: Path) -> None:
    """One compiles, the other waits for it: a wrapper around the compiler, which takes a second, records its calls."""
    compiler, calls = tmp_path / "recording-g++", tmp_path / "calls"
    cxx = " ".join(build.find_cxx()[0])
    compiler.write_text(f'#!/bin/sh\n[ "$1" = --version ] || sleep 1\necho "$@" >> {calls}\nexec {cxx} "$@"\n')
    compiler.chmod(0o755)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CXX": str(compiler)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", BUILDING, str(tmp_path)]
    processes = [subprocess.Popen(command, env=env, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in processes] == ["42\n", "42\n"]
    assert sum("bindings.cpp" in call for call in calls.read_text().splitlines()) == 1


@needs_kernels
def test_command_line(zoo_command: RunCommand) -> None:
    done = zoo_command("zoo.ops", "info")
    assert done.returncode == 0, done.stderr
    assert "rational" in done.stdout
    assert "compiled (" in done.stdout
    done = zoo_command("zoo.ops", "info", ZOO_OPS="reference")
    assert "ZOO_OPS=reference is set" in done.stdout
    done = zoo_command("zoo.ops", "build", "rational", "cuda=false")
    assert done.returncode == 0, done.stderr
    assert "built in" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bild"], "Did you mean 'build'"),
        (["build", "ratoinal"], "Did you mean 'rational'"),
        (["build", "cuda=yes"], "cuda=true or cuda=false"),
        ([], "usage"),
    ],
)
def test_command_line_with_bad_arguments(arguments: list[str], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        main(arguments)
