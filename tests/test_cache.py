"""What is made once and kept: by one of several processes, and of use where nothing can be written."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from zoo.cache import kept_arrays, kept_file
from zoo.errors import DataError, ZooError


def make_slowly(log: str) -> None:
    """In a process of its own: makes an array and says so."""

    def make() -> dict[str, np.ndarray]:
        with Path(log).open("a") as file:
            file.write("made\n")
        time.sleep(0.5)
        return {"a": np.arange(3)}

    assert kept_arrays("some/numbers.npz", make)["a"].tolist() == [0, 1, 2]


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=make_slowly, args=(str(log),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert log.read_text() == "made\n"


def test_failing_to_make_it_leaves_nothing() -> None:
    with pytest.raises(RuntimeError, match="no"):
        kept_arrays("some/numbers.npz", lambda: (_ for _ in ()).throw(RuntimeError("no")))
    assert kept_arrays("some/numbers.npz", lambda: {"a": np.ones(1)})["a"] == 1


def test_a_damaged_file_says_what_to_do() -> None:
    file = kept_file("some/numbers.npz", lambda path: path.write_bytes(b"PK nonsense") and None)
    with pytest.raises(DataError, match=rf"{file.name} can't be read as arrays; delete it"):
        kept_arrays("some/numbers.npz", dict)
    file.unlink()
    assert kept_arrays("some/numbers.npz", lambda: {"a": np.ones(1)}).keys() == {"a"}


def test_a_cache_that_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(ZooError, match=r"not in the cache, which can't be written to .* Set ZOO_CACHE"):
        kept_file("some/numbers.npz", Path.touch)


READ_ONLY = """
mount --bind cache cache && mount -o remount,bind,ro cache || exit 77
exec "$0" use.py
"""
USE = """
import zoo
from zoo.errors import ZooError
from zoo.humans.standin import standin_arrays

standin_arrays()
for name in ("humans/keypoints", "operators/burgers", "splatting/scene", "splatting/city"):
    zoo.create_data(name, **SETTINGS[name]).setup("test")
"""
OTHER = """
try:
    zoo.create_data("operators/burgers", **{**SETTINGS["operators/burgers"], "data_seed": 1}).setup("test")
except ZooError as error:
    assert "Set ZOO_CACHE" in str(error), error
else:
    raise AssertionError("written")
"""
SETTINGS = {
    "humans/keypoints": {"poses": 8, "val_size": 2, "test_size": 2},
    "operators/burgers": {"train_size": 2, "val_size": 2, "test_size": 2},
    "splatting/scene": {"size": 24, "views": 6, "points": 50},
    "splatting/city": {"size": 24, "points": 100, "positions": 2},
}


def test_a_cache_that_can_only_be_read_serves_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "use.py").write_text(f"SETTINGS = {SETTINGS!r}\n{USE}{OTHER}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ZOO_CACHE": str(tmp_path / "cache"), "ZOO_OPS": "reference"}

    def call(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    filled = call(sys.executable, "-c", f"SETTINGS = {SETTINGS!r}\n{USE}")
    assert filled.returncode == 0, filled.stderr
    files = sorted(path for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock")
    done = call("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", READ_ONLY, sys.executable)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"nothing can be made read-only here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert sorted(path for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock") == files
