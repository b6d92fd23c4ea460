"""The family's configs train, roll out, draw and predict."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from scipy.io import savemat

import zoo
from tools import visualize
from zoo.config import compose
from zoo.engine.run import train
from zoo.errors import ConfigError, DataError
from zoo.operators import navier_stokes
from zoo.operators.metrics import relative_l2
from zoo.operators.transforms import dct2, synthesise

QUIET = ["callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}", "run_dir=run"]
FEW = ["data.batch_size=5", "data.train_size=60", "data.val_size=5", "data.test_size=20"]
SHORT = {
    "t1": ["data.final_time=1", "trainer.max_epochs=12"],
    "t1u": ["data.final_time=1", "model.channel_exponent=3", "trainer.max_epochs=8"],
    "navier_stokes": ["data.final_time=1", "model.width=12", "trainer.max_epochs=12"],
    "fno": ["data.final_time=1", "trainer.max_epochs=8"],
    "ffno": ["data.final_time=1", "model.width=16", "trainer.max_epochs=12"],
    "burgers": ["data.resolution=128", "model.signal_resolution=[128]", "trainer.max_epochs=12"],
    "darcy": ["data.resolution=33", "model.signal_resolution=[33,33]", "model.width=12", "trainer.max_epochs=8"],
}


@pytest.mark.slow
@pytest.mark.parametrize("config", SHORT)
def test_every_config_learns(in_tmp: Path, config: str) -> None:
    """Better by a tenth than the mean of the training targets, which ignores the input."""
    options = [*QUIET, *FEW, *SHORT[config], "rival=null"]
    composed = compose(f"operators/{config}", options)
    summary = train(composed)
    arguments = {str(k): v for k, v in composed.data.items() if k not in ("name", "symmetries")}
    data = zoo.registry.create_data(composed.data.name, **arguments)
    data.setup("fit")
    mean = torch.stack([data.train[k]["target"] for k in range(60)]).mean(0)
    targets = torch.stack([data.test[k]["target"] for k in range(20)])
    trivial = relative_l2(mean.expand_as(targets), targets).mean().item()
    assert summary["metrics"]["test/relative_l2"] < 0.9 * trivial
    assert {path.stem for path in Path("run/figures").glob("*.png")} == {"errors", "film_strip", "spectra", "training"}


@pytest.mark.slow
def test_one_step_training_rolls_out(in_tmp: Path) -> None:
    """Better at the last step than standing still, and its error grows along the way."""
    options = ["rival=null", "data.frames=4", "data.final_time=4", "data.train_size=30", "data.val_size=5"]
    summary = train(
        compose("operators/rollout", [*QUIET, *options, "data.test_size=10", "model.width=12", "trainer.max_epochs=12"])
    )
    data = zoo.registry.create_data(
        "operators/navier-stokes", frames=4, final_time=4.0, train_size=30, val_size=5, test_size=10
    )
    data.setup("test")
    batch = torch.utils.data.default_collate([data.test[k] for k in range(10)])
    still = relative_l2(batch["input"], batch["target"][:, -1]).mean().item()
    assert summary["metrics"]["test/final_relative_l2"] < 0.7 * still
    module = zoo.pretrained.load_module("run")
    with torch.no_grad():
        steps = module(batch["input"], 4)
    errors = relative_l2(steps.flatten(0, 1), batch["target"].flatten(0, 1)).view(10, 4).mean(0)
    assert errors[0] < errors[-1]
    visualize.main(["run=run"])
    with Image.open("run/figures/roll_out.gif") as film:
        assert film.n_frames == 4


def tiny(name: str = "t1", **arguments: Any) -> Any:
    sizes = {
        "t1": {"modes": 8, "width": 4, "nlayers": 2, "signal_resolution": (16, 16), "head_init": "scaled"},
        "t1u-plus": {"modes": 8, "width": 4, "signal_resolution": (16, 16)},
        "fno": {"n_modes": (8, 8), "hidden_channels": 4, "n_layers": 2},
    }[name]
    return zoo.create_model(f"operators/{name}", **{**sizes, **arguments}).eval()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("t1", {}),
        ("t1", {"basis": "fourier", "integration_order": 1}),
        ("t1", {"keep_high": True}),
        ("t1", {"padding": 3}),
        ("t1u-plus", {}),
        ("t1u-plus", {"domain": "points"}),
        ("fno", {}),
        ("fno", {"grid": 12}),
    ],
)
@pytest.mark.parametrize("steps", [1, 3])
def test_the_loss_in_the_spectrum_is_the_error_of_the_field(name: str, arguments: dict[str, Any], steps: int) -> None:
    """Parseval, with what the representation loses of the target; also where units are changed."""
    arguments = {"target_std": (2.0,), "input_std": (2.0,), **arguments}
    module = tiny(name, **arguments)
    x, target = torch.randn(3, 1, 16, 16), torch.randn(3, steps, 1, 16, 16)
    with torch.no_grad():
        loss = module.objective({"input": x, "target": target}).item()
        expected = relative_l2(module(x, steps), target).mean().item()
    if "padding" in arguments:  # the spectrum of the padded field also holds what is predicted beyond the border
        assert loss > expected
    else:
        assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["t1", "t1u-plus", "fno"])
def test_half_precision_keeps_the_transforms_in_single(name: str) -> None:
    """Under bfloat16 autocast the output differs by that format's rounding, gradients are finite."""
    module = tiny(name)
    batch = {"input": torch.randn(3, 1, 16, 16), "target": torch.randn(3, 1, 1, 16, 16)}
    with torch.no_grad():
        exact = module(batch["input"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = module(batch["input"])
        loss = module.objective(batch)
    loss.backward()
    assert relative_l2(rounded, exact).max() < 0.05
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.network.parameters())


def test_roll_outs_feed_predictions_back() -> None:
    module = tiny("fno", in_channels=2, integration_order=2)
    x = torch.randn(2, 2, 16, 16)
    with torch.no_grad():
        rolled = module(x, 3)
        frames = list(x.unbind(1))
        for _ in range(3):
            given = torch.stack(frames[-2:], 1)
            frames.append(2 * frames[-1] - frames[-2] + module.network(given)[:, 0])
    assert torch.allclose(rolled[:, :, 0], torch.stack(frames[2:], 1), atol=1e-4)


def test_roll_outs_are_measured_after_quoted_steps(in_tmp: Path) -> None:
    """The signal-to-noise ratio of all test samples after 1 and 3 of four steps, with the range of those targets."""
    module = tiny("fno")
    samples = [{"input": torch.randn(1, 16, 16), "target": torch.randn(4, 1, 16, 16)} for _ in range(5)]
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    found = trainer.test(module, torch.utils.data.DataLoader(samples, 2), verbose=False)[0]
    assert {name for name in found if "after" in name} == {"test/psnr_after_1", "test/psnr_after_3"}
    batch = torch.utils.data.default_collate(samples)
    with torch.no_grad():
        prediction = module(batch["input"], 4)[:, 2]
    target = batch["target"][:, 2]
    ratio = (target.max() - target.min()) ** 2 / (prediction - target).square().mean()
    assert found["test/psnr_after_3"] == pytest.approx(10 * math.log10(ratio), rel=1e-5)


def test_fields_of_other_channels_are_refused() -> None:
    """One channel would be repeated to three without a word."""
    module = tiny("fno", in_channels=3, out_channels=3)
    one, three = torch.randn(2, 1, 16, 16), torch.randn(2, 3, 16, 16)
    with pytest.raises(ConfigError, match=r"model.in_channels=3.*\(1, 16, 16\)"):
        module(one)
    with pytest.raises(ConfigError, match=r"model.in_channels=3"):
        module.objective({"input": one, "target": three[:, None]})
    for step in (
        lambda b: module.objective(b),
        lambda b: module.validation_step(b, 0),
        lambda b: module.test_step(b, 0),
    ):
        with pytest.raises(ConfigError, match=r"model.out_channels=3"):
            step({"input": three, "target": one[:, None]})
    with pytest.raises(ConfigError, match="2 spatial axes"):
        module(torch.randn(2, 3, 16))


def test_a_network_on_spectra_still_learns_from_fields() -> None:
    """The perform_ arguments concern the network; the module transforms what it is given."""
    module = tiny(perform_forward=False)
    batch = {"input": torch.randn(2, 1, 16, 16), "target": torch.randn(2, 1, 1, 16, 16)}
    with torch.no_grad():
        error = relative_l2(module(batch["input"]), batch["target"]).mean().item()
        assert module.objective(batch).item() == pytest.approx(error, rel=1e-4)
        assert torch.allclose(module.network(dct2(batch["input"])), dct2(module(batch["input"])[:, 0]), atol=1e-4)


def test_published_training_start_is_dead_and_ours_is_not() -> None:
    """The published head is drawn at 1e-8, so that the first outputs vanish."""
    x = torch.randn(2, 1, 16, 16)
    assert tiny(head_init="published").network(x).abs().max() < 1e-6
    assert tiny().network(x).abs().max() > 1e-2


def test_units_of_the_modes_are_those_of_the_training_set() -> None:
    """Normalised coefficients have standard deviations std^(1 - scaling) of the largest, mean zero."""
    module = tiny("t1u-plus", scaling=0.25)
    assert not module.network.fitted
    amplitudes = torch.rand(1, 8, 8) + 0.1
    blocks = amplitudes * torch.randn(400, 1, 8, 8) + 3
    fields = synthesise(blocks, (16, 16), "fourier")
    pairs = [{"input": field, "target": 2 * field[None]} for field in fields]
    module.measure(pairs)
    network = module.network
    assert network.fitted
    scaled = (blocks - network.input_mean) / network.input_scale
    expected = (blocks.std(0) / blocks.std(0).max()) ** 0.75
    assert torch.allclose(scaled.std(0), expected, rtol=1e-4)
    assert scaled.mean(0).abs().max() < 1e-4
    assert torch.allclose(network.output_mean, 2 * network.input_mean, rtol=1e-3)
    module.on_fit_start()  # would look for the trainer's data otherwise


def test_another_resolution_without_training_anew() -> None:
    """Band-limited fields on a finer grid: T1's coefficients and FNO's coarse grid are the same functions."""
    for module in (tiny("t1u-plus"), tiny("t1u-plus", domain="points"), tiny("fno", grid=12)):
        block = torch.randn(2, 1, 7, 7)
        coarse, fine = (synthesise(scale * block, (n, n), "fourier") for scale, n in ((1, 16), (2, 32)))
        with torch.no_grad():
            assert torch.allclose(module(fine)[..., ::2, ::2], module(coarse), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"integration_order": 2}, "needs the last 2 states"),
        ({"input_mean": (1.0, 2.0)}, "model.input_mean should have 1 or 1 values, not 2"),
        ({"noise": -0.1}, "model.noise"),
        ({"target_std": (0.0,)}, "should be positive"),
        ({"name": "fno", "grid": 0}, "model.grid should be"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**arguments)
    with pytest.raises(ConfigError, match="can't be rolled out"):
        tiny("fno", in_channels=3, out_channels=2)(torch.randn(1, 3, 16, 16), 2)


