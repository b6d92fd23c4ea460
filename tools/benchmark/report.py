"""What a benchmark gives: rows of numbers, printed as ratios to one of them and written as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from zoo import cli
from zoo.engine.run_folder import environment, git_revision
from zoo.files import write_json


@dataclass
class Report:
    """A table of measurements.

    Attributes:
        title: what was compared, on what work.
        reference: the row that ratios are taken to (ours divided by it).
        rows: contender -> metric -> value.
        notes: what a reader must know to judge the numbers.
        figures: pictures written beside the JSON.
    """

    title: str
    reference: str
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    figures: list[Path] = field(default_factory=list)

    def ratios(self) -> dict[str, dict[str, float]]:
        """Each row's metrics divided by the reference row's."""
        base = self.rows[self.reference]
        return {
            name: {key: value / base[key] for key, value in row.items() if base.get(key)}
            for name, row in self.rows.items()
            if name != self.reference
        }

    def print(self) -> None:
        """Prints values and ratios."""
        from rich.table import Table

        out = cli.console()
        metrics = list(dict.fromkeys(key for row in self.rows.values() for key in row))
        table = Table(title=self.title, title_justify="left")
        table.add_column("")
        for metric in metrics:
            table.add_column(metric, justify="right")
        ratios = self.ratios()
        for name, row in self.rows.items():
            cells = []
            for metric in metrics:
                ratio = ratios.get(name, {}).get(metric)
                value = f"{row[metric]:.4g}" if metric in row else ""
                cells.append(value + (f"  ({ratio:.3g}x)" if ratio is not None else ""))
            table.add_row(name, *cells)
        if not out.is_terminal:
            out.width = 1000  # in a file nothing is cut off to fit a screen
        out.print(table)
        out.print(f"in brackets: relative to '{self.reference}'")
        for note in self.notes:
            out.print(f"note: {note}")

    def write(self, name: str) -> Path:
        """Writes ``runs/benchmark/<name>-<time>.json``; returns its path."""
        path = Path("runs", "benchmark", f"{name}-{datetime.now():%Y-%m-%d_%H-%M-%S}.json")
        content = {
            "benchmark": name,
            "title": self.title,
            "reference": self.reference,
            "rows": self.rows,
            "ratios": self.ratios(),
            "notes": self.notes,
            "environment": environment(),
            "git_revision": git_revision(),
        }
        write_json(path, content)
        return path
