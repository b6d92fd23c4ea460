"""Silhouettes and parts of bodies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.config import compose
from zoo.data.human_images import AnnotatedImages
from zoo.engine.run import evaluate
from zoo.errors import DataError
from zoo.humans.body import load_body
from zoo.humans.cameras import assumed_focal_length, crop_translation, full_image_translation
from zoo.humans.render import cast
from zoo.humans.segmentation import PARTS, Segmentation, SegmentationScores, part_labels, segment

CENTRE, SCALE = np.array([70.0, 60.0]), 0.5
CAMERA = torch.tensor([[0.9, 0.05, 0.25]])


@pytest.fixture(scope="module")
def body() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    model = load_body()
    upright = torch.zeros(1, 72)
    upright[0, 0] = torch.pi
    vertices = model(upright[:, :3], upright[:, 3:], torch.zeros(1, 10)).vertices[0].numpy()
    return vertices, model.faces.numpy(), part_labels(model.lbs_weights)


def labelled(parts: np.ndarray) -> Segmentation:
    return Segmentation((parts > 0).astype(np.uint8), parts, CENTRE, SCALE)


class TestParts:
    def test_vertices_belong_where_they_lie(self, body: tuple[np.ndarray, ...]) -> None:
        _, _, labels = body
        rest = load_body().v_template.numpy()
        assert set(labels) == {1, 2, 3, 4, 5, 6}
        assert rest[labels == PARTS.index("head"), 1].min() > 0.3
        assert (rest[labels == PARTS.index("left arm"), 0] > 0.1).all()
        assert (rest[labels == PARTS.index("right leg"), 1] < -0.2).all()
        assert abs((labels == 3).sum() - (labels == 4).sum()) < 3
        assert abs((labels == 5).sum() - (labels == 6).sum()) < 3

    def test_the_crop_lands_in_the_picture(self, body: tuple[np.ndarray, ...]) -> None:
        """The crop's rendering, taken over, is what the picture's own camera sees."""
        vertices, faces, labels = body
        height, width = 130, 150
        shown = labelled(np.zeros((height, width), np.uint8))
        found = segment(vertices + crop_translation(CAMERA).numpy(), faces, labels, shown)
        side = torch.tensor([200 * SCALE])
        focal = assumed_focal_length(side)
        size = torch.tensor([float(width), float(height)])
        shift = full_image_translation(CAMERA, torch.tensor(CENTRE[None]), side, size, focal)
        middle = ((width - 1) / 2, (height - 1) / 2)
        triangle, _, _ = cast(vertices + shift.numpy(), faces, focal, middle, (height, width))
        seen = triangle >= 0
        seen[:, np.abs(np.arange(width) + 0.5 - CENTRE[0]) > 50] = False  # beyond the crop
        assert seen.sum() > 500
        assert ((found > 0) != seen).mean() < 0.004  # a pixel off would be three times that
        # Facing the camera, the right arm is on the left.
        columns = np.arange(width)[None].repeat(height, 0)
        assert columns[found == PARTS.index("right arm")].mean() < columns[found == PARTS.index("left arm")].mean()

    def test_scores(self) -> None:
        truth = np.zeros((4, 5), np.uint8)
        truth[:2, :2], truth[2:, :2] = 1, 5
        scores = SegmentationScores("test/")
        scores.update(truth, labelled(truth))
        assert {name: float(metric.compute()) for name, metric in scores.named().items()} == dict.fromkeys(
            ("test/mask_accuracy", "test/mask_f1", "test/part_accuracy", "test/part_f1"), 1.0
        )
        wrong = truth.copy()
        wrong[2:, :2] = 1  # a leg taken for the head
        scores = SegmentationScores("")
        scores.update(wrong, labelled(truth))
        values = {name: float(metric.compute()) for name, metric in scores.named().items()}
        assert values["mask_f1"] == 1
        assert values["part_accuracy"] == pytest.approx(16 / 20)
        assert values["part_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)  # background, head, leg


class TestEvaluation:
    def write(self, parts: np.ndarray) -> None:
        for folder in ("dataset_extras", "images/lsp_dataset", "images/upi-s1h/data/lsp"):
            Path(folder).mkdir(parents=True, exist_ok=True)
        labels = Path("images/upi-s1h/data/lsp")
        for k in range(2):
            Image.fromarray(np.full((*parts.shape, 3), 90, np.uint8)).save(f"images/lsp_dataset/{k}.png")
            mask = np.repeat(255 * (parts > 0).astype(np.uint8)[..., None], 3, 2)
            Image.fromarray(mask).save(labels / f"{k}_segmentation.png")
            Image.fromarray(parts).save(labels / f"{k}_part_segmentation.png")
        rows = {
            "imgname": np.array(["0.png", "1.png"]),
            "center": np.stack([CENTRE, CENTRE]),
            "scale": np.full(2, SCALE),
            "part": np.ones((2, 24, 3)),
            "maskname": np.array([f"{k}_segmentation.png" for k in range(2)]),
            "partname": np.array([f"{k}_part_segmentation.png" for k in range(2)]),
        }
        for name in ("lsp_dataset_test", "lsp_dataset_original_train"):
            np.savez(f"dataset_extras/{name}.npz", **rows)

    def test_a_set_without_joints_in_space(self, in_tmp: Path) -> None:
        small = {"backbone": "small", "hidden": 16, "img_size": 32}
        module = zoo.create_model("humans/spin", **small).eval()
        from zoo import weights

        weights.save(module, "untrained.safetensors")
        with torch.no_grad():
            out = module(torch.full((1, 3, 32, 32), 90 / 255))
        mesh = module._mesh(out.rotmats, out.betas)[0] + crop_translation(out.camera)
        empty = labelled(np.zeros((120, 140), np.uint8))
        faces, labels = module.bodies.body.faces.numpy(), part_labels(module.bodies.body.lbs_weights)
        self.write(segment(mesh.numpy(), faces, labels, empty))
        options = ["data.root=.", "data.sets=[lsp]", "data.test_set=lsp-test", "data.img_size=32", "data.num_workers=0"]
        options += [f"model.{key}={value}" for key, value in small.items()]
        config = compose(
            "humans/spin-unpaired", [*options, "callbacks.progress_bar=null", "logger={csv: {}}", "run_dir=run"]
        )
        metrics = evaluate(config, "untrained.safetensors")["metrics"]
        assert set(metrics) == {f"test/{kind}_{name}" for kind in ("mask", "part") for name in ("accuracy", "f1")}
        assert min(metrics.values()) > 0.97  # the picture's edge reaches into its crop

    def test_labels(self, in_tmp: Path) -> None:
        parts = np.zeros((20, 30), np.uint8)
        parts[3:6], parts[10:] = 2, 255
        self.write(parts)
        folder = Path("images/upi-s1h/data/lsp")
        people = AnnotatedImages(Path("dataset_extras/lsp_dataset_test.npz"), Path(), 32, segmentations=folder)
        shown = people.segmentation(0)
        assert shown is not None
        assert shown.mask.max() == 1
        assert shown.parts.max() == 2  # what is not labelled counts as background
        Image.fromarray(parts // 9).save(folder / "0_part_segmentation.png")
        with pytest.raises(DataError, match="a part 28, beyond 6"):
            people.segmentation(0)
        Image.fromarray(parts[:5]).save(folder / "0_part_segmentation.png")
        with pytest.raises(DataError, match="differ in size"):
            people.segmentation(0)
        (folder / "1_segmentation.png").unlink()
        with pytest.raises(DataError, match="There is no file"):
            people.segmentation(1)
        plain = AnnotatedImages(Path("dataset_extras/lsp_dataset_test.npz"), Path(), 32)
        assert plain.segmentation(0) is None
