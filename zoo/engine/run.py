"""Training and testing a config: the one path that every system takes."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.warnings import PossibleUserWarning

from zoo import config as configs
from zoo import weights
from zoo.cli import console
from zoo.config import Entry, RunConfig
from zoo.engine.callbacks import ResumePoint
from zoo.engine.checkpoint_io import AtomicCheckpointIO
from zoo.engine.components import build_trainer
from zoo.engine.loggers import read_metrics
from zoo.engine.run_folder import RunFolder
from zoo.errors import ConfigError, WeightsError
from zoo.launch import is_main_process, requeued
from zoo.module import ZooModule
from zoo.pretrained import network_weights
from zoo.registry import create_data, create_model
from zoo.viz.curves import training_curves
from zoo.viz.save import save_figures

if TYPE_CHECKING:
    from omegaconf import DictConfig


# What Lightning says about every run and no user of this package needs: hardware it did not find, hints at
# products, its own deprecated calls.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*LeafSpec.*")
warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
warnings.filterwarnings("ignore", category=PossibleUserWarning)


def train(config: DictConfig, resume: bool = False) -> dict[str, Any]:
    """Trains, tests and summarises a config, and its rival if it has one.

    Args:
        config: a composed config.
        resume: go on from the checkpoint in its run folder (from the beginning if there is none yet). So does a
            requeued SLURM job.

    Returns:
        The summary, as written to ``summary.json``; a rival's summary stands under ``"rival"``.

    Raises:
        ZooError: the config, the data, the weights or the checkpoint is unusable, or training was interrupted.
    """
    checked = configs.resolve(config)
    run = RunFolder(checked.run_dir)
    if not (resume or requeued()) and is_main_process():
        run.require_new()
    pl.seed_everything(checked.seed, workers=True, verbose=False)
    module, data = build(checked.model), create_data(checked.data.name, **checked.data.arguments)
    if checked.weights is not None:
        tensors = module.adapt_weights(network_weights(checked.weights))
        weights.load_into(module.network, tensors, source=checked.weights)
    trainer = build_trainer(checked.trainer, checked.callbacks, checked.logger, run)
    if is_main_process():
        configs.save(config, run.path)
    console().print(f"[bold]{checked.config}[/]: {checked.model.name} -> {run.path}")

    summary = _fit_and_test(checked, trainer, module, data, run)
    if checked.rival is not None:
        rival = config.copy()
        rival.model, rival.rival, rival.weights, rival.run_dir = config.rival, None, None, str(run.rival.path)
        summary["rival"] = train(rival, resume=resume or run.rival.config.exists())
    if is_main_process():
        run.write_summary(summary)
    return summary


def build(entry: Entry) -> ZooModule:
    """The LightningModule of a config's ``model``."""
    return create_model(entry.name, **entry.arguments)


def _fit_and_test(
    config: RunConfig, trainer: pl.Trainer, module: ZooModule, data: pl.LightningDataModule, run: RunFolder
) -> dict[str, Any]:
    checkpoint = run.last_checkpoint if run.last_checkpoint.is_file() else None
    start = time.perf_counter()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except MisconfigurationException as error:
        raise ConfigError(f"Lightning refuses to train {config.model.name} with this trainer: {error}") from error
    except RuntimeError as error:
        if "any parameter that requires a gradient" in str(error):
            raise ConfigError(
                f"{config.model.name} trains nothing by gradients that processes could share: use trainer.devices=1."
            ) from error
        if checkpoint is not None and "loading state_dict" in str(error):
            raise WeightsError(
                f"{checkpoint} does not fit this model: {error}. Resume with the model arguments it was made with."
            ) from error
        raise
    wall_time = time.perf_counter() - start
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ResumePoint):
            callback.raise_if_interrupted()
            wall_time += callback.seconds_before
        # As Lightning does, unless a resumed run had nothing left to train.
        if isinstance(callback, WeightAveraging):
            callback.on_train_end(trainer, module)
    progress = trainer.fit_loop.epoch_progress.current
    progress.completed = progress.processed  # type: ignore[attr-defined]
    if run.best_checkpoint.is_file():
        module.load_state_dict(AtomicCheckpointIO().load_checkpoint(run.best_checkpoint)["state_dict"])
    metrics = test(trainer, module, data)
    if trainer.is_global_zero:
        weights.save(module, run.weights)
        save_figures({"training": training_curves(read_metrics(run.path))}, run.figures)
    return {
        "config": config.config,
        "model": config.model.name,
        "seed": config.seed,
        "parameters": sum(p.numel() for p in module.network.parameters()),
        "epochs": trainer.current_epoch,
        "wall_time_s": round(wall_time, 2),
        "metrics": metrics,
    }


def test(trainer: pl.Trainer, module: ZooModule, data: pl.LightningDataModule) -> dict[str, float]:
    """Runs the test loop; its metrics by name."""
    with torch.no_grad():
        results = trainer.test(module, datamodule=data, verbose=False)
    return {name: float(value) for result in results for name, value in result.items()}


def evaluate(config: DictConfig, source: str) -> dict[str, Any]:
    """Tests given weights on a config's data, with pictures in a run folder of its own.

    Args:
        config: a composed config; its ``run_dir`` takes the pictures and the summary.
        source: the weights: a pretrained name, a weights file or a run folder.

    Returns:
        The summary, as written to ``summary.json``.

    Raises:
        ZooError: the config, the data or the weights are unusable.
    """
    checked = configs.resolve(config)
    run = RunFolder(checked.run_dir)
    if is_main_process():
        run.require_new()
    start = time.perf_counter()
    metrics = _test_weights(checked, source, run)
    summary = {
        "config": checked.config,
        "model": checked.model.name,
        "weights": source,
        "seed": checked.seed,
        "wall_time_s": round(time.perf_counter() - start, 2),
        "metrics": metrics,
    }
    if is_main_process():
        configs.save(config, run.path)
        run.write_summary(summary)
    return summary


def draw(config: DictConfig, source: str, folder: Path) -> None:
    """Draws the test pictures of given weights anew, their films, and the curves of the run if `folder` holds one.

    Args:
        config: a composed config.
        source: the weights: a pretrained name, a weights file or a run folder.
        folder: the pictures go to ``<folder>/figures``.

    Raises:
        ZooError: the config, the data or the weights are unusable.
    """
    checked = configs.resolve(config)
    run = RunFolder(folder)
    first_batch = {**checked.trainer, "limit_test_batches": 1}
    with_films = {**checked.callbacks, "test_figures": {"animations": True}}
    _test_weights(replace(checked, trainer=first_batch, callbacks=with_films), source, run)
    if rows := read_metrics(folder):
        save_figures({"training": training_curves(rows)}, run.figures)


def _test_weights(config: RunConfig, source: str, run: RunFolder) -> dict[str, float]:
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module, data = build(config.model), create_data(config.data.name, **config.data.arguments)
    weights.load_into(module.network, network_weights(source), source=source)
    callbacks = {key: config.callbacks.get(key) for key in ("test_figures", "progress_bar")}
    return test(build_trainer(config.trainer, callbacks, {}, run), module, data)


def figure_paths(run_dir: Path) -> list[Path]:
    """The pictures in a run folder, its rival's included."""
    return sorted(run_dir.rglob("figures/*.png"))
