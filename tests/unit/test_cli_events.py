"""Reading server-sent events."""

from __future__ import annotations

import pytest

from broker.cli.events import Event, events

STREAM = b":\n\nid: 1-e\ndata: {}\n\nevent: end\ndata: a\ndata: b\n\nid: 2-e\n\ndata:tight\n\ndata: cut off"
EVENTS = [
    Event("message", "1-e", b"{}"),
    Event("end", None, b"a\nb"),
    Event("message", "2-e", b""),
    Event("message", None, b"tight"),
]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_are_told_however_they_arrive_and_only_whole(size: int) -> None:
    chunks = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert list(events(chunks)) == EVENTS
