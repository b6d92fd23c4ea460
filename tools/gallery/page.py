"""The gallery's page: HTML with everything inside, pictures as data and a viewer of points and meshes in a few lines of script."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np

from zoo.pretrained import WeightsEntry
from zoo.viz.space import Space


@dataclass(frozen=True)
class Exhibit:
    """A pretrained entry and what it did.

    Attributes:
        entry: of the manifest.
        measured: metrics of this evaluation.
        seconds: that the evaluation took.
        figures: pictures (.png).
        space: what to turn about with the mouse; None for nothing.
    """

    entry: WeightsEntry
    measured: dict[str, float]
    seconds: float
    figures: list[Path]
    space: Space | None = None


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
    """A canvas with 16-bit coordinates, centred and scaled to the box, 8-bit colours and 32-bit indices of corners."""
    if exhibit.space is None:
        return ""
    points = exhibit.space.points
    low, high = np.percentile(points, 1, 0), np.percentile(points, 99, 0)
    scaled = np.clip(2 * (points - (low + high) / 2) / (high - low).max(), -2, 2)
    data = {
        "places": (16383 * scaled).astype("<i2"),
        "shades": (255 * np.clip(exhibit.space.colours, 0, 1)).astype("u1"),
        "corners": exhibit.space.faces.astype("<u4"),
    }
    given = " ".join(f'data-{name}="{base64.b64encode(array.tobytes()).decode()}"' for name, array in data.items())
    return f"<canvas class=space width=1120 height=840 {given}></canvas>"
