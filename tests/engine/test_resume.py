"""An interrupted and resumed run ends where an uninterrupted one does, bit for bit."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from zoo.config import compose, compose_run
from zoo.engine.loggers import read_metrics
from zoo.engine.run import train
from zoo.errors import Interrupted, WeightsError, ZooError
from zoo.kat.classifier import ImageClassifier
from zoo.kat.gr_kan.module import GRKANRegressor

QUIET = ["callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger.tensorboard=null", "rival=null"]
# Everything that draws random numbers in a step is on: dropout, stochastic depth, augmentation, shuffling.
DIGITS = [
    *QUIET,
    "model.depth=1",
    "data.batch_size=256",
    "model.drop_rate=0.1",
    "model.drop_path_rate=0.1",
    "trainer.max_epochs=2",
]
FIT = [*QUIET, "data.steps_per_epoch=1", "trainer.max_epochs=6", "data.train_points=50", "data.test_points=50"]


def interrupt_at(monkeypatch: pytest.MonkeyPatch, cls: type, step: int, signum: int = signal.SIGINT) -> None:
    """The process gets `signum` in the middle of the given training step of `cls`."""
    original = cls.training_step  # type: ignore[attr-defined]
    count = 0

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signum)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(cls, "training_step", training_step)


def assert_same_run(one: Path, other: Path) -> None:
    weights, expected = load_file(other / "model.safetensors"), load_file(one / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, expected[name]), name
    assert read_metrics(other) == read_metrics(one)


def check_interrupted(monkeypatch: pytest.MonkeyPatch, config: str, options: list[str], cls: type, step: int) -> None:
    """A run stopped in a step and resumed is the run that was never stopped."""
    train(compose(config, [*options, "run_dir=whole"]))
    with monkeypatch.context() as patch:
        interrupt_at(patch, cls, step)
        with pytest.raises(Interrupted, match="SIGINT"):
            train(compose(config, [*options, "run_dir=parts"]))
    assert not Path("parts/model.safetensors").exists()
    train(compose_run(Path("parts")), resume=True)
    assert_same_run(Path("whole"), Path("parts"))


@pytest.mark.parametrize("step", [1, 3, 5, 7, 10])
def test_interrupted_anywhere(in_tmp: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Mid-epoch, at the last step of an epoch (5) and of the run (10)."""
    check_interrupted(monkeypatch, "kat/digits", DIGITS, ImageClassifier, step)


