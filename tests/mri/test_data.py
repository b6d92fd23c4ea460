"""Procedural brains, and the data modules on small files in the layouts of the public data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from zoo.data.kspace import KSpaceBatch, KSpaceSlices, ShapeSampler
from zoo.data.loading import EpochIndex
from zoo.errors import ConfigError, DataError
from zoo.mri.fourier import fft2, ifft2
from zoo.mri.hdf5 import write_calgary, write_fastmri
from zoo.mri.masks import center_lines
from zoo.mri.operators import rss
from zoo.mri.phantom import CONTRASTS, generate
from zoo.mri.phantom.acquisition import signal
from zoo.mri.phantom.anatomy import Tissue
from zoo.mri.phantom.coils import CoilArray
from zoo.signature import check_arguments

SMALL = {"size": (48, 40), "coils": 4, "slices": 2, "train_volumes": 3, "val_volumes": 1, "test_volumes": 2}


def image_of(kspace: np.ndarray) -> np.ndarray:
    return rss(ifft2(torch.from_numpy(kspace))).numpy()


class TestPhantom:
    def test_is_a_function_of_its_seed(self) -> None:
        first, again, other = (generate(seed, shape=(32, 32), slices=2, coils=2) for seed in (7, 7, 8))
        assert (first.kspace == again.kspace).all()
        assert not np.allclose(first.kspace, other.kspace)

    def test_coils_contrast_and_noise_leave_the_head_as_it_is(self) -> None:
        arguments: dict[str, Any] = {"shape": (32, 32), "slices": 2, "coils": 2}
        labels = generate(3, **arguments).labels
        for change in ({"coils": 8}, {"contrast": "FLAIR"}, {"snr": 10.0}):
            assert (generate(3, **{**arguments, **change}).labels == labels).all()

    def test_noise_is_what_was_asked_for(self) -> None:
        clean, noisy = (generate(5, shape=(64, 64), slices=1, coils=4, snr=snr) for snr in (1e9, 20.0))
        noise = (noisy.kspace - clean.kspace)[0]
        assert noise.real.std() == pytest.approx(noisy.noise, rel=0.02)
        flat = noise.reshape(4, -1)
        correlation = np.corrcoef(flat)[0, 1]
        assert correlation.real == pytest.approx(0.1, abs=0.05)
        white = clean.labels[0][::2, ::2] == Tissue.WHITE_MATTER
        assert image_of(clean.kspace)[0][white].mean() / noisy.noise == pytest.approx(20, rel=0.15)

    def test_every_tissue_is_there_and_the_slices_differ(self) -> None:
        labels = generate(2, shape=(64, 64), slices=7, coils=1).labels
        assert set(Tissue) - {Tissue.LESION} <= set(np.unique(labels))
        near, far = ((labels[3] != labels[k]).mean() for k in (4, 6))
        assert 0.005 < near < 0.6 * far

    def test_contrasts_order_the_tissues_as_in_the_clinic(self) -> None:
        """T1: white over grey over fluid; T2: fluid brightest; FLAIR: fluid gone, lesions bright."""
        t1, t2, flair = (signal(c) for c in ("T1", "T2", "FLAIR"))
        csf, grey, white, lesion = Tissue.CSF, Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.LESION
        assert t1[white] > t1[grey] > t1[csf]
        assert t2[csf] > t2[grey] > t2[white]
        assert flair[csf] < 0.25 * flair[white] < flair[lesion]
        assert set(CONTRASTS) == {"T1", "T2", "PD", "FLAIR"}

    def test_images_have_a_phase_and_gibbs_ringing(self) -> None:
        """No inverse crime: truncated k-space overshoots at edges and leaks outside the head."""
        volume = generate(1, shape=(64, 64), slices=1, coils=1, snr=1e9)
        image = ifft2(torch.from_numpy(volume.kspace))[0, 0]
        brain = torch.from_numpy(volume.labels[0][::2, ::2] == Tissue.GREY_MATTER)
        assert image[brain].angle().std() > 0.3
        outside = torch.from_numpy(volume.labels[0][::2, ::2] == Tissue.BACKGROUND)
        assert image[outside].abs().mean() > 1e-3 * image.abs().max()

    def test_coils_are_strongest_where_they_stand(self) -> None:
        maps = np.abs(CoilArray(8, np.random.default_rng(0)).sensitivities((32, 32), 0.0))
        peaks = [np.unravel_index(m.argmax(), m.shape) for m in maps]
        assert all(min(y, x, 31 - y, 31 - x) <= 2 for y, x in peaks)
        assert len(set(peaks)) >= 6

    def test_odd_and_oblong_sizes(self) -> None:
        assert generate(0, shape=(33, 20), slices=1, coils=9).kspace.shape == (1, 9, 33, 20)


class TestSlices:
    @pytest.fixture
    def data(self) -> Any:
        data = zoo.create_data("mri/phantom", **SMALL)
        data.setup("fit")
        data.setup("test")
        return data

    def test_batches_are_as_documented(self, data: Any) -> None:
        data.trainer = None
        batch: KSpaceBatch = next(iter(data.train_dataloader()))
        b, c, h, w = 2, 4, 48, 40
        shapes = {
            "masked_kspace": (b, c, h, w),
            "sampling_mask": (b, 1, h, w),
            "acs_mask": (b, 1, h, w),
            "padding": (b, 1, h, w),
            "sensitivity_map": (b, c, h, w),
            "scaling_factor": (b,),
            "target": (b, h, w),
            "image": (b, h, w),
            "crop": (b, 2),
            "volume": (b,),
            "volume_max": (b,),
            "slice_no": (b,),
            "acceleration": (b,),
            "noise": (b,),
        }
        assert {key: tuple(batch[key].shape) for key in shapes} == shapes  # type: ignore[literal-required]
        assert set(batch) == {*shapes, "filename"} == set(KSpaceBatch.__annotations__)
        assert batch["sampling_mask"].dtype == torch.bool
        assert (batch["masked_kspace"].abs() > 0).any(1, keepdim=True)[batch["sampling_mask"]].all()
        assert (batch["masked_kspace"][~batch["sampling_mask"].expand(b, c, h, w)] == 0).all()

    def test_training_masks_are_fresh_and_evaluation_masks_are_not(self, data: Any) -> None:
        train = KSpaceSlices(data.volumes["train"], data.preparation, data.train_masks, True, flip=True)
        masks = [train[EpochIndex(0, epoch)]["sampling_mask"] for epoch in range(6)]
        assert any(not torch.equal(masks[0], mask) for mask in masks[1:])
        assert torch.equal(train[EpochIndex(0, 1)]["target"], train[EpochIndex(0, 1)]["target"])
        test = KSpaceSlices(data.volumes["test"], data.preparation, data.eval_masks)
        by_volume: dict[Any, list[torch.Tensor]] = {}
        for index in range(len(test)):
            sample = test[index]
            by_volume.setdefault((sample["filename"], float(sample["acceleration"])), []).append(
                sample["sampling_mask"]
            )
        assert len(by_volume) == 4  # two volumes at two rates
        assert all(torch.equal(group[0], mask) for group in by_volume.values() for mask in group)

    @pytest.mark.parametrize("training", [False, True])
    def test_a_clean_target_leaves_the_noise_in_what_is_measured(self, training: bool) -> None:
        """The misfit of the target to the samples has the noise's level, which the batch tells; 0 otherwise."""
        for clean in (True, False):
            data = zoo.create_data("mri/phantom", **{**SMALL, "coils": 1}, snr=(20.0, 20.0), clean_target=clean)
            data.setup("fit")
            masks = data.train_masks if training else data.eval_masks
            sample = KSpaceSlices(data.volumes["train"], data.preparation, masks, training, flip=True)[EpochIndex(1, 3)]
            truth = fft2(sample["sensitivity_map"] * sample["image"])[sample["sampling_mask"]]
            error = torch.view_as_real(sample["masked_kspace"][sample["sampling_mask"]] - truth)
            assert float(error.std()) == pytest.approx(sample["noise"] if clean else 0, rel=0.08, abs=1e-4)
            largest = max(
                KSpaceSlices([v], data.preparation, masks[:1])[0]["volume_max"] for v in data.volumes["train"]
            )
            assert float(sample["target"].max()) * float(sample["scaling_factor"]) <= largest * 1.001

    def test_evaluation_does_not_depend_on_the_seed(self) -> None:
        one, other = (zoo.create_data("mri/phantom", **SMALL, seed=seed) for seed in (0, 1))
        for data in (one, other):
            data.setup("fit")
        assert (one.volumes["val"][0].kspace == other.volumes["val"][0].kspace).all()
        assert not np.allclose(one.volumes["train"][0].kspace, other.volumes["train"][0].kspace)

    def test_slices_of_3d_scans_join_the_training(self) -> None:
        """They have a size and discs of points of their own, and share no batch with the others."""
        options = {"train_volumes_3d": 2, "size_3d": (64, 56), "batch_size": 2, "masks": ("equispaced",)}
        data: Any = zoo.create_data("mri/phantom", **{**SMALL, **options})
        data.setup("fit")
        assert len({volume.name for volume in data.volumes["train"]}) == SMALL["train_volumes"] + 2
        train = KSpaceSlices(data.volumes["train"], data.preparation, data.train_masks, True)
        for index in range(len(train)):
            sample = train[EpochIndex(index, 0)]
            along_lines = (sample["sampling_mask"] == sample["sampling_mask"][:, :1]).all()
            is_3d = index >= len(train) - 2 * SMALL["slices"]
            assert sample["target"].shape == ((64, 56) if is_3d else SMALL["size"])
            assert along_lines != is_3d
        data.setup("test")
        assert {volume.shape[1:] for volume in data.volumes["val"] + data.volumes["test"]} == {SMALL["size"]}

    def test_rates_and_fractions_must_pair(self) -> None:
        with pytest.raises(ConfigError, match=r"1 rates and data\.center_fractions_3d 4"):
            zoo.create_data("mri/phantom", accelerations_3d=(2.0,))
        with pytest.raises(ConfigError, match=r"3 rates and data\.center_fractions 2"):
            zoo.create_data("mri/phantom", accelerations=(2.0, 4.0, 8.0))
        with pytest.raises(ConfigError, match=r"data\.accelerations .* should be 1 or more, not 0\.5"):
            zoo.create_data("mri/phantom", accelerations=(4.0, 0.5))
        with pytest.raises(ConfigError, match=r"center_fractions_3d: a centre fraction should be 0 or more, not -1"):
            zoo.create_data("mri/phantom", accelerations_3d=(4.0,), center_fractions_3d=(-1.0,))

    def test_no_volumes_to_train_on(self) -> None:
        data: Any = zoo.create_data("mri/phantom", **{**SMALL, "train_volumes": 0})
        with pytest.raises(ConfigError, match=r"data\.train_volumes is 0: there is nothing to train on"):
            data.setup("fit")

    def test_masks_that_do_not_fit_the_size_are_named(self) -> None:
        data: Any = zoo.create_data("mri/phantom", **SMALL, accelerations=(8.0,), center_fractions=(0.2,))
        data.setup("test")
        with pytest.raises(ConfigError, match=r"48 x 40 samples of phantom_.*leaves nothing to choose at 8x"):
            next(iter(data.test_dataloader()))


