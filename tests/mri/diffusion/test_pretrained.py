"""The weights that ship do what their entry says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from zoo.config import compose
from zoo.engine.run import evaluate
from zoo.errors import ConfigError
from zoo.mri.fourier import ifft2
from zoo.mri.masks import MaskFunction
from zoo.mri.metrics import hfen
from zoo.mri.phantom import generate
from zoo.pretrained import get_entry

NAME = "mri/diffusion-phantom"
# PSNR of the mean of the samples on the first test volume, from the run's test_volumes.csv.
FIRST_VOLUME = {"4x": 32.64, "8x": 30.88}


@pytest.mark.slow
def test_recorded_metrics_are_reproduced(in_tmp: Path) -> None:
    entry = get_entry(NAME)
    assert entry.config is not None
    quiet = ["callbacks.progress_bar=null", "callbacks.test_figures=null", "model.baselines=[zero-filled]"]
    options = ["data.test_volumes=1", "trainer.precision=32-true", "run_dir=run"]
    metrics = evaluate(compose(entry.config, [*quiet, *options]), NAME)["metrics"]
    for rate, value in FIRST_VOLUME.items():
        ours = metrics[f"test/{rate}/psnr"]
        assert ours == pytest.approx(value, abs=0.1)
        assert ours == pytest.approx(entry.metrics[f"test/{rate}/psnr"], abs=3)
        assert ours > metrics[f"test/{rate}/one-sample/psnr"] + 0.5
        assert ours > metrics[f"test/{rate}/zero-filled/psnr"] + 4
    assert metrics["test/posterior/residual"] == pytest.approx(1, abs=0.1)


def test_few_samples_of_an_unseen_brain() -> None:
    module: Any = zoo.load_pretrained(NAME)
    scan = generate((9, 9), "T2", (64, 64), 1, 1, 30.0)
    mask = torch.from_numpy(MaskFunction("random", (4.0,), (0.08,))((64, 64), 5).mask)
    kspace = torch.where(mask, torch.from_numpy(scan.kspace), 0)
    posterior = module.reconstruct(kspace, mask, n_samples=4, noise=scan.noise)
    assert float(posterior.residual.mean()) == pytest.approx(1, abs=0.1)
    truth = ifft2(torch.from_numpy(scan.truth))[:, 0].abs()
    zero_filled = ifft2(kspace)[:, 0].abs()
    assert (posterior.image - truth).norm() < 0.6 * (zero_filled - truth).norm()


def test_samples_from_a_regression_on_are_better_than_it() -> None:
    """By 0.15 dB, the mean of 4 from timestep 300 on, and with less error at high frequencies."""
    module: Any = zoo.load_pretrained(NAME)
    regression: Any = zoo.load_pretrained("mri/diffusion-regression")
    data = zoo.create_data("mri/phantom", size=(64, 64), coils=1, clean_target=True, masks=("random",), test_volumes=1)
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    with torch.no_grad():
        image, problem = regression.complex_image(batch)
    start = image / problem.scale.view(-1, 1, 1)
    posterior = module.sample_batch(batch, 4, start=start, start_timestep=300, spacing="log-snr")
    target = batch["target"]
    errors = [(x - target).square().mean() for x in (image.abs(), posterior.image)]
    assert 10 * torch.log10(errors[0] / errors[1]) > 0.15
    assert hfen(posterior.image, target) < hfen(image.abs(), target)
    # From the network's own first estimate each sample is better than a sample of the posterior by 1 dB.
    whole = module.sample_batch(batch, 2).samples[:, 0].abs()
    own = module.sample_batch(batch, 2, start_timestep=150, spacing="log-snr").samples[:, 0].abs()
    errors = [(x - target).square().mean() for x in (whole, own)]
    assert 10 * torch.log10(errors[0] / errors[1]) > 1
    assert hfen(own, target) < 0.9 * hfen(whole, target)


def test_the_regression_reconstructs_a_file(in_tmp: Path) -> None:
    """Whose noise nobody knows: it is estimated."""
    module: Any = zoo.load_pretrained("mri/diffusion-regression")
    scan = generate((9, 9), "T2", (64, 64), 1, 1, 30.0)
    mask = MaskFunction("random", (4.0,), (0.08,))((64, 64), 5).mask
    np.save("scan.npy", scan.kspace * mask)
    module.predict_file(Path("scan.npy"), Path("image.npy"))
    truth = ifft2(torch.from_numpy(scan.truth))[:, 0].abs()
    zero_filled = ifft2(torch.from_numpy(scan.kspace * mask))[:, 0].abs()
    assert (torch.from_numpy(np.load("image.npy")) - truth).norm() < 0.6 * (zero_filled - truth).norm()


def test_samples_of_a_file_start_from_another_models_image(in_tmp: Path) -> None:
    """The squared error of the mean of 8 is at least 3 % less than that image's, in every slice."""
    module: Any = zoo.load_pretrained(NAME)
    scan = generate((9, 9), "T2", (64, 64), 1, 2, 30.0)
    mask = MaskFunction("random", (4.0,), (0.08,))((64, 64), 5).mask
    np.save("scan.npy", scan.kspace * mask)
    zoo.load_pretrained("mri/diffusion-regression").predict_file(Path("scan.npy"), Path("regression.npy"))
    module.predict_file(Path("scan.npy"), Path("started.npy"), start="mri/diffusion-regression")
    truth = ifft2(torch.from_numpy(scan.truth))[:, 0].abs().numpy()
    before, after = (np.square(np.load(f"{name}.npy") - truth).sum((1, 2)) for name in ("regression", "started"))
    assert (after < 0.97 * before).all()
    with pytest.raises(ConfigError, match="should be weights that reconstruct k-space, not those of kat/kat"):
        module.predict_file(Path("scan.npy"), Path("again.npy"), start="kat/digits")
