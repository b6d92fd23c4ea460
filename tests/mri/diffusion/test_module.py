"""mri/diffusion trains, reconstructs, draws and predicts from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import zoo
from zoo import predict, weights
from zoo.config import compose, compose_run, resolve
from zoo.data.kspace_phantom import PhantomKSpace
from zoo.engine.loggers import read_metrics
from zoo.engine.run import train
from zoo.errors import ConfigError, DataError
from zoo.mri.diffusion import volume
from zoo.mri.diffusion.problem import scan_of, true_image
from zoo.mri.fourier import fft2, ifft2
from zoo.mri.hdf5 import write_fastmri
from zoo.mri.masks import MaskFunction
from zoo.mri.operators import expand
from zoo.mri.phantom import generate

QUIET = ["callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}"]
NETWORK = {"model_channels": 8, "norm_groups": 4, "steps": 3, "n_samples": 3}
TINY = [
    *QUIET,
    *(f"model.{key}={value}" for key, value in NETWORK.items()),
    "data.size=[32,32]",
    "data.slices=2",
    "data.val_volumes=1",
    "data.test_volumes=1",
]


@pytest.fixture
def module() -> Any:
    torch.manual_seed(0)
    module = zoo.create_model("mri/diffusion", **NETWORK)
    with torch.no_grad():
        for parameter in module.network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module.eval()


def scan(coils: int = 1, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    kspace = torch.from_numpy(generate(0, "T2", (size, size), coils, 2).kspace)
    mask = torch.from_numpy(MaskFunction("random", (3.0,), (0.16,))((size, size), 1).mask)
    return torch.where(mask, kspace, 0), mask


@pytest.mark.slow
def test_short_training(in_tmp: Path) -> None:
    """200 steps on tiny brains: the loss falls by a third, and the mean of the samples beats each of them."""
    more = ["data.train_volumes=40", "data.accelerations=[4]", "data.center_fractions=[0.12]", "model.lr=2e-3"]
    options = ["model.model_channels=16", "model.baselines=[zero-filled]", "callbacks.ema_weight_averaging.decay=0.97"]
    epochs = ["trainer.max_epochs=20", "trainer.check_val_every_n_epoch=10", "run_dir=run"]
    metrics = train(compose("mri/diffusion", [*TINY, *more, *options, *epochs]))["metrics"]
    losses = [row["train/loss"] for row in read_metrics(Path("run")) if "train/loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    assert metrics["test/4x/psnr"] > metrics["test/4x/one-sample/psnr"] + 0.5
    assert metrics["test/posterior/rank-correlation"] > 0.05
    pictures = {path.stem for path in Path("run/figures").glob("*.png")}
    assert pictures == {"calibration", "posterior", "reconstruction", "steps", "training"}


def test_checkpoints_hold_averaged_weights_and_runs_go_on(in_tmp: Path) -> None:
    more = [
        "data.train_volumes=12",
        "callbacks.test_figures=null",
        "trainer.check_val_every_n_epoch=5",
        "model.baselines=[]",
        "run_dir=run",
    ]
    train(compose("mri/diffusion", [*TINY, *more, "trainer.max_epochs=1"]))
    checkpoint = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    averaged, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert any(not torch.equal(averaged[name], current[name]) for name in averaged)
    assert train(compose_run(Path("run"), ["trainer.max_epochs=2"]), resume=True)["epochs"] == 2


@pytest.mark.parametrize("config", ["diffusion", "diffusion-fastmri", "diffusion-fastmri-multicoil"])
def test_configs_are_accepted(config: str) -> None:
    assert resolve(compose(f"mri/{config}")).model.name == "mri/diffusion"


@pytest.mark.slow
def test_the_rival_trains_on_the_same_work(in_tmp: Path) -> None:
    """240 steps of regression beat zero-filling by 1 dB."""
    more = ["data.train_volumes=40", "data.accelerations=[4]", "data.center_fractions=[0.12]", "data.coils=3"]
    own = ["model.name=mri/regression-unet", "model.model_channels=16", "model.norm_groups=4", "model.lr=3e-3"]
    sampling = ("prediction", "diffuse", "noise_emphasis", "steps", "spacing", "n_samples")
    base = [*own, *(f"~model.{name}" for name in sampling), "model.baselines=[zero-filled]"]
    epochs = ["trainer.max_epochs=24", "trainer.check_val_every_n_epoch=24", "run_dir=run"]
    options = [*QUIET, *TINY[7:], *more, *base, *epochs, "callbacks.ema_weight_averaging.decay=0.95"]
    metrics = train(compose("mri/diffusion", options))["metrics"]
    assert metrics["test/4x/psnr"] > metrics["test/4x/zero-filled/psnr"] + 1
    assert resolve(compose("mri/diffusion-rival")).rival is not None


@pytest.mark.parametrize("challenge", ["singlecoil", "multicoil"])
def test_the_recipe_for_fastmri(in_tmp: Path, challenge: str) -> None:
    """On small files in fastMRI's layout."""
    coils = 1 if challenge == "singlecoil" else 3
    for split in ("train", "val"):
        for number in (0, 1):
            path = Path(f"data/{challenge}_{split}/file_{split}{number}.h5")
            path.parent.mkdir(parents=True, exist_ok=True)
            kspace = generate((number, len(split)), "PD", (40, 32), coils, 2).kspace
            image = ifft2(torch.from_numpy(kspace)).abs().square().sum(1).sqrt().numpy()
            write_fastmri(path, kspace[:, 0] if coils == 1 else kspace, image, "CORPD_FBK")
    config = "diffusion-fastmri" if coils == 1 else "diffusion-fastmri-multicoil"
    model = ["channel_mult=[1,2]", "attention_resolutions=[]", "num_res_blocks=1", "warmup_steps=1"]
    data = ["root=data", "num_workers=0", "image_crop=[32,32]", "batch_size=2", "center_fractions=[0.16,0.1]"]
    small = [*(f"model.{x}" for x in model), *(f"data.{x}" for x in data), "trainer.precision=32-true"]
    metrics = train(compose(f"mri/{config}", [*TINY[:7], *small, "trainer.max_steps=2", "run_dir=run"]))["metrics"]
    assert {"test/4x/psnr", "test/8x/one-sample/hfen", "test/posterior/residual"} <= metrics.keys()


