"""The comparison with DeepXDE: that it says what it lacks, and where DeepXDE is there, that it compares."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tools.benchmark.pinn import PROBLEMS, run
from zoo.errors import ConfigError


def test_a_missing_deepxde_is_named(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepxde", None)
    with pytest.raises(ConfigError, match=r"needs DeepXDE .* pip install 'zoo\[benchmark\]'"):
        run(epochs=1)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepxde") is None, reason="DeepXDE is not installed")
def test_errors_are_compared(in_tmp: Path) -> None:
    report = run(epochs=5)
    for problem in PROBLEMS:
        error = {name: row[f"{problem}: E error"] for name, row in report.rows.items()}
        assert error["zoo"] < 1e-7
        assert error["direct solver"] < 1e-10
    assert report.rows["DeepXDE"]["finite: E error"] > 100 * report.rows["zoo"]["finite: E error"]
