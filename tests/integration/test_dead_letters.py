"""Dead letters belong to one listener, whatever its name is, and are on the disk when they are kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from feeds import Barrel, Store
from listeners import BarrelDeadLetters, Change, FileDeadLetters, replay
from listeners.dead_letters import counted

CHANGE = Change(seq=5, position="5-abc", id="x", rev="1-a")


@pytest.fixture
def barrel(tmp_path: Path) -> Iterator[Barrel]:
    with Store.open(tmp_path) as store:
        yield store.create("geo")


def test_a_listener_is_not_told_the_letters_of_one_whose_name_begins_like_its_own(barrel: Barrel) -> None:
    other = BarrelDeadLetters(barrel, "a/b")
    other.add(CHANGE, ValueError("no"))
    told: list[Change] = []
    assert replay(BarrelDeadLetters(barrel, "a"), told.append) == 0
    assert told == []
    assert [letter.change.id for letter in other.list()] == ["x"]


@pytest.mark.parametrize("name", ["x" * 128, "/" * 128, "a//b", "%2F", "50 %", "#", "é" * 64, "_x"])
def test_every_name_of_a_listener_has_a_place_for_its_letters(barrel: Barrel, name: str) -> None:
    letters = BarrelDeadLetters(barrel, name)
    letters.add(CHANGE, ValueError("no"))
    assert counted(barrel) == {name: 1}
    assert letters.discard(["5-abc"]) == 1
    assert counted(barrel) == {}


def test_a_new_file_of_letters_is_in_its_folder_before_a_letter_counts_as_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    FileDeadLetters(tmp_path / "dead.jsonl").add(CHANGE, ValueError("no"))
    assert synced == [False, True]
