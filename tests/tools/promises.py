"""What was promised, as a small model: what the store must hold, and what everyone must have been told.

Writers keep a `Ledger` of what they asked and were answered, listeners a `Journal` of what they were told. The
functions below compare both with the log of the store, and give sentences about what does not hold: none at all is
what every test of a fault wants at its end. Each document has one writer, who waits for an answer before the next
write; so a document's history is a line, and the name of each revision can be worked out.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from feeds import Document, Store
from feeds.body import canonical
from feeds.paths import document_paths, id_levels
from feeds.patterns import Pattern
from feeds.revisions import Revision, next_revision

Body = dict[str, Any]

_PAGE = 1_000
_SHOWN_MAX = 12  # sentences of one kind; a broken promise is mostly broken often


# What writers asked


@dataclass(slots=True)
class Attempt:
    """One write: what was asked, and what is known of it. A deletion has no body."""

    id: str
    body: Body | None
    begun_at: float
    answer: str = "none yet"  # or "accepted" or "refused"
    rev: str | None = None
    seq: int | None = None


class Ledger:
    """Every write that was asked for, in the order in which its document's writer asked; for many threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._attempts: list[Attempt] = []
        self._newest: dict[str, Attempt] = {}

    def begin(self, id: str, body: Body | None) -> Attempt:
        """A write is about to be asked for."""
        attempt = Attempt(id, body, time.monotonic())
        with self._guard:
            self._attempts.append(attempt)
        return attempt

    def accepted(self, attempt: Attempt, rev: str, seq: int | None) -> None:
        """It was answered as done."""
        with self._guard:
            attempt.answer, attempt.rev, attempt.seq = "accepted", rev, seq
            self._newest[attempt.id] = attempt

    def refused(self, attempt: Attempt) -> None:
        """It was answered as not done."""
        with self._guard:
            attempt.answer = "refused"

    def newest(self, id: str) -> Attempt | None:
        """The last accepted write of a document."""
        with self._guard:
            return self._newest.get(id)

    def superseded(self, ids: Iterable[str]) -> Attempt | None:
        """An accepted write of one of these documents that is not the newest any more."""
        wanted = set(ids)
        with self._guard:
            for attempt in self._attempts:
                if attempt.id in wanted and attempt.rev is not None and self._newest[attempt.id] is not attempt:
                    return attempt
        return None

    def __len__(self) -> int:
        return len(self._attempts)

    def attempts(self) -> list[Attempt]:
        with self._guard:
            return list(self._attempts)

    def histories(self) -> dict[str, list[Entry]]:
        """Every document's accepted writes in order: what is known while the service runs."""
        found: dict[str, list[Entry]] = {}
        with self._guard:
            for each in self._attempts:
                if each.rev is not None and each.seq is not None:
                    entry = Entry(each.seq, each.id, each.rev, each.body, each.begun_at)
                    found.setdefault(each.id, []).append(entry)
        return found

    @property
    def accepted_count(self) -> int:
        """How many writes were answered as done so far."""
        with self._guard:
            return sum(attempt.answer == "accepted" for attempt in self._attempts)


# What the store holds


@dataclass(frozen=True, slots=True)
class Entry:
    """A change in the log, with the body that it must have had."""

    seq: int
    id: str
    rev: str
    body: Body | None
    begun_at: float

    @property
    def paths(self) -> frozenset[str]:
        """Every path under which the document stands after it, its own among them."""
        return frozenset([f"_id/{id_levels(self.id)}", *(path for path, _ in document_paths(self.body or {}))])

    def matching(self, patterns: Sequence[Pattern]) -> frozenset[str]:
        """The paths that one of the patterns hears."""
        return frozenset(path for path in self.paths if any(each.matches(path.split("/")) for each in patterns))


@dataclass(slots=True)
class Truth:
    """The log of a barrel, read from its store, with bodies by the ledger; and what the store's own check found."""

    epoch: str
    log: dict[int, Entry]
    broken: list[str] = field(default_factory=list)

    @property
    def head(self) -> int:
        return max(self.log, default=0)

    def histories(self) -> dict[str, list[Entry]]:
        """Every document's changes in order."""
        found: dict[str, list[Entry]] = {}
        for seq in sorted(self.log):
            found.setdefault(self.log[seq].id, []).append(self.log[seq])
        return found


