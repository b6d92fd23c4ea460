"""ArtEq from data to files: clouds, training, prediction, readers."""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
import sys
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

import zoo
from zoo.data import dfaust
from zoo.data.body_clouds import CONDITIONS, BodyClouds, CloudBatch, mix_limbs
from zoo.data.loading import EpochIndex
from zoo.errors import ConfigError, DataError
from zoo.humans import render
from zoo.humans.arteq.group import rotation_group
from zoo.humans.arteq.muon import matrices_and_others
from zoo.humans.arteq.parts import part_labels, turn
from zoo.humans.arteq.regression import CloudRegression, thin_body
from zoo.humans.arteq.scans import read_points
from zoo.humans.meshes import read_mesh, write_mesh

SMALL: dict[str, Any] = {
    **{"group": "tetrahedral", "kernel": "orbit", "mlps": ((8,), (16,)), "strides": (2, 2), "radii": (0.15, 0.4)},
    **{"neighbors": (16, 24), "attention_heads": 4, "part_hidden": 32, "pose_value_dim": 32},
    **{"normals_weight": 0.0, "vertex_step": 16, "lr": 3e-3, "segmentation_warmup": 0},
}


def small(**changes: Any) -> CloudRegression:
    torch.manual_seed(0)
    module = zoo.create_model("humans/arteq", **{**SMALL, **changes})
    assert isinstance(module, CloudRegression)
    return module


def data(**changes: Any) -> BodyClouds:
    settings = {"bodies": 64, "val_size": 1, "test_size": 2, "points": 128, "batch_size": 4, "mocap": 0.0}
    return BodyClouds(**{**settings, **changes})


def trainer(folder: Path, **settings: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", default_root_dir=folder, enable_model_summary=False, **quiet, **settings)


@pytest.fixture(scope="module")
def batch() -> CloudBatch:
    found: CloudBatch = next(iter(data().test_dataloader()))
    return found


def test_clouds_lie_on_the_bodies_they_are_of(batch: CloudBatch) -> None:
    assert batch["points"].shape == (8, 128, 3)
    assert batch["condition"].tolist() == [*range(len(CONDITIONS))] * 2
    body = data().body
    vertices = body(batch["pose"][:, :3], batch["pose"][:, 3:], batch["betas"]).vertices
    nearest = torch.cdist(batch["points"], vertices).min(-1)
    assert nearest.values.max() < 0.03
    labels = part_labels(body.lbs_weights)[nearest.indices]
    assert (labels == batch["labels"]).float().mean() > 0.9
    assert not batch["pose"][:, 66:].any()


def test_conditions_are_the_same_people(batch: CloudBatch) -> None:
    upright, rotated, wide, both = (batch["pose"][k] for k in range(4))
    assert torch.equal(upright[3:], rotated[3:])
    assert torch.allclose(1.6 * upright[3:], wide[3:])
    assert torch.equal(wide[3:], both[3:])
    assert torch.equal(rotated[:3], both[:3])
    assert not torch.allclose(upright[:3], rotated[:3])
    assert torch.equal(batch["betas"][0].expand(4, -1), batch["betas"][:4])


def test_limbs_of_different_people() -> None:
    pose = torch.randn(40, 72, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mix_limbs(pose, 0.0, np.random.default_rng(0)), pose)
    mixed = mix_limbs(pose, 0.5, np.random.default_rng(0))
    same = (mixed == pose).all(1)
    assert 10 < int(same.sum()) < 30
    assert torch.equal(mixed[:, :3], pose[:, :3])
    everyone = mix_limbs(pose, 1.0, np.random.default_rng(0)).unflatten(1, (24, 3))
    assert torch.equal(everyone[:, 4:].sort(0).values, pose.unflatten(1, (24, 3))[:, 4:].sort(0).values)
    donors = [(everyone[:, None, limb] == pose.unflatten(1, (24, 3))[:, limb]).all(-1).int().argmax(1)
              for limb in (16, 13, 17, 14)]  # fmt: skip
    assert torch.equal(donors[0], donors[1])  # a shoulder stays with its collar
    assert (donors[0] == donors[2]).float().mean() < 0.2


def test_an_epoch_s_clouds_are_its_own_and_can_be_had_again() -> None:
    def first(epoch: int) -> Tensor:
        loader = data(rotation="none").train_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        points: Tensor = next(iter(loader))["points"]
        return points

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(0), first(1))


