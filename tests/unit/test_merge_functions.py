"""Merge functions that the settings name, and what `/health` says of those that are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.merging import merging_health, register_merge_functions
from feeds import Store
from feeds.errors import BadRequest, Exists


def test_functions_are_registered_by_the_names_that_the_settings_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site_rules.py").write_text(
        "def first(leaves):\n    return min(leaves, key=lambda leaf: leaf.text)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with Store.open(tmp_path / "store") as store:
        geo = store.create("geo", {"merge": {"rule": "python", "name": "first"}})
        health = merging_health(store)
        store.maintain()
        assert (health().state, health().ok) == ("waiting", True)
        assert "'first' of geo" in (health().reason or "")
        register_merge_functions(store, ["first=site_rules:first"])
        assert health().state == "running"
        for side in "ab":
            geo.bulk([{"_id": "x", "_rev": f"1-{side}", "side": side}], new_edits=False)
        assert geo.get("x").rev == "1-a"
        assert health().figures["conflicts_settled"] == 1


@pytest.mark.parametrize(
    "named", ["", "first", "first=site", "=site:first", "a=no_such_module:x", "a=json:nothing", "a=json:__doc__"]
)
def test_a_function_that_is_not_there_is_refused_by_name(tmp_path: Path, named: str) -> None:
    with Store.open(tmp_path) as store, pytest.raises(BadRequest) as refused:
        register_merge_functions(store, [named])
    assert refused.value.hint


def test_two_functions_cannot_have_one_name(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, pytest.raises(Exists):
        register_merge_functions(store, ["a=json:dumps", "a=json:loads"])