class TestPredict:
    def test_a_field_file(self, in_tmp: Path) -> None:
        module = tiny()
        fields = np.random.default_rng(0).standard_normal((3, 16, 16))
        np.save("a.npy", fields)
        facts = module.predict_file(Path("a.npy"), Path("b.npy"), steps=2)
        result = np.load("b.npy")
        assert result.shape == facts["shape"] == (3, 2, 1, 16, 16)
        with torch.no_grad():
            expected = module(torch.from_numpy(fields[:, None]).float(), 2)
        assert np.allclose(result, expected, atol=1e-5)
        np.save("one.npy", fields[0])
        module.predict_file(Path("one.npy"), Path("c.npy"))
        assert np.load("c.npy").shape == (1, 1, 1, 16, 16)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("none.npy", None, "There is no file"),
            ("bad.npy", b"not an array", "can't be read as a .npy"),
            ("shape.npy", np.zeros((2, 3, 9, 9)), r"the model takes \(N, 1, points, points\)"),
            ("nan.npy", np.full((1, 16, 16), np.nan), "NaN or infinity"),
            ("text.npy", np.array(["a"]), "one array of real numbers"),
        ],
    )
    def test_bad_input_is_named(self, in_tmp: Path, name: str, content: Any, message: str) -> None:
        if isinstance(content, bytes):
            Path(name).write_bytes(content)
        elif content is not None:
            np.save(name, content)
        with pytest.raises(DataError, match=message):
            tiny().predict_file(Path(name), Path("out.npy"))

    def test_the_output_is_an_array_file(self, in_tmp: Path) -> None:
        np.save("a.npy", np.zeros((16, 16)))
        with pytest.raises(DataError, match=r"should end in .npy"):
            tiny().predict_file(Path("a.npy"), Path("out.csv"))


