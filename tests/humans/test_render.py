"""Pictures of bodies."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from zoo.humans import pytorch3d, render
from zoo.humans.rasterise import rasterise
from zoo.humans.standin import standin_arrays

FACES = standin_arrays().f
PERSON = render.upright(standin_arrays().v_template) + np.array([0.1, -0.3, 3.0])


def test_both_renderers_see_the_same() -> None:
    if render._open3d() is None:
        pytest.skip("Open3D can't be loaded here")
    arguments = (PERSON, FACES, 150.0, (60.3, 64.2), (128, 120))
    cast, drawn = render.cast(*arguments), rasterise(*arguments)
    both = (cast[0] >= 0) & (drawn[0] >= 0)
    assert both.sum() > 1000
    assert ((cast[0] >= 0) != (drawn[0] >= 0)).mean() < 1e-3
    assert (cast[0] == drawn[0])[both].mean() > 0.99  # pixels on an edge may go to either side
    assert np.abs(cast[2][both] - drawn[2][both]).max() < 1e-2
    same = both & (cast[0] == drawn[0])
    assert np.abs(cast[1] - drawn[1])[same].max() < 0.01


@pytest.mark.parametrize("loaded", [True, False])
def test_a_body_is_where_it_projects(loaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not loaded:
        monkeypatch.setattr(render, "_open3d", lambda: None)
    image, coverage = render.render(PERSON, FACES, 150.0, (128, 120), background=0.5)
    pixels = 150.0 * PERSON[:, :2] / PERSON[:, 2:] + [59.5, 63.5]
    rows, columns = np.nonzero(coverage > 0.5)
    assert np.allclose([columns.min(), rows.min()], pixels.min(0), atol=1.6)
    assert np.allclose([columns.max(), rows.max()], pixels.max(0), atol=1.6)
    assert np.allclose(image[coverage == 0], 0.5)
    assert image[coverage == 1].std() > 0.02  # it is shaded


def test_nothing_in_front_of_the_camera_is_background() -> None:
    image, coverage = render.render(PERSON - np.array([0, 0, 10.0]), FACES, 150.0, (16, 16))
    assert not coverage.any()
    assert (image == 1).all()


def documented_rasteriser(meshes: Any, size: tuple[int, int], **settings: Any) -> tuple[torch.Tensor, ...]:
    """What PyTorch3D's documentation says that it draws: x to the left, y up, [-1, 1] across the shorter side."""
    assert settings == {"blur_radius": 0.0, "faces_per_pixel": 1, "perspective_correct": True}
    (vertices,), (faces,) = meshes
    height, width = size
    span = 2 / min(size)
    face, depth, shares = torch.full((1, *size, 1), -1), torch.full((1, *size, 1), -1.0), torch.zeros(1, *size, 1, 3)
    for row in range(height):
        for column in range(width):
            point = torch.tensor([span * (width / 2 - column - 0.5), span * (height / 2 - row - 0.5)])
            for k, corners in enumerate(vertices[faces]):
                lines = torch.cat([corners[:, :2].T, torch.ones(1, 3)])
                flat = torch.linalg.solve(lines, torch.cat([point, torch.ones(1)]))
                true = flat / corners[:, 2]
                here = float(1 / true.sum())
                if (flat >= 0).all() and (face[0, row, column, 0] < 0 or here < depth[0, row, column, 0]):
                    face[0, row, column, 0], depth[0, row, column, 0] = k, here
                    shares[0, row, column, 0] = true * here
    return face, depth, shares, depth


@pytest.mark.parametrize("size", [(9, 14), (13, 8)])
def test_pytorch3d_is_asked_for_the_same_picture(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    structures, drawing = ModuleType("pytorch3d.structures"), ModuleType("pytorch3d.renderer.mesh.rasterize_meshes")
    structures.Meshes = lambda vertices, faces: (vertices, faces)  # type: ignore[attr-defined]
    drawing.rasterize_meshes = documented_rasteriser  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, structures.__name__, structures)
    monkeypatch.setitem(sys.modules, drawing.__name__, drawing)
    vertices = np.array([[-0.4, -0.3, 2.0], [0.5, -0.2, 2.5], [0.1, 0.4, 3.0], [-0.3, 0.35, 1.8]])
    faces = np.array([[0, 1, 2], [1, 2, 3]])
    arguments = (vertices, faces, 18.0, (4.3, 5.2), size)
    ours, theirs = rasterise(*arguments), pytorch3d.rasterise(*arguments, device="cpu")
    assert (ours[0] >= 0).sum() > 10
    assert np.array_equal(ours[0], theirs[0])
    seen = ours[0] >= 0
    assert np.abs(ours[1] - theirs[1])[seen].max() < 1e-4
    assert np.abs(ours[2][seen] - theirs[2][seen]).max() < 1e-4
    assert np.isinf(theirs[2][~seen]).all()


def test_without_a_gpu_pytorch3d_is_left_alone() -> None:
    pytorch3d.available.cache_clear()
    assert pytorch3d.available() == (torch.cuda.is_available() and "pytorch3d" in sys.modules)
