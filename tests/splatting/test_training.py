"""Scenes are learned: the recipe's first steps, every config, resuming, files out and in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.goldens import load, relative_error, section
from zoo import weights
from zoo.config import compose
from zoo.engine.run import train
from zoo.errors import ConfigError, DataError, Interrupted, WeightsError
from zoo.ops.ssim import ssim
from zoo.splatting.gaussian_files import read_ply
from zoo.splatting.gaussians import PARAMETERS, GaussianModel, rows_from_points

QUIET = ["callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}"]
SMALL = ["data.size=48", "data.views=24", "data.points=300", "trainer.val_check_interval=null", "run_dir=run"]


def test_six_steps_of_the_recipe() -> None:
    golden = load("splatting-edgs", "train_steps")
    names = {"scales": "log_scales", "opacities": "logit_opacities"}
    model = GaussianModel(3)
    initial = section(golden, "init_")
    model.set_rows({name: initial[names.get(name, name)] for name in PARAMETERS})
    rates = {"means": 4e-4, "quats": 1e-3, "scales": 5e-3, "opacities": 0.025, "sh0": 2.5e-3, "shN": 1.25e-4}
    groups = [{"params": [getattr(model, name)], "lr": rate} for name, rate in rates.items()]
    optimizer = torch.optim.Adam(groups, eps=1e-15, fused=True)
    for step in range(6):
        view = slice(step % 3, step % 3 + 1)
        target = golden["target"][view]
        image, _, _ = model(golden["viewmats"][view], golden["Ks"][view], 40, 32)
        loss = 0.8 * (image - target).abs().mean() + 0.2 * (1 - ssim(image, target))
        optimizer.zero_grad()
        loss.backward()
        assert loss.item() == pytest.approx(golden["losses"][step].item(), rel=1e-5)
        if step == 0:
            for name in PARAMETERS:
                grad = getattr(model, name).grad
                assert relative_error(grad, golden[f"grad0_{names.get(name, name)}"]) < 1e-4, name
        optimizer.step()
    for name, rate in rates.items():
        difference = (getattr(model, name) - golden[f"final_{names.get(name, name)}"]).abs()
        assert (difference < 2e-5).float().mean() > 0.99, name
        assert difference.max() < 2 * 6 * rate, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "options", "gain"),
    [
        ("splatting/3dgs", ["trainer.max_steps=250", "model.every=50"], 3.0),
        ("splatting/3dgs-mcmc", ["trainer.max_steps=250", "model.cap=1500"], 3.0),
        ("splatting/edgs", ["trainer.max_steps=120", "model.budget=3000"], 3.0),
        ("splatting/edgs", ["trainer.max_steps=60", "model.budget=1000", "model.version=official"], 0.3),
    ],
)
def test_every_config_gains_decibels(in_tmp: Path, config: str, options: list[str], gain: float) -> None:
    before = train(compose(config, [*QUIET, *SMALL, *options, "trainer.max_steps=1", "run_dir=before"]))
    after = train(compose(config, [*QUIET, *SMALL, *options]))
    assert after["metrics"]["test/psnr"] > before["metrics"]["test/psnr"] + gain
    assert after["metrics"]["test/ssim"] > before["metrics"]["test/ssim"]
    names = {path.stem for path in Path("run/figures").glob("*.png")}
    assert names >= {"views", "gaussians", "training"}
    assert ("matches" in names) == ("edgs" in config and "model.version=official" not in options)
    count = after["metrics"]["test/gaussians"]
    assert count > 300 if "3dgs" in config else count <= 49_000


def test_edgs_starts_ahead_of_sparse_points(in_tmp: Path) -> None:
    """After the same few steps dense matches are worth decibels, tiny pictures notwithstanding."""
    psnr = {}
    for config in ("splatting/edgs", "splatting/3dgs"):
        options = ["trainer.max_steps=100", "data.size=64", "data.views=40", f"run_dir={config[-4:]}"]
        psnr[config] = train(compose(config, [*QUIET, *SMALL, *options]))["metrics"]["test/psnr"]
    assert psnr["splatting/edgs"] > psnr["splatting/3dgs"] + 0.7


@pytest.mark.slow
def test_real_photographs(in_tmp: Path) -> None:
    options = ["trainer.max_steps=150", "trainer.val_check_interval=null", "run_dir=run"]
    summary = train(compose("splatting/edgs-buddha", [*QUIET, *options]))
    assert summary["metrics"]["test/psnr"] > 12
    assert summary["metrics"]["test/gaussians"] > 1500


class TestResume:
    def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
        self, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Bit for bit, in the middle of an epoch and of a densification interval."""
        options = [*QUIET, *SMALL[:-1], "trainer.max_steps=70", "model.every=20", "model.start=10"]
        whole = train(compose("splatting/3dgs", [*options, "run_dir=whole"]))
        from zoo.splatting.reconstruction import Reconstruction

        step = Reconstruction.training_step

        def stop_at_48(self: Any, batch: Any, batch_idx: int) -> None:
            step(self, batch, batch_idx)
            if self.global_step == 48:
                import signal

                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(Reconstruction, "training_step", stop_at_48)
        with pytest.raises(Interrupted):
            train(compose("splatting/3dgs", [*options, "run_dir=parts"]))
        monkeypatch.setattr(Reconstruction, "training_step", step)
        parts = train(compose("splatting/3dgs", [*options, "run_dir=parts"]), resume=True)
        assert parts["metrics"]["test/gaussians"] == whole["metrics"]["test/gaussians"]
        one, other = weights.read("whole/model.safetensors")[0], weights.read("parts/model.safetensors")[0]
        assert all(torch.equal(one[k], other[k]) for k in one)


