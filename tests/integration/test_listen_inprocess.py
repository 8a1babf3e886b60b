"""Listening in process, to a barrel in a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from feeds import Barrel, Store
from listeners import listen, listen_async


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def barrel(store: Store) -> Barrel:
    return store.create("geo")


def test_what_is_there_is_told_in_order_and_then_the_loop_ends(barrel: Barrel) -> None:
    for number in range(5):
        barrel.put({"number": number}, id=f"d{number}")
    told = list(listen(barrel, follow=False))
    assert [change.id for change in told] == ["d0", "d1", "d2", "d3", "d4"]
    assert [change.doc["number"] for change in told if change.doc] == [0, 1, 2, 3, 4]
    assert told[-1].position == barrel.position(5)


def test_what_comes_later_is_told_as_it_comes(barrel: Barrel) -> None:
    barrel.put({"n": 1}, id="a")
    with listen(barrel) as changes:
        assert next(changes).id == "a"
        barrel.put({"n": 2}, id="b")
        assert next(changes).id == "b"