def test_an_evaluation_s_clouds_are_the_same_in_every_epoch() -> None:
    bodies: Any = data().test_dataloader().dataset
    assert bodies[EpochIndex(3, 0)]["seed"] == bodies[EpochIndex(3, 4)]["seed"] == bodies[3]["seed"]


def test_sampling_of_the_official_protocol() -> None:
    module = data(shared_sampling=True, rotation="euler", noise=0.0)
    found = next(iter(module.train_dataloader()))
    assert torch.equal(found["labels"], found["labels"][:1].expand(4, -1))


def test_a_thin_body_is_part_of_the_whole() -> None:
    body = data().body
    thin = thin_body(body, 16)
    pose = 0.3 * torch.randn(2, 72, generator=torch.Generator().manual_seed(0))
    whole, part = (b(pose[:, :3], pose[:, 3:], torch.ones(2, 10)) for b in (body, thin))
    assert part.vertices.shape[1] < 500
    assert torch.allclose(part.joints, whole.joints, atol=1e-6)
    kept = torch.cdist(part.vertices, whole.vertices, compute_mode="donot_use_mm_for_euclid_dist").amin(-1)
    assert kept.max() < 1e-5


@torch.no_grad()
def test_errors_of_a_turned_cloud_are_the_same_whatever_the_rotation_of_the_group(batch: CloudBatch) -> None:
    module = small().double().eval()
    tables = rotation_group("tetrahedral").rotations
    module.network.encoder.rotations.copy_(tables)  # type: ignore[union-attr,operator]
    body, rotations = module.body.double(), tables[::4]
    points, pose = batch["points"][:1].double(), batch["pose"][:1].double()
    turned_pose = turn(pose.expand(len(rotations), -1), rotations)
    errors = []
    for cloud, target in ((points.expand(len(rotations), -1, -1) @ rotations.mT, turned_pose), (points, pose)):
        found = module(cloud)
        state = module._state(body, found.pose, found.betas)
        truth = body(target[:, :3], target[:, 3:], batch["betas"][:1].double().expand(len(target), -1))
        errors.append((state.vertices - truth.vertices).norm(dim=-1).mean(1))
    assert (errors[0] - errors[1]).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "factor", "changes"),
    [
        ("humans/arteq", 0.8, {}),
        ("humans/arteq", 0.6, {"context": 2, "context_dim": 16, "optimizer": "muon"}),
        ("humans/pointnet", 0.95, {}),
    ],
)
def test_training_improves(name: str, factor: float, changes: dict[str, Any], tmp_path: Path) -> None:
    if name == "humans/arteq":
        module: Any = small(**changes)
    else:  # it starts near the rest pose, so that there is less to gain
        torch.manual_seed(0)
        module = zoo.create_model(name, vertex_step=16, normals_weight=0.0, lr=2e-3, segmentation_warmup=0)
    clouds = data(rotation="none", bodies=32, batch_size=8)
    before = trainer(tmp_path).test(module, clouds, verbose=False)[0]
    trainer(tmp_path, max_epochs=25, limit_val_batches=0).fit(module, clouds)
    after = trainer(tmp_path).test(module, clouds, verbose=False)[0]
    assert after["test/v2v"] < factor * before["test/v2v"]
    assert after["test/part_accuracy"] > before["test/part_accuracy"] + 0.06
    assert {f"test/v2v_{condition}" for condition in CONDITIONS[1:]} <= after.keys()


def test_shipped_weights_reproduce_their_errors(tmp_path: Path) -> None:
    """On the people they were tested on, whose clouds are sampled anew."""
    name = "humans/arteq-standin"
    module = zoo.load_pretrained(name)
    found = trainer(tmp_path).test(module, BodyClouds(points=256, test_size=96), verbose=False)[0]
    recorded = zoo.pretrained.get_entry(name).metrics
    for condition in CONDITIONS:
        suffix = f"_{condition}" if condition else ""
        assert found[f"test/v2v{suffix}"] == pytest.approx(recorded[f"test/v2v{suffix}"], rel=0.02)
    assert found["test/v2v_rotated"] < 2.5
    assert found["test/v2v_wide"] < 7.0
    assert found["test/v2v_rotated"] == pytest.approx(found["test/v2v"], rel=0.2)


def test_the_rate_rises_and_falls(tmp_path: Path) -> None:
    module = small(schedule="cosine", lr=1e-3)
    rates: list[float] = []

    class Recorder(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer(tmp_path, max_steps=20, max_epochs=2, limit_val_batches=0, callbacks=[Recorder()]).fit(
        module, data(bodies=80, batch_size=8)
    )
    assert rates[:2] == [pytest.approx(0.5e-3), pytest.approx(1e-3)]
    assert all(above > below for above, below in pairwise(rates[1:]))
    assert rates[-1] < 1e-8


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("option", [{"lr": -1.0}, {"weight_decay": -0.1}, {"weight_decay": math.nan}])
def test_impossible_rates(optimizer: str, option: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="should be 0 or more"):
        trainer(tmp_path).fit(small(optimizer=optimizer, **option), data(bodies=4))


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_weights_decay(optimizer: str, tmp_path: Path) -> None:
    """One step with decay ends as far from one without as the decay takes off, with Muon for matrices alone."""
    modules = [small(context=1, context_dim=16, optimizer=optimizer, weight_decay=decay) for decay in (0.0, 0.5)]
    before = copy.deepcopy(modules[0].network)
    for module in modules:
        trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(module, data(bodies=4))
    matrices = {id(p) for p in matrices_and_others(modules[1].network)[0]}
    for start, plain, decayed in zip(before.parameters(), *(m.network.parameters() for m in modules), strict=True):
        rate = modules[0].hparams["lr"] if optimizer == "adam" else 0.02 * (id(decayed) in matrices)
        assert torch.allclose(plain - decayed, 0.5 * rate * start, atol=1e-6)


def test_official_options_of_training(batch: CloudBatch, tmp_path: Path) -> None:
    module = small(
        train_feet=False, first_pose_only=True, segmentation_warmup=1, vertex_step=1, normals_weight=1.0, markers=(7, 9)
    )
    trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(module, data(bodies=4))
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in module.network.parameters())
    with pytest.raises(ConfigError, match="vertex_step=1"):
        small(markers=(3,))


def test_prediction_from_a_scan(batch: CloudBatch, tmp_path: Path) -> None:
    module = small().eval()
    shift = np.array([3.0, 1.0, -2.0], np.float32)
    np.save(tmp_path / "scan.npy", batch["points"][0].numpy() + shift)
    facts = module.predict_file(tmp_path / "scan.npy", tmp_path / "body.ply")
    assert facts["points"] == 128
    module.hparams["scan_points"] = 100
    assert module.predict_file(tmp_path / "scan.npy", tmp_path / "fewer.ply")["points"] == 100
    vertices, faces = read_mesh(tmp_path / "body.ply")
    assert faces.shape == tuple(module.body.faces.shape)
    assert np.abs(vertices.mean(0) - shift - batch["points"][0].numpy().mean(0)).max() < 0.6
    numbers = json.loads((tmp_path / "body.json").read_text())
    assert [len(numbers[name]) for name in ("pose", "betas", "translation", "joints")] == [72, 10, 3, 45]
    trimesh = pytest.importorskip("trimesh")
    cloud = trimesh.load(tmp_path / "body.parts.ply")
    assert np.allclose(cloud.vertices, batch["points"][0].numpy() + shift, atol=1e-5)
    assert cloud.colors.shape == (128, 4)
    with pytest.raises(DataError, match="should end in"):
        module.predict_file(tmp_path / "scan.npy", tmp_path / "body.txt")


