"""What ArtEq trains on: parts, clouds, losses."""

from __future__ import annotations

import pytest
import roma
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from tests import goldens
from tests.goldens import relative_error
from zoo.humans.arteq import parts
from zoo.humans.arteq.losses import BodyState, LossWeights, losses, normal_errors, total
from zoo.humans.arteq.network import PARENTS, ArtEqOutput
from zoo.humans.arteq.sampling import sample_surface


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return goldens.load("humans-arteq", "train_utils")


def test_rotations_along_the_skeleton(golden: dict[str, Tensor]) -> None:
    local = roma.rotvec_to_rotmat(golden["aa"])
    assert (local - golden["rotmat_local"]).abs().max() < 1e-5
    world = parts.global_rotations(local)
    assert (world - golden["rotmat_global"]).abs().max() < 1e-5
    back = parts.local_rotations(golden["rotmat_global"])
    assert (back - golden["local_from_global"]).abs().max() < 1e-5
    assert (roma.rotmat_to_rotvec(back) - golden["aa_from_local"]).abs().max() < 1e-4
    assert [0, *golden["parents"].tolist()[1:]] == list(PARENTS)
    whole = parts.body_rotations(world)
    assert torch.equal(whole[:, 22:], torch.eye(3).expand(3, 2, 3, 3))
    assert (whole[:, :22] - local).abs().max() < 1e-5


def test_labels(golden: dict[str, Tensor]) -> None:
    labels = parts.part_labels(golden["lbs"])
    assert torch.equal(labels, golden["label_merged"].long())
    assert parts.part_labels(torch.eye(24)).tolist() == [*range(7), 7, 8, 9, 7, 8, *range(12, 22), 20, 21]


def test_centroids(golden: dict[str, Tensor]) -> None:
    assert relative_error(parts.part_centroids(golden["agg_pts"], golden["agg_w"]), golden["agg_out"]) < 1e-5


def test_normals(golden: dict[str, Tensor]) -> None:
    errors = normal_errors(golden["nl_pred"], golden["nl_gt"], golden["nl_faces"].long())
    assert (errors - golden["nl_out"].squeeze(-1)).abs().max() < 1e-5
    assert float(errors.mean()) == pytest.approx(float(golden["nl_mean"]), rel=1e-5)


def test_turning(golden: dict[str, Tensor]) -> None:
    pose = torch.randn(20, 72, generator=torch.Generator().manual_seed(0))
    pose[:, :3] = golden["eul_aa"]
    same = parts.turn_euler(pose, torch.zeros(20, 3))
    matrices = (roma.rotvec_to_rotmat(rotvec) for rotvec in (same[:, :3], golden["eul_back"]))
    assert torch.allclose(*matrices, atol=1e-5)
    moved = parts.turn_euler(pose, golden["eul_xyz"])
    expected = Rotation.from_euler("XYZ", 2 * golden["eul_xyz"].numpy()).as_matrix()
    assert (roma.rotvec_to_rotmat(moved[:, :3]) - torch.from_numpy(expected).float()).abs().max() < 1e-4
    assert torch.equal(moved[:, 3:], pose[:, 3:])
    turned = parts.turn(pose, roma.random_rotmat(20))
    world, of_turned = (parts.global_rotations(roma.rotvec_to_rotmat(p.unflatten(1, (-1, 3)))) for p in (pose, turned))
    relative = of_turned @ world.mT
    assert (relative - relative[:, :1]).abs().max() < 1e-5


def cube() -> tuple[Tensor, Tensor, Tensor]:
    """Two boxes of 2 m and 1 m: vertices (1, 16, 3), faces and skinning weights, a joint each."""
    trimesh = pytest.importorskip("trimesh")
    large, small = trimesh.creation.box((2, 2, 2)), trimesh.creation.box((1, 1, 1))
    vertices = torch.cat([torch.tensor(large.vertices), torch.tensor(small.vertices) + 5]).float()
    faces = torch.cat([torch.tensor(large.faces), torch.tensor(small.faces) + 8]).long()
    skinning = torch.zeros(16, 24)
    skinning[:8, 0], skinning[8:, 22] = 1, 1
    return vertices[None], faces, skinning


def test_points_are_even_over_the_surface() -> None:
    vertices, faces, skinning = cube()
    random = torch.Generator().manual_seed(1)
    sample = sample_surface(vertices.expand(2, -1, -1), faces, skinning, 1000, random, noise=0.0)
    assert sample.points.shape == (2, 1000, 3)
    assert not torch.equal(sample.points[0], sample.points[1])
    # Areas are 24 and 6 square metres.
    assert [(sample.labels[0] == part).sum() for part in (0, 20)] == [pytest.approx(n, abs=2) for n in (800, 200)]
    on_large = sample.points[sample.labels == 0]
    assert torch.allclose(on_large.abs().amax(-1), torch.ones(len(on_large)), atol=1e-5)
    assert on_large.mean(0).abs().max() < 0.1
    # The order means nothing: the first half is as even as the whole.
    assert (sample.labels[0, :500] == 0).float().mean() == pytest.approx(0.8, abs=0.06)


