"""Pairs of frames: the published sampling, held-out recordings, readers of AMASS, 3DPW and RICH."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from tests.goldens import load_json
from zoo.data.amass import AMASS, LONGEST, StartFrames, prepare, published_pair, split_files
from zoo.data.motion_pairs import (
    TEST_RECORDINGS,
    VALIDATION_RECORDINGS,
    MotionPairs,
    TrainingPairs,
    mirror,
    pairs_at_strides,
)
from zoo.errors import ConfigError, DataError
from zoo.humans.motion.archives import read_3dpw, read_rich
from zoo.humans.motion.procedural import activity_motion, sine_motion
from zoo.humans.motion.sequence import Motion, write_amass


def counting_motion(frames: int, fps: float) -> Motion:
    """A motion whose first pose number is the frame's number."""
    poses = np.zeros((frames, 72), np.float32)
    poses[:, 0] = np.arange(frames)
    return Motion(poses, np.zeros((frames, 3), np.float32), np.zeros(10, np.float32), fps, "z")


def test_the_published_sampling() -> None:
    golden = load_json("humans-learnable-smplify", "sampling")
    clips = [prepare(counting_motion(spec["frames"], spec["mocap_framerate"])) for spec in golden["specs"]]
    train, test = split_files([Path(str(k)) for k in range(len(clips))])
    parts = {"train": [clips[int(f.name)] for f in train], "test": [clips[int(f.name)] for f in test]}
    for part, entries in (("train", golden["train"]), ("test", golden["test"])):
        kept = [clip for clip in parts[part] if len(clip) > LONGEST]
        starts = StartFrames([len(clip) for clip in kept])
        assert len(starts) == golden[f"n_{part}_idx"]
        for entry, clip in zip(entries.values(), kept, strict=True):
            assert len(clip) == entry["N_frame"]
            assert starts.locate(entry["start_idx"])[1] == 0
        parts[part] = kept
    starts = StartFrames([len(clip) for clip in parts["test"]])
    clip = parts["test"][0]
    pairs = [[int(clip.poses[f, 0]), int(clip.poses[f + 9, 0])] for _, f in map(starts.locate, range(0, 56, 7))]
    assert pairs == golden["test_pairs_every7_stride9"]
    random.seed(0)
    np.random.seed(0)
    starts, drawn = StartFrames([len(clip) for clip in parts["train"]]), []
    for item in range(40):
        number, frame = starts.locate(item)
        drawn.append([int(parts["train"][number].poses[f, 0]) for f in published_pair(frame)])
    assert drawn == golden["train_pairs_seed0_first40"]


def test_recordings_are_held_out_whole() -> None:
    data = MotionPairs(pairs=64, motions=2, val_size=4, test_size=8, far=0.0, bend=0.0)
    assert not {*TEST_RECORDINGS} & {*VALIDATION_RECORDINGS}
    dataset = data.train_dataloader().dataset
    assert isinstance(dataset, TrainingPairs)
    names = {motion.name for motion in dataset.motions}
    assert names == {"01_01", "02_01", "02_02", "sines", "activities"}
    batch = next(iter(data.test_dataloader()))
    assert set(batch["group"].tolist()) == {0, 1, 2, 3}
    tested = torch.cat([batch["start_pose"], batch["end_pose"]])
    for name in names - {"sines", "activities"}:
        trained = torch.from_numpy(data.recordings[name].poses)
        assert float(torch.cdist(tested, trained).min()) > 1e-3


def test_training_pairs_are_neighbours_of_one_motion() -> None:
    motion = counting_motion(60, 30.0)
    pairs = TrainingPairs([motion], 0, 0.5, 200, seed=1)
    steps = [float(pairs[k]["end_pose"][0] - pairs[k]["start_pose"][0]) for k in range(200)]
    assert {abs(step) for step in steps} == {1.0, 3.0, 5.0, 7.0, 9.0}
    assert 60 < sum(step < 0 for step in steps) < 140
    assert torch.equal(pairs[3]["start_pose"], pairs[3]["start_pose"])
    with pytest.raises(ConfigError, match="more than 9 frames"):
        TrainingPairs([counting_motion(9, 30.0)], 0, 0.5, 10)


def test_pairs_at_strides_stay_within_their_motion() -> None:
    items = pairs_at_strides([counting_motion(40, 30.0), counting_motion(4, 30.0)], 10).items
    assert {(end - start, group) for _, start, end, group in items} == {(1, 0), (5, 1), (9, 2)}
    assert all(end < len(motion) for motion, _, end, _ in items)


