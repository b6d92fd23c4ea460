"""Callbacks, loggers and trainer options by config."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from zoo.config import compose
from zoo.engine.components import build_trainer, component_classes
from zoo.engine.loggers import read_metrics
from zoo.engine.run import train
from zoo.engine.run_folder import RunFolder
from zoo.errors import ConfigError

QUIET = ["callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "rival=null", "run_dir=run"]
FIT = [*QUIET, "data.steps_per_epoch=4", "data.train_points=64", "data.test_points=64", "logger={csv: {}}"]


def test_names_of_components() -> None:
    callbacks, loggers = component_classes("callbacks"), component_classes("logger")
    assert callbacks["ema_weight_averaging"] is pl.callbacks.EMAWeightAveraging
    assert callbacks["rich_model_summary"] is pl.callbacks.RichModelSummary
    assert {"csv", "tensorboard", "wandb", "mlflow"} <= set(loggers)


def test_a_logger_whose_package_is_missing(in_tmp: Path) -> None:
    with pytest.raises(ConfigError, match=r"logger\.wandb needs a package that is not installed: .*wandb"):
        train(compose("kat/function-fit", [*QUIET, "logger.wandb={}"]))


def test_early_stopping_ends_the_run(in_tmp: Path) -> None:
    stopping = "callbacks.early_stopping={monitor: val/rmse, patience: 1, min_delta: 1000}"
    summary = train(compose("kat/function-fit", [*FIT, stopping, "trainer.max_epochs=50"]))
    assert summary["epochs"] < 5


def test_the_best_checkpoint_is_tested_and_kept(in_tmp: Path) -> None:
    best = "callbacks.model_checkpoint={monitor: val/rmse, mode: min}"
    train(compose("kat/function-fit", [*FIT, best, "trainer.max_epochs=6"]))
    rows = read_metrics(Path("run"))
    validated = [row["val/rmse"] for row in rows if "val/rmse" in row]
    checkpoint = torch.load("run/checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["epoch"] == min(range(6), key=validated.__getitem__)


def test_accumulated_gradients_and_precision(in_tmp: Path) -> None:
    options = ["trainer.accumulate_grad_batches=2", "trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1.0"]
    train(compose("kat/function-fit", [*FIT, *options, "trainer.max_epochs=2"]))
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


def test_averaged_weights_are_tested(in_tmp: Path) -> None:
    """With a decay of 1 the average never leaves the initial weights."""
    frozen = "callbacks.ema_weight_averaging={decay: 1.0}"
    averaged = train(compose("kat/function-fit", [*FIT, frozen, "trainer.max_epochs=3", "run_dir=a"]))
    trained = train(compose("kat/function-fit", [*FIT, "trainer.max_epochs=3", "run_dir=b"]))
    assert trained["metrics"]["test/rmse"] < 0.8 * averaged["metrics"]["test/rmse"]


def test_switching_everything_off(tmp_path: Path) -> None:
    trainer = build_trainer({"max_epochs": 1}, {"progress_bar": None}, {"csv": None}, RunFolder(tmp_path))
    assert not trainer.loggers
    assert trainer.progress_bar_callback is None
    assert not trainer.checkpoint_callbacks
    assert not list(tmp_path.iterdir())


def test_what_lightning_refuses_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Trainer refuses this trainer section"):
        build_trainer({"precision": "7-bit"}, {}, {}, RunFolder(tmp_path))
