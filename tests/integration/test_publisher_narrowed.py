"""A narrowed `publish`: exactly the paths that match are told, and nobody is asked about the others."""

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
        asked: list[str] = []

        def wants(prefix: str) -> bool:
            asked.append(prefix)
            return True

        for entry in entries:
            every = [each.topic for each in everything.messages(entry, everything.wanted(wants))]
            asked.clear()
            told = [each.topic for each in narrowed.messages(entry, narrowed.wanted(wants))]
            assert told == [topic for topic in every if narrowed.publishes(topic.removeprefix("barrels/geo/"))]
            assert bool(asked) is any(pattern not in ("_id/#",) for pattern in publish)
