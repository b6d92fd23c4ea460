"""Coil maps, and the classical methods that use them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.mri.golden import load, meta
from zoo.mri.baselines import L1Wavelet, SenseCG, TotalVariation, ZeroFilled, tuned
from zoo.mri.fourier import fft2, ifft2, unshift
from zoo.mri.masks import MaskFunction
from zoo.mri.operators import SenseOperator, expand, reduce, rss
from zoo.mri.phantom import generate
from zoo.mri.sensitivity import acs_maps, calibration_box, calibration_maps, espirit, network_maps, real_maps
from zoo.mri.unet import SensitivityRefinement


def aligned_error(maps: Tensor, expected: Tensor, where: Tensor) -> float:
    """Relative L2 error after removing a phase per pixel that all coils share."""
    phase = (maps.conj() * expected).sum(0)
    turned = maps * phase / phase.abs().clamp_min(1e-12)
    return float((turned - expected)[:, where].norm() / expected[:, where].norm())


class TestEspirit:
    @pytest.fixture
    def maps(self) -> Tensor:
        golden, config = load("espirit"), meta("espirit")["config"]
        kspace = golden["in/kspace_c"][None]
        acs = torch.zeros(1, 1, 40, 40, dtype=torch.bool)
        acs[..., 10:30, 10:30] = True
        return espirit(
            kspace,
            acs,
            kernel_size=config["kernel_width"],
            threshold=config["thresh"],
            crop=config["crop"],
            iterations=config["max_iter"],
        )[0]

    def test_agrees_with_sigpy_and_with_the_truth(self, maps: Tensor) -> None:
        golden = load("espirit")
        support = golden["in/support"].bool() & (golden["out/maps_c"].abs().sum(0) > 0)
        for expected in (golden["out/maps_c"], golden["in/true_maps_c"]):
            assert aligned_error(maps, expected, support) < 0.02

    def test_phase_is_that_of_the_first_coil(self, maps: Tensor) -> None:
        assert maps[0].imag.abs().max() < 1e-5
        assert maps[1:].imag.abs().max() > 0.1  # and not lost, as the modulus would lose it

    def test_norm(self, maps: Tensor) -> None:
        norm = rss(maps)
        assert torch.allclose(norm[norm > 0], torch.ones(()), atol=1e-5)

    def test_not_centred(self) -> None:
        """The same maps, with the (-1)^(i+j) phase of images that are not centred cancelling in the reference."""
        golden = load("espirit")
        acs = torch.zeros(1, 1, 40, 40, dtype=torch.bool)
        acs[..., 10:30, 10:30] = True
        kspace = golden["in/kspace_c"][None]
        centered, plain = espirit(kspace, acs), espirit(kspace, acs, centered=False)
        assert torch.allclose(unshift(centered).abs(), plain.abs(), atol=1e-3)

    def test_an_empty_slice_has_no_maps_and_no_nan(self) -> None:
        kspace, acs = torch.zeros(1, 3, 16, 16, dtype=torch.complex64), torch.ones(1, 1, 16, 16, dtype=torch.bool)
        for maps in (espirit(kspace, acs), calibration_maps(kspace, acs), real_maps(kspace, acs)):
            assert (maps == 0).all()

    def test_without_a_centre(self) -> None:
        with pytest.raises(ValueError, match="needs a fully sampled centre"):
            espirit(torch.ones(1, 2, 8, 8, dtype=torch.complex64), torch.zeros(1, 1, 8, 8, dtype=torch.bool))


def test_networks_get_espirit_of_a_block_and_low_resolution_of_lines() -> None:
    """Each sample for itself, where ESPIRiT explains the coil images better."""
    scan = generate(3, "T2", (64, 56), 5, 1, 60.0)
    kspace = torch.from_numpy(scan.truth)
    acs = torch.zeros(2, 1, 64, 56, dtype=torch.bool)
    acs[0, 0, 26:38, 22:34] = True
    acs[1, 0, :, 26:30] = True
    given = acs_maps(kspace, acs)
    chosen = network_maps(kspace.expand(2, -1, -1, -1), acs, given)
    assert torch.equal(chosen[1], given[1])
    images = ifft2(kspace)

    def unexplained(maps: Tensor) -> float:
        rest = images - expand(reduce(images, maps), maps)
        return float(rest.abs().square().sum() / images.abs().square().sum())

    assert unexplained(chosen[:1]) < 0.7 * unexplained(given[:1])


def test_calibration_box_is_the_largest() -> None:
    acs = torch.zeros(32, 40, dtype=torch.bool)
    acs[:, 16:24] = True
    rows, columns = calibration_box(acs)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (24, 8)
    assert acs[rows, columns].all()


class TestAcsMaps:
    def test_official(self) -> None:
        golden = load("e2e_pipeline")
        kspace = golden["in/kspace_c"][None]
        lines = MaskFunction("equispaced", (4,), (0.2,))((48, 40), tuple(map(ord, "e2e_open.h5")))
        acs = torch.from_numpy(lines.acs)[None, None] & ~golden["out/padding"][..., 0].bool()
        for taper, key in ((None, "out/sens_acs_rss"), (0.7, "out/sens_acs_rss_gauss0.7")):
            maps = torch.view_as_real(acs_maps(kspace, acs, taper))
            assert (maps - golden[key]).abs().max() < 2e-4

    def test_an_empty_slice_has_no_maps_and_no_nan(self) -> None:
        maps = acs_maps(torch.zeros(1, 3, 16, 16, dtype=torch.complex64), torch.ones(1, 1, 16, 16, dtype=torch.bool))
        assert (maps == 0).all()

    def test_refinement_keeps_the_norm_and_does_not_mix_coils(self) -> None:
        torch.manual_seed(0)
        network = SensitivityRefinement(2, 2).eval()
        maps = torch.randn(2, 3, 24, 20, dtype=torch.complex64)
        refined = network(maps)
        assert torch.allclose(rss(refined), torch.ones(2, 24, 20), atol=1e-5)
        swapped = network(maps[:, [1, 0, 2]])
        assert torch.allclose(swapped, refined[:, [1, 0, 2]], atol=1e-5)


@pytest.fixture(scope="module")
def scan() -> dict[str, Any]:
    volume = generate(3, "T2", (64, 64), coils=6, slices=1, snr=40)
    mask = MaskFunction("equispaced", (4.0,), (0.12,))((64, 64), 0)
    kspace = torch.from_numpy(volume.kspace)
    kspace = kspace / rss(ifft2(kspace)).max()
    sampled, acs = (torch.from_numpy(m)[None, None] for m in (mask.mask, mask.acs))
    masked = torch.where(sampled, kspace, 0)
    return {
        "truth": rss(ifft2(kspace)),
        "kspace": masked,
        "mask": sampled,
        "maps": calibration_maps(masked, acs),
    }


def psnr_of(image: Tensor, scan: dict[str, Any]) -> float:
    return float(-10 * torch.log10((image.abs() - scan["truth"]).square().mean() / scan["truth"].max() ** 2))


class TestBaselines:
    def test_each_is_better_than_the_one_before(self, scan: dict[str, Any]) -> None:
        quality = [
            psnr_of(tuned(name, 4.0)(scan["kspace"], scan["mask"], scan["maps"]), scan)
            for name in ("zero-filled", "sense-cg", "l1-wavelet")
        ]
        assert quality[0] + 1.5 < quality[1]
        assert quality[1] + 1 < quality[2]
        assert psnr_of(tuned("tv", 4.0)(scan["kspace"], scan["mask"], scan["maps"]), scan) > quality[1]

    def test_sense_solves_its_normal_equations(self, scan: dict[str, Any]) -> None:
        operator = SenseOperator(scan["maps"], scan["mask"])
        image = SenseCG(0.05, iterations=60)(scan["kspace"], scan["mask"], scan["maps"])
        residual = operator.normal(image) + 0.05 * image - operator.adjoint(scan["kspace"])
        assert residual.norm() < 1e-4 * image.norm()

    @pytest.mark.parametrize("method", [L1Wavelet, TotalVariation])
    def test_regularised_objectives_fall(self, scan: dict[str, Any], method: Any) -> None:
        """Below the objective of SENSE's and of the zero-filled image."""
        operator = SenseOperator(scan["maps"], scan["mask"])
        start = operator.adjoint(scan["kspace"])
        weight = 0.01 * float(start.abs().max())

        def objective(x: Tensor) -> float:
            if method is TotalVariation:
                gradient = torch.stack((torch.roll(x, -1, -2) - x, torch.roll(x, -1, -1) - x))
                penalty = gradient.abs().square().sum(0).sqrt().sum()
            else:
                from zoo.mri import wavelets
                from zoo.mri.operators import to_channels

                _, details = wavelets.analyse(to_channels(x), wavelets.levels_for(64, 64))
                penalty = sum(d.square().sum(1).sqrt().sum() for d in details)
            misfit = operator.forward(x) - scan["kspace"]
            return float(0.5 * misfit.abs().square().sum() + weight * penalty)

        image = method(0.01)(scan["kspace"], scan["mask"], scan["maps"])
        sense = SenseCG(1e-3)(scan["kspace"], scan["mask"], scan["maps"])
        assert objective(image) < 0.8 * min(objective(sense), objective(start))

    @pytest.mark.parametrize("name", ["zero-filled", "sense-cg", "l1-wavelet", "tv"])
    def test_scale_and_empty_input(self, scan: dict[str, Any], name: Any) -> None:
        method = tuned(name, 4.0)
        image = method(scan["kspace"], scan["mask"], scan["maps"])
        scaled = method(scan["kspace"] * 1e-4, scan["mask"], scan["maps"])
        assert torch.allclose(scaled * 1e4, image, atol=2e-4 * float(image.abs().max()))
        assert (method(scan["kspace"] * 0, scan["mask"], scan["maps"]) == 0).all()

    @pytest.mark.parametrize("method", [SenseCG(1e-6, iterations=100), TotalVariation(1e-6), L1Wavelet(1e-6)])
    def test_full_sampling_is_recovered(self, scan: dict[str, Any], method: Any) -> None:
        maps = scan["maps"]
        image = torch.randn(1, 64, 64, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
        everywhere = torch.ones(1, 1, 64, 64, dtype=torch.bool)
        for centered in (True, False):
            recovered = method(fft2(expand(image, maps), centered), everywhere, maps, centered)
            assert (recovered - image).norm() < 1e-3 * image.norm()

    def test_weights_lie_between_the_tuned_ones(self) -> None:
        at = {rate: tuned("l1-wavelet", rate).weight for rate in (2.0, 4.0, 5.7, 8.0, 16.0)}  # type: ignore[attr-defined]
        assert at[2.0] == at[4.0] < at[5.7] < at[8.0] == at[16.0]
        assert isinstance(tuned("zero-filled", 4.0), ZeroFilled)
        assert np.isfinite(list(at.values())).all()
