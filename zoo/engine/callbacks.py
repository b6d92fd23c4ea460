"""Callbacks that every run has: reproducible randomness, a point to resume from, pictures."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, RichProgressBar
from pytorch_lightning.plugins.environments import SLURMEnvironment
from torchmetrics import Metric

from zoo.data.loading import EpochSampler
from zoo.engine.loggers import CSVLogger
from zoo.engine.run_folder import RunFolder
from zoo.errors import Interrupted
from zoo.launch import is_main_process
from zoo.module import ZooModule
from zoo.viz.save import save_animations, save_figures

__all__ = ["ProgressBar", "ResumePoint", "StepSeed", "TestFigures"]


class ProgressBar(RichProgressBar):
    """Lightning's live progress bar, without the logger's version number, which says nothing here."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What to show beside the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class StepSeed(Callback):
    """Makes the randomness of each training step a function of (seed, epoch, batch, rank) alone.

    Dropout, noise and whatever else draws from the global generators of Python, NumPy and torch is then the
    same in a resumed run as in one that was never stopped, whatever validation drew in between.

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Seeds the global generators for this step."""
        words = (self.seed, trainer.current_epoch, index, trainer.global_rank)
        mixed = int(np.random.SeedSequence(words).generate_state(1)[0])
        random.seed(mixed)
        np.random.seed(mixed)
        torch.manual_seed(mixed)


