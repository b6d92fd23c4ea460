"""Keypoints of people from the JSON files of OpenPose and of COCO's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import DataError
from zoo.humans.joints import to_spin_49


def read_keypoints(path: Path) -> Tensor:
    """The people of a file as SPIN's 49 joints, (N, 49, 3) x, y, confidence in pixels.

    It may be OpenPose's output (``people[].pose_keypoints_2d``, BODY_25), COCO annotations or results
    (``annotations[].keypoints`` or a list with ``keypoints``; 17 triples, or MPII's 16), or a list of 49 triples per
    person.

    Raises:
        DataError: it is absent, of another layout, or shows nobody.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read as JSON ({error}).") from None
    people = [person for person in map(_numbers, _entries(content)) if person is not None]
    tensors = []
    for numbers in people:
        if len(numbers) not in _LAYOUTS:
            sizes = ", ".join(f"{size} ({name})" for size, name in _LAYOUTS.items())
            raise DataError(f"{path}: a person has {len(numbers)} numbers, expected {sizes}.")
        triples = torch.tensor(numbers, dtype=torch.float32).unflatten(0, (-1, 3))
        if not triples.isfinite().all():
            raise DataError(f"{path}: a keypoint is not finite.")
        name = _LAYOUTS[len(numbers)]
        if name == "coco-17":
            triples[:, 2] = triples[:, 2].clamp(max=1.0)  # visibility 2 is "labelled and seen"
        spin = to_spin_49(triples, name)
        if int((spin[:, 2] > 0).sum()) >= _FEWEST:
            tensors.append(spin)
    if not tensors:
        raise DataError(f"{path} shows nobody with at least {_FEWEST} keypoints.")
    return torch.stack(tensors)


_FEWEST = 6
_LAYOUTS = {75: "body-25", 51: "coco-17", 48: "mpii-16", 147: "spin-49"}


def _entries(content: Any) -> list[Any]:
    if isinstance(content, dict):
        for key in ("people", "annotations"):
            if isinstance(content.get(key), list):
                return content[key]
        return [content]
    return content if isinstance(content, list) else []


def _numbers(entry: Any) -> list[float] | None:
    if isinstance(entry, dict):
        entry = entry.get("pose_keypoints_2d", entry.get("keypoints"))
    if not isinstance(entry, list):
        return None
    flat = [number for item in entry for number in (item if isinstance(item, list) else [item])]
    return flat if flat and all(isinstance(number, (int, float)) for number in flat) else None


def keypoint_box(keypoints: Tensor, scale: float = 1.2) -> tuple[Tensor, Tensor]:
    """Square boxes around the seen keypoints.

    Args:
        keypoints: (N, 49, 3) pixels.
        scale: side over the longer extent.

    Returns:
        Centres (N, 2) and sides (N,), pixels.
    """
    seen = keypoints[..., 2:] > 0
    low = torch.where(seen, keypoints[..., :2], torch.inf).amin(1)
    high = torch.where(seen, keypoints[..., :2], -torch.inf).amax(1)
    return 0.5 * (low + high), (scale * (high - low).amax(1)).clamp_min(1.0)
