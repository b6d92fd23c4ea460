"""Imports point one way: the contracts of pyproject.toml."""

from __future__ import annotations

import pytest


def test_the_contracts_on_imports_are_kept(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lint = pytest.importorskip("importlinter.cli").lint_imports
    from tests.conftest import ROOT

    monkeypatch.chdir(ROOT)
    failed = lint(config_filename="pyproject.toml", cache_dir=None)
    assert not failed, capsys.readouterr().out
