"""Pictures of bodies."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.humans import render
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
    assert np.abs(cast[2] - drawn[2])[both].max() < 1e-2
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
