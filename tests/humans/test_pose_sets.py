"""Readers of raw pose data sets, on small files in their layouts."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

import zoo
from tools import annotate
from zoo.data.pose_sets.annotations import BODY_17_TO_SUPERSET, write_annotations
from zoo.data.pose_sets.coco import read_coco
from zoo.data.pose_sets.frames import extract_frames
from zoo.data.pose_sets.human36m import read_h36m
from zoo.data.pose_sets.lsp import read_lsp, read_lsp_test, read_lspet
from zoo.data.pose_sets.mpi_inf_3dhp import read_3dhp, read_3dhp_test
from zoo.data.pose_sets.three_dpw import read_3dpw_pictures
from zoo.errors import ConfigError, DataError, UnknownNameError
from zoo.humans.joints import BODY_25, SUPERSET_24
from zoo.humans.rotations import rotvec_to_rotmat

RNG = np.random.default_rng(0)


def annotation(name: str) -> dict[str, Any]:
    with np.load(f"spin/dataset_extras/{name}.npz") as arrays:
        return dict(arrays)


class TestLSP:
    def test_both_halves(self, in_tmp: Path) -> None:
        joints = RNG.uniform(10, 90, (3, 14, 2000))
        savemat("joints.mat", {"joints": joints})
        train, test = list(read_lsp(Path())), list(read_lsp_test(Path()))
        assert (len(train), len(test)) == (1000, 1000)
        assert train[-1]["imgname"] == "images/im1000.jpg"
        assert np.allclose(train[7]["part"][:14, :2], joints[:2, :, 7].T)
        assert train[7]["part"][:, 2].tolist() == [1.0] * 14 + [0.0] * 10
        points = joints[:2, :, 1000].T
        low, high = points.min(0), points.max(0)
        assert np.allclose(test[0]["center"], (low + high) / 2)
        assert test[0]["scale"] == pytest.approx(1.2 * (high - low).max() / 200)
        assert test[0]["partname"] == "im1001_part_segmentation.png"

    def test_the_extension_leaves_out_what_is_not_labelled(self, in_tmp: Path) -> None:
        joints = RNG.uniform(10, 90, (14, 3, 3))
        joints[:, 2] = 1
        joints[5, :, 1] = [-900, -900, 0]
        savemat("joints.mat", {"joints": joints})
        for number in (2, 3):
            Image.new("RGB", (8, 8)).save(f"im{number:05d}.png")
        rows = list(read_lspet(Path()))
        assert [row["imgname"] for row in rows] == ["im00002.png", "im00003.png"]
        assert rows[0]["part"][5, 2] == 0
        assert rows[0]["scale"] < 1

    def test_errors(self, in_tmp: Path) -> None:
        with pytest.raises(DataError, match=r"no file joints\.mat"):
            next(read_lsp(Path()))
        savemat("joints.mat", {"joints": np.zeros((14, 3, 5))})
        with pytest.raises(DataError, match="expected"):
            next(read_lsp(Path()))
        savemat("joints.mat", {"other": np.zeros(3)})
        with pytest.raises(DataError, match="no array 'joints'"):
            next(read_lsp(Path()))
        Path("joints.mat").write_bytes(Path("joints.mat").read_bytes()[:150])
        with pytest.raises(DataError, match="can't be read as LSP's joints"):
            next(read_lsp(Path()))


class TestCOCO:
    def test_whole_bodies(self, in_tmp: Path) -> None:
        points = np.stack([np.arange(17), 100 + np.arange(17), np.full(17, 2)], 1)
        hidden, partial = points.copy(), points.copy()
        hidden[0] = 0  # no nose
        partial[16] = 0  # no right ankle
        people = [
            {"image_id": 7, "bbox": [10, 20, 30, 60], "keypoints": values.ravel().tolist()}
            for values in (points, hidden, partial)
        ]
        content = {
            "images": [{"id": 7, "file_name": "COCO_train2014_7.jpg"}],
            "annotations": [*people, {"image_id": 7}],
        }
        Path("annotations").mkdir()
        file = Path("annotations/person_keypoints_train2014.json")
        file.write_text(json.dumps(content))
        rows = list(read_coco(Path()))
        assert [row["imgname"] for row in rows] == ["train2014/COCO_train2014_7.jpg"] * 2
        assert rows[0]["center"].tolist() == [25, 50]
        assert rows[0]["scale"] == pytest.approx(1.2 * 60 / 200)
        assert rows[0]["part"][SUPERSET_24.index("left_knee")].tolist() == [13, 113, 1]
        assert [row["part"][SUPERSET_24.index("nose"), 2] for row in rows] == [1, 0]
        assert rows[0]["part"][:, 2].sum() == 17
        file.write_text(json.dumps({"images": []}))
        with pytest.raises(DataError, match="can't be read as annotations of COCO"):
            list(read_coco(Path()))


class TestThreeDPW:
    def write(self, **change: Any) -> dict[str, Any]:
        folder = Path("sequenceFiles/test")
        folder.mkdir(parents=True, exist_ok=True)
        cameras = np.tile(np.eye(4), (3, 1, 1))
        cameras[:, :3, :3] = rotvec_to_rotmat(torch.tensor([[0.0, 0.5, 0.0]] * 3)).numpy()
        poses2d = RNG.uniform(50, 150, (3, 3, 18))
        poses2d[0, :, 3] = 0  # not detected
        poses2d[2] = 0  # nobody
        content = {
            "sequence": "downtown_0",
            "poses": [RNG.normal(0, 0.3, (3, 72)), RNG.normal(0, 0.3, (3, 72))],
            "betas": [np.arange(12.0), np.zeros(10)],
            "poses2d": [poses2d, poses2d],
            "cam_poses": cameras,
            "campose_valid": [np.array([1, 1, 1]), np.array([0, 1, 0])],
            "genders": ["m", "f"],
            **change,
        }
        (folder / "downtown_0.pkl").write_bytes(pickle.dumps(content, 2))
        return content

    def test_people_in_the_cameras_frame(self, in_tmp: Path) -> None:
        content = self.write()
        rows = list(read_3dpw_pictures(Path()))
        assert [(row["imgname"], row["gender"]) for row in rows] == [
            ("imageFiles/downtown_0/image_00000.jpg", "m"),
            ("imageFiles/downtown_0/image_00001.jpg", "m"),
            ("imageFiles/downtown_0/image_00001.jpg", "f"),
        ]
        assert rows[0]["shape"].tolist() == list(range(10))
        turned = rotvec_to_rotmat(torch.from_numpy(rows[0]["pose"][None, :3]))
        world = rotvec_to_rotmat(torch.from_numpy(content["poses"][0][:1, :3]).float())
        camera = torch.from_numpy(content["cam_poses"][0, :3, :3]).float()
        assert torch.allclose(turned[0], camera @ world[0], atol=1e-5)
        assert np.allclose(rows[0]["pose"][3:], content["poses"][0][0, 3:], atol=1e-6)
        openpose, detected = rows[0]["openpose"], content["poses2d"][0][0]
        assert np.allclose(openpose[BODY_25.index("right_hip")], detected[:, 8])
        assert np.allclose(openpose[BODY_25.index("left_ear")], detected[:, 17])
        assert not openpose[BODY_25.index("mid_hip")].any()
        seen = detected[:2, detected[0] > 0]
        assert rows[0]["scale"] == pytest.approx(1.2 * np.ptp(seen, axis=1).max() / 200)

    def test_errors(self, in_tmp: Path) -> None:
        with pytest.raises(DataError, match="unpack 3DPW's"):
            next(read_3dpw_pictures(Path()))
        self.write(poses2d=[np.zeros((3, 3)), np.zeros((3, 3))])
        with pytest.raises(DataError, match="can't be read as a sequence of 3DPW"):
            next(read_3dpw_pictures(Path()))
        Path("sequenceFiles/test/downtown_0.pkl").write_bytes(pickle.dumps({"poses": []}, 2))
        with pytest.raises(DataError, match="it has no sequence, betas"):
            next(read_3dpw_pictures(Path()))


class TestMPIInf3DHP:
    def write_training(self) -> tuple[np.ndarray, np.ndarray]:
        folder = Path("S2/Seq1")
        folder.mkdir(parents=True)
        pixels, points = RNG.uniform(0, 2000, (14, 21, 28, 2)), RNG.normal(0, 500, (14, 21, 28, 3))
        pixels[4, 10, 9] = 3000  # the left shoulder is outside
        cells = {"annot2": np.empty((14, 1), object), "annot3": np.empty((14, 1), object)}
        for camera in range(14):
            cells["annot2"][camera, 0] = pixels[camera].reshape(21, 56)
            cells["annot3"][camera, 0] = points[camera].reshape(21, 84)
        savemat(folder / "annot.mat", {**cells, "frames": np.arange(21)}, do_compression=True)
        return pixels, points

    def test_training(self, in_tmp: Path) -> None:
        pixels, points = self.write_training()
        rows = list(read_3dhp(Path()))
        assert len(rows) == 8 * 3 - 1
        assert rows[1]["imgname"] == "S2/Seq1/imageFrames/video_0/frame_000011.jpg"
        wrist, pelvis = SUPERSET_24.index("right_wrist"), SUPERSET_24.index("pelvis_mpii")
        assert np.allclose(rows[1]["part"][wrist, :2], pixels[0, 10, 16])
        assert np.allclose(rows[1]["S"][wrist, :3], (points[0, 10, 16] - points[0, 10, 4]) / 1000, atol=1e-6)
        assert rows[1]["S"][pelvis].tolist() == [0, 0, 0, 1]
        assert rows[1]["part"][:, 2].sum() == 17

    def test_test_set(self, in_tmp: Path) -> None:
        folder = Path("mpi_inf_3dhp_test_set/TS3")
        folder.mkdir(parents=True)
        with h5py.File(folder / "annot_data.mat", "w") as content:
            content["annot2"] = RNG.uniform(0, 2000, (4, 1, 17, 2))
            content["univ_annot3"] = RNG.normal(0, 500, (4, 1, 17, 3))
            content["valid_frame"] = np.array([[0, 1, 0, 1]])
        rows = list(read_3dhp_test(Path()))
        assert [Path(row["imgname"]).name for row in rows] == ["img_000002.jpg", "img_000004.jpg"]
        assert rows[0]["S"][SUPERSET_24.index("pelvis_mpii"), :3].tolist() == [0, 0, 0]
        with h5py.File(folder / "annot_data.mat") as content:
            assert np.allclose(rows[0]["part"][SUPERSET_24.index("left_knee"), :2], content["annot2"][1, 0, 12])

    def test_errors(self, in_tmp: Path) -> None:
        with pytest.raises(DataError, match=r"get_dataset\.sh"):
            next(read_3dhp(Path()))
        with pytest.raises(DataError, match=r"get_testset\.sh"):
            next(read_3dhp_test(Path()))
        self.write_training()
        file = Path("S2/Seq1/annot.mat")
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match="can't be read as annotations"):
            next(read_3dhp(Path()))
        savemat(file, {"annot2": np.zeros((3, 3))})
        with pytest.raises(DataError, match="has no annot2 and no annot3"):
            next(read_3dhp(Path()))


class TestHuman36M:
    def write(self, subject: int = 9, camera: str = "60457274", frames: int = 11) -> tuple[np.ndarray, np.ndarray]:
        cdfwrite = pytest.importorskip("cdflib.cdfwrite")
        features, boxes = Path(f"S{subject}/MyPoseFeatures"), Path(f"S{subject}/MySegmentsMat/ground_truth_bb")
        boxes.mkdir(parents=True, exist_ok=True)
        found = []
        for kind, coordinates in (("D3_Positions_mono", 3), ("D2_Positions", 2)):
            (features / kind).mkdir(parents=True, exist_ok=True)
            poses = RNG.uniform(100, 900, (frames, 32, coordinates))
            found.append(poses)
            file = cdfwrite.CDF(features / kind / f"Walk Dog 1.{camera}.cdf", delete=True)
            file.write_var(
                {
                    **{"Variable": "Pose", "Data_Type": 45, "Num_Elements": 1, "Rec_Vary": True},
                    "Dim_Sizes": [frames, 32 * coordinates],
                },
                var_data=poses.reshape(1, frames, -1),
            )
            file.close()
        with h5py.File(boxes / f"Walk Dog 1.{camera}.mat", "w") as content:
            references = content.create_dataset("Masks", (frames, 1), h5py.ref_dtype)
            for frame in range(frames):
                mask = np.zeros((60, 50), np.uint8)  # x, y
                mask[10:40, 5:25] = 1
                references[frame, 0] = content.create_dataset(f"mask{frame}", data=mask).ref
        return found[0], found[1]

    def test_every_fifth_frame(self, in_tmp: Path) -> None:
        points, pixels = self.write()
        self.write(camera="54138969")
        rows = list(read_h36m(Path(), (9,), "60457274"))
        assert len(list(read_h36m(Path(), (9, 11)))) == 6
        assert [row["imgname"] for row in rows] == [f"S9_Walk_Dog_1.60457274_{frame:06d}.jpg" for frame in (1, 6, 11)]
        assert rows[0]["center"].tolist() == [25.0, 15.0]
        assert rows[0]["scale"] == pytest.approx(0.9 * 30 / 200)
        knee = SUPERSET_24.index("right_knee")
        assert np.allclose(rows[1]["part"][knee, :2], pixels[5, 2])
        assert np.allclose(rows[1]["S"][knee, :3], (points[5, 2] - points[5, 11]) / 1000, atol=1e-6)

    def test_errors(self, in_tmp: Path) -> None:
        with pytest.raises(DataError, match="no recording of S1, S5, S6, S7, S8: unpack"):
            next(read_h36m(Path()))
        self.write()
        Path("S9/MySegmentsMat/ground_truth_bb/Walk Dog 1.60457274.mat").write_bytes(b"no HDF5")
        with pytest.raises(DataError, match="can't be read as boxes"):
            next(read_h36m(Path(), (9,)))
        Path("S9/MyPoseFeatures/D2_Positions/Walk Dog 1.60457274.cdf").write_bytes(b"no CDF")
        with pytest.raises(DataError, match="can't be read as poses"):
            next(read_h36m(Path(), (9,)))


def test_the_joints_of_the_studios_have_their_names() -> None:
    assert [SUPERSET_24[k] for k in BODY_17_TO_SUPERSET[:4]] == [
        "pelvis_mpii",
        "left_hip_lsp",
        "left_knee",
        "left_ankle",
    ]
    assert sorted(BODY_17_TO_SUPERSET) == [*range(13), 14, 16, 17, 18]


def test_annotations_train(in_tmp: Path) -> None:
    """What the tool writes is what the data module reads."""
    joints = RNG.uniform(10, 54, (14, 3, 4))
    joints[:, 2] = 1
    Path("raw").mkdir()
    savemat("raw/joints.mat", {"joints": joints})
    for number in range(1, 5):
        Image.fromarray(RNG.integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(f"raw/im{number:05d}.png")
    TestThreeDPW().write()
    annotate.main(["set=lspet", "input=raw", "output=spin"])
    annotate.main(["set=3dpw", "input=.", "output=spin"])
    assert annotation("3dpw_test")["gender"].tolist() == ["m", "m", "f"]
    data = zoo.create_data(
        "humans/images", root=Path("spin"), sets=("lspet",), images={"lspet": "raw"}, img_size=32, batch_size=4
    )
    keypoints = data.training_keypoints()
    placed = (
        (keypoints[:, 25:39, :2] + 1) / 2 * 200 * torch.from_numpy(annotation("hr-lspet_train")["scale"])[:, None, None]
    )
    assert torch.allclose(
        placed.diff(dim=1), torch.from_numpy(joints[:, :2].transpose(2, 0, 1)).float().diff(dim=1), atol=1e-3
    )
    assert data.test.gender.tolist() == ["m", "m", "f"]


def test_the_tool_names_what_is_wrong(in_tmp: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'lsp'"):
        annotate.main(["set=lps", "input=."])
    with pytest.raises(ConfigError, match="comes as pictures"):
        annotate.main(["set=lsp", "input=.", "frames=."])
    with pytest.raises(DataError, match="Nobody was found"):
        write_annotations([], Path("a.npz"))


def test_frames_of_a_video(in_tmp: Path) -> None:
    iio = pytest.importorskip("imageio.v3")
    pytest.importorskip("imageio_ffmpeg")
    film = np.stack([np.full((32, 48, 3), 20 * k, np.uint8) for k in range(11)])
    Path("raw/S9/Videos").mkdir(parents=True)
    iio.imwrite("raw/S9/Videos/Walk Dog 1.60457274.mp4", film, fps=25, plugin="FFMPEG", macro_block_size=None)
    assert annotate._extract("h36m-p1", Path("raw"), Path("frames")) == 3
    pictures = sorted(Path("frames").iterdir())
    assert [picture.name[-10:] for picture in pictures] == ["000001.jpg", "000006.jpg", "000011.jpg"]
    assert abs(float(np.asarray(Image.open(pictures[1])).mean()) - 100) < 8
    Path("broken.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="can't be read as a video"):
        extract_frames(Path("broken.mp4"), "{:06d}.jpg", 5)
    with pytest.raises(DataError, match="There is no file"):
        extract_frames(Path("absent.mp4"), "{:06d}.jpg", 5)