def test_a_batch_has_one_shape_and_no_slice_is_forgotten() -> None:
    shapes: list[tuple[int, ...]] = [(4, 8, 8)] * 7 + [(6, 8, 8)] * 4 + [(4, 9, 8)]
    sampler = ShapeSampler(shapes, batch_size=2, seed=1)
    seen: set[int] = set()
    for epoch in range(6):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert len(order) == len(sampler)
        assert all(shapes[a] == shapes[b] for a, b in zip(order[::2], order[1::2], strict=True))
        seen |= set(order)
    assert seen == set(range(12))
    shares = [list(ShapeSampler(shapes, 2, 1, rank, 2)) for rank in range(2)]
    assert [x for pair in zip(*shares, strict=True) for x in pair] == list(ShapeSampler(shapes, 2, 1))


def phantom_file(path: Path, seed: int, size: tuple[int, int] = (48, 40), coils: int = 4, slices: int = 2) -> None:
    scan = generate(seed, "T1", size, coils, slices)
    kspace, padding = scan.kspace, (2, size[1] - 3)
    kspace[..., : padding[0]] = 0
    kspace[..., padding[1] :] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    write_fastmri(path, kspace, image_of(kspace)[:, 8:-8, 4:-4], "AXT1", padding)


@pytest.fixture
def fastmri(tmp_path: Path) -> Path:
    """Three training and four validation volumes, of two shapes."""
    for number, coils in enumerate((4, 4, 6)):
        phantom_file(tmp_path / f"multicoil_train/file_brain_AXT1_{number}.h5", number, coils=coils)
    for number in range(4):
        phantom_file(tmp_path / f"multicoil_val/file_brain_AXT1_{number + 10}.h5", number + 10)
    return tmp_path


