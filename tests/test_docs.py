"""The documentation: its examples run, its pages build without a dead link."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from zoo import registry

PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", [p for p in PAGES if "```python" in p.read_text()], ids=lambda p: p.stem)
def test_examples_run(page: Path, in_tmp: Path) -> None:
    """The blocks of a page, one after the other; what they register is forgotten afterwards."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    try:
        exec(compile("\n".join(blocks), str(page), "exec"), {"__name__": "docs"})
    finally:
        registry._CLASSES["model"].pop("mine/linear", None)
        registry._CLASSES["data"].pop("mine/noise", None)


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in ("index", "systems/mri-recurrentvarnet/index", "guide/lists/index", "reference/ops/index"):
        assert (tmp_path / f"site/{page}.html").stat().st_size > 5000