class TestModel:
    @pytest.fixture
    def module(self) -> Any:
        module: Any = zoo.create_model("splatting/3dgs", sh_degree=1)
        generator = np.random.default_rng(0)
        points = generator.normal(0, 0.5, (200, 3))
        rows = rows_from_points(points, generator.integers(0, 256, (200, 3)).astype(np.uint8), 0.8, sh_degree=1)
        module.network.set_rows(rows)
        angles = torch.linspace(0, 5, 32)
        from zoo.data.scene_views import look_at

        eyes = torch.stack([3 * angles.cos(), 3 * angles.sin(), torch.ones(32)], -1).double().numpy()
        viewmats = [look_at(eye, np.zeros(3), np.array([0.0, 0, 1])) for eye in eyes]
        module.network.key_viewmats.copy_(torch.from_numpy(np.stack(viewmats)))
        module.network.key_K.copy_(torch.tensor([[40.0, 0, 20], [0, 40, 15], [0, 0, 1]]))
        module.network.key_size.copy_(torch.tensor([40, 30]))
        return module.eval()

    def test_weights_bring_their_number_of_gaussians(self, module: Any, in_tmp: Path) -> None:
        weights.save(module, "a.safetensors")
        again: Any = weights.build("a.safetensors")
        assert len(again.network) == 200
        state = module.network.state_dict()
        assert all(torch.equal(v, again.network.state_dict()[k]) for k, v in state.items())
        with pytest.raises(WeightsError, match="shN is"):
            weights.load_into(GaussianModel(3), state, "these")

    def test_checkpoints_of_3dgs_and_gsplat_are_taken(self, module: Any) -> None:
        rows = module.network.rows()
        gsplat = {"step": 7, "splats": dict(rows)}
        inria = (
            (
                *(1, rows["means"], rows["sh0"], rows["shN"], rows["scales"], rows["quats"]),
                *(rows["opacities"].unsqueeze(1), torch.zeros(200), None, None, {}, 1.0),
            ),
            30_000,
        )
        for content in (gsplat, inria):
            converted = zoo.convert_official("splatting/3dgs", content)  # type: ignore[arg-type]
            assert zoo.convert_official("splatting/edgs", content).keys() == converted.keys()  # type: ignore[arg-type]
            fresh: Any = zoo.create_model("splatting/3dgs", sh_degree=1)
            fresh.network.fit_to(converted)
            fresh.network.load_state_dict(converted)
            assert all(torch.equal(fresh.network.rows()[k], rows[k]) for k in rows)
        with pytest.raises(WeightsError, match="quats"):
            zoo.convert_official("splatting/3dgs", {"splats": {"means": rows["means"]}})
        for content, reason in (
            ("text", "not a str"),
            ({"splats": None}, "it is a NoneType"),
            ({**rows, "shN": rows["shN"].flatten(1)}, r"shN should be \(N, 0, 3\)"),
            ({**rows, "scales": rows["scales"][:5]}, "do not fit together"),
        ):
            with pytest.raises(WeightsError, match=reason):
                zoo.convert_official("splatting/3dgs", content)  # type: ignore[arg-type]

    @pytest.mark.parametrize("way", ["cameras", "turn"])
    def test_films(self, module: Any, in_tmp: Path, way: str) -> None:
        facts = module.predict_file(Path(way), Path("a.gif"), frames=4, width=32)
        assert facts["frames"] == 4
        with Image.open("a.gif") as film:
            assert film.size == (32, 24)
            assert film.n_frames == 4  # type: ignore[attr-defined]
        module.predict_file(Path(way), Path("frames"), frames=3)
        assert len(list(Path("frames").glob("*.png"))) == 3
        assert np.asarray(Image.open("frames/0001.png")).max() > 0

    def test_gaussians_for_other_programs(self, module: Any, in_tmp: Path) -> None:
        module.predict_file(Path("cameras"), Path("a.ply"))
        rows = read_ply(Path("a.ply"))
        assert all(torch.equal(rows[k], module.network.rows()[k]) for k in rows)
        module.predict_file(Path("cameras"), Path("a.splat"))
        assert Path("a.splat").stat().st_size == 200 * 32

    def test_the_viewer_serves_a_page(self, module: Any) -> None:
        pytest.importorskip("viser")
        import urllib.request

        server = module.view(port=8765)
        try:
            with urllib.request.urlopen(f"http://localhost:{server.get_port()}", timeout=10) as page:
                assert b"<html" in page.read().lower()
        finally:
            server.stop()

    def test_bad_input_is_named(self, module: Any, in_tmp: Path) -> None:
        with pytest.raises(DataError, match="neither 'cameras'"):
            module.predict_file(Path("nowhere"), Path("a.gif"))
        with pytest.raises(DataError, match="should end in"):
            module.predict_file(Path("turn"), Path("a.txt"), frames=1)
        with pytest.raises(DataError, match="no Gaussians"):
            zoo.create_model("splatting/3dgs").predict_file(Path("turn"), Path("a.gif"))  # type: ignore[operator]


