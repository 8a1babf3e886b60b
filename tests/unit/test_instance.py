"""A data directory says which process this is, and belongs to one at a time."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from broker.brokers import publisher_name
from broker.instance import Instance
from broker.settings import load_settings
from feeds.errors import BadRequest, StoreLocked, Unavailable


def test_the_id_stays_with_the_directory(tmp_path: Path) -> None:
    with closing(Instance(tmp_path / "a")) as first:
        found = first.id
    with closing(Instance(tmp_path / "a")) as again, closing(Instance(tmp_path / "b")) as other:
        assert again.id == found
        assert other.id != found


def test_two_processes_cannot_have_one_directory(tmp_path: Path) -> None:
    with closing(Instance(tmp_path)), pytest.raises(StoreLocked, match="in use") as refused:
        Instance(tmp_path)
    assert "--data" in refused.value.hint


def test_a_file_that_holds_something_else_is_refused_and_the_directory_given_back(tmp_path: Path) -> None:
    (tmp_path / "instance").write_text("not an id\n")
    with pytest.raises(BadRequest):
        Instance(tmp_path)
    (tmp_path / "instance").unlink()
    Instance(tmp_path).close()


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="file"):
        Instance(tmp_path / "file" / "data")


def test_a_position_is_stored_for_each_embedded_broker_and_for_each_external_one() -> None:
    alone = load_settings({})
    there = [
        load_settings({"broker": "mqtt://one:1883"}),
        load_settings({"broker": "mqtt://one"}),
        load_settings({"broker": "mqtt://user@one"}),
        load_settings({"broker": "mqtt://two"}),
        load_settings({"broker": "mqtt://one:1884"}),
        load_settings({"broker": "mqtt://one", "broker_prefix": "site1"}),
    ]
    assert publisher_name(alone, None) == "embedded"
    assert publisher_name(alone, "abc") == "embedded-abc"
    names = [publisher_name(each, None) for each in there]
    assert len(set(names[:3])) == 1
    assert len(set(names)) == 4
    assert all(name.startswith("external-") for name in names)
