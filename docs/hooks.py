"""Pages that mkdocs makes from what the package itself knows: model cards, and lists of configs, data, weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from mkdocs.structure.files import File, Files

from zoo.config import list_configs
from zoo.models import describe_config
from zoo.pretrained import get_entry, list_weights

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = {
    "kat": "KAT and GR-KAN",
    "pinn": "Physics-informed networks",
    "mri": "Magnetic resonance imaging",
    "operators": "Neural operators",
    "splatting": "Gaussian splatting",
    "humans": "Human bodies",
}


def on_config(config: Any) -> Any:
    """Puts the cards into the navigation."""
    systems = [{title: [*_card_pages(family)]} for family, title in FAMILIES.items()]
    config.nav = [
        {"Systems": ["systems/index.md", *systems]} if isinstance(part, dict) and "Systems" in part else part
        for part in config.nav
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages."""
    for card in _cards():
        files.append(File.generated(config, _page(card), content=_relinked(card)))
    for name, content in (("systems/index.md", _overview()), ("guide/lists.md", _lists())):
        files.append(File.generated(config, name, content=content))
    return files


def _cards() -> list[Path]:
    return sorted(card for family in FAMILIES for card in ROOT.glob(f"zoo/{family}/*/README.md"))


def _page(card: Path) -> str:
    return f"systems/{card.parent.parent.name}-{card.parent.name.replace('_', '-')}.md"


def _card_pages(family: str) -> list[str]:
    return [_page(card) for card in _cards() if card.parent.parent.name == family]


def _relinked(card: Path) -> str:
    """The card with its links between rooms turned into links between pages."""

    def other(match: re.Match[str]) -> str:
        target = (card.parent / match.group(1)).resolve()
        if target.name == "README.md" or target.is_dir():
            readme = target if target.name == "README.md" else target / "README.md"
            if readme in _cards():
                return f"]({_page(readme).removeprefix('systems/')})"
        if target.is_relative_to(ROOT / "docs"):
            return f"](../{target.relative_to(ROOT / 'docs')})"
        return match.group(0)

    return re.sub(r"\]\((?!https?:|#)([^)#]+)\)", other, card.read_text(encoding="utf-8"))


def _overview() -> str:
    lines = ["# Systems", ""]
    for family, title in FAMILIES.items():
        lines += [f"## {title}", ""]
        for card in _cards():
            if card.parent.parent.name != family:
                continue
            heading, summary = _head(card)
            lines.append(f"- [{heading}]({_page(card).removeprefix('systems/')}): {summary}")
        lines.append("")
    return "\n".join(lines)


def _head(card: Path) -> tuple[str, str]:
    paragraphs = card.read_text(encoding="utf-8").split("\n\n")
    return paragraphs[0].lstrip("# ").strip(), paragraphs[1].strip().splitlines()[0]


def _lists() -> str:
    configs = [f"| `{name}` | {describe_config(name)} |" for name in list_configs()]
    weights = [f"| `{name}` | {get_entry(name).description} |" for name in list_weights()]
    data = []
    for card in sorted((ROOT / "data").glob("*.yaml")):
        content = yaml.safe_load(card.read_text(encoding="utf-8"))
        data.append(f"| `{card.stem}` | {content['title']} | {' '.join(content['where'].split())} |")
    return "\n".join(
        [
            *("# Configs, data and weights", "", "## Configs", "", "| config | what |", "|---|---|", *configs, ""),
            *("## Data sets", "", "| card | what | where |", "|---|---|---|", *data, ""),
            *("## Pretrained weights", "", "| name | what |", "|---|---|", *weights, ""),
        ]
    )
