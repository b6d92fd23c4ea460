"""From raw k-space to a training step's gradients, and the files that raw k-space comes in."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import zoo
from tests.goldens import section
from tests.mri.golden import cplx, error, load, meta
from tests.mri.test_networks import check_gradients, e2e_arguments
from zoo.errors import DataError
from zoo.mri import losses
from zoo.mri.fourier import fft2, ifft2
from zoo.mri.hdf5 import IsmrmrdHeader, reading, write_calgary, write_fastmri
from zoo.mri.masks import MaskFunction, SamplingMask, seed_of
from zoo.mri.operators import rss
from zoo.mri.phantom import generate
from zoo.mri.pipeline import Preparation, RawSlice, as_batch, compress_coils, scaling_factor
from zoo.mri.volumes import CalgaryVolume, FastMRIVolume, FileVolume, Layout, guess_layout


def random_kspace(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((*shape, 2)).astype(np.float32)).view(np.complex64)[..., 0]


def test_a_whole_training_step() -> None:
    golden, config = load("e2e_pipeline"), meta("e2e_pipeline")["config"]
    raw = RawSlice(golden["in/kspace_c"].numpy())
    preparation = Preparation()
    kspace, padding = preparation.clean(raw)
    assert torch.equal(padding, golden["out/padding"][0, ..., 0].bool())
    shape = (kspace.shape[-2], kspace.shape[-1])
    function = MaskFunction("equispaced", (config["acceleration"],), (config["center_fraction"],))
    sample = preparation(kspace, padding, function(shape, seed_of(config["filename_seed"])), shape)
    assert torch.equal(sample["sampling_mask"], golden["out/sampling_mask"][0, ..., 0].bool())
    assert sample["scaling_factor"].item() == pytest.approx(golden["out/scaling_factor"].item(), rel=1e-6)
    for name, key in (("masked_kspace", "masked_kspace"), ("target", "target"), ("sensitivity_map", "sens_acs_rss")):
        assert error(sample[name][None], golden[f"out/{key}"]) < 2e-4, name  # type: ignore[literal-required]

    module: Any = zoo.create_model("mri/recurrentvarnet", **e2e_arguments())
    module.network.load_state_dict(zoo.convert_official("mri/recurrentvarnet", section(golden, "w/")))
    batch: Any = as_batch(sample)
    assert error(module.network.refine(batch["sensitivity_map"]), golden["out/sens_refined"]) < 2e-4
    image = module(batch)
    predicted = torch.where(batch["padding"], 0, module.kspace(batch))
    assert error(predicted, golden["out/kspace"]) < 2e-4
    assert error(image, golden["out/image"]) < 2e-4
    assert (image - batch["target"]).abs().mean().item() == pytest.approx(golden["out/l1"].item(), rel=2e-4)
    assert losses.ssim_loss(image, batch["target"]).item() == pytest.approx(golden["out/ssim_loss"].item(), rel=2e-4)
    loss = module._loss(image, batch["target"])
    loss.backward()
    assert loss.item() == pytest.approx(golden["out/loss"].item(), rel=2e-4)
    check_gradients(module.network, zoo.convert_official("mri/recurrentvarnet", section(golden, "g/")), 2e-3)


class TestPreparation:
    def test_scaling_counts_zeros_of_coils_with_signal(self) -> None:
        kspace = torch.zeros(2, 10, 20, dtype=torch.complex64)
        kspace[0].view(-1)[:100] = torch.arange(1, 101).to(torch.complex64)
        assert scaling_factor(kspace, 0.99).item() == 98  # the third largest of the 200 of one coil
        assert scaling_factor(kspace * 0).item() == 1

    def test_the_target_is_in_the_units_of_the_input(self) -> None:
        kspace = torch.from_numpy(random_kspace(3, 24, 20))
        whole = SamplingMask(np.ones((24, 20), bool), np.ones((24, 20), bool))
        small, large = (
            Preparation()(k, torch.zeros(1, 24, 20, dtype=torch.bool), whole, (24, 20)) for k in (kspace, 1e4 * kspace)
        )
        assert torch.allclose(small["target"], large["target"], rtol=1e-5)
        assert torch.allclose(large["target"] * large["scaling_factor"], rss(ifft2(1e4 * kspace)), rtol=1e-4)

    @pytest.mark.parametrize("flip", [(True, False), (False, True), (True, True)])
    def test_flipping_mirrors_the_image(self, flip: tuple[bool, bool]) -> None:
        raw = random_kspace(2, 12, 9)
        kspace, _ = Preparation(padding_epsilon=None).clean(RawSlice(raw), flip)
        axes = [axis for axis, on in zip((-2, -1), flip, strict=True) if on]
        expected = ifft2(torch.from_numpy(raw)).flip(axes)
        assert torch.allclose(ifft2(kspace), expected, atol=1e-5)

    def test_unmeasured_columns_are_zeroed_and_reported(self) -> None:
        unmeasured = np.zeros((8, 10), bool)
        unmeasured[:, 8:] = True
        kspace, padding = Preparation().clean(RawSlice(random_kspace(2, 8, 10), unmeasured=unmeasured))
        assert (padding[0].numpy() == unmeasured).all()
        assert (kspace[..., 8:] == 0).all()

    def test_cropping_takes_away_readout_oversampling(self) -> None:
        """An object in the middle of a field of view twice too high comes out as if it had been measured without."""
        image = torch.zeros(1, 32, 16, dtype=torch.complex64)
        image[:, 8:24] = torch.randn(1, 16, 16, dtype=torch.complex64)
        kspace, _ = Preparation(image_crop=(16, 16), padding_epsilon=None).clean(RawSlice(fft2(image).numpy()))
        assert torch.allclose(ifft2(kspace), image[:, 8:24], atol=1e-5)

    @given(coils=st.integers(2, 8), keep=st.integers(1, 8), seed=st.integers(0, 99))
    @settings(max_examples=20, deadline=None)
    def test_coil_compression_keeps_what_it_can(self, coils: int, keep: int, seed: int) -> None:
        kspace = torch.from_numpy(random_kspace(coils, 8, 8, seed=seed))
        compressed = compress_coils(kspace, keep)
        assert len(compressed) == min(coils, keep)
        singular = torch.linalg.svdvals(kspace.flatten(1))[:keep]
        assert torch.allclose(compressed.norm(), singular.norm(), rtol=1e-4)
        if keep >= coils:
            assert torch.equal(compressed, kspace)


class TestFastMRI:
    def test_header_and_padding(self, tmp_path: Path) -> None:
        golden = load("data_misc")
        header = IsmrmrdHeader(meta("data_misc")["fastmri_header"])
        assert header.padding == tuple(golden["fastmri/out_padding"].tolist())
        sizes = torch.tensor([header.encoding_size, header.reconstruction_size])
        assert torch.equal(sizes, golden["fastmri/out_sizes"].to(sizes))
        kspace = golden["fastmri/in_kspace_c"].numpy()
        images = np.zeros((3, 8, 8), np.float32)
        write_fastmri(tmp_path / "v.h5", kspace, images, "AXT1", padding=header.padding)
        volume = FastMRIVolume(tmp_path / "v.h5")
        cleaned, _ = Preparation().clean(volume.read(1))
        assert torch.equal(cleaned, golden["fastmri/out_kspace_slice1_c"])
        assert volume.crop() == (8, 8)

    def test_round_trip_of_a_procedural_volume(self, tmp_path: Path) -> None:
        scan = generate(1, "FLAIR", (48, 40), coils=4, slices=3)
        images = rss(ifft2(torch.from_numpy(scan.kspace)))[:, 8:40, 4:36].numpy()
        write_fastmri(tmp_path / "v.h5", scan.kspace, images, "AXFLAIR")
        volume = FastMRIVolume(tmp_path / "v.h5")
        assert (volume.slices, volume.shape, volume.crop()) == (3, (4, 48, 40), (32, 32))
        assert (volume.read(2).kspace == scan.kspace[2]).all()
        assert volume.maximum() == pytest.approx(float(images.max()))
        assert volume.voxel_size == (1, 1, 5)

    def test_single_coil_and_test_files(self, tmp_path: Path) -> None:
        kspace, mask = random_kspace(2, 16, 12), np.arange(12) % 3 == 0
        write_fastmri(tmp_path / "s.h5", kspace * mask, np.ones((2, 8, 8), np.float32), "CORPD_FBK", mask=mask)
        volume = FastMRIVolume(tmp_path / "s.h5")
        assert volume.shape == (1, 16, 12)
        assert (volume.read(0).mask == mask).all()

    def test_a_mask_of_another_width_is_refused(self, tmp_path: Path) -> None:
        write_fastmri(
            tmp_path / "m.h5",
            random_kspace(1, 2, 20, 12),
            np.ones((1, 8, 8), np.float32),
            "AXT2",
            mask=np.ones(7, bool),
        )
        with pytest.raises(DataError, match=r"m\.h5 has a mask of 7 columns, and its k-space has 12"):
            FastMRIVolume(tmp_path / "m.h5")

    def test_narrow_volumes_have_a_square_crop(self, tmp_path: Path) -> None:
        write_fastmri(tmp_path / "n.h5", random_kspace(1, 2, 20, 12), np.ones((1, 16, 16), np.float32), "AXT2")
        assert FastMRIVolume(tmp_path / "n.h5").crop() == (12, 12)

    @pytest.mark.parametrize("xml", ["no xml", "<a/>", '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"/>'])
    def test_bad_headers(self, xml: str) -> None:
        with pytest.raises(DataError, match="ismrmrd_header can't be read"):
            IsmrmrdHeader(xml)


class TestCalgary:
    def test_official_conversion(self, tmp_path: Path) -> None:
        golden = load("data_misc")
        with h5py.File(tmp_path / "e1.h5", "w") as file:
            file["kspace"] = golden["calgary/in_raw"].numpy()
        volume = CalgaryVolume(tmp_path / "e1.h5", margin=0)
        cleaned, padding = Preparation(centered=False).clean(volume.read(1))
        assert torch.equal(cleaned, golden["calgary/out_kspace_slice1_c"])
        measured = int(golden["calgary/out_padding_right"])
        assert padding[0, :, measured:].all()
        assert not padding[0, :, :measured].any()

    def test_margin_leaves_out_both_ends(self, tmp_path: Path) -> None:
        kspace = random_kspace(7, 2, 10, 12)
        write_calgary(tmp_path / "e2.h5", kspace)
        volume = CalgaryVolume(tmp_path / "e2.h5", margin=2)
        assert volume.slices == 3
        assert (volume.read(0).kspace == kspace[2]).all()
        with pytest.raises(DataError, match="has 7 slices, not more than the 8 left out"):
            CalgaryVolume(tmp_path / "e2.h5", margin=4)


class TestLayouts:
    @pytest.mark.parametrize("layout", ["schw", "hwsc", "shwc", "schw2", "s2chw", "shw(c2)", "chws2", "csh2w"])
    @pytest.mark.parametrize("suffix", [".npy", ".h5"])
    def test_every_order_of_axes(self, tmp_path: Path, layout: str, suffix: str) -> None:
        kspace = random_kspace(3, 2, 5, 4)
        pairs = kspace.view(np.float32).reshape(*kspace.shape, 2)
        if "(c2)" in layout:
            array = np.moveaxis(kspace, 1, -1).copy().view(np.float32)
        elif "2" in layout:
            array = pairs.transpose(["schw2".index(axis) for axis in layout])
        else:
            array = kspace.transpose(["schw".index(axis) for axis in layout])
        path = tmp_path / f"k{suffix}"
        if suffix == ".npy":
            np.save(path, array)
        else:
            with h5py.File(path, "w") as file:
                file["raw"] = array
        volume = FileVolume(path, layout, key="raw")
        assert (volume.slices, volume.shape) == (3, (2, 5, 4))
        assert all((volume.read(s).kspace == kspace[s]).all() for s in range(3))

    @pytest.mark.parametrize(
        ("shape", "dtype", "expected"),
        [
            ((5, 4), np.complex64, "hw"),
            ((8, 230, 180), np.complex64, "chw"),
            ((3, 8, 5, 4), np.complex128, "schw"),
            ((8, 5, 4, 2), np.float32, "chw2"),
            ((3, 8, 5, 4, 2), np.float64, "schw2"),
            ((256, 218, 170, 24), np.float32, "shw(c2)"),
        ],
    )
    def test_usual_layouts_are_recognised(self, shape: tuple[int, ...], dtype: Any, expected: str) -> None:
        assert guess_layout(shape, np.dtype(dtype)) == expected
        Layout(expected).sizes(shape, np.dtype(dtype))

    @pytest.mark.parametrize("text", ["", "sc", "schx", "hhw", "s(c2)hw", "schw(c2)"])
    def test_nonsense_is_refused(self, text: str) -> None:
        with pytest.raises(DataError, match="layout"):
            Layout(text)

    def test_what_does_not_fit_is_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "k.npy", random_kspace(3, 5, 4))
        with pytest.raises(DataError, match=r"k\.npy: An array \(3, 5, 4\) of complex64 does not have the layout"):
            FileVolume(tmp_path / "k.npy", "schw")
        np.save(tmp_path / "six.npy", np.zeros((1,) * 6, np.complex64))
        with pytest.raises(DataError, match=r"six\.npy: An array .* has no usual k-space layout"):
            FileVolume(tmp_path / "six.npy")
        with pytest.raises(DataError, match="no usual k-space layout"):
            guess_layout((2, 3, 4, 5, 6, 7), np.dtype(np.complex64))


class TestDamage:
    @pytest.fixture
    def good(self, tmp_path: Path) -> Path:
        write_fastmri(tmp_path / "good.h5", random_kspace(4, 2, 32, 32), np.ones((4, 16, 16), np.float32), "AXT2")
        return tmp_path / "good.h5"

    def test_truncated_and_foreign_files_are_named(self, good: Path) -> None:
        broken = good.with_name("broken.h5")
        broken.write_bytes(good.read_bytes()[:3000])
        with pytest.raises(DataError, match=r"broken\.h5 can't be read as HDF5"):
            FastMRIVolume(broken)
        broken.with_name("none.npy").write_bytes(b"\x93NUMPY nothing")
        with pytest.raises(DataError, match=r"none\.npy can't be read as a .npy file"):
            FileVolume(broken.with_name("none.npy"))
        with pytest.raises(DataError, match="There is no file"):
            FileVolume(broken.with_name("absent.h5"))
        with h5py.File(good.with_name("other.h5"), "w") as file:
            file["image"] = np.zeros(3)
        with pytest.raises(DataError, match=r"no array 'kspace' in it, only image"):
            FastMRIVolume(good.with_name("other.h5"))

    def test_nan_is_named_with_its_slice(self, good: Path) -> None:
        with h5py.File(good, "r+") as file:
            file["kspace"][2, 0, 3, 3] = np.nan
        with pytest.raises(DataError, match=r"good\.h5 holds NaN or infinity in slice 2"):
            FastMRIVolume(good).read(2)

    def test_a_replaced_file_is_opened_anew(self, good: Path) -> None:
        first = FastMRIVolume(good).read(0).kspace
        write_fastmri(good, random_kspace(4, 2, 32, 32, seed=9), np.ones((4, 16, 16), np.float32), "AXT2")
        assert not (FastMRIVolume(good).read(0).kspace == first).all()

    def test_processes_do_not_share_handles(self, good: Path) -> None:
        volume = FastMRIVolume(good)
        expected = volume.read(1).kspace.sum()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            sums = pool.map(_total, [volume] * 4)
        assert np.allclose(sums, expected)
        with reading(good) as here:
            assert here.id.valid


def _total(volume: FastMRIVolume) -> complex:
    return complex(volume.read(1).kspace.sum())


def test_official_layout_of_pairs() -> None:
    """What these tests mean by complex is the official pair (re, im)."""
    x: Tensor = load("transforms")["even/in"]
    assert torch.equal(cplx(x).real, x[..., 0])
