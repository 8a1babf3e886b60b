"""Which live streams want to hear of a change: each change is matched once, for all of them.

In memory, for one thread. Streams that want the same are one interest; what they do with a row is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from feeds.errors import SpileError
from feeds.matcher import Matcher
from feeds.paths import id_levels
from feeds.patterns import Pattern
from feeds.rows import LogEntry
from listeners.stream.messages import fitting
from listeners.stream.sender import Told

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Interest:
    """What a stream wants: these patterns (none: everything), with documents up to a size or without; and maybe all
    deletions of which nothing tells what was deleted."""

    patterns: tuple[Pattern, ...]
    docs: bool
    doc_bytes_max: int | None = None
    deletions: bool = False


class Live(Protocol):
    """A stream at the head of the log."""

    @property
    def interest(self) -> Interest: ...

    def offer(self, rows: list[Told], looked_at: int) -> bool:
        """What just happened up to here that concerns it; False when it cannot take it, and reads by itself."""
        ...

    def behind(self) -> None:
        """The log was forgotten before it could be told: it reads by itself what there is."""
        ...

    def fail(self, error: SpileError) -> None:
        """The log cannot be read any more."""
        ...


@dataclass(slots=True, eq=False)
class _Group:
    interest: Interest
    streams: set[Live] = field(default_factory=set)


class Interests:
    """Live streams by what they want."""

    def __init__(self) -> None:
        self._groups: dict[Interest, _Group] = {}
        self._matcher: Matcher[_Group] = Matcher()
        self._everything: set[_Group] = set()
        self._deletions: set[_Group] = set()
        self._streams = 0

    def __len__(self) -> int:
        """How many streams there are."""
        return self._streams

    def __iter__(self) -> Iterator[Live]:
        """Every stream."""
        for group in list(self._groups.values()):
            yield from list(group.streams)

    def add(self, stream: Live) -> None:
        """This stream is told of what comes."""
        interest = stream.interest
        group = self._groups.get(interest)
        if group is None:
            group = self._groups[interest] = _Group(interest)
            for pattern in interest.patterns:
                self._matcher.add(pattern.levels, group)
            if not interest.patterns:
                self._everything.add(group)
            elif interest.deletions:
                self._deletions.add(group)
        if stream not in group.streams:
            group.streams.add(stream)
            self._streams += 1

    def remove(self, stream: Live) -> None:
        """This stream is told no more; nothing happens if it was not."""
        interest = stream.interest
        group = self._groups.get(interest)
        if group is None or stream not in group.streams:
            return
        group.streams.remove(stream)
        self._streams -= 1
        if not group.streams:
            del self._groups[interest]
            self._everything.discard(group)
            self._deletions.discard(group)
            for pattern in interest.patterns:
                self._matcher.remove(pattern.levels, group)

    def told(self, entry: LogEntry) -> list[tuple[set[Live], Told]]:
        """The change as a row for everyone concerned, each row made once for all who are told the same."""
        if entry.purged:
            return []
        made: dict[tuple[object, ...], bytes] = {}
        found = [
            (group.streams, (entry.seq, _row(entry, group.interest, None, False, False, made)))
            for group in self._everything
        ]
        if not len(self._matcher):
            return found
        standing, left = self._matched(entry)
        old: set[_Group] = set()
        if standing:
            # A path that is not new stood here before, and so did whoever matched it.
            new = entry.entered | {_id_path(entry)} if entry.first else entry.entered
            old = {group for group, paths in standing.items() if group in left or not new.issuperset(paths)}
        for group, paths in standing.items():
            row = _row(entry, group.interest, paths, group not in old, False, made)
            found.append((group.streams, (entry.seq, row)))
        for group, paths in left.items():
            if group not in standing:
                found.append((group.streams, (entry.seq, _row(entry, group.interest, paths, False, True, made))))
        if self._deletions and entry.is_untold_deletion:
            for group in self._deletions - standing.keys():
                found.append((group.streams, (entry.seq, _row(entry, group.interest, [], False, False, made))))
        return found

    def _matched(self, entry: LogEntry) -> tuple[dict[_Group, list[str]], dict[_Group, list[str]]]:
        """Who matches which of the new winner's paths, and which of those that were left."""
        match = self._matcher.match
        standing: dict[_Group, list[str]] = {}
        left: dict[_Group, list[str]] = {}
        if entry.deleted or entry.body is not None:
            paths = [path for path, _ in entry.paths]
        else:
            paths = sorted(entry.entered)  # compacted since: the rest is told with the newer change
        paths.append(_id_path(entry))
        for path in paths:
            for group in match(path.split("/")):
                standing.setdefault(group, []).append(path)
        for path, _ in entry.gone:
            for group in match(path.split("/")):
                left.setdefault(group, []).append(path)
        return standing, left


def _id_path(entry: LogEntry) -> str:
    return f"_id/{id_levels(entry.id)}"


def _row(
    entry: LogEntry,
    interest: Interest,
    paths: list[str] | None,
    entered: bool,
    removed: bool,
    made: dict[tuple[object, ...], bytes],
) -> bytes:
    docs, doc_bytes_max = interest.docs, interest.doc_bytes_max
    key = (docs, doc_bytes_max, None if paths is None else tuple(paths), entered, removed)
    encoded = made.get(key)
    if encoded is None:
        row = entry.row(docs, doc_bytes_max)
        if paths is not None:
            row.paths = fitting(paths, doc_bytes_max)
        row.entered = entered
        row.removed = removed
        encoded = made[key] = _encode(row)
    return encoded
