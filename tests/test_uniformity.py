"""All systems behave alike: every config and every model of the registry against the same contract."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import zoo
from tests.conftest import ROOT
from zoo import weights
from zoo.config import compose, list_configs, resolve
from zoo.engine.run import train
from zoo.errors import DataError
from zoo.models import card_path, first_line
from zoo.pretrained import get_entry

# What makes a config's data and work small; by data module, family or config, each adding to the one before.
SMALL = {
    "humans/body-clouds": [
        "data.bodies=8",
        "data.val_size=2",
        "data.test_size=2",
        "data.points=256",
        "data.batch_size=2",
    ],
    "humans/keypoints": ["data.poses=32", "data.val_size=2", "data.test_size=4", "data.batch_size=16"],
    "humans/rendered-people": ["data.train_size=8", "data.val_size=2", "data.test_size=4", "data.batch_size=4"],
    "humans/motion-pairs": [
        "data.pairs=16",
        "data.batch_size=8",
        "data.motions=2",
        "data.test_size=4",
        "data.val_size=2",
    ],
    "splatting/city": [
        "data.size=24",
        "data.points=600",
        "data.positions=3",
        "data.iterations=2",
        "data.interval=1",
        "model.voxel_size=0.4",
        "trainer.max_steps=-1",
    ],
    "kat/function": ["data.steps_per_epoch=2", "data.test_points=100"],
    "mri/phantom": [
        *("data.train_volumes=2", "data.val_volumes=1", "data.test_volumes=1", "data.slices=1", "data.size=[40,36]"),
        "model.baselines=[zero-filled]",
    ],
    "mri/recurrentvarnet": ["model.real_slice=false"],
    "mri/rim": ["model.real_slice=false"],
    "mri/varnet": ["model.real_slice=false"],
    "mri/diffusion": ["model.steps=1", "model.n_samples=2"],
    "mri/diffusion-rival": ["model.steps=1", "model.n_samples=2"],
    "mri/no-varnet": ["data.size=[96,96]"],
    "mri/no-varnet-rival": ["data.size=[96,96]"],
    "operators/navier-stokes": [
        "data.train_size=2",
        "data.val_size=1",
        "data.test_size=2",
        "data.batch_size=2",
        "data.final_time=2.0",
    ],
    "operators/burgers": ["data.train_size=4", "data.val_size=2", "data.test_size=2", "data.batch_size=2"],
    "operators/darcy": ["data.train_size=4", "data.val_size=2", "data.test_size=2", "data.batch_size=2"],
    "splatting/scene": ["data.size=48", "data.views=16", "data.points=200"],
    "splatting": ["trainer.val_check_interval=null"],
    "splatting/edgs": ["model.budget=500"],
    "splatting/edgs-buddha": ["model.budget=500"],
    "pinn/wells": ["trainer.limit_test_batches=1"],
    "kat/digits": ["trainer.limit_test_batches=1", "trainer.limit_val_batches=1"],
}
QUIET = ["callbacks.progress_bar=null", "logger.tensorboard=null"]
CONFIGS = [
    name for name in list_configs() if name.split("/")[0] in {model.split("/")[0] for model in zoo.list_models()}
]


def small(config: str) -> list[str]:
    keys = (compose(config).data.name, config.split("/")[0], config)
    return [*QUIET, *(option for key in keys for option in SMALL.get(key, []))]


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_trains_or_says_where_its_data_come_from(config: str, in_tmp: Path) -> None:
    try:
        checked = resolve(compose(config, ["run_dir=run"]))
        zoo.create_data(checked.data.name, **checked.data.arguments)
    except DataError as error:
        text = str(error)
        assert re.search(r"data\.\w+=", text), text
        assert "http" in text, text
        assert not Path("run").exists()
        return
    composed = compose(config, [*small(config), "rival=null", "trainer.max_steps=2", "run_dir=run"])
    summary = train(composed)
    metrics = summary["metrics"]
    assert metrics
    assert all(name.startswith("test/") for name in metrics)
    assert all(math.isfinite(value) for name, value in metrics.items()), metrics
    for figure in Path("run/figures").glob("*.png"):
        with Image.open(figure) as picture:
            low, high = picture.convert("L").getextrema()
        assert low < high, f"{figure.name} is empty"
    assert len(list(Path("run/figures").glob("*.png"))) >= 2  # the model's own, and the training's curves


@pytest.mark.parametrize("name", zoo.list_models())
def test_a_model_is_whole(name: str, tmp_path: Path) -> None:
    """Builds from its defaults, leaves and comes back as a weights file, has a card, a config and work on files."""
    torch.manual_seed(0)
    module = zoo.create_model(name)
    weights.save(module, tmp_path / "model.safetensors")
    again = weights.build(tmp_path / "model.safetensors")
    assert type(again) is type(module)
    state = module.network.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in again.network.state_dict().items())
    assert first_line(card_path(name)), "the card has no first line"
    used = {str(entry.name) for config in list_configs() for entry in entries(config)}
    assert name in used, "no config trains it"
    assert "output" in inspect.signature(type(module).predict_file).parameters  # type: ignore[attr-defined]


def entries(config: str) -> list[Any]:
    composed = compose(config)
    return [entry for entry in (composed.model, composed.get("rival")) if entry is not None]


@pytest.mark.parametrize("name", zoo.list_weights())
def test_weights_say_what_they_do_and_are_tested(name: str) -> None:
    entry = get_entry(name)
    assert entry.metrics
    assert entry.licence
    assert entry.config in list_configs()
    tests = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    assert any(f'"{name}"' in path.read_text(encoding="utf-8") for path in tests), "no test reproduces its numbers"
