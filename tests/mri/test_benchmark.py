"""The comparison at equal processor time takes up what it has, and refuses what it does not know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.benchmark.mri_quality import METRICS, run
from zoo.errors import UnknownNameError


def test_finished_trainings_are_not_repeated(in_tmp: Path) -> None:
    for name, value in (("mri-varnet-0", 1.0), ("mri-varnet-1", 3.0), ("mri-rim-0", 2.0), ("mri-rim-1", 2.0)):
        metrics = {f"test/{key}": value for key in (*METRICS, "psnr")}
        Path("kept", name).mkdir(parents=True)
        Path("kept", name, "summary.json").write_text(json.dumps({"metrics": metrics, "parameters": 7}))
    Path("kept/steps.json").write_text(json.dumps({"mri/varnet": 40, "mri/rim": 30}))
    report = run(seeds=2, folder=Path("kept"), contenders=("mri/rim", "mri/varnet"))
    assert report.reference == "mri/rim"
    assert report.rows["mri/varnet"] == dict.fromkeys(METRICS, 2.0) | {"steps": 40, "parameters": 7}
    assert report.notes[1] == "mri/varnet: PSNR over both rates of each seed 1.00, 3.00"


def test_an_unknown_contender() -> None:
    with pytest.raises(UnknownNameError, match="no contender 'mri/varnett'"):
        run(contenders=("mri/varnett",))