def write_public_files(root: Path) -> None:
    """Small files in the layouts of the paper's three data sets and two benchmarks."""
    w0 = 0.3 * torch.randn(14, 64, 64)
    w = navier_stokes.solve(w0, [0.1, 0.2]).numpy()
    savemat(root / "ns_V1e-3_N5000_T50.mat", {"a": w0.numpy(), "u": w, "t": np.array([[49.0, 50.0]])})
    generator = np.random.default_rng(0)
    for folder, count in (("train", 6), ("test", 2)):
        (root / "data" / folder).mkdir(parents=True)
        for k in range(count):
            np.savez(root / "data" / folder / f"{k}.npz", a=generator.standard_normal((6, 128, 128)))
    for number in (0, 64, 84):
        (root / f"sim_{number:06d}").mkdir()
        for frame in range(13):
            images = generator.random((5, 100, 60)).astype(np.float32)
            np.savez(root / f"sim_{number:06d}" / f"imgsTarget_{frame:06d}.npz", data=images)
    with h5py.File(root / "1D_Burgers_Sols_Nu0.01.hdf5", "w") as file:
        file["tensor"] = generator.standard_normal((12, 60, 128)).astype(np.float32)


RECIPES = {
    "t1-navier-stokes": ["model.width=4"],
    "t1u-navier-stokes": ["model.channel_exponent=2"],
    "fno-navier-stokes": ["model.width=4"],
    "ffno-navier-stokes": ["model.width=8"],
    "unet-navier-stokes": ["model.channel_exponent=2"],
    "t1-airfoil": ["model.width=2"],
    "t1u-airfoil": ["model.channel_exponent=2"],
    "fno-airfoil": ["model.width=4"],
    "unet-airfoil": ["model.channel_exponent=2"],
    "t1u-scalarflow": ["model.channel_exponent=2", "model.modes=24", "model.signal_resolution=[100,60]"],
    "fno-scalarflow": ["model.width=4", "model.modes=8", "model.signal_resolution=[100,60]"],
    "fno-pdebench": ["model.hidden_channels=8"],
}


