"""The comparison of ArtEq with PointNet: what it trains, and what it takes from an earlier try."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from tools.benchmark import arteq
from zoo import config as configs
from zoo.data.body_clouds import CONDITIONS
from zoo.engine.run_folder import RunFolder
from zoo.errors import ConfigError, UnknownNameError


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int, int, bool]]:
    """Network, rotation, seed, epochs and whether it went on, of each training that was asked for; none is done."""
    asked: list[tuple[str, str, int, int, bool]] = []
    metrics = {f"test/{name}{f'_{c}' if c else ''}": 1.0 for name in ("v2v", "part_accuracy") for c in CONDITIONS}

    def train(config: DictConfig, resume: bool) -> dict[str, Any]:
        asked.append((config.model.name, config.data.rotation, config.seed, config.trainer.max_epochs, resume))
        configs.save(config, Path(config.run_dir))
        assert config.rival is None
        return {"metrics": {**metrics, "test/v2v": float(config.seed)}, "parameters": 5}

    def evaluate(config: DictConfig, source: str) -> None:
        assert config.model.refine == 4
        RunFolder(Path(config.run_dir)).write_summary({"metrics": {**metrics, "test/v2v_wide": 0.5}})

    monkeypatch.setattr(arteq, "train", train)
    monkeypatch.setattr(arteq, "evaluate", evaluate)
    return asked


def test_finished_runs_are_kept_and_interrupted_ones_go_on(
    trained: list[tuple[str, str, int, int, bool]], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"rounds": 4, "folder": str(tmp_path)}
    arteq.run(seeds=1, **options)
    first = [
        *(("humans/pointnet", "haar", 0, 6, False), ("humans/arteq", "haar", 0, 6, False)),
        *(("humans/pointnet", "none", 0, 6, False), ("humans/arteq", "none", 0, 6, False)),
    ]
    assert trained == first
    (tmp_path / "rival-none-0" / "summary.json").unlink()
    trained.clear()
    report = arteq.run(seeds=2, **options)
    again = [(name, rotation, 1, epochs, False) for name, rotation, _, epochs, _ in first]
    assert trained == [("humans/pointnet", "none", 0, 6, True), *again]
    assert len(report.rows) == 8
    row, registered = (report.rows[f"ArtEq, SO(3) augmentation{suffix}"] for suffix in ("", ", registered"))
    assert (row["upright"], row["wide"], row["parts wide"], row["parameters"]) == (0.5, 1.0, 1.0, 5)
    assert (registered["upright"], registered["wide"]) == (1.0, 0.5)


def test_some_of_the_rows(trained: list[tuple[str, str, int, int, bool]], tmp_path: Path) -> None:
    report = arteq.run(seeds=1, rows=("ArtEq, no augmentation",), epochs=2, rounds=0, folder=str(tmp_path))
    assert trained == [("humans/arteq", "none", 0, 2, False)]
    assert list(report.rows) == [report.reference] == ["ArtEq, no augmentation"]
    with pytest.raises(UnknownNameError, match="no row 'ArtEq'"):
        arteq.run(rows=("ArtEq",))


def test_runs_of_other_settings_are_not_taken_for_these(
    trained: list[tuple[str, str, int, int, bool]], tmp_path: Path
) -> None:
    arteq.run(seeds=1, rounds=0, folder=str(tmp_path))
    with pytest.raises(ConfigError, match="rival-haar-0 holds a run of another data"):
        arteq.run(seeds=1, rounds=0, bodies=16, folder=str(tmp_path))
