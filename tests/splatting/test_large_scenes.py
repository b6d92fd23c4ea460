"""Reading MatrixCity, Mill-19 and UrbanScene3D, from small copies of their layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

import zoo
from tests.goldens import load
from zoo.data.city_layouts import meganerf_viewmat, read_matrixcity
from zoo.data.scene_views import look_at, opengl_to_viewmat
from zoo.errors import ConfigError, DataError


def expected_viewmats(qvec: np.ndarray, tvec: np.ndarray) -> np.ndarray:
    """Matrices of COLMAP's quaternions w, x, y, z and translations."""
    viewmats = np.tile(np.eye(4), (len(qvec), 1, 1))
    viewmats[:, :3, :3] = Rotation.from_quat(qvec[:, [1, 2, 3, 0]]).as_matrix()
    viewmats[:, :3, 3] = tvec
    return viewmats


def test_poses_become_the_official_ones() -> None:
    golden = {name: value.double().numpy() for name, value in load("splatting-momentum-gs", "misc").items()}
    ours = opengl_to_viewmat(golden["matrixcity/c2w_opengl"])
    theirs = expected_viewmats(golden["matrixcity/qvec"], golden["matrixcity/tvec"])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)
    ours = meganerf_viewmat(
        golden["meganerf/c2w"], golden["meganerf/origin_drb"], float(golden["meganerf/pose_scale_factor"])
    )
    theirs = expected_viewmats(golden["meganerf/qvec"], golden["meganerf/tvec"])
    np.testing.assert_allclose(ours[:, :3, :3], theirs[:, :3, :3], atol=1e-4)
    np.testing.assert_allclose(ours[:, :3, 3], theirs[:, :3, 3], rtol=1e-4, atol=1e-2)


def picture(path: Path, shade: int, size: tuple[int, int] = (24, 16)) -> None:
    """A grey picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade,) * 3).save(path)


def viewmats(count: int) -> list[np.ndarray]:
    """Cameras on a line that look down."""
    places = np.linspace(-3, 3, count)
    return [look_at(np.array([x, 0.5, 3.0]), np.array([x, 0.0, 0.0]), np.array([0.0, 0, 1])) for x in places]


def cloud(path: Path) -> str:
    """Points on the ground."""
    generator = np.random.default_rng(0)
    lines = [f"{x:.4f} {y:.4f} 0" for x, y in generator.uniform(-4, 4, (200, 2))]
    header = (
        "ply\nformat ascii 1.0\nelement vertex 200\nproperty float x\nproperty float y\nproperty float z\nend_header"
    )
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


BOX = {"dims": (2, 1, 1), "box": (-2.0, -2.0, -1.0, 2.0, 2.0, 1.0)}


class TestMegaNerf:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        folder = tmp_path / "rubble"
        for split, count in (("train", 4), ("val", 2)):
            for i, viewmat in enumerate(viewmats(count)):
                # The inverse of the conversion, so that the cameras are those above.
                pose = np.linalg.inv(viewmat)
                swap = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])
                first, second, third = (swap @ pose[:3, :3] @ swap).T
                place = (swap @ pose[:3, 3] - [1.0, 2, 3]) / 10
                c2w = np.stack([second, -first, third, place], axis=1)
                content = {"W": 24, "H": 16, "intrinsics": torch.tensor([20.0, 20, 12, 8])}
                (folder / split / "metadata").mkdir(parents=True, exist_ok=True)
                torch.save({**content, "c2w": torch.from_numpy(c2w)}, folder / split / "metadata" / f"{i:06d}.pt")
                picture(folder / split / "rgbs" / f"{i:06d}.jpg", 40 * i)
        torch.save({"origin_drb": torch.tensor([1.0, 2, 3]), "pose_scale_factor": 10.0}, folder / "coordinates.pt")
        return tmp_path

    def test_views_are_read_on_demand(self, root: Path) -> None:
        data: Any = zoo.create_data(
            "splatting/mill19", root=str(root), scene="rubble", factor=2, points=cloud(root / "p.ply"), **BOX
        )
        scene = data.scene
        assert (scene.train_indices, scene.test_indices) == ([0, 1, 2, 3], [4, 5])
        np.testing.assert_allclose(scene.viewmats[:4], viewmats(4), atol=1e-6)
        np.testing.assert_allclose(scene.Ks[0], [[10, 0, 6], [0, 10, 4], [0, 0, 1]])
        assert scene.images[2].shape == (8, 12, 3)
        assert int(scene.images[2].mean()) == pytest.approx(80, abs=2)
        mask = data.partition.mask
        assert mask.any(0).all()
        assert mask[0].tolist() == [True, False]
        assert mask[-1].tolist() == [False, True]

    def test_what_is_missing_is_named(self, root: Path) -> None:
        with pytest.raises(DataError, match=r"meganerf.cmusatyalab.org(.|\n)*data.root"):
            zoo.create_data("splatting/mill19", scene="building")
        with pytest.raises(DataError, match=r"data\.points=cloud\.ply"):
            _ = zoo.create_data("splatting/mill19", root=str(root), scene="rubble").scene  # type: ignore[attr-defined]
        (root / "rubble" / "train" / "rgbs" / "000001.jpg").unlink()
        points = cloud(root / "p.ply")
        with pytest.raises(DataError, match=r"1 of 6 photographs of rubble are missing.*000001"):
            _ = zoo.create_data("splatting/mill19", root=str(root), scene="rubble", points=points).scene  # type: ignore[attr-defined]
        (root / "rubble" / "coordinates.pt").write_bytes(b"x")
        with pytest.raises(DataError, match=r"coordinates.pt can't be read"):
            _ = zoo.create_data("splatting/mill19", root=str(root), scene="rubble", points=points).scene  # type: ignore[attr-defined]


def opengl(viewmat: np.ndarray) -> np.ndarray:
    """Camera to world with OpenGL's axes."""
    pose = np.linalg.inv(viewmat)
    pose[:3, 1:3] *= -1
    return pose


