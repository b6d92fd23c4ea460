"""The gallery's page: HTML with everything inside, pictures as data and a viewer of points in a few lines of script."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.pretrained import WeightsEntry

MAX_POINTS = 20_000


@dataclass(frozen=True)
class Exhibit:
    """A pretrained entry and what it did.

    Attributes:
        entry: of the manifest.
        measured: metrics of this evaluation.
        seconds: that the evaluation took.
        figures: pictures (.png).
        cloud: points (N, 3) and colours (N, 3) in [0, 1] to turn about with the mouse; None for none.
    """

    entry: WeightsEntry
    measured: dict[str, float]
    seconds: float
    figures: list[Path]
    cloud: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None


def render(exhibits: list[Exhibit]) -> str:
    """The page as HTML."""
    style, script = (resources.files("tools.gallery").joinpath(name).read_text() for name in ("page.css", "viewer.js"))
    links = "".join(f'<a href="#{_anchor(e)}">{escape(e.entry.name)}</a>' for e in exhibits)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>zoo: gallery</title>
<link rel="icon" href="data:,">
<style>{style}</style>
<header><h1>zoo</h1><p>What the pretrained weights do, evaluated by the commands shown.</p><nav>{links}</nav></header>
<main>{"".join(map(_section, exhibits))}</main>
<script>{script}</script>
</html>
"""


def _anchor(exhibit: Exhibit) -> str:
    return exhibit.entry.name.replace("/", "-")


def _section(exhibit: Exhibit) -> str:
    entry = exhibit.entry
    pictures = "".join(
        f'<figure><img src="{_picture(path)}" alt="{escape(entry.name)}: {escape(path.stem)}">'
        f"<figcaption>{escape(path.stem.replace('_', ' '))}</figcaption></figure>"
        for path in exhibit.figures
    )
    return (
        f'<section id="{_anchor(exhibit)}"><h2>{escape(entry.name)}</h2><p>{escape(entry.description)}</p>'
        f"<p class=facts>{escape(entry.model)} · {entry.size / 1e6:.2f} MB · {escape(entry.licence)} · "
        f"evaluated in {exhibit.seconds:.0f} s</p>"
        f"<pre>python -m zoo.evaluate weights={escape(entry.name)}</pre>"
        f"{_table(exhibit)}{_viewer(exhibit)}<div class=pictures>{pictures}</div></section>"
    )


def _table(exhibit: Exhibit) -> str:
    names = list(dict.fromkeys([*exhibit.entry.metrics, *exhibit.measured]))
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{_number(exhibit.measured.get(name))}</td>"
        f"<td>{_number(exhibit.entry.metrics.get(name))}</td></tr>"
        for name in names
    )
    head = "<tr><th>metric<th>here<th>recorded</tr>"
    return f"<details open><summary>metrics</summary><table>{head}{rows}</table></details>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _picture(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _viewer(exhibit: Exhibit) -> str:
    """A canvas whose data are 16-bit coordinates, centred and scaled to the box, and 8-bit colours."""
    if exhibit.cloud is None:
        return ""
    points, colours = exhibit.cloud
    if len(points) > MAX_POINTS:
        chosen = np.random.default_rng(0).permutation(len(points))[:MAX_POINTS]
        points, colours = points[chosen], colours[chosen]
    low, high = np.percentile(points, 1, 0), np.percentile(points, 99, 0)
    scaled = np.clip(2 * (points - (low + high) / 2) / (high - low).max(), -2, 2)
    places = base64.b64encode((16383 * scaled).astype("<i2").tobytes()).decode()
    shades = base64.b64encode((255 * np.clip(colours, 0, 1)).astype("u1").tobytes()).decode()
    return f'<canvas class=cloud width=560 height=420 data-places="{places}" data-shades="{shades}"></canvas>'
