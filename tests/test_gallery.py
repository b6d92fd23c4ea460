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
from zoo.pretrained import get_entry

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHECK = """
<script>
const broken = [...document.images].filter((i) => !(i.complete && i.naturalWidth > 1)).length;
const clouds = [...document.querySelectorAll("canvas.cloud")].filter((c) => {
  const pixels = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  return new Set(new Uint32Array(pixels.buffer)).size > 20;
}).length;
document.title = `images ${document.images.length} broken ${broken} clouds ${clouds} errors ${window.errors}`;
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


def exhibit(folder: Path, name: str, cloud: bool) -> Exhibit:
    picture = folder / "some_picture.png"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(30, 40, 3), dtype=np.uint8)).save(picture)
    random = np.random.default_rng(0)
    points = random.normal(size=(500, 3)).astype(np.float32), random.random((500, 3)).astype(np.float32)
    return Exhibit(get_entry(name), {"test/x": 0.5}, 3.0, [picture], points if cloud else None)


def test_everything_is_inside_the_page(tmp_path: Path) -> None:
    page = render([exhibit(tmp_path, "kat/digits", False), exhibit(tmp_path, "splatting/edgs-procedural", True)])
    assert "python -m zoo.evaluate weights=kat/digits" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("<img ") == 2
    assert page.count("<canvas ") == 1


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
    more = render([exhibit(tmp_path, "splatting/edgs-procedural", True)])
    section = re.search(r"<section.*</section>", more)
    assert section is not None
    shown = page.replace('<html lang="en">', '<html lang="en">' + COUNT_ERRORS, 1)
    shown = shown.replace("</main>", section.group(0) + "</main>").replace("</html>", CHECK + "</html>")
    (tmp_path / "shown.html").write_text(shown)
    title = re.search(r"<title>(.*?)</title>", browse(tmp_path / "shown.html", "--dump-dom"))
    assert title is not None
    found = dict(zip(*[iter(title.group(1).split())] * 2, strict=True))
    assert int(found["images"]) >= 3
    assert (found["broken"], found["clouds"], found["errors"]) == ("0", "1", "0")
