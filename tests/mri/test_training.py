"""The family's configs train, test, draw and predict."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

import zoo
from tests.mri.test_data import image_of, phantom_file
from zoo import predict, weights
from zoo.config import compose, compose_run, list_configs, resolve
from zoo.engine.run import train
from zoo.errors import ConfigError, DataError
from zoo.mri.fourier import ifft2
from zoo.mri.hdf5 import write_calgary, write_fastmri
from zoo.mri.operators import reduce, rss
from zoo.mri.phantom import generate
from zoo.mri.real_slice import evaluate, read
from zoo.mri.refinement import hold_out

QUIET = ["callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}"]
DATA = ["size=[32,32]", "train_volumes_3d=0", "coils=4", "slices=2", "snr=[40,40]", "batch_size=1"]
TINY = {
    "data": [*DATA, "train_volumes=40", "val_volumes=1", "test_volumes=2"],
    "model": ["baselines=[zero-filled]", "real_slice=false", "warmup_steps=10"],
    "trainer": ["check_val_every_n_epoch=20"],
}
GRU = ["num_steps=3", "recurrent_hidden_channels=8"]
INITIALIZER = ["initializer_channels=[8,8]", "initializer_dilations=[1,2]", "initializer_multiscale=2"]
SIZES = {
    "recurrentvarnet": [*GRU, *INITIALIZER, "sensitivity_pools=2", "lr=1e-2"],
    "rim": ["hidden_channels=16", "length=4", "sensitivity_pools=2", "lr=3e-3"],
    "varnet": ["num_cascades=3", "chans=4", "sens_pools=2", "lr=1e-2"],
}
GAINS = {"recurrentvarnet": (1.2, 0.12), "rim": (0.4, 0.08), "varnet": (0.4, 0.08)}


def overrides(sections: dict[str, list[str]], *more: str) -> list[str]:
    return [*QUIET, *(f"{key}.{value}" for key, values in sections.items() for value in values), *more]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "gain"), GAINS.items())
def test_short_training_beats_zero_filling(in_tmp: Path, model: str, gain: tuple[float, float]) -> None:
    """480 steps at 4x on tiny brains: by a margin in dB and SSIM, with a table and pictures."""
    options = overrides(TINY, *(f"model.{value}" for value in SIZES[model]), "trainer.max_epochs=6")
    rates = ["data.accelerations=[4]", "data.center_fractions=[0.12]", "data.masks=[equispaced]"]
    summary = train(compose(f"mri/{model}", [*options, *rates, "run_dir=run"]))
    metrics = summary["metrics"]
    assert metrics["test/4x/psnr"] > metrics["test/4x/zero-filled/psnr"] + gain[0]
    assert metrics["test/4x/ssim"] > metrics["test/4x/zero-filled/ssim"] + gain[1]
    with Path("run/test_volumes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["protocol"] for row in rows} == {"fastmri"}
    assert len(rows) == 4
    mean = np.mean([float(row["psnr"]) for row in rows if row["method"] == "network"])
    assert metrics["test/psnr"] == pytest.approx(mean, rel=1e-5)
    assert {path.stem for path in Path("run/figures").glob("*.png")} == {"reconstruction", "training"}


def test_a_run_goes_on_from_where_it_stopped(in_tmp: Path) -> None:
    data = [*DATA, "slices=1", "train_volumes=2", "val_volumes=1", "test_volumes=1"]
    options = overrides({**TINY, "data": data}, *(f"model.{value}" for value in SIZES["recurrentvarnet"]))
    first = compose("mri/recurrentvarnet", [*options, "trainer.max_epochs=1", "run_dir=run"])
    train(first)
    assert train(compose_run(Path("run"), ["trainer.max_epochs=2"]), resume=True)["epochs"] == 2


def recipe_on(root: Path, folder: str) -> list[str]:
    options = ["data.num_workers=0", f"data.root={root}", "trainer.max_steps=2", f"run_dir={folder}"]
    return [*QUIET, *options, "model.sensitivity_pools=2", "callbacks.model_checkpoint.monitor=null"]


class TestRecipes:
    """The recipes for the public data sets, on small files in their layouts."""

    def test_fastmri(self, in_tmp: Path) -> None:
        for split, numbers in (("train", (0, 1)), ("val", (2, 3))):
            for number in numbers:
                phantom_file(Path(f"data/multicoil_{split}/file_brain_AXT1_{number}.h5"), number)
        small = ["model.num_steps=2", "model.recurrent_hidden_channels=4", "data.center_fractions=[0.1,0.05]"]
        summary = train(compose("mri/recurrentvarnet-fastmri", [*recipe_on(Path("data"), "run"), *small]))
        assert 0 < summary["metrics"]["test/8x/ssim"] < 1

    @pytest.mark.parametrize("config", ["recurrentvarnet-calgary", "rim-calgary"])
    def test_calgary(self, in_tmp: Path, config: str) -> None:
        for split, numbers in (("Train", (0, 1)), ("Val", (2, 3))):
            Path("data", split).mkdir(parents=True)
            for number in numbers:
                kspace = generate(number, "T1", (64, 48), 2, 1).kspace
                write_calgary(Path("data", split, f"e{number}.h5"), np.repeat(kspace, 101, axis=0))
        small = ["model.num_steps=2", "model.recurrent_hidden_channels=4"]
        if config.startswith("rim"):
            small = ["model.hidden_channels=4", "model.length=2"]
        summary = train(compose(f"mri/{config}", [*recipe_on(Path("data"), "run"), *small]))
        metrics = summary["metrics"]
        assert {"test/5x/vif", "test/10x/ssim", "test/psnr"} <= metrics.keys()
        assert "protocol" in Path("run/test_volumes.csv").read_text()

    def test_every_config_is_accepted_by_its_classes(self) -> None:
        for name in list_configs():
            if name.startswith("mri/recurrentvarnet") or name in ("mri/rim", "mri/varnet", "mri/rim-calgary"):
                assert resolve(compose(name)).model.name.startswith("mri/")


def test_the_paper_configuration_has_its_size() -> None:
    arguments = resolve(compose("mri/recurrentvarnet-calgary")).model.arguments
    with torch.device("meta"):
        network = zoo.create_model("mri/recurrentvarnet", **arguments).network
    assert sum(p.numel() for p in network.parameters()) == 7_403_322


@pytest.fixture
def module() -> Any:
    torch.manual_seed(0)
    arguments = {"num_steps": 2, "recurrent_hidden_channels": 4, "recurrent_num_layers": 1, "rms_scaling": True}
    return zoo.create_model("mri/recurrentvarnet", **arguments).eval()


_GRU = {"num_steps": 2, "recurrent_hidden_channels": 4, "recurrent_num_layers": 2}
SMALL_NETWORKS = [
    ("mri/recurrentvarnet", {**_GRU, "sensitivity_filters": 2, "data_gradient": True, "rms_scaling": True}),
    ("mri/recurrentvarnet", {**_GRU, "opening_iterations": 3, "closing_iterations": 3, "rms_scaling": True}),
    ("mri/rim", {"cell": "mgu", "hidden_channels": 4, "length": 2}),
    ("mri/varnet", {"num_cascades": 2, "chans": 2, "pools": 2, "sens_chans": 2, "sens_pools": 2}),
]


class TestInvariances:
    @pytest.fixture
    def batch(self) -> Any:
        data: Any = zoo.create_data("mri/phantom", size=(40, 36), coils=3, slices=1, test_volumes=1)
        data.setup("test")
        return next(iter(data.test_dataloader()))

    def test_scaling_the_data_scales_the_image(self, module: Any, batch: Any) -> None:
        larger = {**batch, "masked_kspace": 50 * batch["masked_kspace"]}
        assert torch.allclose(module(larger), 50 * module(batch), rtol=1e-3, atol=1e-3)

    def test_coils_have_no_order_and_no_common_phase(self, module: Any, batch: Any) -> None:
        turned = {**batch, "masked_kspace": batch["masked_kspace"].flip(1)}
        turned["sensitivity_map"] = batch["sensitivity_map"].flip(1)
        image = module(batch)
        assert torch.allclose(module(turned), image, rtol=1e-3, atol=1e-4)

    def test_samples_of_a_batch_do_not_see_each_other(self, module: Any, batch: Any) -> None:
        keys = ("masked_kspace", "sampling_mask", "sensitivity_map", "padding")
        alone = module({**batch, **{key: batch[key][:1] for key in keys}})
        assert torch.allclose(module(batch)[:1], alone, atol=1e-5)

    def test_an_empty_slice_stays_finite(self, module: Any, batch: Any) -> None:
        empty = {key: torch.zeros_like(batch[key]) for key in ("masked_kspace", "sensitivity_map")}
        assert torch.isfinite(module({**batch, **empty})).all()

    @pytest.mark.parametrize(("name", "arguments"), SMALL_NETWORKS)
    def test_an_empty_slice_has_finite_gradients(self, batch: Any, name: str, arguments: dict[str, Any]) -> None:
        network = zoo.create_model(name, **arguments).network
        key = "acs_mask" if name == "mri/varnet" else "sensitivity_map"
        given = batch[key] if name == "mri/varnet" else torch.zeros_like(batch[key])
        output = network(torch.zeros_like(batch["masked_kspace"]), batch["sampling_mask"], given)
        last = output if isinstance(output, torch.Tensor) else output[0][-1]
        last.abs().square().sum().backward()
        assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)

    @pytest.mark.parametrize(("name", "arguments"), SMALL_NETWORKS)
    def test_one_graph_and_half_precision(self, batch: Any, name: str, arguments: dict[str, Any]) -> None:
        """torch.compile finds no break; under autocast the transforms stay in complex64 and the result close."""
        torch.manual_seed(0)
        network = zoo.create_model(name, **arguments).network
        key = "acs_mask" if name == "mri/varnet" else "sensitivity_map"
        given = batch["masked_kspace"], batch["sampling_mask"], batch[key]

        def last(output: Any) -> torch.Tensor:
            return output if isinstance(output, torch.Tensor) else output[0][-1]

        expected = last(network(*given))
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        assert torch.allclose(last(compiled(*given)), expected, atol=1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = last(network(*given))
        mixed.abs().sum().backward()
        assert mixed.dtype == torch.complex64
        assert (mixed - expected).abs().max() < 0.02 * expected.abs().max()

    def test_the_complex_loss_sees_the_phase(self, module: Any, batch: Any) -> None:
        """Beside what the relative loss sees: the error of the combined image, relative to its norm."""
        relative, both = (self.objective(module, batch, loss) for loss in ("relative", "complex"))
        combined = reduce(ifft2(module.kspace(batch)), batch["sensitivity_map"])
        error = (combined - batch["image"]).flatten(1).norm(dim=1) / batch["image"].flatten(1).norm(dim=1)
        assert both - relative == pytest.approx(float(error.detach().mean()), rel=1e-4)
        turned = {**batch, "image": -batch["image"]}
        assert self.objective(module, turned, "relative") == relative
        assert self.objective(module, turned, "complex") > both + 1

    @staticmethod
    def objective(module: Any, batch: Any, loss: str) -> float:
        module.loss = loss
        with torch.no_grad():
            return float(module.objective(batch))

    def test_checkpointing_changes_nothing(self, batch: Any) -> None:
        arguments = {"num_steps": 2, "recurrent_hidden_channels": 4, "recurrent_num_layers": 2}
        gradients = []
        for checkpoint_steps in (False, True):
            torch.manual_seed(0)
            network = zoo.create_model("mri/recurrentvarnet", **arguments, checkpoint_steps=checkpoint_steps).network
            kspace = network(batch["masked_kspace"], batch["sampling_mask"], batch["sensitivity_map"])
            kspace.abs().square().sum().backward()
            gradients.append([p.grad for p in network.parameters() if p.grad is not None])
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*gradients, strict=True))

    def test_another_convention_than_the_data_s_is_refused(self, in_tmp: Path) -> None:
        for option in ({"fft_centered": False}, {"fft_norm": "backward"}):
            module: Any = zoo.create_model("mri/recurrentvarnet", **_GRU, **option)
            data: Any = zoo.create_data("mri/phantom", size=(32, 32), coils=2, slices=1, val_volumes=1)
            with pytest.raises(ConfigError, match=r"need model\.fft_centered=true and model\.fft_norm=ortho"):
                pl.Trainer(logger=False, accelerator="cpu").validate(module, data)

    def test_data_without_a_maximum_need_the_other_protocol(self, module: Any, batch: Any) -> None:
        with pytest.raises(ConfigError, match=r"set model\.protocol=calgary"):
            module.validation_step({**batch, "volume_max": torch.full((2,), float("nan"))}, 0)

    def test_a_network_that_is_not_centred_can_not_test_the_real_slice(self) -> None:
        with pytest.raises(ConfigError, match="real_slice needs a centred"):
            zoo.create_model("mri/recurrentvarnet", fft_centered=False, real_slice=True, num_steps=1)


class TestRealSlice:
    def test_holding_out(self) -> None:
        raw = read()
        assert raw.shape == (8, 230, 180)
        mask = (raw != 0).any(0)
        acs = np.zeros_like(mask)
        acs[103:127, 78:102] = True
        kept, held = hold_out(mask, acs)
        assert (kept ^ held)[mask].all()
        assert not (kept | held)[~mask].any()
        assert not (held & acs).any()
        assert held.sum() == pytest.approx(0.2 * (mask & ~acs).sum(), abs=1)
        assert not (hold_out(mask, acs, seed=1)[1] == held).all()

    def test_a_method_that_knows_nothing_has_error_one(self, module: Any) -> None:
        """The samples' own energy; the classical methods explain most of it."""
        from zoo.mri.baselines import SenseCG

        with torch.no_grad():
            for parameter in module.network.parameters():
                parameter.zero_()
        result = evaluate(module, {"sense-cg": SenseCG(0.02, iterations=10)})
        assert result.errors["network"] == pytest.approx(1, abs=1e-4)
        assert result.errors["sense-cg"] < 0.3