def test_scan_formats(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    points = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", points)
    np.savez(tmp_path / "a.npz", points=points, other=np.zeros(2))
    np.savetxt(tmp_path / "a.xyz", np.concatenate([points, points], 1))
    trimesh.PointCloud(points).export(tmp_path / "a.ply")
    for suffix in ("npy", "npz", "xyz", "ply"):
        assert np.allclose(read_points(tmp_path / f"a.{suffix}", 500), points, atol=1e-5)
    box = trimesh.creation.box((2, 2, 2))
    write_mesh(tmp_path / "box.obj", box.vertices, box.faces)
    sampled = read_points(tmp_path / "box.obj", 300)
    assert sampled.shape == (300, 3)
    assert np.allclose(np.abs(sampled).max(1), 1.0, atol=1e-5)
    fewer = read_points(tmp_path / "a.npy", 100)
    assert fewer.shape == (100, 3)
    assert {*map(tuple, fewer.tolist())} <= {*map(tuple, points.tolist())}


PCD = """VERSION 0.7
FIELDS x y z
SIZE 4 4 4
TYPE F F F
COUNT 1 1 1
WIDTH {count}
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS {count}
DATA ascii
"""


@pytest.fixture
def pcd(tmp_path: Path) -> tuple[Path, Any]:
    points = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    rows = "\n".join(" ".join(map(str, row)) for row in points.tolist())
    (tmp_path / "a.pcd").write_text(PCD.format(count=len(points)) + rows + "\n")
    return tmp_path / "a.pcd", points


def test_pcd_files(pcd: tuple[Path, Any]) -> None:
    if render._open3d() is None:
        pytest.skip("Open3D can't be loaded here")
    path, points = pcd
    assert np.allclose(read_points(path, 500), points, atol=1e-5)


def test_pcd_files_without_open3d(pcd: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(ConfigError, match=r"libusb-1\.0-0"):
        read_points(pcd[0], 500)


def test_bad_scans(tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", np.zeros((10, 3)))
    np.save(tmp_path / "flat.npy", np.zeros(100))
    np.savez(tmp_path / "two.npz", a=np.zeros((100, 3)), b=np.zeros(3))
    np.save(tmp_path / "point.npy", np.ones((100, 3)))
    np.save(tmp_path / "millimetres.npy", 1700 * np.random.default_rng(0).random((100, 3)))
    (tmp_path / "broken.ply").write_text("nothing")
    for name, message in (
        ("none.npy", "There is no scan"),
        ("few.npy", "at least 64"),
        ("flat.npy", r"expected \(N, 3\)"),
        ("two.npz", "called 'points'"),
        ("point.npy", "is 0 m from end to end"),
        ("millimetres.npy", "scale it to metres"),
        ("broken.ply", "can't be read as a scan"),
    ):
        with pytest.raises(DataError, match=message):
            read_points(tmp_path / name, 100)
    (tmp_path / "scan.docx").touch()
    with pytest.raises(DataError, match="should end in"):
        read_points(tmp_path / "scan.docx", 100)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Files in the layout of the official data."""
    rng = np.random.default_rng(1)
    sequences = [
        {
            "fname": f"s{k}",
            "markers": rng.normal(size=(frames, 67, 3)).astype(np.float32),
            "poses": 0.1 * rng.normal(size=(frames, 156)),
            "trans": rng.normal(size=(frames, 3)),
            "betas": rng.normal(size=16),
        }
        for k, frames in enumerate((3, 4))
    ]
    joblib.dump(sequences, tmp_path / dfaust.TRAINING_FILE)
    for folder in ("DFaust_67_val", "MPI_Limits"):
        (tmp_path / folder).mkdir()
        with tarfile.open(tmp_path / folder / "s.tar", "w") as archive:
            for k in range(2):
                frame = {
                    "pcl_data": torch.randn(300, 3),
                    "label_data": rng.integers(0, 22, 300),
                    "betas": rng.normal(size=16),
                    "trans": rng.normal(size=3),
                    "poses": rng.normal(size=(24, 3)),
                }
                content = io.BytesIO()
                torch.save(frame, content)
                member = tarfile.TarInfo(f"{k:06d}.input.pth")
                member.size = content.tell()
                content.seek(0)
                archive.addfile(member, content)
    return tmp_path


def test_official_files(official: Path) -> None:
    module = dfaust.DFaust(str(official), points=200, gender="neutral")
    pose, betas = dfaust.read_training_file(official / dfaust.TRAINING_FILE)
    assert pose.shape == (7, 72)
    assert torch.equal(betas[0], betas[2])
    assert not torch.equal(betas[2], betas[3])
    found = next(iter(module.train_dataloader()))
    assert found["points"].shape == (2, 200, 3)
    found = next(iter(module.test_dataloader()))
    assert found["points"].shape == (2, 200, 3)
    assert found["labels"].dtype == torch.int64
    assert found["pose"].shape == (2, 72)
    assert not found["pose"][:, 66:].any()
    assert found["betas"].shape == (2, 10)


def _as_numpy_1_would(archive: bytes) -> bytes:
    """A file of torch.save that names NumPy's functions as before version 2, as the official ones do."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(written, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(b"numpy._core.", b"numpy.core."))
    return written.getvalue()


def test_evaluation_files_of_either_numpy(official: Path) -> None:
    with tarfile.open(official / "MPI_Limits/s.tar") as archive:
        members = [(member.name, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]
    for number, change in enumerate((bytes, _as_numpy_1_would)):
        path = official / f"{number}.tar"
        with tarfile.open(path, "w") as archive:
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(change(content))
                archive.addfile(member, io.BytesIO(change(content)))
        frames = list(dfaust.read_evaluation_file(path, 200))
        assert [frame["points"].shape for frame in frames] == [(200, 3)] * 2


@pytest.mark.parametrize("compress", ["zlib", "gzip", "bz2", "xz", "lzma"])
def test_compressed_training_files(official: Path, compress: str) -> None:
    path = official / dfaust.TRAINING_FILE
    pose, betas = dfaust.read_training_file(path)
    joblib.dump(joblib.load(path), path, compress=(compress, 3))
    again = dfaust.read_training_file(path)
    assert torch.equal(again[0], pose)
    assert torch.equal(again[1], betas)


class _Evil:
    def __reduce__(self) -> Any:
        return (print, ("run",))


def test_files_that_are_not_official(official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = official / dfaust.TRAINING_FILE
    joblib.dump([_Evil()], path)
    with pytest.raises(DataError, match="not allowed"):
        dfaust.read_training_file(path)
    joblib.dump([{"poses": np.array([_Evil()], dtype=object), "betas": np.zeros(10)}], path)
    with pytest.raises(DataError, match="not allowed"):
        dfaust.read_training_file(path)
    path.write_bytes(pickle.dumps([{"poses": np.zeros((2, 60)), "betas": np.zeros(10)}]))
    with pytest.raises(DataError, match="72 pose numbers"):
        dfaust.read_training_file(path)
    (official / "broken.tar").write_bytes(b"nothing")
    with pytest.raises(DataError, match="evaluation file"):
        list(dfaust.read_evaluation_file(official / "broken.tar", 10))
    assert "run" not in capsys.readouterr().out
    with pytest.raises(DataError, match="arteq"):
        dfaust.DFaust(str(tmp_path / "nowhere"))