def test_sampling_as_the_official_code_does_it() -> None:
    vertices, faces, skinning = cube()
    two = torch.cat([vertices, 2 * vertices])
    sample = sample_surface(two, faces, skinning, 100, torch.Generator().manual_seed(2), noise=0.0, shared=True)
    assert torch.allclose(sample.points[1], 2 * sample.points[0])


def test_the_translation_is_found() -> None:
    vertices, faces, skinning = cube()
    sample = sample_surface(vertices, faces, skinning, 4000, torch.Generator().manual_seed(3))
    labels = parts.part_labels(skinning)
    probability = torch.nn.functional.one_hot(sample.labels, 22).float()
    shift = torch.tensor([[1.0, -2.0, 0.5]])
    found = parts.estimate_translation(sample.points + shift, probability, vertices, labels)
    assert (found - shift).abs().max() < 0.05
    one_part = probability * (sample.labels == 0).unsqueeze(-1)
    found = parts.estimate_translation(sample.points + shift, one_part, vertices, labels)
    assert (found - shift).abs().max() < 0.05


def test_losses_vanish_at_the_truth_and_not_elsewhere() -> None:
    random = torch.Generator().manual_seed(4)
    labels = torch.randint(0, 9, (2, 30), generator=random)
    logits = 100 * torch.nn.functional.one_hot(labels, 22).float()
    rotations = roma.random_rotmat(44).unflatten(0, (2, 22))
    truth = BodyState(rotations, *(torch.randn(2, *shape, generator=random) for shape in ((10,), (6, 3), (4, 3))))
    points = torch.randn(2, 30, 3, generator=random)
    output = ArtEqOutput(logits.softmax(-1), rotations, truth.betas, logits)
    terms = losses(output, truth, truth, (points, labels), markers=torch.tensor([0, 3]))
    assert float(total(terms, LossWeights())) < 1e-6
    off = BodyState(*(value + 0.1 for value in vars(truth).values()))
    terms = losses(output._replace(logits=logits * 0, segmentation=torch.full_like(logits, 1 / 22)), off, truth,
                   (points, labels), torch.tensor([[0, 1, 2]]), torch.tensor([0, 3]))  # fmt: skip
    assert terms.keys() == vars(LossWeights()).keys()
    for name in ("rotations", "betas", "joints", "vertices", "markers"):
        assert float(terms[name]) == pytest.approx(0.01, rel=1e-3)
    assert float(terms["segmentation"]) == pytest.approx(torch.log(torch.tensor(22.0)).item(), rel=1e-5)
    assert float(terms["centroids"]) > 1e-3


def test_the_official_loss_of_rotations_sees_the_first_body_only() -> None:
    rotations = torch.eye(3).expand(2, 22, 3, 3).clone()
    truth = BodyState(rotations, torch.zeros(2, 10), torch.zeros(2, 3, 3), torch.zeros(2, 3, 3))
    moved = rotations.clone()
    moved[1] += 1
    found = BodyState(moved, truth.betas, truth.vertices, truth.joints)
    logits, cloud = torch.zeros(2, 5, 22), (torch.zeros(2, 5, 3), torch.zeros(2, 5, dtype=torch.long))
    output = ArtEqOutput(logits.softmax(-1), moved, truth.betas, logits)
    assert float(losses(output, found, truth, cloud, first_pose_only=True)["rotations"]) == 0.0
    assert float(losses(output, found, truth, cloud)["rotations"]) == pytest.approx(0.5)


def test_no_loss_needs_values_on_the_host() -> None:
    # A tensor without values has no answer to "which" or "how many", for which a GPU would have to be waited.
    with torch.device("meta"):
        rotations, logits = torch.empty(2, 22, 3, 3), torch.empty(2, 5, 22)
        body = BodyState(rotations, torch.empty(2, 10), torch.empty(2, 9, 3), torch.empty(2, 45, 3))
        cloud = (torch.empty(2, 5, 3), torch.empty(2, 5, dtype=torch.long))
        faces = torch.empty(4, 3, dtype=torch.long)
    output = ArtEqOutput(logits, rotations, body.betas, logits)
    assert total(losses(output, body, body, cloud, faces, faces[0]), LossWeights()).device.type == "meta"
