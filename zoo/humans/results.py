"""What prediction writes: bodies as numbers, as meshes and over the picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.errors import DataError
from zoo.files import atomic_path, parsing, write_json
from zoo.humans.meshes import SUFFIXES, write_mesh
from zoo.humans.render import render

Array = NDArray[Any]


@dataclass(frozen=True)
class Person:
    """A body in a picture.

    Attributes:
        pose: (72,) rotation vectors, the first in the camera's frame.
        betas: (10,).
        translation: (3,) in the full picture's camera, metres.
        focal: of that camera, pixels; its principal point is the picture's middle.
        vertices: (V, 3) in that camera's frame, metres.
        joints: (49, 3) likewise.
        score: mean reprojection term, squared pixels of a 224 crop; None where nothing was fitted.
    """

    pose: Array
    betas: Array
    translation: Array
    focal: float
    vertices: Array
    joints: Array
    score: float | None = None

    def numbers(self) -> dict[str, Any]:
        """What JSON takes."""
        named = {name: getattr(self, name).tolist() for name in ("pose", "betas", "translation", "joints")}
        return {**named, "focal": self.focal, "score": self.score}


def check_output(output: Path) -> None:
    """Raises `DataError` unless the suffix is one that `write_people` takes."""
    if output.suffix not in (".json", ".png", *SUFFIXES):
        raise DataError(f"The output {output} should end in .json, .png or one of {', '.join(SUFFIXES)}.")


def write_people(output: Path, people: list[Person], faces: Array, picture: Array | None = None) -> list[Path]:
    """Writes bodies: ``.json`` the numbers, ``.png`` the picture with the bodies, ``.ply`` and others the meshes.

    With a picture at hand, its overlay is written beside the output too, as ``<output>.overlay.png``; a mesh file
    holds all people in the camera's frame turned to y up.
    """
    written = [output]
    if output.suffix == ".json":
        write_json(output, [person.numbers() for person in people])
    elif output.suffix in SUFFIXES:
        upright = np.concatenate([person.vertices * [1, -1, -1] for person in people])
        count = len(people[0].vertices)
        write_mesh(output, upright, np.concatenate([faces + k * count for k in range(len(people))]))
    if picture is not None:
        target = output if output.suffix == ".png" else output.with_suffix(".overlay.png")
        pair = np.concatenate([overlay(picture, people, faces), beside(picture, people, faces)], 1)
        with atomic_path(target) as path:
            Image.fromarray((pair * 255).astype(np.uint8)).save(path)
        written += [target] if target != output else []
    elif output.suffix == ".png":
        raise DataError("A .png output needs the picture: give image=FILE.")
    return written


def overlay(picture: Array, people: list[Person], faces: Array) -> Array:
    """The bodies drawn over a picture (H, W, 3) in [0, 1], the farthest first."""
    shown = picture
    for person in sorted(people, key=lambda p: -float(p.translation[2])):
        shown, _ = render(person.vertices, faces, person.focal, picture.shape[:2], background=shown)
    return shown


def beside(picture: Array, people: list[Person], faces: Array) -> Array:
    """The bodies from their left, in a picture of the same size."""
    from zoo.humans.render import side_view

    vertices = np.concatenate([person.vertices for person in people])
    count = len(people[0].vertices)
    return side_view(vertices, np.concatenate([faces + k * count for k in range(len(people))]), picture.shape[:2])


def read_picture(path: Path) -> Array:
    """An image file as (H, W, 3) float32 in [0, 1].

    Raises:
        DataError: it is absent or no picture.
    """
    with parsing(path, "a picture"), Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"), np.float32) / 255
