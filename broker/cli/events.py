"""Reading server-sent events. Pure: takes chunks of bytes, gives events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["Event", "events"]


class Event(NamedTuple):
    """One event: its kind (`message` if it names none), the id to go on from if it has one, and its data."""

    kind: str
    id: str | None
    data: bytes


def events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """The events that are complete, also those that carry only an id; comments are heartbeats and left out."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n\n")
        for block in whole:
            if (event := _event(block)) is not None:
                yield event


def _event(block: bytes) -> Event | None:
    kind, place, data = "message", None, []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            kind = value.decode()
        elif name == b"id":
            place = value.decode()
        elif name == b"data":
            data.append(value)
    return Event(kind, place, b"\n".join(data)) if data or place is not None else None