class TestPredict:
    @pytest.fixture
    def scan(self, in_tmp: Path) -> np.ndarray:
        """An accelerated scan of two slices."""
        return generate(4, "T2", (48, 40), 4, 2).kspace * (np.arange(40) % 3 == 0) + 0

    @pytest.fixture
    def masked(self, in_tmp: Path) -> np.ndarray:
        kspace = generate(4, "T2", (48, 40), 4, 2).kspace
        lines = np.arange(40) % 3 == 0
        lines[17:23] = True
        return kspace * lines

    def test_every_input_and_output(self, module: Any, masked: np.ndarray) -> None:
        np.save("scan.npy", masked)
        images = np.repeat(image_of(masked), 1, axis=0)
        write_fastmri("scan.h5", masked, images, "AXT2", mask=(masked != 0).any((0, 1, 2)))
        with h5py.File("plain.h5", "w") as file:
            file["raw"] = masked.transpose(2, 3, 0, 1)
        facts = module.predict_file(Path("scan.npy"), Path("recon.npy"))
        reconstruction = np.load("recon.npy")
        assert reconstruction.shape == (2, 48, 40)
        assert facts["slices"] == 2
        assert facts["coils"] == 4
        assert facts["acceleration"] == pytest.approx(40 / 18, abs=0.01)
        # In the units of the input.
        assert reconstruction.mean() == pytest.approx(images.mean(), rel=0.5)

        module.predict_file(Path("scan.h5"), Path("recon.h5"))
        with h5py.File("recon.h5") as file:
            assert np.allclose(file["reconstruction"][()], reconstruction, rtol=1e-4, atol=1e-7)
        module.predict_file(Path("plain.h5"), Path("other.npy"), layout="hwsc", key="raw")
        assert np.allclose(np.load("other.npy"), reconstruction, rtol=1e-4, atol=1e-7)

        module.predict_file(Path("scan.h5"), Path("recon.nii.gz"))
        picture = nibabel.load("recon.nii.gz")
        assert picture.shape == (48, 40, 2)
        assert tuple(picture.header.get_zooms()) == (1, 1, 5)
        assert np.allclose(picture.get_fdata().transpose(2, 0, 1), reconstruction, rtol=1e-4)
        module.predict_file(Path("scan.npy"), Path("recon.png"))
        assert Image.open("recon.png").size == (80, 48)

    def test_from_the_command_line(self, module: Any, masked: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
        weights.save(module, "w.safetensors")
        np.save("scan.npy", masked)
        predict.main(["weights=w.safetensors", "input=scan.npy", "output=recon.nii", "layout=schw"])
        assert "acceleration: 2.22" in capsys.readouterr().out
        direct = module.predict_file(Path("scan.npy"), Path("recon.npy"))
        assert direct["coils"] == 4
        assert np.allclose(nibabel.load("recon.nii").get_fdata().transpose(2, 0, 1), np.load("recon.npy"), rtol=1e-4)

    def test_calgary_files_use_their_convention(self, in_tmp: Path, masked: np.ndarray) -> None:
        write_calgary("e1.h5", masked)
        arguments = {"num_steps": 1, "recurrent_hidden_channels": 4, "recurrent_num_layers": 1}
        module: Any = zoo.create_model("mri/recurrentvarnet", **arguments, fft_centered=False).eval()
        assert module.predict_file(Path("e1.h5"), Path("r.npy"))["slices"] == 2
        assert np.load("r.npy").shape == (2, 48, 40)

    @pytest.mark.parametrize("centered", [True, False])
    def test_images_are_in_place_whatever_the_network_was_trained_on(self, masked: np.ndarray, centered: bool) -> None:
        """A network that changes nothing gives each file's own zero-filled image."""
        arguments = {"num_steps": 1, "recurrent_hidden_channels": 4, "recurrent_num_layers": 1}
        module: Any = zoo.create_model("mri/recurrentvarnet", **arguments, fft_centered=centered).eval()
        with torch.no_grad():
            for parameter in module.network.parameters():
                parameter.zero_()
        masked[..., 34:] = 0  # what Calgary-Campinas' scanner does not measure
        write_calgary("calgary.h5", masked)
        write_fastmri("fastmri.h5", masked, np.ones((2, 48, 40), np.float32), "AXT2")
        for name, convention in (("calgary", False), ("fastmri", True)):
            module.predict_file(Path(f"{name}.h5"), Path("r.npy"))
            expected = rss(ifft2(torch.from_numpy(masked), convention)).numpy()
            assert np.allclose(np.load("r.npy"), expected, atol=1e-4 * expected.max())

    def test_the_margin_counts_in_finding_the_mask(self, module: Any, masked: np.ndarray) -> None:
        """Slices that are left out may be sampled otherwise."""
        whole = np.repeat(masked[:1], 5, axis=0)
        whole[0] = generate(4, "T2", (48, 40), 4, 2).kspace[0]
        write_calgary("e1.h5", whole)
        facts = module.predict_file(Path("e1.h5"), Path("r.npy"), margin=1)
        assert facts["slices"] == 3
        assert facts["acceleration"] == pytest.approx(40 / 18, abs=0.01)

    def test_fully_sampled_input_is_undersampled_on_request(self, module: Any, in_tmp: Path) -> None:
        np.save("full.npy", generate(4, "T2", (48, 40), 4, 1).kspace)
        with pytest.raises(DataError, match="is fully sampled: there is nothing to reconstruct"):
            module.predict_file(Path("full.npy"), Path("r.npy"))
        facts = module.predict_file(Path("full.npy"), Path("r.npy"), acceleration=4)
        assert facts["acceleration"] == pytest.approx(4, rel=0.1)

    def test_bad_requests(self, module: Any, masked: np.ndarray) -> None:
        np.save("scan.npy", masked)
        for arguments, message in (
            ({"output": Path("r.txt")}, r"should end in one of \.h5"),
            ({"input": Path("none.npy")}, "There is no file"),
            ({"input": Path("scan.txt")}, r"should be a \.h5 or \.npy file"),
            ({"layout": "hw"}, "does not have the layout"),
            ({"margin": 1}, "a margin of 1 leaves none"),
            ({"acceleration": 4.0}, "is undersampled already"),
        ):
            with pytest.raises(DataError, match=message):
                module.predict_file(**{"input": Path("scan.npy"), "output": Path("r.npy"), **arguments})
        assert not Path("r.npy").exists()

    def test_without_a_centre_there_are_no_maps(self, module: Any, scan: np.ndarray) -> None:
        scan[..., 20] = 0
        np.save("scan.npy", scan)
        with pytest.raises(DataError, match="has no fully sampled centre"):
            module.predict_file(Path("scan.npy"), Path("r.npy"))
