"""Atomic writing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.files import atomic_path, write_json, write_text


def test_failure_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError, match="crash"), atomic_path(target) as path:
        path.write_text("half")
        raise RuntimeError("crash")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_full_disk_is_named_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"old": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ZooError, match=r"No space left on the disk while writing .*a\.json"):
        write_json(target, {"new": 2})
    assert target.read_text() == '{\n  "old": 1\n}\n'
    assert len(list(tmp_path.iterdir())) == 1


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((ZooError, NotADirectoryError, FileExistsError)):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask
