"""Every reader of users' files on damaged ones: it reads them or says which file is at fault; nothing else."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

import zoo
from tests.conftest import ROOT
from tests.humans.bodies import tiny_arrays
from tests.humans.test_motion import BVH
from tests.operators.test_data import write_v73, write_well
from tests.robustness.damage import BINARY, TEXT, Damage
from zoo import weights
from zoo.data.airfoil import read_case
from zoo.data.cifar import read_cifar
from zoo.data.dfaust import read_evaluation_file, read_training_file
from zoo.data.fields_hdf5 import PDEBenchFile, WellFiles
from zoo.data.fields_matlab import read_arrays
from zoo.data.human_images import AnnotatedImages
from zoo.data.pose_sets.lsp import read_lsp
from zoo.data.pose_sets.mpi_inf_3dhp import read_3dhp
from zoo.data.pose_sets.three_dpw import read_3dpw_pictures
from zoo.data.potentials import read_potential_table
from zoo.data.scene_readers import read_colmap, read_image, read_points, read_transforms
from zoo.errors import ZooError
from zoo.humans import meshes, smpl_file
from zoo.humans.arteq import scans
from zoo.humans.learnable_smplify.files import read_joints
from zoo.humans.motion.sequence import Motion, read_amass, write_amass
from zoo.humans.motion.skeletons import read_acclaim, read_bvh
from zoo.humans.results import read_picture
from zoo.humans.smplify.keypoint_files import read_keypoints
from zoo.humans.smplify.prior import load_prior
from zoo.humans.spin.fits import load_fits
from zoo.mri.hdf5 import write_calgary, write_fastmri
from zoo.mri.prediction import open_file
from zoo.operators.files import read_fields
from zoo.pretrained import read_official
from zoo.splatting.gaussian_files import read_ply

SAMPLES = ROOT / "data/samples"
GOLDENS = ROOT / "tests/goldens/splatting-edgs"
SECONDS = 20  # for one file; a reader that takes longer counts as hanging


def numbers(*shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@dataclass(frozen=True)
class Reader:
    """A reader, a good file for it, and how that file gets damaged.

    Attributes:
        name: of the file.
        write: writes the good file, and whatever belongs to it.
        read: reads it whole.
        damages: to try.
    """

    name: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    damages: tuple[Damage, ...] = BINARY


def copied(source: Path) -> Callable[[Path], Any]:
    return lambda path: shutil.copyfile(source, path)


def read_volume(path: Path) -> None:
    volume = open_file(path)
    for index in range(volume.slices):
        volume.read(index)
    volume.crop()
    volume.maximum()


def predict_points(path: Path) -> None:
    zoo.create_model("kat/gr-kan", features=(2, 8, 1)).predict_file(path, path.with_name("y.npy"))  # type: ignore[operator]


def predict_digits(path: Path) -> None:
    zoo.load_pretrained("kat/digits").predict_file(path, path.with_name("y.json"))  # type: ignore[operator]


def kspace(*shape: int) -> Any:
    return numbers(*shape) + 1j * numbers(*shape)


def write_pdebench(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["tensor"], file["t-coordinate"] = numbers(3, 5, 8), np.arange(6.0)


def write_well_file(path: Path) -> None:
    write_well(path)


def read_well(path: Path) -> None:
    files = WellFiles([path])
    for run in range(len(files)):
        files.read(run, 0, 2)


def read_pdebench(path: Path) -> None:
    PDEBenchFile(path).read(0, 0, 2)


def smpl_fields() -> dict[str, Any]:
    arrays = tiny_arrays()
    names = ("v_template", "shapedirs", "posedirs", "weights", "f", "J_regressor")
    kintree = np.stack([arrays.parents, np.arange(24)]).astype(np.uint32)
    return {**{name: getattr(arrays, name) for name in names}, "kintree_table": kintree}


def write_motion(path: Path) -> None:
    write_amass(Motion(numbers(5, 72), numbers(5, 3), numbers(10), 30.0), path)


def write_amc(path: Path) -> None:
    shutil.copyfile(SAMPLES / "mocap/02.asf", path.with_name("02.asf"))
    lines = gzip.decompress((SAMPLES / "mocap/02_01.amc.gz").read_bytes()).splitlines()
    path.write_bytes(b"\n".join(lines[: lines.index(b"5")]) + b"\n")


def write_amc_gz(path: Path) -> None:
    write_amc(path)
    path.write_bytes(gzip.compress(path.read_bytes()))


def write_asf(path: Path) -> None:
    shutil.copyfile(SAMPLES / "mocap/02.asf", path)
    write_amc(path.with_name("02_01.amc"))


def write_keypoints(path: Path) -> None:
    path.write_text(json.dumps({"people": [{"pose_keypoints_2d": numbers(75).tolist()}]}))


def write_coco(path: Path) -> None:
    path.write_text(json.dumps([{"image_id": 1, "keypoints": [9.0, 8.0, 1.0] * 17, "score": 0.5}]))


def write_scan(path: Path) -> None:
    meshes.write_mesh(path, numbers(100, 3), np.arange(99).reshape(-1, 3))


def write_colmap(path: Path) -> None:
    shutil.copytree(GOLDENS / "colmap_tiny/sparse/0", path.parent, dirs_exist_ok=True)


def write_colmap_text(path: Path) -> None:
    shutil.copytree(GOLDENS / "colmap_tiny/text", path.parent, dirs_exist_ok=True)


def write_annotations(path: Path) -> None:
    names = np.array([f"{k}.jpg" for k in range(4)])
    np.savez(path, imgname=names, center=numbers(4, 2), scale=np.ones(4), openpose=numbers(4, 25, 3))


def read_tiny_colmap(path: Path) -> None:
    read_colmap(path.parent, path.parent, path.parent, with_images=False)


def write_3dhp(path: Path) -> None:
    path.parent.mkdir(parents=True)
    annotations = {name: np.empty((14, 1), object) for name in ("annot2", "annot3")}
    for camera in range(14):
        annotations["annot2"][camera, 0] = abs(numbers(3, 56))
        annotations["annot3"][camera, 0] = numbers(3, 84)
    savemat(path, annotations, do_compression=True)


def write_3dpw(path: Path) -> None:
    path.parent.mkdir(parents=True)
    content = {
        **{"sequence": "a", "genders": ["m"], "poses": [numbers(4, 72)], "betas": [numbers(10)]},
        **{"poses2d": [abs(numbers(4, 3, 18))], "cam_poses": numbers(4, 4, 4), "campose_valid": [np.ones(4)]},
    }
    path.write_bytes(pickle.dumps(content, 2))


def write_transforms(path: Path) -> None:
    frames = [{"file_path": f"{k}", "transform_matrix": np.eye(4).tolist()} for k in range(3)]
    path.write_text(json.dumps({"fl_x": 20.0, "w": 32, "h": 20, "cx": 15.0, "cy": 9.0, "frames": frames}))


def write_picture(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(256, size=(20, 30, 3), dtype=np.uint8)).save(path)


def write_joblib(path: Path) -> None:
    import joblib

    joblib.dump([{"poses": numbers(4, 156), "betas": numbers(10)}], path)


def write_frame(path: Path) -> None:
    frame = {
        "pcl_data": torch.randn(30, 3),
        "label_data": np.arange(30) % 22,
        "betas": numbers(16),
        "trans": numbers(3),
        "poses": numbers(24, 3),
    }
    content = io.BytesIO()
    torch.save(frame, content)
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("0.input.pth")
        member.size = content.tell()
        content.seek(0)
        archive.addfile(member, content)


def write_weights(path: Path) -> None:
    weights.save(zoo.create_model("kat/gr-kan", features=(2, 8, 1)), path)


READERS = {
    "fastMRI": Reader(
        "a.h5", lambda p: write_fastmri(p, kspace(2, 2, 12, 10), numbers(2, 8, 8) ** 2, "AXT1"), read_volume
    ),
    "Calgary-Campinas": Reader("a.h5", lambda p: write_calgary(p, kspace(102, 1, 6, 4)), read_volume),
    "array of k-space": Reader("a.npy", lambda p: np.save(p, kspace(2, 2, 12, 10)), read_volume),
    "points": Reader("x.npy", lambda p: np.save(p, numbers(9, 2)), predict_points),
    "images": Reader("x.npy", lambda p: np.save(p, abs(numbers(2, 8, 8))), predict_digits),
    "PDEBench": Reader("a.hdf5", write_pdebench, read_pdebench),
    "The Well": Reader("a.hdf5", write_well_file, read_well),
    "MATLAB 5": Reader("a.mat", lambda p: savemat(p, {"a": numbers(4, 8, 8)}), read_arrays),
    "MATLAB 7.3": Reader("a.mat", lambda p: write_v73(p, {"a": numbers(4, 8, 8)}), read_arrays),
    "tensors": Reader("a.pt", lambda p: torch.save({"x": torch.ones(4, 8)}, p), read_arrays),
    "airfoil": Reader("a.npz", lambda p: np.savez_compressed(p, a=numbers(6, 8, 8)), read_case),
    "fields": Reader("a.npy", lambda p: np.save(p, numbers(2, 1, 8, 8)), lambda p: read_fields(p, 1, 2)),
    "potential.csv": Reader("V.csv", lambda p: p.write_text("x,V\n0,1\n1,2\n2,3\n3,1\n"), read_potential_table, TEXT),
    "potential.npz": Reader("V.npz", lambda p: np.savez(p, x=np.arange(9.0), V=numbers(9)), read_potential_table),
    "BVH": Reader("a.bvh", lambda p: p.write_text(BVH), read_bvh, TEXT),
    "ASF": Reader("02.asf", write_asf, lambda p: read_acclaim(p, p.with_name("02_01.amc")), TEXT),
    "AMC": Reader("02_01.amc", write_amc, lambda p: read_acclaim(p.with_name("02.asf"), p), TEXT),
    "AMC, gzipped": Reader("02_01.amc.gz", write_amc_gz, lambda p: read_acclaim(p.with_name("02.asf"), p)),
    "AMASS": Reader("a_poses.npz", write_motion, read_amass),
    "OpenPose": Reader("a.json", write_keypoints, read_keypoints, TEXT),
    "COCO": Reader("a.json", write_coco, read_keypoints, TEXT),
    "SMPL.npz": Reader("a.npz", lambda p: np.savez(p, **smpl_fields()), smpl_file.load_smpl),
    "SMPL.pkl": Reader("a.pkl", lambda p: p.write_bytes(pickle.dumps(smpl_fields(), 2)), smpl_file.load_smpl),
    "prior": Reader(
        "gmm.npz",
        lambda p: np.savez(p, means=numbers(2, 3), covars=np.stack([np.eye(3)] * 2), weights=np.ones(2) / 2),
        load_prior,
    ),
    "fits": Reader("a_fits.npy", lambda p: np.save(p, numbers(4, 82)), lambda p: load_fits(p, 4)),
    "DFaust, training": Reader("a.pth.tar", write_joblib, read_training_file),
    "DFaust, evaluation": Reader("a.tar", write_frame, lambda p: list(read_evaluation_file(p, 100))),
    "scan.ply": Reader("a.ply", write_scan, lambda p: scans.read_points(p, 200)),
    "scan.obj": Reader("a.obj", write_scan, lambda p: scans.read_points(p, 200), TEXT),
    "scan.npy": Reader("a.npy", lambda p: np.save(p, numbers(99, 3)), lambda p: scans.read_points(p, 200)),
    "scan.npz": Reader("a.npz", lambda p: np.savez(p, points=numbers(99, 3)), lambda p: scans.read_points(p, 200)),
    "scan.xyz": Reader("a.xyz", lambda p: np.savetxt(p, numbers(99, 3)), lambda p: scans.read_points(p, 200), TEXT),
    "mesh.ply": Reader("a.ply", write_scan, meshes.read_mesh),
    "mesh.obj": Reader("a.obj", write_scan, meshes.read_mesh, TEXT),
    "Gaussians": Reader("a.ply", copied(GOLDENS / "point_cloud_deg1.ply"), read_ply),
    "cloud": Reader("points.ply", write_scan, read_points),
    "COLMAP, cameras": Reader("cameras.bin", write_colmap, read_tiny_colmap),
    "COLMAP, images": Reader("images.bin", write_colmap, read_tiny_colmap),
    "COLMAP, points": Reader("points3D.bin", write_colmap, read_tiny_colmap),
    "joints.npz": Reader("a.npz", lambda p: np.savez(p, joints=numbers(3, 25, 3)), read_joints),
    "joints.json": Reader(
        "a.json", lambda p: p.write_text(json.dumps({"joints": numbers(2, 25, 3).tolist()})), read_joints, TEXT
    ),
    "COLMAP, text": Reader("images.txt", write_colmap_text, read_tiny_colmap, TEXT),
    "annotations": Reader("a.npz", write_annotations, lambda p: AnnotatedImages(p, p.parent, 64)),
    "LSP": Reader(
        "joints.mat", lambda p: savemat(p, {"joints": numbers(3, 14, 9)}), lambda p: list(read_lsp(p.parent))
    ),
    "MPI-INF-3DHP": Reader("S1/Seq1/annot.mat", write_3dhp, lambda p: list(read_3dhp(p.parents[2]))),
    "3DPW": Reader("sequenceFiles/test/a.pkl", write_3dpw, lambda p: list(read_3dpw_pictures(p.parents[2]))),
    "transforms.json": Reader(
        "transforms.json", write_transforms, lambda p: read_transforms(p.parent, with_images=False), TEXT
    ),
    "photograph": Reader("a.jpg", write_picture, read_image),
    "picture": Reader("a.png", write_picture, read_picture),
    "CIFAR": Reader("a.bin", lambda p: p.write_bytes(bytes(2 * 3073)), lambda p: read_cifar(p, 1)),
    "weights": Reader("a.safetensors", write_weights, weights.build),
    "checkpoint.npz": Reader("a.npz", lambda p: np.savez(p, w=numbers(4)), lambda p: read_official("kat/kat", p)),
    "checkpoint.pt": Reader(
        "a.pt", lambda p: torch.save({"w": torch.ones(4)}, p), lambda p: read_official("kat/kat", p)
    ),
}


class Hangs(BaseException):
    """Not an Exception, so that no reader takes it for a fault of the file."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise Hangs(f"not done in {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", READERS)
def test_a_damaged_file_is_read_or_named(kind: str, in_tmp: Path) -> None:
    reader = READERS[kind]
    refused = 0
    for seed in range(START, START + ROUNDS * len(reader.damages)):
        folder = in_tmp / f"seed-{seed}"
        folder.mkdir()
        path = folder / reader.name
        reader.write(path)
        if seed == START and not kind.startswith("checkpoint"):
            reader.read(path)  # the good file is good
        damage = reader.damages[seed % len(reader.damages)]
        damaged = damage(path.read_bytes(), np.random.default_rng(seed))
        path.write_bytes(damaged)
        try:
            with time_limit(SECONDS):
                reader.read(path)
        except ZooError as error:
            refused += 1
            assert folder.name in str(error) or path.name in str(error), f"{damage.__name__}, {seed}: {error}"
        except BaseException as error:
            raise AssertionError(f"{kind}: {damage.__name__}, seed {seed}: {type(error).__name__}: {error}") from error
    assert refused > 0


ROUNDS, START = 3, 0  # a longer search: more rounds, another start