def test_interrupted_twice_with_workers(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Augmentation in worker processes goes on with the images it would have had."""
    train(compose("kat/digits", [*DIGITS, "run_dir=whole"]))
    for attempt, step in enumerate((2, 4)):
        with monkeypatch.context() as patch:
            interrupt_at(patch, ImageClassifier, step, signal.SIGTERM)
            with pytest.raises(Interrupted, match="SIGTERM"):
                if attempt == 0:
                    train(compose("kat/digits", [*DIGITS, "run_dir=parts", "data.num_workers=2"]))
                else:
                    train(compose_run(Path("parts")), resume=True)
    train(compose_run(Path("parts")), resume=True)
    assert_same_run(in_tmp / "whole", in_tmp / "parts")


@pytest.mark.parametrize("step", [1, 3, 6])
def test_epochs_of_one_step(in_tmp: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Where the middle of an epoch does not exist, runs stop between epochs."""
    check_interrupted(monkeypatch, "kat/function-fit", FIT, GRKANRegressor, step)


@pytest.mark.parametrize("step", [2, 3, 5])
def test_steps_are_given_instead_of_epochs(in_tmp: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """At the end of an epoch, in the midst of one, and at the last step, after which nothing is left to train."""
    options = [*FIT, "data.steps_per_epoch=2", "trainer.max_epochs=-1", "trainer.max_steps=5"]
    check_interrupted(monkeypatch, "kat/function-fit", options, GRKANRegressor, step)


@pytest.mark.parametrize("length", ["trainer.max_epochs=3", "trainer.max_steps=3"])
def test_a_finished_run_stays_as_it_is(in_tmp: Path, length: str) -> None:
    """Its weights too, which are averages; without validation there is no best.ckpt to take them from."""
    averages = ["callbacks.ema_weight_averaging={decay: 0.5}", "trainer.check_val_every_n_epoch=100"]
    first = train(compose("kat/function-fit", [*FIT, *averages, length, "run_dir=run"]))
    state, rows = load_file("run/model.safetensors"), read_metrics(Path("run"))
    again = train(compose_run(Path("run")), resume=True)
    assert again["metrics"] == first["metrics"]
    assert again["epochs"] == first["epochs"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_file("run/model.safetensors").items())
    assert read_metrics(Path("run")) == rows


def test_the_wall_time_is_that_of_all_parts(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that was stopped, and of one that was finished when it was resumed."""

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        time.sleep(1.0)
        return original(self, batch, batch_idx)

    original = GRKANRegressor.training_step
    options = [*FIT, "trainer.max_epochs=3", "run_dir=run"]
    with monkeypatch.context() as patch:
        patch.setattr(GRKANRegressor, "training_step", training_step)
        interrupt_at(patch, GRKANRegressor, 2)
        with pytest.raises(Interrupted):
            train(compose("kat/function-fit", options))
    for _ in range(2):
        assert train(compose_run(Path("run")), resume=True)["wall_time_s"] > 2


def test_killed_before_the_first_checkpoint_it_begins_anew(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had logged goes, since it is logged again."""
    train(compose("kat/function-fit", [*FIT, "run_dir=whole"]))

    class Killed(BaseException):
        pass

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 2:
            self.logger.save()
            raise Killed
        return original(self, batch, batch_idx)

    original = GRKANRegressor.training_step
    with monkeypatch.context() as patch:
        patch.setattr(GRKANRegressor, "training_step", training_step)
        with pytest.raises(Killed):
            train(compose("kat/function-fit", [*FIT, "run_dir=parts"]))
    assert read_metrics(Path("parts"))
    train(compose_run(Path("parts")), resume=True)
    assert_same_run(in_tmp / "whole", in_tmp / "parts")


@pytest.mark.parametrize("batch", [2, 6])
def test_gradient_accumulation(in_tmp: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """Stopped at a batch that ends an accumulation, and at one that begins it: the step is finished first."""
    options = [*DIGITS, "trainer.accumulate_grad_batches=2"]
    check_interrupted(monkeypatch, "kat/digits", options, ImageClassifier, batch)


def test_rival_interrupted(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run stopped while its rival trains goes on with the rival."""
    options = [*FIT, "rival={name: kat/gr-kan, activation: gelu}"]
    train(compose("kat/function-fit", [*options, "run_dir=whole"]))
    with monkeypatch.context() as patch:
        interrupt_at(patch, GRKANRegressor, 9)
        with pytest.raises(Interrupted):
            train(compose("kat/function-fit", [*options, "run_dir=parts"]))
    assert (in_tmp / "parts/model.safetensors").exists()
    summary = train(compose_run(Path("parts")), resume=True)
    assert_same_run(in_tmp / "whole", in_tmp / "parts")
    assert_same_run(in_tmp / "whole/rival", in_tmp / "parts/rival")
    assert summary["rival"]["metrics"]["test/rmse"] > 0


def test_resume_of_a_finished_run_trains_further(in_tmp: Path) -> None:
    train(compose("kat/function-fit", [*FIT, "run_dir=run"]))
    summary = train(compose_run(Path("run"), ["trainer.max_epochs=8"]), resume=True)
    assert summary["epochs"] == 8
    steps = [row["step"] for row in read_metrics(in_tmp / "run") if "train/loss" in row]
    assert steps == list(range(8))


def test_a_second_run_does_not_overwrite_the_first(in_tmp: Path) -> None:
    train(compose("kat/function-fit", [*FIT, "run_dir=run"]))
    with pytest.raises(ZooError, match="already holds a run"):
        train(compose("kat/function-fit", [*FIT, "run_dir=run"]))


def test_truncated_checkpoint_is_named(in_tmp: Path) -> None:
    train(compose("kat/function-fit", [*FIT, "run_dir=run"]))
    checkpoint = in_tmp / "run/checkpoints/last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"last\.ckpt is damaged or truncated.*best\.ckpt"):
        train(compose_run(Path("run"), ["trainer.max_epochs=8"]), resume=True)


def test_resume_with_another_model_is_refused(in_tmp: Path) -> None:
    train(compose("kat/function-fit", [*FIT, "run_dir=run"]))
    with pytest.raises(WeightsError, match="does not fit this model"):
        train(compose_run(Path("run"), ["model.features=[2,16,1]"]), resume=True)


def test_checkpoint_with_code_is_not_run(in_tmp: Path) -> None:
    """A pickle that would run code on loading is refused."""
    train(compose("kat/function-fit", [*FIT, "run_dir=run"]))

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, ("touch pwned",)

    torch.save({"state_dict": Evil()}, in_tmp / "run/checkpoints/last.ckpt")
    with pytest.raises(WeightsError, match="damaged"):
        train(compose_run(Path("run")), resume=True)
    assert not (in_tmp / "pwned").exists()
