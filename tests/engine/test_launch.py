"""Processes that SLURM starts together are one run, and a job that is started again goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import together
from zoo import launch
from zoo.engine.loggers import read_metrics


class TestVariables:
    @pytest.fixture(autouse=True)
    def _alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("SLURM_NTASKS", "SLURM_JOB_ID", "SLURM_RESTART_COUNT", "TORCHELASTIC_RUN_ID", *launch._RANKS):
            monkeypatch.delenv(name, raising=False)

    def test_alone(self) -> None:
        assert launch.is_main_process()
        assert not launch.started_together()
        assert not launch.requeued()
        assert launch.run_id() != launch.run_id()

    @pytest.mark.parametrize("name", ["LOCAL_RANK", "SLURM_PROCID", "RANK", "NODE_RANK"])
    def test_the_others_are_silent(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(name, "1")
        assert not launch.is_main_process()

    def test_one_task_in_an_allocation_is_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        monkeypatch.setenv("SLURM_NTASKS", "1")
        assert not launch.run_id().startswith("job-")

    def test_torchrun(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "abc")
        assert launch.run_id() == "job-abc"


@pytest.mark.slow
def test_a_job_is_one_run_and_goes_on_when_requeued(tmp_path: Path) -> None:
    def job(epochs: int, **env: str) -> None:
        options = ["data.steps_per_epoch=4", "data.train_points=50", "data.test_points=50", "rival=null"]
        devices = ["trainer=slurm", "trainer.accelerator=cpu", "trainer.devices=2", f"trainer.max_epochs={epochs}"]
        command = ["-m", "zoo.train", "config=kat/function-fit", *options, *devices]
        first, second = together(command, tmp_path, job=4242, **env)
        assert first.returncode == second.returncode == 0, first.stderr + second.stderr
        assert "run folder:" in first.stdout
        assert second.stdout == ""

    job(1)
    (run,) = (tmp_path / "runs/kat/function-fit").iterdir()
    assert run.name == "job-4242"
    before = read_metrics(run)
    job(2, SLURM_RESTART_COUNT="1")
    after = read_metrics(run)
    assert [path.name for path in run.parent.iterdir()] == ["job-4242"]
    steps = [row["step"] for row in after if "train/loss" in row]
    assert len(after) > len(before)
    assert steps == sorted(steps)