@pytest.mark.slow
def test_the_papers_recipes_run(in_tmp: Path) -> None:
    """Every recipe trains two steps and tests on small files in the layout of its data."""
    write_public_files(in_tmp)
    for name, sizes in RECIPES.items():
        data = ["data.num_workers=0"] if "scalarflow" in name else ["data.batch_size=4"]
        if name.endswith("navier-stokes"):
            data += ["data.train_size=8", "data.val_size=2", "data.test_size=4"]
        trainer = ["trainer.max_epochs=1", "trainer.max_steps=2", "trainer.check_val_every_n_epoch=1"]
        options = [
            *QUIET[:-1],
            "callbacks.test_figures=null",
            f"run_dir=run-{name}",
            f"data.root={in_tmp}",
            *sizes,
            *data,
            *trainer,
        ]
        metrics = train(compose(f"operators/{name}", options))["metrics"]
        assert math.isfinite(metrics["test/relative_l2"]), name


def test_shipped_weights_reproduce_their_error() -> None:
    """On the test flows they were tested on, solved anew."""
    name = "operators/navier-stokes"
    module = zoo.load_pretrained(name)
    data = zoo.registry.create_data("operators/navier-stokes")
    states = torch.from_numpy(data.states("test"))
    with torch.no_grad():
        prediction = module(states[:, 0])
    error = relative_l2(prediction, states[:, 1:]).mean().item()
    assert error == pytest.approx(zoo.pretrained.get_entry(name).metrics["test/relative_l2"], rel=0.02)
    assert error < 0.06