@pytest.mark.parametrize("coils", [1, 3])
@pytest.mark.parametrize("consistency", ["auto", "none", "hard", "gradient", "cg", "noisy", "dps"])
def test_reconstruct(module: Any, coils: int, consistency: str) -> None:
    kspace, mask = scan(coils)
    posterior = module.reconstruct(kspace, mask, n_samples=2, steps=3, consistency=consistency, noise=0.01)
    assert posterior.samples.shape == (2, 2, 32, 32)
    assert posterior.samples.isfinite().all()
    assert posterior.residual.shape == (2, 2)
    assert posterior.noise.tolist() == pytest.approx([0.01, 0.01])


def test_coil_maps(module: Any) -> None:
    """ESPIRiT's explain a scan of many coils no worse than those of low resolution, and one coil needs none."""
    kspace, mask = scan(4, 48)
    acs, espirit = (problem_maps(kspace, mask, name) for name in ("acs", "espirit"))
    full = torch.from_numpy(generate(0, "T2", (48, 48), 4, 2).kspace)

    def unexplained(maps: torch.Tensor) -> float:
        images = ifft2(full)
        combined = (maps.conj() * images).sum(1, keepdim=True)
        inside = maps.abs().sum(1, keepdim=True) > 0
        return float(((maps * combined - images) * inside).norm() / images.norm())

    assert unexplained(espirit) < unexplained(acs)
    assert scan_of(*scan(), "espirit")[2] is None
    one, other = (module.reconstruct(kspace, mask, maps, 2, steps=2) for maps in (None, "espirit"))
    assert not torch.allclose(one.samples, other.samples)
    torch.testing.assert_close(module.reconstruct(kspace, mask, acs, 2, steps=2).samples, one.samples)


def problem_maps(kspace: torch.Tensor, mask: torch.Tensor, name: Any) -> torch.Tensor:
    maps = scan_of(kspace, mask, name)[2]
    assert maps is not None
    return maps


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++", "sde-dpm++", "heun"])
def test_hard_consistency_returns_the_data(module: Any, sampler: str) -> None:
    kspace, mask = scan()
    posterior = module.reconstruct(kspace, mask, sampler=sampler, consistency="hard", noise=1e-3)
    measured = fft2(posterior.samples) * mask
    torch.testing.assert_close(measured, kspace.expand_as(measured), rtol=1e-3, atol=1e-3 * float(kspace.abs().max()))


def test_a_residual_of_unit_spread_is_diffused() -> None:
    """The zero-filled image lacks about `residual_std`, and from pure noise nothing else is seen than a regression
    sees, whatever the noise."""
    module: Any = zoo.create_model("mri/diffusion", **NETWORK, diffuse="residual").eval()
    data = zoo.create_data("mri/phantom", size=(64, 64), coils=1, masks=("random",), test_volumes=2)
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    problem = module.problem(batch)
    residual = module.frame(problem).diffused(true_image(batch, problem))
    assert 0.5 < float(residual.abs().square().mean() / 2) ** 0.5 < 1.5
    seen: list[torch.Tensor] = []
    module.network.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0]))
    posterior = module.sample_batch(batch, 2, steps=10)
    assert float(seen[0][:, :2].abs().max()) < 1e-3 < 0.5 < float(seen[-1][:, :2].std())
    assert (posterior.samples[:, 0] - posterior.samples[:, 1]).abs().max() > 0.1


