"""Reading scenes and files of Gaussians; the procedural scene."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.goldens import load, load_json
from zoo.data.procedural_scene import procedural_scene
from zoo.data.scene_readers import read_colmap, read_scene, read_transforms
from zoo.data.scene_views import Scene, camera_centres, look_at, scene_extent
from zoo.errors import DataError
from zoo.splatting.fly_through import focus, interpolate, turn
from zoo.splatting.gaussian_files import read_ply, write_ply, write_splat

GOLDENS = Path(__file__).parent.parent / "goldens" / "splatting-edgs"
SAMPLE = Path(__file__).parents[2] / "data" / "samples" / "buddha13"


class TestColmap:
    @pytest.mark.parametrize("model", ["sparse/0", "text"])
    def test_numbers_are_those_of_the_file(self, model: str) -> None:
        expected = json.loads((GOLDENS / "colmap_tiny" / "expected.json").read_text())
        path = GOLDENS / "colmap_tiny"
        scene = read_colmap(path, path / model, path / "images", with_images=False)
        images = sorted(expected["images"], key=lambda image: image["name"])
        assert scene.names == [image["name"] for image in images]
        cameras = {camera["id"]: camera for camera in expected["cameras"]}
        for image, K, picture in zip(images, scene.Ks, scene.images, strict=True):
            camera = cameras[image["camera_id"]]
            assert picture.shape[:2] == (camera["height"], camera["width"])
            assert K[0, 0] == camera["params"][0]
        translations = np.array([image["tvec"] for image in images])
        assert np.abs(scene.viewmats[:, :3, 3] - translations).max() < 1e-12
        assert scene_extent(scene.centres) == pytest.approx(expected["derived"]["scene_extent_all_cameras"], rel=1e-9)
        derived = np.array([image["world_to_camera"] for image in expected["derived"]["order_by_name"]])
        assert np.abs(scene.viewmats - derived).max() < 1e-12
        points = np.array([point["xyz"] for point in sorted(expected["points3D"], key=lambda p: p["id"])])
        assert np.abs(scene.points - points).max() < 1e-12

    def test_distorted_pictures_are_straightened(self, tmp_path: Path) -> None:
        """A grid photographed through a distorting lens has straight lines again."""
        import pycolmap

        camera = pycolmap.Camera(model="OPENCV", width=120, height=90, params=[100, 100, 60, 45, 0.3, 0.05, 0, 0])
        rows, columns = np.mgrid[0:90, 0:120] + 0.5
        rays = np.asarray(camera.cam_from_img(np.stack([columns, rows], -1).reshape(-1, 2)))
        stripes = (rays[:, 0].reshape(90, 120) > 0.25).astype(np.uint8) * 255
        (tmp_path / "images").mkdir()
        (tmp_path / "text").mkdir()
        Image.fromarray(np.repeat(stripes[..., None], 3, -1)).save(tmp_path / "images" / "a.png")
        (tmp_path / "text/cameras.txt").write_text("1 OPENCV 120 90 100 100 60 45 0.3 0.05 0 0\n")
        (tmp_path / "text/images.txt").write_text("1 1 0 0 0 0 0 0 1 a.png\n\n")
        (tmp_path / "text/points3D.txt").write_text("")
        scene = read_colmap(tmp_path, tmp_path / "text", tmp_path / "images")
        edge = (scene.images[0][..., 0] > 127).argmax(1)
        assert np.ptp(edge[20:70]) <= 1
        assert abs(edge[45] - 85) <= 1  # x = 0.25 f + cx

    def test_smaller_pictures_shrink_the_intrinsics(self, tmp_path: Path) -> None:
        shutil.copytree(SAMPLE, tmp_path / "scene")
        half = tmp_path / "scene" / "images_2"
        half.mkdir()
        for file in sorted((tmp_path / "scene" / "images").iterdir()):
            Image.open(file).resize((171, 96)).save(half / file.name)
        full, small = read_scene(tmp_path / "scene"), read_scene(tmp_path / "scene", images="images_2")
        assert small.images[0].shape == (96, 171, 3)
        assert np.allclose(small.Ks[0, :2] * 2, full.Ks[0, :2])
        limited = read_scene(tmp_path / "scene", max_side=171)
        assert np.allclose(limited.Ks, small.Ks)

    def test_the_sample(self) -> None:
        data: Any = zoo.create_data("splatting/buddha")
        scene: Scene = data.scene
        assert (len(scene.names), len(scene.points)) == (13, 603)
        assert scene.test_indices == [0, 8]
        assert len(scene.train_indices) == 11
        homogeneous = scene.points @ scene.viewmats[3, :3, :3].T + scene.viewmats[3, :3, 3]
        image = homogeneous @ scene.Ks[3].T
        inside = (homogeneous[:, 2] > 0) & (np.abs(image[:, 0] / image[:, 2] - 171) < 171)
        assert inside.mean() > 0.3

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda p: (p / "sparse/0/images.bin").write_bytes(b"\x07\0\0"), "can't be read"),
            (lambda p: shutil.rmtree(p / "images"), r"no folder .*images"),
            (lambda p: (p / "images/00018.jpg").unlink(), "no file .*00018"),
            (lambda p: (p / "images/00018.jpg").write_bytes(b"text"), "can't be read as an image"),
            (lambda p: shutil.rmtree(p / "sparse"), "neither a COLMAP model"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, spoil: Any, message: str) -> None:
        path = tmp_path / "scene"
        shutil.copytree(SAMPLE, path)
        if "neither" in message:
            shutil.rmtree(path / "images")
        spoil(path)
        with pytest.raises(DataError, match=message):
            read_scene(path)

    def test_photographs_that_are_too_few_or_show_nothing(self, tmp_path: Path) -> None:
        for k in range(2):
            Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / f"{k}.png")
        with pytest.raises(DataError, match="2 photographs; at least 3"):
            read_scene(tmp_path)
        Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / "2.png")
        with pytest.raises(DataError, match="can't be found: take more of them"):
            read_scene(tmp_path)

    def test_a_path_that_is_not_there(self) -> None:
        with pytest.raises(DataError, match=r"no scene folder .*data.path"):
            zoo.create_data("splatting/scene", path="nowhere")
        with pytest.raises(DataError, match=r"(?s)Mip-NeRF 360.*jonbarron.*data.root="):
            zoo.create_data("splatting/mipnerf360")
        with pytest.raises(DataError, match="Buddha"):
            zoo.create_data("splatting/buddha", path="nowhere")


class TestTransforms:
    def test_cameras(self) -> None:
        expected = load_json("splatting-edgs", "transforms_expected")
        path = GOLDENS
        frames = load_json("splatting-edgs", "transforms_train")["frames"]
        from zoo.data.scene_readers import _frames, _intrinsics
        from zoo.data.scene_views import opengl_to_viewmat

        loaded = _frames(path / "transforms_train.json")
        assert len(loaded) == len(frames)
        for frame, viewmat in zip(loaded, expected["world_to_camera_opencv"], strict=True):
            assert np.abs(opengl_to_viewmat(np.array(frame["transform_matrix"])) - np.array(viewmat)).max() < 1e-9
            K = _intrinsics(frame, expected["width"], expected["height"])
            assert K[0, 0] == pytest.approx(expected["fx"], abs=1e-9)
            assert (K[0, 2], K[1, 2]) == (expected["cx"], expected["cy"])

    def write(self, folder: Path, **extra: Any) -> None:
        frames = []
        for k in range(6):
            Image.fromarray(np.full((10, 16, 4), (200, 100, 50, 0 if k == 0 else 255), np.uint8)).save(
                folder / f"{k}.png"
            )
            frames.append({"file_path": f"{k}", "transform_matrix": np.eye(4).tolist()})
        content = {"fl_x": 20.0, "w": 32, "h": 20, "cx": 15.0, "cy": 9.0, "frames": frames, **extra}
        (folder / "transforms.json").write_text(json.dumps(content))

    def test_pictures_sizes_and_background(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        scene = read_transforms(tmp_path, test_every=3, white_background=True)
        assert scene.images[0][0, 0].tolist() == [255, 255, 255]
        assert scene.images[1][0, 0].tolist() == [200, 100, 50]
        assert scene.Ks[0].tolist() == [[10, 0, 7.5], [0, 10, 4.5], [0, 0, 1]]
        assert scene.test_indices == [0, 3]
        assert scene.background == (1, 1, 1)

    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            ({"frames": []}, "no frames"),
            ({"k1": 0.1}, "distorted"),
            ({"frames": [{"file_path": "0", "transform_matrix": [[1]]}]}, "not 4 x 4"),
            ({"frames": [{"file_path": "0"}]}, "can't be read as a transforms file"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, extra: dict[str, Any], message: str) -> None:
        self.write(tmp_path, **extra)
        with pytest.raises(DataError, match=message):
            read_transforms(tmp_path)

    def test_two_files_are_one_scene_with_the_test_file_held_out(self, tmp_path: Path) -> None:
        for name, count in (("train", 10), ("test", 4)):
            frames = []
            for k in range(count):
                Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{name}{k}.png")
                frames.append({"file_path": f"./{name}{k}", "transform_matrix": np.eye(4).tolist()})
            content = {"camera_angle_x": 0.7, "frames": frames}
            (tmp_path / f"transforms_{name}.json").write_text(json.dumps(content))
        scene = read_scene(tmp_path)
        assert all("test" in scene.names[i] for i in scene.test_indices)
        assert all("train" in scene.names[i] for i in scene.train_indices)
        assert len(scene.train_indices) >= 8


class TestGaussianFiles:
    @pytest.mark.parametrize("degree", [0, 1, 3])
    def test_ply(self, tmp_path: Path, degree: int) -> None:
        expected = load("splatting-edgs", f"point_cloud_deg{degree}")
        source = GOLDENS / f"point_cloud_deg{degree}.ply"
        rows = read_ply(source)
        keys = {"means": "xyz", "sh0": "f_dc", "shN": "f_rest", "scales": "log_scale", "quats": "quat_wxyz"}
        for ours, theirs in keys.items():
            assert torch.equal(rows[ours], expected[theirs]), ours
        assert torch.equal(rows["opacities"], expected["opacity_logit"][:, 0])
        write_ply(tmp_path / "again.ply", rows)
        again = read_ply(tmp_path / "again.ply")
        assert all(torch.equal(again[k], rows[k]) for k in rows)
        header, body = (tmp_path / "again.ply").read_bytes().split(b"end_header\n")
        assert body == source.read_bytes().split(b"end_header\n")[1]
        assert header.startswith(b"ply\nformat binary_little_endian 1.0")

    def test_splat(self, tmp_path: Path) -> None:
        write_splat(tmp_path / "a.splat", read_ply(GOLDENS / "point_cloud_deg3.ply"))
        assert (tmp_path / "a.splat").stat().st_size == 5 * 32

    def test_what_is_wrong_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no file"):
            read_ply(tmp_path / "none.ply")
        (tmp_path / "text.ply").write_text("hello")
        with pytest.raises(DataError, match="can't be read as Gaussians"):
            read_ply(tmp_path / "text.ply")
        good = (GOLDENS / "point_cloud_deg0.ply").read_bytes()
        (tmp_path / "cut.ply").write_bytes(good[:-20])
        with pytest.raises(DataError, match="can't be read as Gaussians"):
            read_ply(tmp_path / "cut.ply")


class TestProceduralScene:
    def test_points_depth_and_cameras_agree(self) -> None:
        scene = procedural_scene(size=32, views=24, points=100, seed=3)
        assert scene.test_indices == [0, 8, 16]
        again = procedural_scene(size=32, views=24, points=100, seed=3)  # from the cache
        assert all(np.array_equal(a, b) for a, b in zip(scene.images, again.images, strict=True))
        # Warping one view's depth into its neighbour gives that view's picture where both see the same.
        i, j = 1, 2
        rows, columns = np.mgrid[0:32, 0:32]
        pixels = np.stack([columns + 0.5, rows + 0.5, np.ones((32, 32))], -1)
        local = (pixels @ np.linalg.inv(scene.Ks[i]).T) * scene.depths[i][..., None]
        world = (local - scene.viewmats[i, :3, 3]) @ scene.viewmats[i, :3, :3]
        there = world @ scene.viewmats[j, :3, :3].T + scene.viewmats[j, :3, 3]
        image = there @ scene.Ks[j].T
        u, v = (image[..., k] / image[..., 2] for k in (0, 1))
        inside = (u >= 0) & (u < 32) & (v >= 0) & (v < 32)
        depth = scene.depths[j][v[inside].astype(int), u[inside].astype(int)]
        assert (np.abs(depth - there[..., 2][inside]) < 0.1 * depth).mean() > 0.7

    def test_seeds_differ(self) -> None:
        one, two = (procedural_scene(size=16, views=3, points=5, seed=s) for s in (0, 1))
        assert not np.array_equal(one.images[1], two.images[1])


class TestWays:
    @pytest.fixture
    def cameras(self) -> Any:
        angles = np.linspace(0, 5, 9)
        eyes = np.stack([3 * np.cos(angles), 3 * np.sin(angles), np.ones(9)], -1)
        return np.stack([look_at(eye, np.array([0.2, 0.1, 0.0]), np.array([0.0, 0.0, 1.0])) for eye in eyes])

    def test_look_at(self, cameras: Any) -> None:
        assert np.allclose(cameras[:, :3, :3] @ cameras[:, :3, :3].swapaxes(1, 2), np.eye(3))
        target = cameras @ np.array([0.2, 0.1, 0.0, 1.0])
        assert np.allclose(target[:, :2], 0)
        assert (target[:, 2] > 0).all()

    def test_focus_and_turn(self, cameras: Any) -> None:
        assert np.allclose(focus(cameras), [0.2, 0.1, 0.0], atol=1e-9)
        way = turn(cameras, 16)
        ahead = way @ np.array([0.2, 0.1, 0.0, 1.0])
        assert np.allclose(ahead[:, :2], 0, atol=1e-9)
        assert np.ptp(np.linalg.norm(camera_centres(way) - [0.2, 0.1, 0.0], axis=1)) < 1e-9

    def test_interpolation_passes_through_the_ends(self, cameras: Any) -> None:
        way = interpolate(cameras, 30)
        assert np.allclose(way[[0, -1]], cameras[[0, -1]], atol=1e-6)
        assert np.allclose(np.linalg.det(way[:, :3, :3]), 1)