class TestFastMRI:
    def test_splits_in_volumes_and_shapes(self, fastmri: Path) -> None:
        data: Any = zoo.create_data("mri/fastmri", root=str(fastmri), num_workers=0, batch_size=2)
        data.setup("fit")
        data.setup("test")
        names = {split: [volume.name for volume in volumes] for split, volumes in data.volumes.items()}
        assert [len(names[split]) for split in ("train", "val", "test")] == [3, 2, 2]
        assert not set(names["val"]) & set(names["test"])
        for batch in data.train_dataloader():
            assert batch["masked_kspace"].shape[0] == 2
        batch = next(iter(data.val_dataloader()))
        assert batch["crop"].tolist() == [[32, 32]]
        assert batch["padding"][0, 0, :, :2].all()
        assert batch["padding"][0, 0, :, 37:].all()
        assert not (batch["sampling_mask"] & batch["padding"]).any()
        # Its own images, cropped, have the maximum that the file states.
        target = batch["target"][0] * batch["scaling_factor"][0]
        assert target[8:-8, 4:-4].max() <= batch["volume_max"][0] * (1 + 1e-5)

    def test_acquisitions_and_limits(self, fastmri: Path) -> None:
        phantom_file(fastmri / "multicoil_train/file_brain_AXT2_9.h5", 9)
        arguments: dict[str, Any] = {"root": str(fastmri), "num_workers": 0}
        for options, count in (({}, 4), ({"acquisitions": ("AXT1_",)}, 3), ({"limit": 1}, 1)):
            data: Any = zoo.create_data("mri/fastmri", **arguments, **options)
            data.setup("fit")
            assert len(data.volumes["train"]) == count

    def test_loader_workers_give_the_same_batches(self, fastmri: Path) -> None:
        batches = []
        for workers in (0, 2):
            data: Any = zoo.create_data("mri/fastmri", root=str(fastmri), num_workers=workers)
            data.setup("fit")
            batches.append([batch["masked_kspace"] for batch in data.train_dataloader()])
        assert len(batches[0]) == len(batches[1]) == 6
        assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))

    def test_coils_and_oversampling(self, fastmri: Path) -> None:
        data: Any = zoo.create_data("mri/fastmri", root=str(fastmri), num_workers=0, coils=3, image_crop=(32, 40))
        data.setup("fit")
        dataset = data.train_dataloader().dataset
        assert (
            {tuple(dataset[k]["masked_kspace"].shape) for k in range(6)}
            == {(3, 32, 40)}
            == {dataset.shape(k)[:3] for k in range(6)}
        )

    def test_damaged_files_are_named_and_left_out_or_fatal(
        self, fastmri: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        broken = fastmri / "multicoil_train/file_brain_AXT1_1.h5"
        broken.write_bytes(broken.read_bytes()[:2000])
        data: Any = zoo.create_data("mri/fastmri", root=str(fastmri), num_workers=0)
        data.setup("fit")
        assert len(data.volumes["train"]) == 2
        printed = " ".join(capsys.readouterr().err.split())
        assert "left out 1 of 3 files" in printed
        assert "file_brain_AXT1_1.h5" in printed.replace(" ", "")
        strict: Any = zoo.create_data("mri/fastmri", root=str(fastmri), num_workers=0, on_corrupt="fatal")
        with pytest.raises(DataError, match=r"file_brain_AXT1_1\.h5 can't be read as HDF5.*data\.on_corrupt=skip"):
            strict.setup("fit")

    def test_the_same_volume_twice_is_refused(self, fastmri: Path) -> None:
        """The published Calgary-Campinas lists share a volume between validation and test."""
        phantom_file(fastmri / "multicoil_val/file_brain_AXT1_0.h5", 0)
        data: Any = zoo.create_data("mri/fastmri", root=str(fastmri), num_workers=0)
        with pytest.raises(DataError, match=r"both in .* and in .*, such as file_brain_AXT1_0\.h5"):
            data.setup("fit")

    def test_undersampled_volumes_are_no_training_data(self, fastmri: Path) -> None:
        scan = generate(50, "T1", (48, 40), 4, 1)
        mask = np.arange(40) % 4 == 0
        path = fastmri / "multicoil_train/file_brain_AXT1_50.h5"
        write_fastmri(path, scan.kspace * mask, image_of(scan.kspace)[:, 8:-8, 4:-4], "AXT1", mask=mask)
        data: Any = zoo.create_data("mri/fastmri", root=str(fastmri), num_workers=0)
        data.setup("fit")
        with pytest.raises(DataError, match=r"AXT1_50\.h5 is undersampled already"):
            list(data.train_dataloader())

    def test_single_coil(self, tmp_path: Path) -> None:
        for split, numbers in (("train", (0, 1)), ("val", (2, 3))):
            for number in numbers:
                kspace = generate(number, "PD", (40, 40), 1, 2).kspace[:, 0]
                folder = tmp_path / f"singlecoil_{split}"
                folder.mkdir(exist_ok=True)
                write_fastmri(folder / f"file{number}.h5", kspace, np.ones((2, 32, 32), np.float32), "CORPD_FBK")
        data: Any = zoo.create_data("mri/fastmri", root=str(tmp_path), challenge="singlecoil", num_workers=0)
        data.setup("fit")
        sample = next(iter(data.train_dataloader()))
        assert sample["masked_kspace"].shape == (1, 1, 40, 40)
        modulus = sample["sensitivity_map"].abs()
        assert torch.allclose(modulus[modulus > 0], torch.ones(()), atol=1e-5)

    def test_without_the_data_the_card_is_shown(self) -> None:
        with pytest.raises(DataError, match=r"fastMRI(.|\n)*data\.root is not set(.|\n)*fastmri\.med\.nyu\.edu"):
            zoo.create_data("mri/fastmri")
        with pytest.raises(DataError, match=r"Calgary-Campinas(.|\n)*data\.root is not set"):
            zoo.create_data("mri/calgary-campinas")


class TestCalgary:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for split, numbers in (("Train", (0, 1)), ("Val", (2, 3))):
            (tmp_path / split).mkdir()
            for number in numbers:
                scan = generate(number, "T1", (48, 40), 3, 2)
                padded = np.concatenate([scan.kspace[:1]] * 50 + [scan.kspace] + [scan.kspace[:1]] * 50)
                write_calgary(tmp_path / split / f"e{number}.h5", padded)
        return tmp_path

    def arguments(self, root: Path, **more: Any) -> dict[str, Any]:
        return {"root": str(root), "num_workers": 0, "batch_size": 2, **more}

    def test_middle_slices_and_measured_columns(self, root: Path) -> None:
        data: Any = zoo.create_data("mri/calgary-campinas", **self.arguments(root))
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert batch["masked_kspace"].shape == (2, 3, 48, 40)
        assert batch["padding"][..., 34:].all()
        assert not batch["padding"][..., :34].any()
        assert len(data.train_dataloader().dataset) == 4
        kspace = data.preparation.clean(data.volumes["train"][0].read(0))[0]
        image = rss(ifft2(kspace / batch["scaling_factor"][0], centered=False))
        assert image.shape == batch["target"][0].shape

    def test_the_challenges_masks_are_used_when_given(self, root: Path) -> None:
        masks = np.zeros((3, 48, 40), bool)
        masks[:, ::2] = center_lines(40, 12)
        masks[:, 20:29, 16:25] = True
        (root / "masks").mkdir()
        for rate in (5, 10):
            np.save(root / f"masks/R{rate}_48x40.npy", masks)
        data: Any = zoo.create_data("mri/calgary-campinas", **self.arguments(root, mask_files=str(root / "masks")))
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert (batch["sampling_mask"][0, 0].numpy() <= masks[0]).all()

    def test_lists_of_files(self, root: Path) -> None:
        (root / "val.txt").write_text("Val/e2.h5\n\n")
        data: Any = zoo.create_data(
            "mri/calgary-campinas", **self.arguments(root, val=("val.txt",), test=("Val/e3.h5",))
        )
        data.setup("fit")
        assert [v.name for v in data.volumes["val"]] == ["e2.h5"]
        (root / "val.txt").write_text("Val/e9.h5\n")
        with pytest.raises(DataError, match=r"names Val/e9\.h5, which is not in"):
            zoo.create_data("mri/calgary-campinas", **self.arguments(root, val=("val.txt",))).setup("fit")


class TestAnyFiles:
    def test_npy_and_h5_side_by_side(self, tmp_path: Path) -> None:
        for split in ("train", "val"):
            (tmp_path / split).mkdir()
            np.save(tmp_path / split / f"{split}1.npy", generate(1, shape=(32, 32), coils=2, slices=2).kspace)
            np.save(tmp_path / split / f"{split}2.npy", generate(2, shape=(32, 32), coils=2, slices=1).kspace)
        data: Any = zoo.create_data("mri/kspace", root=str(tmp_path))
        data.setup("fit")
        assert len(data.train_dataloader().dataset) == 3
        assert next(iter(data.val_dataloader()))["masked_kspace"].shape == (1, 2, 32, 32)

    def test_what_is_missing_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"data\.root is not set"):
            zoo.create_data("mri/kspace")
        with pytest.raises(DataError, match="There is no folder"):
            zoo.create_data("mri/kspace", root=str(tmp_path / "no"))
        with pytest.raises(DataError, match=r"No file in .* matches data\.train"):
            zoo.create_data("mri/kspace", root=str(tmp_path)).setup("fit")


def test_wrong_families_are_refused_before_any_work() -> None:
    cls = zoo.registry.get_class("data", "mri/phantom")
    with pytest.raises(ConfigError, match="masks"):
        check_arguments(cls, {"masks": ["equidistant"]}, where="data")
