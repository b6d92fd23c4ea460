"""The built wheel trains outside the checkout, with no package but those that it requires."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT


def link_requirements(site: Path) -> None:
    """Links what the wheel in `site` requires, and what that requires, from the environment of the tests.

    The setup of that environment has shown that pip finds them; to have it install them again would take minutes.
    """
    (wheel,) = metadata.distributions(path=[str(site)], name="zoo")
    wanted, done = [(text, "") for text in wheel.requires or []], set()
    while wanted:
        text, extra = wanted.pop()
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        found = metadata.distribution(requirement.name)
        for part in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (site / part).exists():
                (site / part).symlink_to(found.locate_file(part))
        for name in {(requirement.name, extra) for extra in ("", *requirement.extras)} - done:
            done.add(name)
            wanted += [(text, name[1]) for text in found.requires or []]


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
    call(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    link_requirements(Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()))
    assert "No broken requirements" in call(python, "-m", "pip", "check")
    assert "None" in call(python, "-c", "from importlib.util import find_spec; print(find_spec('pytest'))")

    where = call(python, "-c", "import zoo; print(zoo.__file__)").strip()
    assert Path(where).is_relative_to(tmp_path)
    assert "kat/digits" in call(python, "-m", "zoo")
    assert "rational" in call(python, "-m", "zoo.ops", "info")  # the sources of its kernels were found
    call(python, "-m", "zoo.train", "config=kat/digits", "trainer.max_epochs=1", "rival=null", "run_dir=run")
    assert json.loads((tmp_path / "run/summary.json").read_text())["git_revision"] is None
    assert (tmp_path / "run/figures/confusion_matrix.png").is_file()
    assert "kat/kat" in call(python, "-m", "zoo.models", "list", "kat/*")
