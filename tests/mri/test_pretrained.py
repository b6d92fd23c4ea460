"""The weights that ship do what their entry says."""

from __future__ import annotations

from pathlib import Path

import pytest

import zoo
from zoo.config import compose
from zoo.engine.run import evaluate
from zoo.mri import real_slice
from zoo.mri.refinement import Refinement
from zoo.pretrained import get_entry

NAME = "mri/recurrentvarnet-phantom"


@pytest.mark.slow
def test_recorded_metrics_are_reproduced(in_tmp: Path) -> None:
    """On the whole procedural test set, and better there than every classical method by the margins recorded."""
    entry = get_entry(NAME)
    assert entry.config is not None
    options = ["callbacks.progress_bar=null", "callbacks.test_figures=null", "model.baselines=[]", "run_dir=run"]
    metrics = evaluate(compose(entry.config, [*options, "model.real_slice=false"]), NAME)["metrics"]
    for rate in ("4x", "8x"):
        for metric, tolerance in (("psnr", 0.02), ("ssim", 0.001)):
            name = f"test/{rate}/{metric}"
            assert metrics[name] == pytest.approx(entry.metrics[name], abs=tolerance)
        ours = metrics[f"test/{rate}/psnr"]
        assert ours > entry.metrics[f"test/{rate}/zero-filled/psnr"] + 4
        assert ours > max(entry.metrics[f"test/{rate}/{method}/psnr"] for method in ("sense-cg", "l1-wavelet", "tv"))


def test_the_real_slice_is_predicted_as_recorded() -> None:
    module = zoo.load_pretrained(NAME)
    refinements = {"refined": Refinement(steps=0)}
    errors = real_slice.evaluate(module, {}, refinements).errors  # type: ignore[arg-type]
    recorded = get_entry(NAME).metrics["test/real-slice/network/held-out-nmse"]
    assert errors["network"] == pytest.approx(recorded, rel=0.01)
    assert errors["refined"] == pytest.approx(0.0788, rel=0.02)  # the card's