def read_truth(database: str, barrel: str, ledger: Ledger) -> Truth:
    """The log as it is, and all that is wrong with it: lost writes, strange ones, gaps, wrong states, damage."""
    with Store.open(database, create=False) as store:
        wrong = [f"spile check: {problem}" for problem in store.check().problems]
        geo = store.barrel(barrel)
        rows: list[tuple[int, str, str, bool]] = []
        while page := geo.tail(rows[-1][0] if rows else 0, _PAGE):
            rows += [(entry.seq, entry.id, entry.rev, entry.deleted) for entry in page]
        if [row[0] for row in rows] != list(range(1, geo.head() + 1)):
            wrong.append(f"the log has gaps: {geo.head()} is its head, and it has {len(rows)} rows")
        truth = Truth(geo.epoch, {}, wrong)
        truth.log.update({entry.seq: entry for entry in _recognised(rows, ledger, wrong)})
        histories = truth.histories()
        ids = [id for id, history in histories.items() if history[-1].body is not None]
        for id, found in zip(ids, geo.get_many([(id, None) for id in ids]), strict=True):
            newest = histories[id][-1]
            if not isinstance(found, Document) or (found.rev, json.loads(found.body)) != (newest.rev, newest.body):
                wrong.append(f"{id} reads as {found!r}, but was last written as {newest}")
    return truth


def _recognised(rows: list[tuple[int, str, str, bool]], ledger: Ledger, wrong: list[str]) -> Iterator[Entry]:
    """Each row of the log as the write that made it; writes that are missing and rows that nobody wrote are told."""
    asked: dict[str, list[Attempt]] = {}
    for attempt in ledger.attempts():
        asked.setdefault(attempt.id, []).append(attempt)
    last: dict[str, str | None] = {}
    for seq, id, rev, deleted in rows:
        queue = asked.get(id, [])
        while queue and _made(last.get(id), queue[0]) != rev:
            if queue[0].answer == "accepted":
                break
            queue.pop(0)  # not stored, and nobody said that it was
        if not queue or (queue[0].answer == "accepted" and _made(last.get(id), queue[0]) != rev):
            wrong.append(f"{seq} is {rev} of {id}, which nobody asked for, or not then")
            return
        attempt = queue.pop(0)
        if attempt.answer == "refused":
            wrong.append(f"{seq} is {rev} of {id}, which was refused")
        if attempt.answer == "accepted" and (attempt.rev != rev or attempt.seq not in (None, seq)):
            wrong.append(f"{seq} is {rev} of {id}, but it was answered as {attempt.seq} {attempt.rev}")
        if deleted != (attempt.body is None):
            wrong.append(f"{seq} of {id} is {'a deletion' if deleted else 'none'}")
        last[id] = rev
        yield Entry(seq, id, rev, attempt.body, attempt.begun_at)
    lost = [attempt for queue in asked.values() for attempt in queue if attempt.answer == "accepted"]
    wrong += [f"an accepted write is not there: {attempt}" for attempt in lost[:_SHOWN_MAX]]


def _made(parent: str | None, attempt: Attempt) -> str:
    """The revision that a write makes of the one before."""
    before = None if parent is None else Revision.parse(parent)
    return str(next_revision(before, attempt.body is None, canonical(attempt.body or {})))


# What listeners were told


@dataclass(frozen=True, slots=True)
class Told:
    """A row as a listener heard it."""

    seq: int
    epoch: str
    id: str
    rev: str
    paths: frozenset[str] = frozenset()
    removed: bool = False
    deleted: bool = False
    body: Body | None = None


@dataclass(slots=True)
class Journal:
    """All that one listener was told, in order, over all its lives. `since`: the seq it began behind."""

    name: str
    patterns: tuple[str, ...] = ()
    since: int = 0
    first: bool = True  # it began with `first`, so that nothing can have left before
    lives: list[list[Told]] = field(default_factory=lambda: [[]])

    def told(self) -> Iterator[Told]:
        for life in list(self.lives):
            yield from list(life)

    def newest(self) -> dict[str, Told]:
        """The last row about each document."""
        return {told.id: told for told in self.told()}


def untold(journal: Journal, histories: Mapping[str, Sequence[Entry]]) -> list[str]:
    """What a listener ought to have been told of the newest states, and was not."""
    wanted = [Pattern.parse(text) for text in journal.patterns]
    told = journal.newest()
    missing = []
    for id, history in histories.items():
        newest, last = history[-1], told.get(id)
        if newest.seq <= journal.since:
            continue
        if not wanted or newest.matching(wanted):
            if last is None or last.seq != newest.seq or last.removed:
                missing.append(f"{journal.name} was not told {newest}, but last {last}")
        elif last is not None and not last.removed:
            missing.append(f"{journal.name} was not told that {id} left with or before {newest}, but last {last}")
        elif last is None and not journal.first and _stood(history, journal.since, wanted):
            missing.append(f"{journal.name} may know {id}, and was not told that it left with {newest}")
    return missing


