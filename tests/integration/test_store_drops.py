"""A barrel that is dropped while others are at work on it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from store_tools import refusal

from feeds import Store
from feeds.errors import NotFound


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store.open(database_url) as opened:
        yield opened
        assert opened.check().problems == []


def test_who_looks_a_barrel_up_while_it_is_dropped_here_is_not_told_of_another_process(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    geo = store.create("geo")
    call = store.writer.call
    refused: list[Exception] = []

    def looked_up_meanwhile(task: Any, *barrels: int, **options: Any) -> Any:
        def drop(transaction: Any) -> Any:
            done = task(transaction)
            assert store.barrel("geo").key == geo.key  # readers see it until the drop is committed
            return done

        monkeypatch.undo()
        done = call(drop, *barrels, **options)
        refused.append(refusal(lambda: geo.put({}, id="x")))
        return done

    monkeypatch.setattr(store.writer, "call", looked_up_meanwhile)
    store.drop("geo")
    assert [isinstance(each, NotFound) for each in refused] == [True]
    assert store.create("geo").put({}, id="x").seq == 1


def test_compacting_what_was_dropped_meanwhile_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    geo = store.create("geo")
    store.drop("geo")
    monkeypatch.setattr(store.directory, "barrel", lambda name: geo)
    assert isinstance(refusal(lambda: store.compact("geo")), NotFound)