def test_units_of_the_data_do_not_matter(module: Any) -> None:
    kspace, mask = scan(3)
    one, other = (module.reconstruct(kspace * unit, mask) for unit in (1.0, 1e-5))
    torch.testing.assert_close(other.samples * 1e5, one.samples, rtol=1e-3, atol=1e-3 * float(one.samples.abs().max()))
    torch.testing.assert_close(other.residual, one.residual, rtol=1e-2, atol=1e-3)


def test_samples_depend_on_seed_and_key_only(module: Any) -> None:
    kspace, mask = scan()
    both = module.reconstruct(kspace, mask, sampler="ddpm").samples
    second = module.reconstruct(kspace[1:], mask, sampler="ddpm", keys=[(1,)], n_samples=2).samples
    scale = float(both.abs().max())
    torch.testing.assert_close(second[0], both[1, :2], rtol=1e-3, atol=1e-4 * scale)
    assert (module.reconstruct(kspace, mask, seed=1).samples - both).abs().max() > 0.01 * scale


def test_shapes_and_defaults(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    kspace, mask = scan(size=30)
    plain = module.reconstruct(kspace[0, 0], mask[:1], progress=True)
    assert plain.samples.shape == (1, 3, 30, 30)
    assert "sampling" in capsys.readouterr().err
    truth = module.reconstruct(kspace[0, 0], mask, steps=10, start=plain.mean, start_timestep=200)
    assert truth.samples.shape == plain.samples.shape
    with pytest.raises(ValueError, match="does not fit"):
        module.reconstruct(kspace, mask[:, :7])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sampler": "euler"}, ConfigError, r"sampling\.sampler should be 'ddpm' | .*, not 'euler'"),
        ({"consistency": "full"}, ConfigError, r"sampling\.consistency should be"),
        ({"spacing": "even"}, ConfigError, r"sampling\.spacing should be"),
        ({"n_samples": 0}, ConfigError, "n_samples should be 1 or more, not 0"),
        ({"steps": 2000}, ConfigError, "steps should be from 1 to 1000"),
        ({"eta": -1.0}, ConfigError, "eta should not be negative"),
        ({"noise": -0.1}, ValueError, "Noise should be 0 or more"),
        ({"noise": torch.ones(3)}, ValueError, "one for each of 2 slices"),
        ({"keys": [(1,)]}, ValueError, "2 slices need as many keys, not 1"),
        ({"start": torch.ones(2, 8, 8)}, ValueError, r"A start \(2, 8, 8\) does not fit images"),
        ({"sensitivity_maps": "exact"}, ValueError, "made by acs or espirit, not exact"),
        ({"sensitivity_maps": torch.ones(2, 1, 8, 8)}, ValueError, r"Coil maps \(2, 1, 8, 8\) do not fit"),
    ],
)
def test_impossible_requests_are_refused(
    module: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        module.reconstruct(*scan(), **options)


def test_impossible_scans_are_refused(module: Any) -> None:
    kspace, mask = scan()
    for broken, sampled, message in (
        (torch.view_as_real(kspace), mask, "should be complex"),
        (kspace[None], mask, r"not torch\.complex64 \(1, 2, 1, 32, 32\)"),
        (kspace * float("nan"), mask, "NaN or infinity where it was sampled"),
        (kspace, torch.ones(3, 1, 32, 32), r"A mask \(3, 1, 32, 32\) does not fit"),
    ):
        with pytest.raises(ValueError, match=message):
            module.reconstruct(broken, sampled)


@pytest.mark.parametrize("coils", [1, 4])
def test_training_pairs_agree_with_the_measurement(module: Any, coils: int) -> None:
    """The true image in the sampler's units explains the data: exactly with one coil."""
    data = PhantomKSpace((32, 32), coils, 1, 1, 1, 1, masks=("random",), accelerations=(4.0,), center_fractions=(0.2,))
    data.setup("test")
    (batch, *_) = list(data.test_dataloader())
    problem = module.problem(batch)
    clean = true_image(batch, problem)
    operator = problem.measurement.operator
    error = operator.forward(clean) - problem.measurement.kspace
    relative = error.norm() / problem.measurement.kspace.norm()
    assert relative < (1e-5 if coils == 1 else 0.1)
    image = expand(problem.to_data(clean), operator.maps).abs().square().sum(1).sqrt()
    assert (image - batch["target"]).abs().max() < (1e-4 if coils == 1 else 0.5) * batch["target"].max()
    assert problem.zero_filled.abs().max() == pytest.approx(2, rel=1e-5)


def test_classical_methods_keep_their_precision() -> None:
    module = zoo.create_model("mri/diffusion", **NETWORK, baselines=("l1-wavelet",))
    data = PhantomKSpace((32, 32), 1, 1, 1, 1, 1, masks=("random",))
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    with torch.autocast("cpu", torch.bfloat16):
        half = module.baseline_images(batch)["l1-wavelet"]
    torch.testing.assert_close(half, module.baseline_images(batch)["l1-wavelet"])


def test_options_of_training(module: Any) -> None:
    data = PhantomKSpace((32, 32), 1, 2, 1, 1, 1)
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    t, noise = torch.full((len(batch["image"]),), 500), torch.randn(len(batch["image"]), 2, 32, 32)
    plain = module.loss_of(batch, t, noise)
    everything = torch.ones(len(t), dtype=torch.bool)
    assert module.loss_of(batch, t, noise, everything) != plain
    torch.testing.assert_close(module.loss_of(batch, t, noise, ~everything), plain)
    module.min_snr_gamma = 5.0
    assert module.loss_of(batch, t, noise) < plain
    with pytest.raises(ConfigError, match="zero_terminal_snr"):
        zoo.create_model("mri/diffusion", zero_terminal_snr=True, prediction="epsilon")
    for name, value in {"signal_scale": 0.0, "n_samples": 0, "min_snr_gamma": -5.0, "condition_dropout": 1.5}.items():
        with pytest.raises(ConfigError, match=rf"model\.{name} should be"):
            zoo.create_model("mri/diffusion", **{name: value})
    with pytest.raises(ConfigError, match=r"both model\.lpips_backbone=/path and model\.lpips_heads"):
        zoo.create_model("mri/diffusion", lpips_backbone="alexnet.pth")
    for timestep in (-3, 1000):
        with pytest.raises(ConfigError, match="from 0 to 999"):
            module.sample_batch(batch, 1, start_timestep=timestep)


class TestFiles:
    @pytest.fixture
    def saved(self, in_tmp: Path, module: Any) -> Any:
        weights.save(module, Path("w.safetensors"))
        np.save("scan.npy", generate(3, "T2", (32, 32), 1, 3).kspace)
        return module

    def options(self, output: str, *more: str) -> list[str]:
        rate = ["acceleration=3", "center_fraction=0.16"]
        return ["weights=w.safetensors", "input=scan.npy", f"output={output}", *rate, *more]

    def test_everything_is_written(self, saved: Any, capsys: pytest.CaptureFixture[str]) -> None:
        predict.main(self.options("out.npz", "n_samples=2", "steps=2"))
        arrays = np.load("out.npz")
        assert arrays["samples"].shape == (3, 2, 32, 32)
        assert arrays["image"].shape == arrays["std"].shape == (3, 32, 32)
        np.testing.assert_allclose(np.abs(arrays["samples"].mean(1)), arrays["image"], rtol=1e-3, atol=1e-6)
        assert "residual" in capsys.readouterr().out
        predict.main(self.options("out.h5", "n_samples=2", "steps=2"))
        with h5py.File("out.h5") as file:
            np.testing.assert_array_equal(file["reconstruction"][()], arrays["image"])
        predict.main(self.options("out.png", "n_samples=2", "steps=2"))
        assert not list(Path().glob(".out*"))
        with pytest.raises(DataError, match="should end in"):
            predict.main(self.options("out.txt"))

    def test_maps_of_many_coils(self, saved: Any) -> None:
        np.save("scan.npy", generate(3, "T2", (32, 32), 4, 1).kspace)
        for maps in ("acs", "espirit"):
            predict.main(self.options(f"{maps}.npz", "n_samples=1", "steps=2", f"maps={maps}", "noise=0.01"))
        one, other = (np.load(f"{maps}.npz")["image"] for maps in ("acs", "espirit"))
        assert one.shape == other.shape == (1, 32, 32)
        assert not np.allclose(one, other)

    def test_a_stopped_prediction_goes_on(self, saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        predict.main(self.options("whole.npz", "steps=2"))
        original, seen = volume._sample, []

        def stopping(module: Any, starter: Any, scan: Any, index: int, **how: Any) -> Any:
            seen.append(index)
            if len(seen) == 2:
                raise KeyboardInterrupt
            return original(module, starter, scan, index, **how)

        monkeypatch.setattr(volume, "_sample", stopping)
        with pytest.raises(KeyboardInterrupt):
            predict.main(self.options("out.npz", "steps=2"))
        predict.main(self.options("out.npz", "steps=2"))
        assert seen == [0, 1, 1, 2]
        for name in volume.ARRAYS:
            np.testing.assert_array_equal(np.load("out.npz")[name], np.load("whole.npz")[name])
        seen[:] = [0, 0]
        predict.main(self.options("out.npz", "steps=2", "seed=4"))
        assert (np.load("out.npz")["samples"] != np.load("whole.npz")["samples"]).any()
