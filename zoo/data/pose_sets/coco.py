"""COCO: people in photographs, with 17 keypoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zoo.data.pose_sets.annotations import PersonRow, in_superset
from zoo.files import parsing
from zoo.humans.joints import COCO_TO_SUPERSET

_MARGIN = 1.2
_BODY = slice(5, 17)  # the joints below the head, all of which must be annotated
_FILE = Path("annotations", "person_keypoints_train2014.json")


def read_coco(root: Path) -> Iterator[PersonRow]:
    """The people of COCO 2014's training pictures whose twelve body joints are all annotated.

    Args:
        root: folder of ``annotations/person_keypoints_train2014.json`` and ``train2014/COCO_train2014_*.jpg``.

    Raises:
        DataError: the file is absent, damaged or of another layout.
    """
    with parsing(root / _FILE, "annotations of COCO"):
        content = json.loads((root / _FILE).read_text(encoding="utf-8"))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        for person in content["annotations"]:
            points = np.array(person.get("keypoints", np.zeros(51)), np.float64).reshape(17, 3)
            if not (points[_BODY, 2] > 0).all():
                continue
            left, top, width, height = map(float, person["bbox"])
            part = in_superset(points[:, :2], COCO_TO_SUPERSET)
            part[list(COCO_TO_SUPERSET), 2] = points[:, 2] > 0
            yield {
                "imgname": f"train2014/{names[person['image_id']]}",
                "center": np.array([left + width / 2, top + height / 2]),
                "scale": _MARGIN * max(width, height) / 200,
                "part": part,
            }