def test_data_without_a_scene_is_named(in_tmp: Path) -> None:
    with pytest.raises(ConfigError, match="needs a data module with a scene"):
        train(compose("splatting/3dgs", [*QUIET, "data={name: kat/digits}", "run_dir=run"]))


def test_one_view_is_too_few_for_matches(in_tmp: Path) -> None:
    with pytest.raises(DataError, match="has 1 to train on"):
        train(compose("splatting/edgs", [*QUIET, *SMALL, "data.views=2"]))


def test_summary_says_what_it_took(in_tmp: Path) -> None:
    train(compose("splatting/edgs", [*QUIET, *SMALL, "trainer.max_steps=5"]))
    metrics = json.loads(Path("run/summary.json").read_text())["metrics"]
    assert metrics["test/train_seconds"] > 0
    assert metrics["test/init_seconds"] > 0


def test_shipped_weights_render_the_scene_as_recorded() -> None:
    """Two of the seven held-out views, whose PSNR was 30.26 and 32.53 dB when the weights were made."""
    from zoo.data import procedural_scene as scene
    from zoo.splatting.metrics import psnr

    module: Any = zoo.load_pretrained("splatting/edgs-procedural")
    world = scene._World.make(np.random.default_rng(0))
    K = module.network.key_K
    for view, recorded in ((0, 30.26), (8, 32.53)):
        viewmat = scene._camera(view / 56)
        photograph, depth = scene._render(world, viewmat, K.double().numpy(), 128)
        rendering = module(torch.from_numpy(viewmat).float().unsqueeze(0), K.unsqueeze(0), 128, 128)
        quality = psnr(rendering["image"], torch.from_numpy(photograph).unsqueeze(0) / 255)
        assert quality.item() == pytest.approx(recorded, abs=0.05)
        error = (rendering["depth"][0, ..., 0] - torch.from_numpy(depth)).abs() / torch.from_numpy(depth)
        assert error.median() < 0.05
