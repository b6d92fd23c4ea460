"""The built wheel, installed alone into a clean environment, trains outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_wheel_trains_in_a_clean_environment(tmp_path: Path) -> None:
    def call(*command: object) -> str:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [str(part) for part in command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT)
    wheel = next(tmp_path.glob("zoo-*.whl"))
    call(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    call(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)

    where = call(python, "-c", "import zoo; print(zoo.__file__)").strip()
    assert Path(where).is_relative_to(tmp_path)
    assert "kat/digits" in call(python, "-m", "zoo")
    assert "rational" in call(python, "-m", "zoo.ops", "info")  # the sources of its kernels were found
    call(python, "-m", "zoo.train", "config=kat/digits", "trainer.max_epochs=1", "rival=null", "run_dir=run")
    assert json.loads((tmp_path / "run/summary.json").read_text())["git_revision"] is None
    assert (tmp_path / "run/figures/confusion_matrix.png").is_file()
    assert "kat/kat" in call(python, "-m", "zoo.models", "list", "kat/*")
