"""Checking, backing up and restoring a store from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_tools import spile

from feeds import Store


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    with Store.open(folder) as store:
        store.create("geo").bulk([{"_id": f"d{n}", "n": n} for n in range(100)])
    return folder


def test_a_sound_store_is_said_to_be_sound(data: Path) -> None:
    report = spile("check", "--data", str(data))
    assert (report.code, report.value["problems"]) == (0, [])
    assert report.value["counted"]


def test_a_store_in_use_cannot_be_checked_and_the_code_is_3(data: Path) -> None:
    with Store.open(data):
        assert spile("check", "--data", str(data)).code == 3


def test_a_store_that_is_not_there_is_3_and_is_not_made(tmp_path: Path) -> None:
    assert spile("check", "--data", str(tmp_path / "nowhere")).code == 3
    assert not (tmp_path / "nowhere").exists()


def test_a_backup_is_restored_with_new_epochs(data: Path, tmp_path: Path) -> None:
    copy, again = tmp_path / "copy.db", tmp_path / "again"
    assert spile("backup", str(copy), "--data", str(data)).code == 0
    assert copy.is_file()
    assert spile("restore", str(copy), "--data", str(again)).code == 0
    before = spile("info", "geo", "--database", str(data)).value
    after = spile("info", "geo", "--database", str(again)).value
    assert after["doc_count"] == before["doc_count"] == 100
    assert after["epoch"] != before["epoch"]
    assert spile("get", "geo", "d7", "--database", str(again)).value["n"] == 7


def test_a_backup_does_not_overwrite_a_file(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    copy.write_bytes(b"mine")
    assert spile("backup", str(copy), "--data", str(data)).code == 1
    assert copy.read_bytes() == b"mine"


def test_a_store_that_was_put_back_by_other_tools_begins_anew(data: Path) -> None:
    before = spile("info", "geo", "--database", str(data)).value["epoch"]
    with Store.open(data):
        assert spile("begin-anew", "--data", str(data)).code == 3
    assert spile("begin-anew", "--data", str(data)).value == {"barrels": 1}
    assert spile("info", "geo", "--database", str(data)).value["epoch"] != before