def test_procedural_motion_is_smooth_and_human() -> None:
    for motion in (sine_motion(90, np.random.default_rng(0)), activity_motion(90, np.random.default_rng(0))):
        steps = np.linalg.norm(np.diff(motion.poses.reshape(-1, 24, 3)[:, 1:], axis=0), axis=-1)
        assert 0.003 < steps.mean() < 0.1
        assert np.abs(motion.poses[:, 66:]).max() == 0
        assert np.linalg.norm(np.diff(motion.trans, axis=0), axis=1).max() < 0.1
    knees = sine_motion(200, np.random.default_rng(1)).poses[:, [12, 15]]
    assert knees.min() >= 0
    wide, narrow = (sine_motion(90, np.random.default_rng(2), a).poses[:, 3:] for a in (1.6, 1.0))
    np.testing.assert_allclose(wide, 1.6 * narrow, atol=1e-5)
    assert np.array_equal(mirror(mirror(wide_pose := np.ones((2, 72), np.float32))), wide_pose)


def test_amass_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(4):
        folder = tmp_path / "CMU" / f"{k:02d}"
        folder.mkdir(parents=True)
        write_amass(sine_motion(60, rng), folder / "01_poses.npz")
    (tmp_path / "CMU" / "00" / "shape.npz").touch()  # other files lie about there
    data = AMASS(root=str(tmp_path), pairs=32, test_size=4, batch_size=16, num_workers=0)
    assert (len(data.train_files), len(data.test_files)) == (1, 2)
    assert not {*data.train_files, *data.val_files} & {*data.test_files}
    batch = next(iter(data.train_dataloader()))
    assert batch["start_pose"].shape == (16, 72)
    assert float((batch["end_pose"] - batch["start_pose"]).abs().max()) > 0.01
    assert len(data.test_motions()) == 2
    assert {*next(iter(data.test_dataloader()))["group"].tolist()} == {0, 1, 2}
    with pytest.raises(DataError, match="AMASS"):
        zoo.create_data("humans/amass")
    with pytest.raises(DataError, match=r"data\.test_root"):
        zoo.create_data("humans/amass", root=str(tmp_path), test_set="3dpw")


def test_3dpw_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    poses = [rng.normal(size=(30, 72)) for _ in range(2)]
    valid = [np.ones(30), np.r_[np.ones(12), np.zeros(3), np.ones(15)]]
    content = {
        "poses": poses,
        "betas": [rng.normal(size=10), rng.normal(size=300)],
        "trans": [rng.normal(size=(30, 3)) for _ in range(2)],
        "genders": ["m", "f"],
        "campose_valid": valid,
        "sequence": "downtown",
    }
    path = tmp_path / "downtown_00.pkl"
    path.write_bytes(pickle.dumps(content, protocol=2))
    people = read_3dpw(path)
    assert [(p.name, p.gender, len(p)) for p in people] == [
        ("downtown_00_0", "male", 30),
        ("downtown_00_1", "female", 12),
        ("downtown_00_1", "female", 15),
    ]
    np.testing.assert_allclose(people[2].poses[:, :66], poses[1][15:, :66], rtol=1e-6)
    assert people[1].betas.shape == (10,)
    path.write_bytes(pickle.dumps({**content, "trans": [np.full((30, 3), np.nan)] * 2}, protocol=2))
    with pytest.raises(DataError, match="holds NaN"):
        read_3dpw(path)
    path.write_bytes(pickle.dumps({"poses": poses}, protocol=2))
    with pytest.raises(DataError, match="no betas, trans"):
        read_3dpw(path)


def test_rich_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    folder = tmp_path / "Gym_009"
    values = {}
    for frame in (3, 4, 5, 9):
        values[frame] = {
            "global_orient": rng.normal(size=(1, 3)),
            "body_pose": rng.normal(size=(1, 63)),
            "transl": rng.normal(size=(1, 3)),
            "betas": rng.normal(size=(1, 10)),
        }
        (folder / f"{frame:05d}").mkdir(parents=True)
        (folder / f"{frame:05d}" / "009.pkl").write_bytes(pickle.dumps(values[frame], protocol=2))
    first, second = read_rich(folder)
    assert (len(first), len(second), first.name) == (3, 1, "Gym_009_009")
    np.testing.assert_allclose(first.poses[1, 3:66], values[4]["body_pose"][0], rtol=1e-6)
    np.testing.assert_allclose(second.trans[0], values[9]["transl"][0], rtol=1e-6)
    with pytest.raises(DataError, match="no sequence of RICH"):
        read_rich(tmp_path)
