"""Data cards, and what a user without the data is told."""

from __future__ import annotations

from pathlib import Path

import pytest

import zoo
from zoo import assets
from zoo.data import cards
from zoo.download import sha256
from zoo.errors import DataError, UnknownNameError


def test_every_card_is_complete_and_points_to_data_modules_that_exist() -> None:
    assert "digits" in cards.list_cards()
    for name in cards.list_cards():
        card = cards.read_card(name)
        assert card.used_by, f"{name}: no data module reads it"
        assert set(card.used_by) <= set(zoo.list_data())
        for file, checksum in card.checksums.items():
            assert sha256(assets.path("data", file)) == checksum, f"{file} is not the file its card describes"
    assert [card.name for card in cards.cards_of("kat/digits")] == ["digits"]


@pytest.fixture
def card() -> cards.DataCard:
    return cards.DataCard(
        name="some-set",
        title="Some Set",
        what="1,000 somethings.",
        licence="research only",
        where="https://example.org/some-set, after registering",
        used_by=("kat/digits",),
        layout="train/*.h5\nval/*.h5\n",
    )


def test_missing_data_is_explained(card: cards.DataCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "read_card", lambda name: card)
    for root, problem in (
        (None, "data.path is not set"),
        (tmp_path / "no", "there is no folder"),
        (tmp_path, "has no val"),
    ):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train/a.h5").touch()
        with pytest.raises(DataError, match=problem) as caught:
            cards.require_files("some-set", root, ["train/*.h5", "val/*.h5"], key="data.path")
        for part in ("Some Set", "1,000 somethings", "research only", "example.org", "val/*.h5", "data.path=/path"):
            assert part in str(caught.value)


def test_present_data_is_found(card: cards.DataCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "read_card", lambda name: card)
    (tmp_path / "a.h5").touch()
    assert cards.require_files("some-set", str(tmp_path), ["*.h5"]) == tmp_path


def test_unknown_card() -> None:
    with pytest.raises(UnknownNameError, match=r"no data card 'digitz'. Did you mean 'digits'"):
        cards.read_card("digitz")
