"""Data modules: what they generate, and readers on small files in the public layouts."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat

import zoo
from zoo.data.airfoil import prepare_authors, prepare_t1
from zoo.data.fields import FieldWindows, TrajectoryArray
from zoo.data.fields_hdf5 import PDEBenchFile, WellFiles
from zoo.data.fields_matlab import read_arrays
from zoo.data.loading import EpochIndex
from zoo.download import cache_dir
from zoo.errors import ConfigError, DataError
from zoo.operators import navier_stokes
from zoo.operators.transforms import resample


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def ready(name: str, **arguments: Any) -> Any:
    data = zoo.registry.create_data(f"operators/{name}", **arguments)
    data.setup("fit")
    return data


SMALL = {"train_size": 3, "val_size": 2, "test_size": 2}


class TestGenerated:
    def test_navier_stokes_is_solved_once(self) -> None:
        data = ready("navier-stokes", resolution=16, final_time=1.0, symmetries=False, **SMALL)
        sample = data.train[0]
        assert sample["input"].shape == (1, 16, 16)
        assert sample["target"].shape == (1, 1, 16, 16)
        solved = navier_stokes.solve(sample["input"][0], [1.0])[..., 0]
        assert torch.allclose(sample["target"][0, 0], solved, atol=1e-5)
        files = {file: file.stat().st_mtime_ns for file in (cache_dir() / "fields").glob("*.npz")}
        assert len(files) == 3
        with np.load(next(iter(files))) as arrays:
            assert set(arrays.files) == {"a", "u", "t"}
        again = ready("navier-stokes", resolution=16, final_time=1.0, symmetries=False, **SMALL)
        assert torch.equal(again.train[0]["target"], sample["target"])
        assert {file: file.stat().st_mtime_ns for file in (cache_dir() / "fields").glob("*.npz")} == files

    def test_a_larger_training_set_keeps_the_test_set(self) -> None:
        few = ready("navier-stokes", resolution=16, final_time=0.5, **SMALL)
        many = ready("navier-stokes", resolution=16, final_time=0.5, **{**SMALL, "train_size": 5})
        assert torch.equal(few.test[1]["target"], many.test[1]["target"])
        other = ready("navier-stokes", resolution=16, final_time=0.5, data_seed=1, **SMALL)
        assert not torch.equal(few.test[1]["target"], other.test[1]["target"])

    def test_the_same_flows_on_a_finer_grid(self) -> None:
        coarse = ready("navier-stokes", resolution=16, final_time=0.5, **SMALL).test[0]
        fine = ready("navier-stokes", resolution=16, test_resolution=32, final_time=0.5, **SMALL).test[0]
        assert fine["input"].shape == (1, 32, 32)
        assert torch.allclose(
            resample(fine["input"], (16, 16)), resample(resample(coarse["input"], (15, 15)), (16, 16))
        )

    def test_augmentation_depends_on_the_epoch_and_maps_solutions_to_solutions(self) -> None:
        data = ready("navier-stokes", resolution=16, final_time=0.5, **SMALL)
        images = [data.train[EpochIndex(0, epoch)] for epoch in range(6)]
        assert len({float(image["input"][0, 0, 0]) for image in images}) > 1
        for image in images:
            solved = navier_stokes.solve(image["input"][0], [0.5])[..., 0]
            assert torch.allclose(image["target"][0, 0], solved, atol=1e-5)
        assert torch.equal(data.train[EpochIndex(0, 3)]["input"], images[3]["input"])

    def test_trajectories(self) -> None:
        arguments = {"resolution": 16, "final_time": 2.0, "frames": 4, "context": 2, "train_steps": 1, **SMALL}
        data = ready("navier-stokes", symmetries=False, **arguments)
        assert len(data.train) == 3 * 3
        window = data.train[1]
        assert window["input"].shape == (2, 16, 16)
        assert window["target"].shape == (1, 1, 16, 16)
        following = navier_stokes.solve(window["input"][1], [0.5])[..., 0]
        assert torch.allclose(window["target"][0, 0], following, atol=1e-4)
        assert data.test[0]["target"].shape == (3, 1, 16, 16)
        with pytest.raises(ConfigError, match=r"raise data.frames"):
            ready("navier-stokes", frames=2, context=3)

    def test_burgers_and_darcy(self) -> None:
        burgers = ready("burgers", resolution=64, **SMALL).test[0]
        assert burgers["input"].shape == (1, 64)
        assert burgers["target"].shape == (1, 1, 64)
        assert burgers["target"].square().mean() < burgers["input"].square().mean()  # viscosity
        darcy = ready("darcy", resolution=17, **SMALL).test[0]
        assert set(darcy["input"].unique().tolist()) <= {3.0, 12.0}
        assert darcy["target"][0, 0, 0].abs().max() == 0
        assert 1 / 12 * 0.0737 < darcy["target"].max() < 1 / 3 * 0.0737  # between the two pure materials


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("navier-stokes", {"final_time": float("nan")}, "data.final_time should be positive, not nan"),
        ("navier-stokes", {"val_size": 0}, "data.val_size should be positive"),
        ("navier-stokes", {"frames": 2, "context": 0}, "data.context should be positive"),
        ("navier-stokes", {"viscosity": -1.0}, "data.viscosity should be finite and not negative"),
        ("navier-stokes", {"batch_size": 0}, "data.batch_size should be positive"),
        ("burgers", {"viscosity": 0.0}, "data.viscosity should be positive"),
        ("darcy", {"resolution": 3}, "4 nodes per side or more"),
        ("fno-files", {"stride": 0}, "data.stride should be positive"),
        ("fno-files", {"val_size": -1}, "data.val_size should not be negative"),
        ("pdebench", {"time_stride": 0}, "data.time_stride should be positive"),
        ("the-well", {"test_steps": 0}, "data.test_steps should be positive"),
        ("scalarflow", {"camera": 5}, "data.camera should be 0 to 4"),
        ("airfoil", {"dataset_size": 0}, "data.dataset_size should be positive"),
    ],
)
def test_impossible_numbers_are_named(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        zoo.registry.create_data(f"operators/{name}", **arguments)


class TestWindows:
    def test_every_start_and_the_first_only(self) -> None:
        runs = TrajectoryArray(random(2, 5, 1, 4, 4))
        windows = FieldWindows(runs, 2, 1)
        assert len(windows) == 2 * 3
        assert torch.equal(windows[4]["input"], torch.from_numpy(runs.states[1, 1:3, 0]))
        assert torch.equal(windows[4]["target"], torch.from_numpy(runs.states[1, 3:4]))
        rolled = FieldWindows(runs, 2, every_start=False)
        assert len(rolled) == 2
        assert rolled[1]["target"].shape == (3, 1, 4, 4)
        with pytest.raises(DataError, match="too short"):
            FieldWindows(runs, 5)


def write_v73(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As MATLAB does: a user block of 512 bytes, and every array with its axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = array.T


@pytest.fixture(params=["v5", "v7.3"])
def matlab_root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    a, u = random(10, 8, 8).astype(np.float64), random(10, 8, 8, 6)
    arrays = {"a": a, "u": u, "t": np.arange(1.0, 7.0)[None]}
    (write_v73 if request.param == "v7.3" else savemat)(tmp_path / "ns.mat", arrays)
    np.savez(tmp_path / "expected.npz", a=a, u=u)
    return tmp_path


class TestMatlab:
    SIZES: ClassVar[dict[str, Any]] = {"file": "ns.mat", "train_size": 5, "val_size": 2, "test_size": 3}

    def test_both_versions_read_alike(self, matlab_root: Path) -> None:
        expected = np.load(matlab_root / "expected.npz")
        found = read_arrays(matlab_root / "ns.mat")
        assert np.array_equal(found["u"], expected["u"])
        assert np.array_equal(found["a"], expected["a"])

    def test_direct_map(self, matlab_root: Path) -> None:
        expected = np.load(matlab_root / "expected.npz")
        data = ready("fno-files", root=matlab_root, final_time=4.0, **self.SIZES)
        assert [len(part) for part in (data.train, data.val, data.test)] == [5, 2, 3]
        sample = data.test[0]
        assert np.allclose(sample["input"][0], expected["a"][7])
        assert np.array_equal(sample["target"][0, 0], expected["u"][7, ..., 3])  # times count from 1
        assert np.allclose(data.val[0]["input"][0], expected["a"][5])

    def test_roll_out(self, matlab_root: Path) -> None:
        expected = np.load(matlab_root / "expected.npz")
        data = ready("fno-files", root=matlab_root, context=2, train_steps=1, stride=2, **self.SIZES)
        assert len(data.train) == 5 * 4
        assert data.test[0]["target"].shape == (4, 1, 4, 4)
        assert np.array_equal(data.test[0]["input"][1], expected["u"][7, ::2, ::2, 1])

    def test_darcy_with_a_test_file_and_neuraloperators_files(self, tmp_path: Path) -> None:
        for name in ("train", "test"):
            savemat(tmp_path / f"{name}.mat", {"coeff": random(6, 9, 9), "sol": random(6, 9, 9)})
            torch.save({"x": torch.rand(6, 8, 8) > 0.5, "y": torch.rand(6, 8, 8)}, tmp_path / f"{name}.pt")
        sizes = {"train_size": 4, "val_size": 2, "test_size": 6}
        for suffix, size in (("mat", 9), ("pt", 8)):
            data = ready("fno-files", root=tmp_path, file=f"train.{suffix}", test_file=f"test.{suffix}", **sizes)
            assert data.train[0]["target"].shape == (1, 1, size, size)
            assert len(data.test) == 6

    def test_what_can_be_wrong_is_named(self, matlab_root: Path) -> None:
        with pytest.raises(DataError, match=r"data.root is not set(.|\n)*ns_V1e-3_N5000_T50.mat"):
            ready("fno-files")
        with pytest.raises(ConfigError, match="has 10 rows, fewer than the 12"):
            ready("fno-files", root=matlab_root, **{**self.SIZES, "train_size": 7})
        with pytest.raises(ConfigError, match=r"no record at data.final_time=9"):
            ready("fno-files", root=matlab_root, final_time=9.0, **self.SIZES)
        with pytest.raises(DataError, match="has no variable q"):
            read_arrays(matlab_root / "ns.mat", ["q"])
        (matlab_root / "ns.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
        with pytest.raises(DataError, match="can't be read as a MATLAB or a PyTorch file"):
            read_arrays(matlab_root / "ns.mat")
        with pytest.raises(DataError, match="There is no file"):
            read_arrays(matlab_root / "none.mat")


def test_a_missing_h5py_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "a.hdf5").touch()
    with pytest.raises(DataError, match=r"pip install zoo\[operators\]"):
        PDEBenchFile(tmp_path / "a.hdf5")


class TestPDEBench:
    def test_a_stack(self, tmp_path: Path) -> None:
        tensor = random(20, 6, 16)
        with h5py.File(tmp_path / "burgers.hdf5", "w") as file:
            file["tensor"], file["t-coordinate"] = tensor, np.arange(7.0)
        data = ready("pdebench", root=tmp_path, file="burgers.hdf5", context=2, space_stride=2)
        assert np.array_equal(data.test[1]["target"][:, 0], tensor[1, 2:, ::2])  # the first tenth
        assert np.array_equal(data.train[0]["input"], tensor[2, :2, ::2])
        assert len(data.train) == 17 * 4

    def test_flow_variables_become_channels(self, tmp_path: Path) -> None:
        fields = {name: random(10, 5, 4, 4) + k for k, name in enumerate(("density", "pressure", "Vx", "Vy"))}
        with h5py.File(tmp_path / "cfd.hdf5", "w") as file:
            for name, field in fields.items():
                file[name] = field
        source = PDEBenchFile(tmp_path / "cfd.hdf5", time_stride=2)
        assert source.frames == 3
        assert np.array_equal(source.read(3, 1, 3), np.stack([f[3, [2, 4]] for f in fields.values()], 1))

    def test_groups(self, tmp_path: Path) -> None:
        samples = random(10, 5, 4, 6, 2)
        with h5py.File(tmp_path / "react.h5", "w") as file:
            for k, sample in enumerate(samples):
                file[f"{k:04d}/data"] = sample
                file[f"{k:04d}/grid/x"] = np.arange(4.0)
        data = ready("pdebench", root=tmp_path, file="react.h5", context=2)
        assert np.array_equal(data.test[0]["target"], np.moveaxis(samples[9, 2:], -1, 1))  # the last tenth
        assert data.train[0]["input"].shape == (4, 4, 6)
        assert pickle.loads(pickle.dumps(data.train))[0]["input"].shape == (4, 4, 6)  # to a worker process

    def test_incompressible_and_darcy(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "ns.h5", "w") as file:
            file["velocity"], file["particles"] = random(4, 5, 6, 6, 2), random(4, 5, 6, 6, 1)
        assert PDEBenchFile(tmp_path / "ns.h5").read(0, 0, 2).shape == (2, 3, 6, 6)
        with h5py.File(tmp_path / "darcy.hdf5", "w") as file:
            file["tensor"], file["nu"] = random(20, 1, 8, 8), random(20, 8, 8) + 9
        data = ready("pdebench", root=tmp_path, file="darcy.hdf5")
        assert (data.test[0]["input"].mean() > 5).item()
        assert data.test[0]["target"].shape == (1, 1, 8, 8)
        assert [len(part) for part in (data.train, data.val, data.test)] == [17, 1, 2]

    def test_other_files_are_named(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["something"] = np.zeros(3)
        with pytest.raises(DataError, match="none of PDEBench's layouts; it holds something"):
            PDEBenchFile(tmp_path / "other.h5")
        (tmp_path / "bad.h5").write_bytes(b"no HDF5")
        with pytest.raises(DataError, match="can't be read as an HDF5 file"):
            PDEBenchFile(tmp_path / "bad.h5")


def write_well(path: Path) -> dict[str, np.ndarray]:
    """Two runs of four frames on 6 x 8 points: a scalar, a constant profile, a vector, a tensor."""
    arrays = {
        "buoyancy": random(2, 4, 6, 8),
        "profile": random(8),
        "velocity": random(2, 4, 6, 8, 2),
        "strain": random(2, 4, 6, 8, 2, 2),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update({"dataset_name": "test", "n_spatial_dims": 2, "n_trajectories": 2, "grid_type": "cartesian"})
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = ["x", "y"]
        dimensions["time"], dimensions["x"], dimensions["y"] = np.arange(4.0), np.arange(6.0), np.arange(8.0)
        for group, names in (
            ("t0_fields", ["buoyancy", "profile"]),
            ("t1_fields", ["velocity"]),
            ("t2_fields", ["strain"]),
        ):
            file.create_group(group).attrs["field_names"] = names
            for name in names:
                field = file[group].create_dataset(name, data=arrays[name])
                varies = name != "profile"
                field.attrs.update({"sample_varying": varies, "time_varying": varies, "dim_varying": [varies, True]})
    return arrays


class TestTheWell:
    def test_scalars_vectors_and_tensors(self, tmp_path: Path) -> None:
        arrays = write_well(tmp_path / "data/train/a.hdf5")
        write_well(tmp_path / "data/train/b.hdf5")
        source = WellFiles(sorted((tmp_path / "data/train").glob("*")))
        names = ["buoyancy", "profile", "velocity_0", "velocity_1", *(f"strain_{k}" for k in range(4))]
        assert source.channels == names
        assert len(source) == 4
        states = source.read(3, 1, 3)
        assert states.shape == (2, 8, 6, 8)
        assert np.array_equal(states[:, 0], arrays["buoyancy"][1, 1:3])
        assert np.array_equal(states[1, 1], np.broadcast_to(arrays["profile"], (6, 8)))
        assert np.array_equal(states[:, 3], arrays["velocity"][1, 1:3, ..., 1])
        assert np.array_equal(states[:, 6], arrays["strain"][1, 1:3, ..., 1, 0])

    def test_the_data_module(self, tmp_path: Path) -> None:
        for split in ("train", "valid", "test"):
            write_well(tmp_path / f"data/{split}/a.hdf5")
        data = ready("the-well", root=tmp_path, context=2, train_steps=1)
        assert len(data.train) == 4
        assert data.test[0]["input"].shape == (16, 6, 8)
        assert data.test[0]["target"].shape == (2, 8, 6, 8)
        with pytest.raises(DataError, match=r"the-well-download"):
            ready("the-well", root=tmp_path / "data")
        with h5py.File(tmp_path / "other.hdf5", "w") as file:
            file["something"] = np.zeros(3)
        with pytest.raises(DataError, match="can't be read as a file of The Well"):
            WellFiles([tmp_path / "other.hdf5"])


class TestAirfoil:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for folder, count in (("train/reg", 4), ("train/shear", 3), ("test", 2)):
            (tmp_path / "data" / folder).mkdir(parents=True)
            for k in range(count):
                np.savez(tmp_path / "data" / folder / f"a_{k}_0.npz", a=self.case(k))
        return tmp_path

    @staticmethod
    def case(k: int) -> np.ndarray:
        case = np.random.default_rng(k).standard_normal((6, 128, 128)) + 20.0
        case[2] = 0
        case[2, 40:60, 60:70] = 1
        case[0], case[1] = 50.0 + k, -10.0
        case[:2, 40:60, 60:70] = 0
        return case

    def test_preparations(self, root: Path) -> None:
        data = ready("airfoil", root=root, dataset_size=6)
        assert [len(part) for part in (data.train, data.val, data.test)] == [3, 3, 2]
        sample = data.train[1]
        assert sample["input"].shape == (3, 128, 128)
        assert torch.allclose(sample["input"][0], torch.tensor((51 - 9.28791839) / (99.9706317 - 9.28791839)))
        case = self.case(1).astype(np.float32)[None]
        assert np.allclose(prepare_t1(case)[0, 3], (case[0, 3] + 40493.8) / (29147.3 + 40493.8), rtol=1e-5)
        ours = prepare_authors(case)[0]
        speed = np.hypot(51.0, 10.0)
        assert np.allclose(ours[4], case[0, 4] / speed / 2.04, rtol=1e-5)
        outside = case[0, 2] == 0
        expected = (case[0, 3] - case[0, 3].mean()) / speed**2 / 4.65
        assert np.allclose(ours[3][outside], expected[outside], atol=1e-7)
        assert (ours[3][~outside] == 0).all()
        assert ready("airfoil", root=root, preparation="authors").train[0]["target"].abs().max() < 1

    def test_damaged_and_absent_cases_are_named(self, root: Path) -> None:
        next((root / "data/test").glob("*")).write_bytes(b"PK nothing")
        with pytest.raises(DataError, match="can't be read as a case"):
            ready("airfoil", root=root)
        with pytest.raises(DataError, match="Deep-Flow-Prediction"):
            ready("airfoil", root=root / "data")


class TestScalarFlow:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for number in (0, 63, 64, 84):
            folder = tmp_path / f"sim_{number:06d}"
            folder.mkdir()
            for frame in range(6):
                images = np.full((5, 8, 6), number + 0.1 * frame)
                images[2, 0, 0] = 4.4561429
                images = images[..., None] if number == 63 else images
                np.savez(folder / f"imgsTarget_{frame:06d}.npz", data=images)
        return tmp_path

    def test_windows_of_films(self, root: Path) -> None:
        data = ready("scalarflow", root=root, test_steps=4)
        assert len(data.train) == 2 * 2  # 6 frames hold two windows of 2 + 3
        window = data.train[3]
        assert window["input"].shape == (2, 8, 6)
        assert window["target"].shape == (3, 1, 8, 6)
        assert torch.allclose(window["input"][:, 1, 1], torch.tensor([63.1, 63.2]) / 4.4561429)
        assert (window["target"][:, 0, 0, 0] == 1).all()
        assert len(data.test) == 1

    def test_what_is_absent_is_named(self, root: Path) -> None:
        with pytest.raises(DataError, match="ScalarFlow"):
            ready("scalarflow", root=root / "sim_000000")
        (root / "sim_000084").rename(root / "sim_000062")
        with pytest.raises(DataError, match=r"no simulations for test"):
            ready("scalarflow", root=root)
