"""Every model of the registry lives the same life: it trains, is stopped, goes on, is tested, works on a file."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor

import zoo
from tests.inputs import prediction
from tests.small import config_of
from zoo.config import compose_run, resolve
from zoo.engine.loggers import read_metrics
from zoo.engine.run import build, evaluate, train
from zoo.errors import Interrupted
from zoo.pretrained import load_module
from zoo.registry import get_class

OPTIONS = [
    *("trainer.max_epochs=2", "trainer.max_steps=-1", "trainer.limit_train_batches=3"),
    *("trainer.limit_test_batches=1", "trainer.limit_val_batches=1"),
    *("callbacks.test_figures=null", "callbacks.rich_model_summary=null"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.list_models())
def test_a_model_lives(name: str, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(name, OPTIONS)
    whole = train(in_folder(config, "whole"))
    with monkeypatch.context() as patch:
        interrupt_in_second_step(patch, get_class("model", name))
        with pytest.raises(Interrupted, match="SIGINT"):
            train(in_folder(config, "parts"))
    assert not Path("parts/model.safetensors").exists()
    parts = train(compose_run(Path("parts")), resume=True)
    check_same(parts["metrics"], whole["metrics"])
    rows, expected_rows = read_metrics(Path("parts")), read_metrics(Path("whole"))
    assert len(rows) == len(expected_rows)
    for row, expected in zip(rows, expected_rows, strict=True):
        check_same(row, expected)
    ends = load_file("parts/model.safetensors"), load_file("whole/model.safetensors")
    assert distance(*ends) <= 0.01 * distance(start(config), ends[1])

    again = evaluate(compose_run(Path("parts"), ["run_dir=again"]), "parts")
    check_same(again["metrics"], {key: parts["metrics"][key] for key in again["metrics"]})

    data = resolve(config).data
    module = load_module("parts")
    arguments = prediction(module, zoo.create_data(data.name, **data.arguments), in_tmp)
    facts = module.predict_file(**arguments)  # type: ignore[operator]
    assert facts
    assert arguments["output"].stat().st_size > 0


def in_folder(config: Any, folder: str) -> Any:
    return OmegaConf.merge(config, {"run_dir": folder})


def interrupt_in_second_step(monkeypatch: pytest.MonkeyPatch, cls: type) -> None:
    original = cls.training_step  # type: ignore[attr-defined]
    count = 0

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(cls, "training_step", training_step)


def check_same(metrics: Mapping[str, float], expected: Mapping[str, float]) -> None:
    """But for timings, and up to what rounding depends on: where in memory an array happens to lie."""
    assert metrics.keys() == expected.keys()
    for key, value in metrics.items():
        if not key.endswith(("_ms", "_s", "seconds")):
            assert value == pytest.approx(expected[key], rel=1e-3, abs=1e-6, nan_ok=True), key


def start(config: Any) -> dict[str, Tensor]:
    """The weights that a run of `config` begins with."""
    checked = resolve(config)
    pl.seed_everything(checked.seed, verbose=False)
    return build(checked.model).network.state_dict()


def distance(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Norm of the difference; what one has not, or of another size, counts as zeros."""
    total = 0.0
    for key, tensor in other.items():
        own = state.get(key)
        known = own is not None and own.shape == tensor.shape
        total += float((tensor.double() - own.double() if known else tensor.double()).square().sum())  # type: ignore[union-attr]
    return math.sqrt(total)
