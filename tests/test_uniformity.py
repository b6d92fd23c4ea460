"""All systems behave alike: every config and every model of the registry against the same contract."""

from __future__ import annotations

import inspect
import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import zoo
from tests.conftest import ROOT
from tests.processes import together
from tests.small import small
from zoo import weights
from zoo.config import compose, list_configs, resolve
from zoo.engine.run import train
from zoo.errors import DataError, UnknownNameError, WeightsError
from zoo.models import card_path, first_line
from zoo.pretrained import get_entry

CONFIGS = [
    name for name in list_configs() if name.split("/")[0] in {model.split("/")[0] for model in zoo.list_models()}
]


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


@pytest.mark.slow
def test_every_model_trains_in_mixed_precision_on_two_processes(tmp_path: Path) -> None:
    """Two steps in bfloat16 autocast; both processes take part and end with the same weights and metrics."""
    results = together(["-m", "tests.train_all"], tmp_path, job=4711, timeout=900, OMP_NUM_THREADS="1")
    for done in results:
        assert done.returncode == 0, done.stdout + done.stderr
    first, second = ([json.loads(line) for line in done.stdout.splitlines() if line[0] == "{"] for done in results)
    assert first == second
    assert [row["model"] for row in first] == zoo.list_models()
    assert all(math.isfinite(value) for row in first for value in row["metrics"].values()), first


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
    assert name in trained(), "no config trains it"
    assert "output" in inspect.signature(type(module).predict_file).parameters  # type: ignore[attr-defined]
    with pytest.raises((UnknownNameError, WeightsError), match=r"nothing was published|checkpoint"):
        zoo.convert_official(name, {"epoch": 3})


@cache
def trained() -> frozenset[str]:
    return frozenset(str(entry.name) for config in list_configs() for entry in entries(config))


def entries(config: str) -> list[Any]:
    composed = compose(config)
    return [entry for entry in (composed.model, composed.get("rival")) if entry is not None]


@pytest.mark.parametrize("name", zoo.list_weights())
def test_weights_say_what_they_do_and_are_tested(name: str) -> None:
    entry = get_entry(name)
    assert entry.metrics
    assert entry.licence
    assert entry.config in list_configs()
    module = zoo.load_pretrained(name)
    assert module.zoo_name == entry.model
    assert not module.training
    tests = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    assert any(f'"{name}"' in path.read_text(encoding="utf-8") for path in tests), "no test reproduces its numbers"
