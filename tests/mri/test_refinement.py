"""Improving a reconstruction by the slice's own samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from zoo.errors import ConfigError
from zoo.mri.fourier import fft2, ifft2
from zoo.mri.masks import MaskFunction
from zoo.mri.operators import expand, reduce
from zoo.mri.phantom import generate
from zoo.mri.pipeline import Preparation, RawSlice, as_batch
from zoo.mri.refinement import VIEWS, Refinement, reflect
from zoo.mri.sensitivity import acs_maps, real_maps


@pytest.fixture(scope="module")
def batch() -> Any:
    scan = generate(7, "T2", (48, 40), 4, 1, 40.0)
    kspace, padding = Preparation().clean(RawSlice(scan.kspace[0]))
    mask = MaskFunction("poisson", (4.0,), (0.1,))((48, 40), 0)
    truth = torch.from_numpy(scan.truth[0])
    return as_batch(Preparation()(kspace, padding, mask, (48, 40), truth)) | {"truth": truth[None]}


@pytest.fixture
def module() -> Any:
    torch.manual_seed(0)
    arguments = {"num_steps": 3, "recurrent_hidden_channels": 8, "recurrent_num_layers": 2, "rms_scaling": True}
    return zoo.create_model("mri/recurrentvarnet", **arguments).eval()


def error(kspace: torch.Tensor, batch: Any) -> float:
    """Of what was not sampled, relative to its energy."""
    wrong = torch.where(batch["sampling_mask"], 0, kspace - batch["truth"] / batch["scaling_factor"])
    right = torch.where(batch["sampling_mask"], 0, batch["truth"] / batch["scaling_factor"])
    return float(wrong.abs().square().sum() / right.abs().square().sum())


@pytest.mark.parametrize("centered", [True, False])
def test_mirroring_an_image_mirrors_its_kspace(centered: bool) -> None:
    for shape in ((6, 8), (7, 5), (6, 5)):
        image = torch.randn(2, *shape, dtype=torch.complex128)
        for axes in VIEWS:
            mirrored = reflect(image, axes, centered)
            torch.testing.assert_close(fft2(mirrored, centered), reflect(fft2(image, centered), axes, centered))
            assert torch.equal(reflect(mirrored, axes, centered), image)
    assert (reflect(image, (-1,), centered) != image).any()


def test_each_part_brings_the_network_nearer_to_what_was_not_sampled(batch: Any) -> None:
    """Agreement with the samples and other views, training on them, and averaging; the network stays as it is."""
    module: Any = zoo.load_pretrained("mri/recurrentvarnet-phantom")
    before = {name: tensor.clone() for name, tensor in module.network.state_dict().items()}
    with torch.no_grad():
        alone = error(module.kspace(batch), batch)
        closed = error(Refinement(steps=0).learned(module, batch), batch)
        learned = Refinement(steps=40).learned(module, batch)
        trained = error(learned, batch)
        wavelets = error(Refinement(share=0.0).average(learned, batch), batch)
        averaged = error(Refinement().average(learned, batch), batch)
    assert closed < 0.93 * alone
    assert trained < 0.95 * closed
    assert averaged < 0.95 * min(wavelets, trained)
    after = module.network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_only_what_was_measured_counts(module: Any, batch: Any) -> None:
    others = {key: batch[key] for key in ("masked_kspace", "sampling_mask", "acs_mask", "sensitivity_map", "padding")}
    refinement = Refinement(steps=2)
    assert torch.equal(refinement(module, others), refinement(module, batch))  # type: ignore[arg-type]
    assert not torch.equal(Refinement(steps=2, seed=1)(module, batch), refinement(module, batch))


def test_real_maps_have_the_phase_of_maps_of_low_resolution(batch: Any) -> None:
    kspace, acs = batch["masked_kspace"], batch["acs_mask"]
    maps = real_maps(kspace, acs)
    low = reduce(ifft2(acs * kspace), maps)
    assert (low.real >= 0).all()
    assert low.imag.abs().max() < 1e-5 * low.abs().max()
    torch.testing.assert_close(maps.abs().square().sum(1), torch.ones_like(low.real))
    # In the head both explain the same coil images.
    image = reduce(ifft2(batch["truth"]), maps)
    there = image.abs() > 0.3 * image.abs().max()
    overlap = (maps.conj() * acs_maps(kspace, acs)).sum(1)[there]
    assert overlap.real.mean() > 0.98
    again = fft2(expand(image, maps))
    assert (again - batch["truth"]).abs().square().sum() < 0.01 * batch["truth"].abs().square().sum()


def test_predict_refines_on_request(module: Any, in_tmp: Path) -> None:
    kspace = generate(4, "T2", (48, 40), 4, 1, 40.0).kspace
    mask = MaskFunction("poisson", (4.0,), (0.1,))((48, 40), 0).mask
    np.save("scan.npy", kspace * mask)
    module.predict_file(Path("scan.npy"), Path("plain.npy"))
    module.predict_file(Path("scan.npy"), Path("refined.npy"), refine_steps=5)
    with pytest.raises(ConfigError, match="0 or more, not -1"):
        module.predict_file(Path("scan.npy"), Path("refined.npy"), refine_steps=-1)
    truth = np.sqrt((np.abs(ifft2(torch.from_numpy(kspace)).numpy()) ** 2).sum(1))
    plain, refined = (np.square(np.load(name) - truth).sum() for name in ("plain.npy", "refined.npy"))
    assert refined < 0.5 * plain
