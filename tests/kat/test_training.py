"""The family's configs train, draw and predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.config import compose
from zoo.data.functions import FUNCTIONS
from zoo.engine.run import evaluate, train
from zoo.errors import DataError
from zoo.pretrained import get_entry

QUIET = ["callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["kat/kat", "kat/vit"])
def test_digits_are_learned(in_tmp: Path, model: str) -> None:
    """From chance (10 %) to over 75 % in a short training without augmentation."""
    options = ["rival=null", f"model.name={model}", "trainer.max_epochs=15", "data.augment=0", "run_dir=run"]
    summary = train(compose("kat/digits", [*QUIET, *options]))
    assert summary["metrics"]["test/accuracy"] > 0.75
    names = {path.stem for path in Path("run/figures").glob("*.png")}
    assert names >= {"attention", "confusion_matrix", "training"}
    assert ("rationals" in names) == (model == "kat/kat")


def test_function_fit_improves_and_beats_its_rival(in_tmp: Path) -> None:
    untrained = zoo.create_model("kat/gr-kan")
    x = torch.rand(500, 2) * 2 - 1
    start = (untrained(x) - FUNCTIONS["exp-sin"][1](x)).square().mean().sqrt().item()
    summary = train(compose("kat/function-fit", [*QUIET, "trainer.max_epochs=4", "run_dir=run", "seed=1"]))
    assert summary["metrics"]["test/rmse"] < 0.1 * start
    assert summary["metrics"]["test/rmse"] < 0.8 * summary["rival"]["metrics"]["test/rmse"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_can_be_fitted(in_tmp: Path, function: str) -> None:
    dim = FUNCTIONS[function][0]
    options = [f"data.function={function}", f"model.features=[{dim},16,1]", "trainer.max_epochs=1", "rival=null"]
    train(compose("kat/function-fit", [*QUIET, *options, "run_dir=run"]))
    assert Path("run/figures/fit.png").is_file()


def tiny(**arguments: Any) -> Any:
    return zoo.create_model("kat/kat", img_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=1, **arguments)


def test_weight_decay_spares_what_it_should() -> None:
    """Biases, norms, class token and positions never; the rationals by their own setting."""
    module = tiny(in_chans=1, num_classes=10, pixel_mean=(0.0,), pixel_std=(1.0,), coef_weight_decay=0.01)
    module.trainer = type("T", (), {"estimated_stepping_batches": 10, "max_epochs": 2})()
    groups = module.configure_optimizers()["optimizer"].param_groups
    names = {id(p): name for name, p in module.network.named_parameters()}
    by_decay = {group["weight_decay"]: {names[id(p)] for p in group["params"]} for group in groups}
    assert {n for n in names.values() if "act" in n} == by_decay[0.01]
    assert {"cls_token", "pos_embed", "head.bias", "blocks.0.norm1.weight"} <= by_decay[0.0]
    assert {"head.weight", "blocks.0.mlp.fc1.weight", "patch_embed.proj.weight"} <= by_decay[0.05]
    assert sum(map(len, by_decay.values())) == len(names)


def test_shipped_weights_keep_what_was_recorded(in_tmp: Path) -> None:
    """Up to one image of 360, which rounding on another processor may decide."""
    module = zoo.load_pretrained("kat/digits")
    assert not module.training
    assert module.zoo_name == "kat/kat"
    entry = get_entry("kat/digits")
    metrics = evaluate(compose("kat/digits", [*QUIET, "run_dir=run"]), "kat/digits")["metrics"]
    assert metrics["test/accuracy"] == pytest.approx(entry.metrics["test/accuracy"], abs=1.5 / 360)
    assert metrics["test/loss"] == pytest.approx(entry.metrics["test/loss"], rel=1e-3)
    assert metrics["test/accuracy"] >= 0.96


class TestPredict:
    @pytest.fixture
    def module(self) -> Any:
        return tiny(in_chans=1, num_classes=10, pixel_mean=(0.3,), pixel_std=(0.4,)).eval()

    def test_arrays_and_pictures(self, module: Any, in_tmp: Path) -> None:
        images = np.random.default_rng(0).random((3, 8, 8))
        np.save("a.npy", images)
        facts = module.predict_file(Path("a.npy"), Path("a.json"))
        rows = json.loads(Path("a.json").read_text())
        expected = module(torch.from_numpy(images[:, None]).float()).softmax(-1)
        assert facts["class"] == expected.argmax(-1).tolist() == [row["class"] for row in rows]
        assert np.allclose([row["probabilities"] for row in rows], expected.detach(), atol=1e-6)

        Image.fromarray((images[0] * 255).astype(np.uint8)).save("a.png")
        module.predict_file(Path("a.png"), Path("a.csv"))
        header, row = Path("a.csv").read_text().splitlines()
        assert header.startswith("class,p0,")
        assert int(row.split(",")[0]) == facts["class"][0]

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("none.png", None, "There is no file"),
            ("text.png", b"not a picture", "can't be read as an image"),
            ("bad.npy", b"not an array", "can't be read as a .npy"),
            ("shape.npy", np.zeros((2, 9, 9)), r"the model takes \(N, 1, 8, 8\)"),
            ("nan.npy", np.full((1, 8, 8), np.nan), "NaN or infinity"),
            ("empty.npy", np.zeros((0, 8, 8)), "the model takes"),
        ],
    )
    def test_bad_input_is_named(self, module: Any, in_tmp: Path, name: str, content: Any, message: str) -> None:
        if isinstance(content, bytes):
            Path(name).write_bytes(content)
        elif content is not None:
            np.save(name, content)
        with pytest.raises(DataError, match=message):
            module.predict_file(Path(name), Path("out.json"))
        with pytest.raises(DataError, match=r"should end in .json or .csv"):
            module.predict_file(Path(name), Path("out.txt"))
        assert not Path("out.json").exists()
