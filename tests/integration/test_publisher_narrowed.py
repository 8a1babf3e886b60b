"""A narrowed `publish`, or narrow subscriptions: exactly the paths that match are told, and no others looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.publishing.topics import BarrelTopics
from feeds import BarrelSettings, Store

DOC = {"_id": "fr/paris", "region": "Europe", "100%": {"of+": 1}, "rivers": ["Seine"], "name": {"common": "Paris"}}


@pytest.mark.parametrize(
    "publish",
    [["_id/#"], ["region/#"], ["region/Europe", "name/+/Paris"], ["+/common/#"], ["#"], ["100%25/#"], ["*"], []],
)
def test_what_is_told_is_what_matches(tmp_path: Path, publish: list[str]) -> None:
    with Store.open(tmp_path) as store:
        geo = store.create("geo")
        geo.put(DOC)
        geo.put({"_id": "fr/paris", "region": "Asia"}, update=True)
        entries, _ = geo.tail_page(0, 10)
        everything = BarrelTopics("geo", geo.epoch, BarrelSettings(), 1 << 20)
        narrowed = BarrelTopics("geo", geo.epoch, BarrelSettings(publish=publish), 1 << 20)
        assert narrowed.wanted(None).any is any(pattern != "_id/#" for pattern in publish)
        for entry in entries:
            every = [each.topic for each in everything.messages(entry, everything.wanted(None))]
            told = [each.topic for each in narrowed.messages(entry, narrowed.wanted(None))]
            assert told == [topic for topic in every if narrowed.publishes(topic.removeprefix("barrels/geo/"))]


@pytest.mark.parametrize("publish", [None, ["_id/#", "region/#", "_attachments/#"]])
@pytest.mark.parametrize("heard", [[], ["_id"], ["_id", "_head", "_conflicts"], ["region"], ["100%25"]])
def test_only_keys_that_somebody_hears_are_told(tmp_path: Path, heard: list[str], publish: list[str] | None) -> None:
    with Store.open(tmp_path) as store:
        geo = store.create("geo")
        geo.put(DOC)
        geo.put({"_id": "fr/paris", "region": "Asia"}, update=True)
        entries, _ = geo.tail_page(0, 10)
        topics = BarrelTopics("geo", geo.epoch, BarrelSettings(publish=publish), 1 << 20)
        wanted = topics.wanted(frozenset(heard))
        assert wanted.any is any(key in ("region", "100%25") and topics.publishes(f"{key}/x") for key in heard)
        for entry in entries:
            every = [each.topic for each in topics.messages(entry, topics.wanted(None))]
            told = [each.topic for each in topics.messages(entry, wanted)]
            assert told == [topic for topic in every if topic.split("/")[2] in ("_id", *heard)]


def test_a_new_attachment_is_told_where_attachments_are_heard(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        geo = store.create("geo")
        geo.put({"_id": "a", "x": 1, "_attachments": {"plan.txt": {"data": "aGk="}}})
        entries, _ = geo.tail_page(0, 10)
        topics = BarrelTopics("geo", geo.epoch, BarrelSettings(), 1 << 20)
        heard = topics.wanted(frozenset({"_attachments"}))
        told = [each.topic for entry in entries for each in topics.messages(entry, heard)]
        assert told == ["barrels/geo/_id/a", "barrels/geo/_attachments/plan.txt"]
