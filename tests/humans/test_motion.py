"""Motion files and their retargeting to SMPL."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from zoo.data.cards import read_card
from zoo.download import sha256
from zoo.errors import DataError
from zoo.humans.body import Body, load_body
from zoo.humans.motion import retarget
from zoo.humans.motion.sequence import Motion, read_amass, write_amass
from zoo.humans.motion.skeletons import read_acclaim, read_bvh

SAMPLE = ROOT / "data/samples/mocap"


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def test_the_sample_is_what_the_card_says() -> None:
    card = read_card("cmu-mocap")
    assert card.checksums
    for file, checksum in card.checksums.items():
        assert sha256(ROOT / "data" / file) == checksum


def test_limbs_point_where_the_skeleton_s_do(body: Body) -> None:
    recording = read_acclaim(SAMPLE / "02.asf", SAMPLE / "02_01.amc.gz")
    motion = retarget.retarget(recording, body, 30)
    assert motion.fps == 30
    assert len(motion) == len(range(0, len(recording.root), 4))
    ours = retarget.posed_directions(motion.poses, body)
    for name, bone in retarget._ACCLAIM.items():
        if name != "pelvis":
            theirs = recording.rotations[bone][::4] @ recording.directions[bone]
            assert np.abs(ours[name] - theirs).max() < 1e-5, name


def test_a_walk_walks(body: Body) -> None:
    """Forward by some metres at hip height, with both knees bending one way."""
    motion = retarget.retarget(read_acclaim(SAMPLE / "02.asf", SAMPLE / "02_01.amc.gz"), body)
    path = motion.trans[-1] - motion.trans[0]
    assert np.linalg.norm(path[[0, 2]]) > 2
    assert abs(path[1]) < 0.1
    pose = torch.from_numpy(motion.poses)
    shifted = body(pose[:, :3], pose[:, 3:], torch.zeros(len(pose), 10), torch.from_numpy(motion.trans))
    assert abs(float(shifted.joints[..., 1].min())) < 0.25  # feet are on the floor
    knees = motion.poses[:, [12, 15]]
    assert knees.min() > -0.2
    assert knees.max() > 0.7


BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT Spine
  {
    OFFSET 0 2 0
    CHANNELS 3 Zrotation Yrotation Xrotation
    End Site
    {
      OFFSET 0 3 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.00833333
0 1 0 0 0 0 0 0 0
0 1 0 90 0 0 0 0 90
"""


def test_bvh(in_tmp: Path) -> None:
    Path("a.bvh").write_text(BVH)
    motion = read_bvh("a.bvh", unit=0.01)
    assert motion.fps == pytest.approx(120, rel=1e-4)
    assert np.allclose(motion.root[:, 1], 0.01)
    assert motion.lengths == pytest.approx({"Hips": 0.02, "Spine": 0.03})
    assert np.allclose(motion.rotations["Spine"][0], np.eye(3))
    # Turned by 90 degrees about z above, then about x: up (y) goes to z, which the first turn leaves alone.
    assert np.allclose(motion.rotations["Spine"][1] @ motion.directions["Spine"], [0, 0, 1], atol=1e-9)


def test_amass_round_trip_and_smplx_layout(in_tmp: Path, body: Body) -> None:
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 0.3, (5, 72)).astype(np.float32)
    poses[:, 66:] = 0
    motion = Motion(poses, rng.normal(size=(5, 3)).astype(np.float32), np.arange(10, dtype=np.float32), 60.0)
    write_amass(motion, "a_poses.npz")
    back = read_amass("a_poses.npz").with_up("y")
    assert np.allclose(back.poses, poses, atol=1e-5)
    assert np.allclose(back.trans, motion.trans, atol=1e-5)
    assert back.fps == 60
    content = dict(np.load("a_poses.npz"))
    np.savez(
        "b_stageii.npz",
        root_orient=content["poses"][:, :3],
        pose_body=content["poses"][:, 3:66],
        trans=content["trans"],
        betas=content["betas"],
        gender=np.array("female"),
        mocap_frame_rate=np.array(60.0),
    )
    other = read_amass("b_stageii.npz")
    assert other.gender == "female"
    assert np.allclose(other.poses, read_amass("a_poses.npz").poses)
    assert len(other.resample(30)) == 3
    # Betas for every frame, fewer of them, a frame rate in an array.
    content |= {"betas": np.tile(np.arange(8.0), (5, 1)), "mocap_framerate": np.array([120.0])}
    np.savez("c_poses.npz", **content)
    odd = read_amass("c_poses.npz")
    assert odd.betas.tolist() == [*range(8), 0, 0]
    assert odd.fps == 120


def test_the_world_turns_about_the_pelvis(body: Body) -> None:
    """The mesh of a motion with z up is the turned mesh of the one with y up."""
    rng = np.random.default_rng(1)
    pose = rng.normal(0, 0.3, (2, 72)).astype(np.float32)
    motion = Motion(pose, np.ones((2, 3), np.float32), np.zeros(10, np.float32), 30.0)
    turned = motion.with_up("z", pelvis=body.joint_template[0].numpy())

    def joints(m: Motion) -> np.ndarray:
        p = torch.from_numpy(m.poses)
        return body(p[:, :3], p[:, 3:], torch.zeros(2, 10), torch.from_numpy(m.trans)).joints.numpy()

    y_up, z_up = joints(motion), joints(turned)
    assert np.allclose(z_up, np.stack([y_up[..., 0], -y_up[..., 2], y_up[..., 1]], -1), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("02_01.amc", "1\nroot 1 2 3 4 5 6\nlfemur 1 2\n2\nroot 1 2 3 4 5 6\n", "does not fit"),
        ("02_01.amc", "# nothing\n", "no frames"),
        ("02_01.amc", "1\nroot 1 2 3 4 5 6\nwing 1\n", "'wing' does not fit"),
    ],
)
def test_damaged_motions_are_named(in_tmp: Path, name: str, content: str, message: str) -> None:
    Path("02.asf").write_bytes((SAMPLE / "02.asf").read_bytes())
    Path(name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_acclaim("02.asf", name)


def test_other_damage_is_named(in_tmp: Path, body: Body) -> None:
    with pytest.raises(DataError, match="has no motions"):
        retarget.read_mocap_folder(".", body)
    Path("a.asf").write_text(":version 1.10\n")
    Path("a_1.amc.gz").write_bytes(gzip.compress(b"1\n"))
    with pytest.raises(DataError, match="no ASF skeleton"):
        retarget.read_mocap_folder(".", body)
    Path("a.bvh").write_text(BVH.replace("0 1 0 90 0 0 0 0 90", "0 1 0"))
    with pytest.raises(DataError, match="can't be read as a BVH motion"):
        read_bvh("a.bvh")
    Path("b.bvh").write_text(BVH)
    with pytest.raises(DataError, match="it is not CMU's"):
        retarget.retarget(read_bvh("b.bvh"), body)
    np.savez("c.npz", betas=np.zeros(10))
    with pytest.raises(DataError, match="no AMASS motion"):
        read_amass("c.npz")
    np.savez("d.npz", poses=np.zeros((4, 156)), trans=np.zeros((4, 3)), betas=np.full(16, np.nan), mocap_framerate=60.0)
    with pytest.raises(DataError, match="holds NaN"):
        read_amass("d.npz")
