"""`spile listeners`, of a running service and of a store that is not served."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_tools import TIMEOUT_S, Ended, Service, begun, on_terminal, spile
from running import until

from feeds import Position, Store


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture
def at(service: Service) -> tuple[str, str]:
    return ("--url", service.url)


def of_kind(kind: str, ended: Ended) -> list[dict[str, Any]]:
    assert ended.code == 0, ended.err
    return [row for row in ended.values if row["kind"] == kind]


def test_who_follows_is_shown_and_how_far_behind(at: tuple[str, str]) -> None:
    spile("create", "geo", *at)
    for name in ("a", "b", "c"):
        spile("put", "geo", name, *at, stdin=b"{}")
    spile("listen", "geo", "--once", "--name", "archive", *at)
    spile("put", "geo", "d", *at, stdin=b"{}")
    until(lambda: of_kind("listener", spile("listeners", "geo", *at)), "the cursor to be stored")
    (archive,) = of_kind("listener", spile("listeners", "geo", *at))
    assert (archive["name"], archive["seq_behind"], archive["connected"]) == ("archive", 1, False)
    (publisher,) = of_kind("publisher", spile("listeners", "geo", *at))
    assert publisher["name"] == "embedded"
    with begun("listen", "geo", *at) as nameless, begun("listen", "geo", "--name", "archive", *at) as named:

        def connected() -> bool:
            shown = spile("listeners", *at)
            (again,) = of_kind("listener", shown)
            return bool(of_kind("stream", shown)) and again["connected"] and again["seq_behind"] == 0

        until(connected, "both to be there and level")
        refused = spile("listeners", "geo", "--forget", "archive", *at)
        assert (refused.code, "Stop the listener first" in refused.err) == (1, True)
        for process in (nameless, named):
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT_S) == 130
    until(lambda: not of_kind("stream", spile("listeners", *at)), "the streams to end")
    assert spile("listeners", "geo", "--forget", "archive", *at).value == {"forgotten": "archive", "barrel": "geo"}
    assert of_kind("listener", spile("listeners", *at)) == []
    assert spile("listeners", "geo", "--forget", "archive", *at).code == 1


def test_a_terminal_shows_a_table(service: Service) -> None:
    spile("create", "shown", "--url", service.url)
    code, text = on_terminal("listeners", "shown", "--url", service.url)
    assert code == 0
    assert "seq_behind" in text
    assert "embedded" in text


def test_a_barrel_that_is_not_there_is_refused(at: tuple[str, str]) -> None:
    ended = spile("listeners", "nothing", *at)
    assert (ended.code, "nothing" in ended.err) == (1, True)


def test_a_store_that_is_not_served_tells_the_same(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        geo = store.create("geo")
        geo.bulk([{"_id": str(number)} for number in range(5)])
        store.cursors.put([("geo", "away", Position(2, geo.epoch)), ("gone", "late", Position(2, "x"))])
    at = ("--database", str(tmp_path))
    rows = of_kind("listener", spile("listeners", *at))
    assert [(row["barrel"], row["name"], row["seq_behind"]) for row in rows] == [
        ("geo", "away", 3),
        ("gone", "late", 0),
    ]
    assert spile("listeners", "gone", *at).value["snapshot"] is True
    assert spile("listeners", "gone", "--forget", "late", *at).code == 0
    assert spile("listeners", "gone", *at).code == 1
    again = spile("listeners", "geo", "--forget", "nobody", *at)
    assert (again.code, "No listener 'nobody'" in again.err) == (1, True)
