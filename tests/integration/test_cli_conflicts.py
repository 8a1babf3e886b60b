"""`spile conflicts`, `spile resolve` and `--merge`, on a store that the command opens and over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_tools import spile

from feeds import Store


@pytest.fixture
def at(tmp_path: Path) -> tuple[str, str]:
    with Store.open(tmp_path / "store") as store:
        geo = store.create("geo")
        for side in "ab":
            geo.bulk([{"_id": "fr", "_rev": f"1-{side}", "side": side}], new_edits=False)
    return "--database", str(tmp_path / "store")


def test_conflicts_are_listed_shown_and_resolved(at: tuple[str, str]) -> None:
    listed = spile("conflicts", "geo", *at).value
    assert (listed["id"], listed["rev"], listed["conflicts"]) == ("fr", "1-b", ["1-a"])
    leaves = [json.loads(line) for line in spile("conflicts", "geo", "fr", *at).out.splitlines()]
    assert [leaf["side"] for leaf in leaves] == ["b", "a"]

    refused = spile("resolve", "geo", "fr", "1-a", "--leaf", "1-a", *at)
    assert (refused.code, "[conflict]" in refused.err) == (1, True)
    assert spile("resolve", "geo", "fr", *at).code == 2
    assert spile("resolve", "geo", "fr", "1-a", "--doc", "-", *at).code == 2
    merged = spile("resolve", "geo", "fr", "--doc", "-", *at, stdin=b'{"side": "both"}').value
    assert merged["rev"].startswith("2-")
    assert spile("conflicts", "geo", *at).out == b""
    assert spile("get", "geo", "fr", *at).value["side"] == "both"


def test_a_rule_is_named_and_settles_what_comes(at: tuple[str, str]) -> None:
    assert spile("configure", "geo", "--merge", "newest:at", *at).value["settings"]["merge"] == {
        "rule": "newest",
        "field": "at",
    }
    assert spile("configure", "geo", "--merge", "fields", *at).value["settings"]["merge"] == {"rule": "fields"}
    assert spile("configure", "geo", "--merge", "none", *at).value["settings"]["merge"] is None
    assert spile("create", "sea", "--merge", "python:mine", *at).value["settings"]["merge"]["name"] == "mine"
    for wrong in ("newest", "newest:", "oldest:at", "fields:x", ""):
        assert spile("configure", "geo", "--merge", wrong, *at).code == 2
