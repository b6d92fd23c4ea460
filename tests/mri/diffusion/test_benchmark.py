"""The benchmark runs, and says when diffusers is missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tools.benchmark.mri_diffusion import run


def test_samplers_are_timed(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    report = run(size=16, samples=1, steps=2, repeats=1)
    assert {
        "network alone",
        "dpm++, auto consistency",
        "dpm++, soft consistency",
        "dpm++, no consistency",
    } <= report.rows.keys()
    assert all(row["s"] > 0 for row in report.rows.values())
    assert "diffusers is not installed" in report.notes[0]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("diffusers") is None, reason="diffusers is not installed")
def test_diffusers_gives_the_same(in_tmp: Path) -> None:
    report = run(size=16, samples=1, steps=4, repeats=1)
    assert float(report.notes[0].rsplit(" ", 2)[1]) < 1e-4
