"""What the README promises."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from zoo.registry import list_models

README = (ROOT / "README.md").read_text(encoding="utf-8")


def files_of_the_recipe() -> dict[str, str]:
    """Path -> content of the code blocks whose first line names a file."""
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+\.(?:py|yaml))\n(.*?)```", README, re.DOTALL)
    return dict(blocks)


@pytest.mark.slow
def test_adding_a_model_works_as_written(tmp_path: Path) -> None:
    recipe = files_of_the_recipe()
    assert set(recipe) == {"zoo/kat/linear/module.py", "configs/kat/linear.yaml"}
    for folder in ("zoo", "configs", "data"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    for path, content in recipe.items():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "zoo.train", "config=kat/linear", "run_dir=run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/summary.json").read_text())["metrics"]["test/accuracy"] > 0.8
    assert (tmp_path / "run/model.safetensors").is_file()


def test_the_table_tells_the_truth() -> None:
    """A system that works is registered, one that is planned is not."""
    rows = re.findall(r"^\| .*? \| (.*?) \| (works|planned)(?:, .*?)? \|$", README, re.MULTILINE)
    assert len(rows) == 10
    for models, state in rows:
        names = re.findall(r"`([^`]+)`", models)
        for name in names:
            assert (name in list_models()) == (state == "works"), f"{name} is said to be: {state}"


def test_pictures_and_links_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
