"""The gallery's page, as a browser sees it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import RunCommand
from tools.gallery.page import Exhibit, render
from zoo.config import compose_weights
from zoo.engine.run import evaluate
from zoo.engine.run_folder import RunFolder
from zoo.humans.body import load_body
from zoo.humans.render import upright
from zoo.humans.space import FOUND, TRUE, side_by_side
from zoo.pretrained import get_entry, load_module
from zoo.viz.space import Space

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHECK = """
<script>
const broken = [...document.images].filter((i) => !(i.complete && i.naturalWidth > 1)).length;
const pictures = [...document.querySelectorAll("canvas.space")].map((c) =>
  new Uint32Array(c.getContext("2d").getImageData(0, 0, c.width, c.height).data.buffer));
const spaces = pictures.filter((p) => new Set(p).size > 20).length;
const meshes = pictures.filter((p) => p.filter((pixel) => pixel !== p[0]).length > 0.05 * p.length).length;
const counts = { images: document.images.length, broken, spaces, meshes, errors: window.errors };
document.title = Object.entries(counts).flat().join(" ");
</script>
"""
COUNT_ERRORS = '<script>window.errors = 0; addEventListener("error", () => window.errors++, true);</script>'


def browse(page: Path, *arguments: str) -> str:
    """The page's DOM after its scripts have run."""
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}"]
    done = subprocess.run(
        [CHROMIUM, *flags, *arguments, page.resolve().as_uri()],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def cloud() -> Space:
    random = np.random.default_rng(0)
    return Space(random.normal(size=(500, 3)), random.random((500, 3)))


def bodies(*colours: tuple[float, float, float]) -> Space:
    body = load_body(None, "neutral")
    vertices = upright(body.v_template.numpy())
    return side_by_side([(vertices, colour) for colour in colours], body.faces.numpy())


def exhibit(folder: Path, name: str, space: Space | None) -> Exhibit:
    picture = folder / "some_picture.png"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(30, 40, 3), dtype=np.uint8)).save(picture)
    return Exhibit(get_entry(name), {"test/x": 0.5}, 3.0, [picture], space)


def test_everything_is_inside_the_page(tmp_path: Path) -> None:
    page = render([exhibit(tmp_path, "kat/digits", None), exhibit(tmp_path, "splatting/edgs-procedural", cloud())])
    assert "python -m zoo.evaluate weights=kat/digits" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("<img ") == 2
    assert page.count("<canvas ") == 1


def test_what_can_be_turned_about_is_kept(tmp_path: Path) -> None:
    space = bodies(FOUND, TRUE)
    space.save(tmp_path / "space.npz")
    again = Space.load(tmp_path / "space.npz")
    for name in ("points", "colours", "faces"):
        np.testing.assert_array_equal(getattr(again, name), getattr(space, name))
    count = len(space.points) // 2
    found, true = space.points[:count], space.points[count:]
    assert found[:, 0].max() < true[:, 0].min()
    np.testing.assert_allclose(np.ptp(found, 0), np.ptp(true, 0))
    assert space.faces.min() == 0
    assert space.faces.max() == len(space.points) - 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arteq-standin", "learnable-smplify", "smplify-activities", "spin-rendered"])
def test_found_bodies_are_near_the_true_ones(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = get_entry(f"humans/{name}")
    assert entry.config is not None
    monkeypatch.setattr(type(load_module(entry.name)), "figures", lambda *_: {})  # they take longest
    options = ["+trainer.limit_test_batches=1", "+callbacks.test_figures.space=true", f"run_dir='{tmp_path}'"]
    evaluate(compose_weights(entry.config, entry.model, options), entry.name)
    space = Space.load(RunFolder(tmp_path).space)
    count = int(space.faces.max() + 1) // 2
    found, true, scan = np.split(space.points, [count, 2 * count])
    assert len(scan) == (256 if name == "arteq-standin" else 0)
    error = (true - found) - (true - found).mean(0)
    assert np.linalg.norm(error, axis=1).mean() < 0.15  # metres
    if len(scan):
        assert np.mean([np.linalg.norm(found - point, axis=1).min() for point in scan]) < 0.03


@pytest.mark.slow
def test_evaluates_and_shows_in_a_browser(zoo_command: RunCommand, tmp_path: Path) -> None:
    done = zoo_command("tools.gallery", "weights=kat/*", "output=gallery")
    assert done.returncode == 0, done.stderr
    again = zoo_command("tools.gallery", "weights=kat/*", "output=gallery")  # takes what is there
    assert again.returncode == 0, again.stderr
    assert len(list(tmp_path.glob("gallery/kat/digits/summary.json"))) == 1
    assert zoo_command("tools.gallery", "weights=nothing/*").returncode == 2
    if CHROMIUM is None:
        pytest.skip("no Chromium to look at the page with")
    page = (tmp_path / "gallery/index.html").read_text()
    spaces = {"splatting/edgs-procedural": cloud(), "humans/smplify-activities": bodies(FOUND)}
    more = render([exhibit(tmp_path, name, space) for name, space in spaces.items()])
    section = re.search(r"<section.*</section>", more)
    assert section is not None
    shown = page.replace('<html lang="en">', '<html lang="en">' + COUNT_ERRORS, 1)
    shown = shown.replace("</main>", section.group(0) + "</main>").replace("</html>", CHECK + "</html>")
    (tmp_path / "shown.html").write_text(shown)
    title = re.search(r"<title>(.*?)</title>", browse(tmp_path / "shown.html", "--dump-dom"))
    assert title is not None
    found = dict(zip(*[iter(title.group(1).split())] * 2, strict=True))
    assert int(found["images"]) >= 3
    assert (found["broken"], found["spaces"], found["meshes"], found["errors"]) == ("0", "2", "1", "0")