class TestMatrixCity:
    def test_poses_of_all_blocks(self, tmp_path: Path) -> None:
        folder = tmp_path / "aerial"
        shared = {"w": 24, "h": 16, "fl_x": 20, "fl_y": 20, "cx": 12, "cy": 8}
        for split, count in (("train", 4), ("test", 2)):
            frames = []
            for i, viewmat in enumerate(viewmats(count)):
                name = f"block_{i % 2 + 1}/{i:04d}.png"
                picture(folder / split / name, 30 * i)
                frames.append({"file_path": f"../../{split}/{name}", "transform_matrix": opengl(viewmat).tolist()})
            file = folder / "pose" / "block_all" / f"transforms_{split}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({**shared, "frames": frames}))
        points = cloud(tmp_path / "p.ply")
        data: Any = zoo.create_data("splatting/matrixcity", root=str(tmp_path), factor=1, points=points, **BOX)
        np.testing.assert_allclose(data.scene.viewmats[:4], viewmats(4), atol=1e-6)
        assert int(data.scene.images[3].mean()) == 90
        assert len(data.scene.test_indices) == 2

    def test_poses_of_one_block(self, tmp_path: Path) -> None:
        frames = []
        for i, viewmat in enumerate(viewmats(3)):
            pose = opengl(viewmat)
            pose[:3, :3] *= 0.01
            pose[:3, 3] *= 100
            frames.append({"frame_index": i, "rot_mat": pose.tolist()})
        file = tmp_path / "block_1" / "transforms.json"
        file.parent.mkdir()
        file.write_text(json.dumps({"camera_angle_x": 2 * np.arctan(0.5), "w": 24, "h": 16, "frames": frames}))
        found = read_matrixcity(file, tmp_path)
        np.testing.assert_allclose([p.viewmat for p in found], viewmats(3), atol=1e-6)
        assert found[0].K[0, 0] == pytest.approx(24)
        file.write_text("{}")
        with pytest.raises(DataError, match="be read as MatrixCity"):
            read_matrixcity(file, tmp_path)


def test_colmap_folders_by_split(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        model = tmp_path / "sci-art" / split / "sparse" / "0"
        model.mkdir(parents=True)
        (model / "cameras.txt").write_text("1 PINHOLE 24 16 20 20 12 8\n")
        lines = []
        for i, viewmat in enumerate(viewmats(count)):
            x, y, z, w = Rotation.from_matrix(viewmat[:3, :3]).as_quat()
            values = " ".join(f"{v:.17g}" for v in (w, x, y, z, *viewmat[:3, 3]))
            lines += [f"{i + 1} {values} 1 {i:04d}.jpg", ""]
            picture(model.parents[1] / "images" / f"{i:04d}.jpg", 20)
        (model / "images.txt").write_text("\n".join(lines) + "\n")
        points = np.random.default_rng(0).uniform(-4, 4, (50, 2))
        (model / "points3D.txt").write_text(
            "".join(f"{i + 1} {x} {y} 0 9 9 9 0.1\n" for i, (x, y) in enumerate(points))
        )
    data: Any = zoo.create_data("splatting/urbanscene3d", root=str(tmp_path), scene="sci-art", factor=2, **BOX)
    assert (len(data.scene.train_indices), len(data.scene.test_indices)) == (4, 2)
    np.testing.assert_allclose(data.scene.viewmats[:4], viewmats(4), atol=1e-6)
    assert len(data.scene.points) == 50
    assert data.scene.images[0].shape == (8, 12, 3)
    camera = tmp_path / "sci-art" / "train" / "sparse" / "0" / "cameras.txt"
    camera.write_text("1 SIMPLE_RADIAL 24 16 20 12 8 0.1\n")
    again: Any = zoo.create_data("splatting/urbanscene3d", root=str(tmp_path), scene="sci-art", **BOX)
    with pytest.raises(DataError, match="image_undistorter"):
        _ = again.scene


def test_boxes_and_blocks_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"data\.box should be"):
        _ = zoo.create_data("splatting/city", size=24, positions=2, box=(1, 0, 0, -1, 1, 1)).grid  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"data\.dims should be"):
        _ = zoo.create_data("splatting/city", size=24, positions=2, dims=(0, 1, 1)).grid  # type: ignore[attr-defined]