def _stood(history: Sequence[Entry], seq: int, wanted: Sequence[Pattern]) -> bool:
    """Whether the document matched as of a seq."""
    then = [entry for entry in history if entry.seq <= seq]
    return bool(then) and bool(then[-1].matching(wanted))


def misled(journal: Journal, truth: Truth) -> Iterator[str]:
    """What a listener was told that is not so, or not in its order."""
    wanted = [Pattern.parse(text) for text in journal.patterns]
    for life in journal.lives:
        before = journal.since
        for told in life:
            # The change in hand may come again, for a listener says that it is done when it takes the next.
            if told.seq < before or told.seq <= journal.since:
                yield f"{journal.name} was told {told.seq} after {before}"
            before = told.seq
            entry = _meant(told, truth)
            if entry is None:
                yield f"{journal.name} was told {told}, but the log has {truth.log.get(told.seq)}"
                continue
            paths = entry.matching(wanted)
            if told.removed != (bool(wanted) and not paths) or told.deleted != (entry.body is None):
                yield f"{journal.name} was told {told}, which is {entry}"
            if wanted and not told.removed and told.paths != paths:
                yield f"{journal.name} was told the paths {sorted(told.paths)} of {entry}"
            if told.body is not None and not told.deleted and told.body != entry.body:
                yield f"{journal.name} was told {told}, which was written as {entry}"


def _meant(told: Told, truth: Truth) -> Entry | None:
    """The change that a row tells: its seq is the change's. That of a leave is when the document left, and a listener
    who is behind is told with it which revision is the newest by now."""
    at = truth.log.get(told.seq)
    if told.epoch != truth.epoch or at is None or at.id != told.id:
        return None
    if not told.removed:
        return at if at.rev == told.rev else None
    later = (entry for seq, entry in truth.log.items() if seq >= at.seq and entry.id == at.id)
    return next((entry for entry in later if entry.rev == told.rev), None)


# What plain subscribers heard


@dataclass(frozen=True, slots=True)
class Heard:
    """A message on a topic of the barrel, under its path; `body` is its JSON."""

    path: str
    body: Body


@dataclass(slots=True)
class Messages:
    """All that one plain subscriber heard, in order, since its session began."""

    name: str
    heard: list[Heard] = field(default_factory=list)
    since_at: float = 0.0  # later writes are heard; earlier ones went with a session that the broker lost
    paths: bool = False  # whether it subscribed to every path, not only to `_id`


def unheard(messages: Messages, histories: Mapping[str, Sequence[Entry]]) -> list[str]:
    """Which documents' newest changes it did not hear, or not as the last of the document."""
    last: dict[tuple[str, str], Body] = {}
    for each in list(messages.heard):
        kind = "_id" if each.path.startswith("_id/") else each.path
        last[kind, each.body["id"]] = each.body
    missing = []
    for id, history in histories.items():
        for kind, told in _to_hear(history, messages).items():
            heard = last.get((kind, id), {})
            if (heard.get("seq"), heard.get("removed", False)) != told:
                missing.append(f"{messages.name} heard last of {id} on {kind} {heard}, not {told} of {history[-1]}")
    return missing


def _to_hear(history: Sequence[Entry], messages: Messages) -> dict[str, tuple[int, bool]]:
    """The last message on `_id`, and on every path where the document stood: its seq, and whether it left."""
    told: dict[str, tuple[int, bool]] = {}
    before: frozenset[str] = frozenset()
    for entry in history:
        now = frozenset(path for path in entry.paths if not path.startswith("_id/"))
        if entry.begun_at >= messages.since_at:
            told["_id"] = (entry.seq, False)
            if messages.paths:
                told.update({path: (entry.seq, path not in now) for path in before | now})
        before = now
    return told


def misheard(messages: Messages, truth: Truth) -> Iterator[str]:
    """What it heard that is not so."""
    for each in messages.heard:
        entry = truth.log.get(each.body["seq"])
        if entry is None or (entry.id, entry.rev) != (each.body["id"], each.body["rev"]):
            yield f"{messages.name} heard {each}, but the log has {entry}"


def all_broken(truth: Truth, journals: Iterable[Journal], subscribers: Iterable[Messages]) -> list[str]:
    """Every promise that does not hold, as a sentence each; a dozen of each kind."""
    histories = truth.histories()
    broken = list(truth.broken)
    for journal in journals:
        broken += untold(journal, histories)[:_SHOWN_MAX]
        broken += list(misled(journal, truth))[:_SHOWN_MAX]
    for messages in subscribers:
        broken += unheard(messages, histories)[:_SHOWN_MAX]
        broken += list(misheard(messages, truth))[:_SHOWN_MAX]
    return broken
