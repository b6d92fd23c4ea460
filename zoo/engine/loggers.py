"""Loggers of our own where Lightning's would lose what an earlier part of a resumed run wrote."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger as LightningCSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from zoo.files import atomic_path
from zoo.launch import is_main_process

__all__ = ["CSVLogger"]

METRICS_FILE = ExperimentWriter.NAME_METRICS_FILE


class CSVLogger(LightningCSVLogger):
    """``metrics.csv`` in the run folder; a resumed run appends to it.

    Args:
        save_dir: the run folder.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="")

    @property
    def experiment(self) -> Any:
        """The writer, made at first use."""
        if self._experiment is None and is_main_process():
            self._experiment = _AppendingWriter(self.log_dir)
        return super().experiment

    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: they are in the run's config.yaml."""

    @rank_zero_only
    def drop_rows_after(self, step: int) -> None:
        """Forgets the rows beyond optimiser step `step` (all, if it is -1): a run resumed from there logs them anew."""
        rows = read_metrics(Path(self.log_dir))
        kept = [row for row in rows if row["step"] <= step]
        if len(kept) < len(rows):
            self.experiment.rewrite(kept)


class _AppendingWriter(ExperimentWriter):
    """Lightning's writer, without the removal of a file that is already there."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        if Path(self.metrics_file_path).is_file():
            with Path(self.metrics_file_path).open(newline="") as stream:
                self.metrics_keys = next(csv.reader(stream), [])

    def _check_log_dir_exists(self) -> None:
        """Nothing to check: the folder is the run's own."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self.rewrite(read_metrics(Path(self.log_dir)))

    def rewrite(self, rows: list[dict[str, Any]]) -> None:
        with atomic_path(self.metrics_file_path) as path, path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.csv``: numbers as float, ``step`` as int, empty cells left out.

    Rows that a killed process left incomplete are left out as well.
    """
    file = run_dir / METRICS_FILE
    if not file.is_file():
        return []
    rows = []
    with file.open(newline="") as stream:
        for cells in csv.DictReader(stream):
            try:
                row: dict[str, Any] = {key: float(value) for key, value in cells.items() if key and value}
                row["step"] = int(row["step"])
            except (KeyError, TypeError, ValueError):
                continue
            rows.append(row)
    return rows
