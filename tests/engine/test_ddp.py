"""Two processes do the same work as one."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import RunCommand
from zoo.engine.loggers import read_metrics

OPTIONS = ["config=kat/digits", "trainer.max_epochs=2", "trainer.accelerator=cpu", "model.depth=1", "rival.depth=1"]


@pytest.mark.slow
def test_two_processes_give_the_metrics_of_one(zoo_command: RunCommand, tmp_path: Path) -> None:
    """At the same global batch size, with augmentation on; the rival is trained by the same two processes."""
    for name, extra in (("one", []), ("two", ["trainer=ddp"])):
        done = zoo_command("zoo.train", *OPTIONS, f"run_dir={name}", *extra)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("run folder:") == 1, "only the first process prints"
    for part in (".", "rival"):
        one, two = read_metrics(tmp_path / "one" / part), read_metrics(tmp_path / "two" / part)
        assert len(one) == len(two) > 0
        for row, other in zip(one, two, strict=True):
            assert row == pytest.approx(other, rel=1e-4)
        weights, others = (load_file(tmp_path / name / part / "model.safetensors") for name in ("one", "two"))
        for key, tensor in weights.items():
            assert tensor.numpy() == pytest.approx(others[key].numpy(), abs=1e-3)  # Adam enlarges rounding