class ResumePoint(Checkpoint):
    """Keeps ``last.ckpt``, from which a run goes on as if it had never stopped.

    It is written every `every_n_seconds`, and when the run is asked to stop by Ctrl-C (SIGINT) or SIGTERM:
    the optimizer step in progress (or the validation) is finished first, since half a step can't be saved. A second
    Ctrl-C stops at once, leaving the last one written.

    Args:
        every_n_seconds: the least time between two writes, in seconds.

    Attributes:
        seconds_before: how long the training took that led to the checkpoint which this run goes on from.
    """

    def __init__(self, every_n_seconds: float = 60.0) -> None:
        self.every_n_seconds = every_n_seconds
        self.path = Path()
        self.signum: int | None = None
        self.seconds_before = 0.0
        self._started = time.monotonic()
        self._logged_step = -1
        self._metric_states: dict[str, tuple[int, dict[str, Any]]] = {}
        self._written = time.monotonic()
        self._handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """What belongs to this checkpoint: the last step in ``metrics.csv``, metrics of the epoch so far, the time."""
        seconds = self.seconds_before + time.monotonic() - self._started
        return {"logged_step": self._logged_step, "metrics": self._metric_states, "seconds": seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self._logged_step = state_dict["logged_step"]
        self._metric_states = state_dict["metrics"]
        self.seconds_before = state_dict.get("seconds", 0.0)  # checkpoints before this was kept have none

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """In a resumed run, drops log rows that were written after the checkpoint."""
        # With max_steps, Lightning takes a run that stopped at the end of an epoch for one in the midst of it: that
        # epoch would end twice, and all later ones be counted, and seeded, as the ones before them.
        trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger):
                logger.drop_rows_after(self._logged_step)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Catches the signals; in a resumed run takes up data and metrics where the checkpoint was written."""
        _take_up_data(trainer)
        for name, metric in _metrics(pl_module).items():
            if name in self._metric_states:
                count, states = self._metric_states[name]
                metric._update_count = count
                for key, value in states.items():
                    setattr(metric, key, value)
        self._metric_states = {}
        self.path = RunFolder(Path(trainer.default_root_dir)).last_checkpoint
        self._written = time.monotonic()
        caught = [signal.SIGINT, signal.SIGTERM]
        cluster = trainer._accelerator_connector.cluster_environment
        if isinstance(cluster, SLURMEnvironment) and cluster.auto_requeue:
            caught.remove(signal.SIGTERM)  # Lightning saves and requeues the job at SIGUSR1, before SIGTERM comes
        for signum in caught:
            self._handlers[signum] = signal.signal(signum, self._request_stop)

    def _request_stop(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum
        if is_main_process():
            print("\nStopping after this step and saving; press Ctrl-C again to stop at once.", flush=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves between two optimizer steps of an epoch when it is time, and leaves if asked to."""
        if trainer.is_last_batch or self._is_last_step(trainer):  # the end, after validation, is the better place
            return
        if trainer.fit_loop.epoch_loop._should_accumulate():  # gradients collected so far are not saved
            return
        stop, save = self._decide(trainer)
        if save:
            self._metric_states = {
                name: (metric._update_count, dict(metric.metric_state)) for name, metric in _metrics(pl_module).items()
            }
            self._save(trainer, logged_step=trainer.fit_loop.epoch_loop._batches_that_stepped)
            self._metric_states = {}
        if stop:
            self._leave()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves between two epochs when it is time, and ends the training if asked to."""
        stop, save = self._decide(trainer)
        if save or self._is_final(trainer):
            self._save(trainer, logged_step=trainer.fit_loop.epoch_loop._batches_that_stepped - 1)
        if stop and trainer.should_stop:  # asked before, but min_epochs kept it going
            self._leave()
        trainer.should_stop |= stop

    def _decide(self, trainer: pl.Trainer) -> tuple[bool, bool]:
        """(stop now, save now), the same on all ranks."""
        stop = self.signum is not None
        save = time.monotonic() - self._written >= self.every_n_seconds
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
            save = trainer.strategy.reduce_boolean_decision(save, all=False)
        if stop and self.signum is None:  # another rank was asked
            self.signum = signal.SIGTERM
        return stop, save or stop

    @staticmethod
    def _is_last_step(trainer: pl.Trainer) -> bool:
        return 0 < trainer.max_steps <= trainer.global_step

    def _is_final(self, trainer: pl.Trainer) -> bool:
        return trainer.should_stop or self._is_last_step(trainer) or trainer.current_epoch + 1 == trainer.max_epochs

    def _save(self, trainer: pl.Trainer, logged_step: int) -> None:
        self._logged_step = logged_step
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.path)
        self._written = time.monotonic()

    def _leave(self) -> None:
        assert self.signum is not None
        name = signal.Signals(self.signum).name
        raise Interrupted(f"Training was stopped by {name}; its state is saved in {self.path}.", self.signum)

    def raise_if_interrupted(self) -> None:
        """For the caller of ``trainer.fit``: raises `Interrupted` if a signal ended it between epochs."""
        if self.signum is not None:
            self._leave()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Gives the signals back."""
        self._release_signals()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gives the signals back."""
        self._release_signals()

    def _release_signals(self) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        self._handlers.clear()


def _metrics(module: pl.LightningModule) -> dict[str, Metric]:
    return {name: part for name, part in module.named_modules() if isinstance(part, Metric)}


def _take_up_data(trainer: pl.Trainer) -> None:
    """Lets the training loaders go on with the batch after the last one seen.

    Lightning has made their iterators by now, possibly before it restored its own position.
    """
    loop = trainer.fit_loop
    seen = loop.epoch_loop.batch_progress.current.ready if loop.restarted_mid_epoch else 0
    assert loop._combined_loader is not None
    assert loop._data_fetcher is not None
    for loader in loop._combined_loader.flattened:
        if isinstance(getattr(loader, "sampler", None), EpochSampler):
            loader.sampler.resume(trainer.current_epoch, seen * (loader.batch_size or 1))
    if trainer.current_epoch or seen:
        iter(loop._data_fetcher)


class TestFigures(Callback):
    """Saves the pictures of ``module.figures(batch, output)`` for the first test batch to the run folder.

    Args:
        animations: save the films of ``module.animations(batch, output)`` too.
        space: save ``module.space(batch, output)`` too.
    """

    __test__ = False  # pytest: this is no test class

    def __init__(self, animations: bool = False, space: bool = False) -> None:
        self.animations, self.space = animations, space

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws and saves on the first process."""
        if batch_idx == 0 and dataloader_idx == 0 and trainer.is_global_zero:
            assert isinstance(pl_module, ZooModule)
            run = RunFolder(Path(trainer.default_root_dir))
            save_figures(pl_module.figures(batch, outputs), run.figures)
            if self.animations:
                save_animations(pl_module.animations(batch, outputs), run.figures)
            if self.space and (space := pl_module.space(batch, outputs)) is not None:
                space.save(run.space)
