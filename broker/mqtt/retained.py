"""Retained messages: in the state file alone, found by seeking from match to match.

The key of a topic is its levels joined by NUL, which no topic holds and which sorts before every character, so
that the order of keys is the order of levels and a filter's matches lie in ranges.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from broker.mqtt.statefile import StateFile

PAGE_ROWS = 200
PAGE_BYTES = 256 * 1024
PAGE_SEEKS = 2_000  # some 10 ms; the state's thread has commits waiting

_PUT = "INSERT OR REPLACE INTO retained (key, qos, payload) VALUES (?, ?, ?)"
_DROP = "DELETE FROM retained WHERE key = ?"
_FROM = "SELECT key, qos, payload FROM retained WHERE key >= ? ORDER BY key"


@dataclass(frozen=True, slots=True)
class Retained:
    """One retained message."""

    topic: str
    payload: bytes
    qos: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some matches in order, and the key to go on from; None at the end."""

    messages: list[Retained]
    following: bytes | None


class RetainedMessages:
    """The retained messages of the broker. Changes are durable with the state's next commit."""

    def __init__(self, state: StateFile) -> None:
        self._state = state
        self.count = 0  # an estimate from above: replacing one counts again until `recount`

    async def recount(self) -> None:
        """Learn how many there are."""
        self.count = await self._state.read(_count)

    def put(self, topic: str, payload: bytes, qos: int) -> None:
        """Retain this as the newest of its topic; an empty payload clears it."""
        key = key_of(topic)
        if payload:
            self._state.change(_PUT, key, qos, payload, awaited=True)
            self.count += 1
        else:
            self._state.change(_DROP, key, awaited=True)

    async def page(self, topic_filter: str, start: bytes) -> Page:
        """The next matches of a filter from a key on (`b""`: from the first)."""
        levels = topic_filter.encode().split(b"/")
        return await self._state.read(lambda connection: _page(connection, levels, start))


def key_of(topic: str) -> bytes:
    """The key that a topic is stored under."""
    return topic.encode().replace(b"/", b"\0")


def seek(wanted: list[bytes], key: bytes) -> tuple[bool, bytes | None]:
    """Whether the key matches the filter's levels, and the least greater key that could match (None: none)."""
    levels = key.split(b"\0")
    if wanted[0] in (b"+", b"#") and levels[0].startswith(b"$"):
        return False, b"%"  # `$…` is hidden from leading wildcards, and `%` is what sorts next to it
    for place, level in enumerate(wanted):
        if level == b"#":
            return True, key + b"\0"
        if place == len(levels):
            return False, key + b"\0" + (b"" if level == b"+" else level)
        if level != b"+" and level != levels[place]:
            if levels[place] < level:
                return False, b"\0".join([*levels[:place], level])
            return False, _past(wanted, levels, place)
    if len(levels) == len(wanted):
        return True, key + b"\0"
    return False, _past(wanted, levels, len(wanted))


def _past(wanted: list[bytes], levels: list[bytes], place: int) -> bytes | None:
    """The least key beyond everything below `levels[:place]` that could match: the last `+` before moves on."""
    for earlier in range(min(place, len(levels)) - 1, -1, -1):
        if wanted[earlier] == b"+":
            return b"\0".join(levels[: earlier + 1]) + b"\1"
    return None


def _count(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM retained").fetchone()
    return int(count)


def _page(connection: sqlite3.Connection, wanted: list[bytes], start: bytes) -> Page:
    found: list[Retained] = []
    size_bytes = 0
    position: bytes | None = max(start, _first(wanted))
    for _ in range(PAGE_SEEKS):
        if position is None:
            break
        position_now, position = position, None
        for key, qos, payload in connection.execute(_FROM, (position_now,)):
            matches, following = seek(wanted, key)
            if not matches:
                position = following
                break
            found.append(Retained(key.replace(b"\0", b"/").decode(), payload, qos))
            size_bytes += len(payload)
            if len(found) >= PAGE_ROWS or size_bytes >= PAGE_BYTES:
                return Page(found, following)
    return Page(found, position)


def _first(wanted: list[bytes]) -> bytes:
    """The least key that could match: the literal levels the filter begins with."""
    literal: list[bytes] = []
    for level in wanted:
        if level in (b"+", b"#"):
            break
        literal.append(level)
    return b"\0".join(literal)
