"""Random histories of writes: whatever is read, by whichever way, agrees with a small model."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from store_model import Model, Refused, State
from store_tools import careless

from feeds import Barrel, Row, SpileError, Store, Write
from feeds.body import canonical
from feeds.errors import Deleted, Missing
from feeds.patterns import Pattern
from feeds.storage import replay as replaying

IDS = ["x", "y", "z/1", "_design/d"]
VALUES: list[Any] = [
    *(None, True, 0, 1, 1.0, -0.0, "1", "1.0", "a", "b/c", {}, [], "{}", 2**53 + 1, float(2**53)),
    *("x" * 100, "x" * 101, "x" * 102, "é" * 50 + "a", "é" * 51),
]
PATTERNS = [
    *(["#"], ["n/+"], ["n/1"], ["n/1.0"], ["n/-0.0"], ["n/#"], ["+/1"], ["+/+"], ["+/#"], ["n/{}"], ["n/b%2Fc"]),
    *(["l/+/1"], ["l/0/+"], ["l/#"], ["o/0/#"], ["o/+/1", "n/a"], ["n/" + "x" * 100], ["n/" + "é" * 50]),
    *(["_id/x"], ["_id/z/1"], ["_id/#"], ["_id/+"], ["_id/x", "n/1"], ["none/#"], ["a%2Bb/#"], ["_id/_design/#"]),
]

values = st.sampled_from(VALUES)
documents = st.dictionaries(
    st.sampled_from(["n", "k", "a+b", "l", "o"]),
    st.one_of(values, st.lists(values, max_size=3), st.dictionaries(st.sampled_from(["0", "1"]), values, max_size=2)),
    max_size=3,
)
ids = st.sampled_from(IDS)
numbers = st.integers(0, 3)
elsewhere = st.text("ab", min_size=1, max_size=4)
steps = st.one_of(
    st.tuples(st.just("set"), ids, documents),
    st.tuples(st.just("set"), ids, documents),
    st.tuples(st.just("put"), ids, documents, numbers),
    st.tuples(st.just("tombstone"), ids, documents, numbers),
    st.tuples(st.just("delete"), ids, numbers),
    st.tuples(st.just("merge"), ids, documents),
    st.tuples(st.just("replicate"), ids, elsewhere, st.integers(1, 4)),
    st.tuples(st.just("replicate"), ids, elsewhere, st.integers(1, 4)),
    st.tuples(st.just("purge"), ids, numbers),
)
histories = st.lists(st.lists(steps, min_size=1, max_size=6), min_size=1, max_size=6)
quick = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))

names = itertools.count()


@pytest.fixture(scope="module")
def store(module_database_url: str) -> Iterator[Store]:
    with Store.open(module_database_url) as opened:
        careless(opened)
        yield opened
        assert opened.check().problems == []


@dataclass
class Pair:
    """A barrel and its model."""

    barrel: Barrel
    model: Model

    def run(self, history: list[list[tuple[Any, ...]]]) -> None:
        """Do the steps, those of a list in one transaction, and compare every answer."""
        for group in history:
            writes, answers = [], []
            for step in group:
                write, answer = self._step(*step)
                writes.append(write)
                answers.append(answer)
            outcomes = self.barrel.submit(writes).result()
            for step, outcome, answer in zip(group, outcomes, answers, strict=True):
                if isinstance(outcome, SpileError):
                    assert type(outcome).__name__ == answer, step
                else:
                    assert not isinstance(answer, str), (step, outcome, answer)
                    assert (outcome.rev, outcome.repeated, outcome.unchanged) == (
                        answer.rev,
                        answer.repeated,
                        answer.unchanged,
                    ), step
                    assert answer.seq is None or outcome.seq == answer.seq, step

    def _step(self, verb: str, id: str, *rest: Any) -> tuple[Write, Any]:
        model = self.model
        try:
            if verb == "set":
                return Write.put(rest[0], id=id, update=True), model.put(id, rest[0], None, True)
            if verb in ("put", "tombstone"):
                doc, rev, deleted = rest[0], self._rev(id, rest[1]), verb == "tombstone"
                write = Write.put({**doc, "_deleted": deleted}, id=id, rev=rev)
                return write, model.put(id, doc, rev, False, deleted)
            if verb == "delete":
                write = Write.delete(id, rev=self._rev(id, rest[0]))
                return write, model.delete(id, self._rev(id, rest[0]))
            if verb == "merge":
                write = Write.merge(id, rest[0])
                return write, model.merge(id, rest[0])
            if verb == "replicate":
                return self._replicate(id, *rest)
            return self._purge(id, rest[0])
        except Refused as refused:
            return write, str(refused)

    def _rev(self, id: str, number: int) -> str | None:
        """None, or one of the revisions known of the document, the newest first."""
        doc = self.model.docs.get(id)
        if doc is None or number == 0:
            return None
        known = [*doc.leaves(), *sorted(doc.nodes, reverse=True)]
        key = known[min(number - 1, len(known) - 1)]
        return f"{key[0]}-{key[1]}"

    def _replicate(self, id: str, name: str, told: int) -> tuple[Write, Any]:
        """A revision of a tree that is the same in every history: its name says its ancestors and its content."""
        path = [(length, name[:length]) for length in range(len(name), 0, -1)][:told]
        deleted = name.endswith("bb")
        data = {} if deleted else {"n": VALUES[sum(map(ord, name)) % len(VALUES)], "l": [len(name), 1]}
        doc = {**data, "_id": id, "_rev": f"{len(name)}-{name}", "_deleted": deleted}
        doc["_revisions"] = {"start": len(name), "ids": [digest for _, digest in path]}
        return Write.replicate(doc), self.model.replicate(id, path, deleted, data)

    def _purge(self, id: str, number: int) -> tuple[Write, Any]:
        doc = self.model.docs.get(id)
        leaf = doc.leaves()[min(number - 1, len(doc.leaves()) - 1)] if doc is not None and number else None
        write = Write.purge(id, (f"{leaf[0]}-{leaf[1]}",) if leaf else ())
        try:
            return write, self.model.purge(id, leaf)
        except Refused as refused:
            return write, str(refused)


def pair(store: Store, history: list[list[tuple[Any, ...]]]) -> Pair:
    """A new barrel and a new model that went through the same history."""
    made = Pair(store.create(f"b{next(names)}"), Model())
    made.run(history)
    return made


def drain(
    barrel: Barrel, after: int, patterns: list[Pattern], page: int = 1000, stop: int = 1 << 62
) -> tuple[list[Row], int]:
    """The rows of a replay, maybe only of its first pages, and up to where it looked."""
    replay = barrel.replay(after, patterns, docs=True)
    told: list[Row] = []
    at, caught_up = after, replay.upto <= after
    while not caught_up and stop > 0:
        got = replay.next(page)
        assert at <= got.seq <= replay.upto
        assert all(at < row.seq <= got.seq for row in got.rows)
        assert [row.seq for row in got.rows] == sorted(row.seq for row in got.rows)
        at, caught_up, stop = got.seq, got.caught_up, stop - 1
        told += got.rows
    return told, at if not caught_up else replay.upto


def matching(states: dict[str, State], patterns: list[Pattern]) -> dict[str, str]:
    """The documents that stand under the patterns, with their winners."""
    return {id: state.changes[0] for id, state in states.items() if state.matching(id, patterns)}


def heard(known: dict[str, str], told: list[Row]) -> dict[str, str]:
    """What a listener holds that knew this and was told that."""
    known = dict(known)
    for row in told:
        if row.removed:
            known.pop(row.id, None)
        else:
            known[row.id] = row.rev
    return known


@quick
@given(histories)
def test_documents_read_as_in_the_model(store: Store, history: list[list[tuple[Any, ...]]]) -> None:
    made = pair(store, history)
    barrel, model = made.barrel, made.model
    for id in IDS:
        doc = model.docs.get(id)
        if doc is None:
            with pytest.raises(Missing):
                barrel.get(id)
            continue
        leaves = doc.leaves()
        if doc.winner.deleted:
            with pytest.raises(Deleted):
                barrel.get(id)
        else:
            document = barrel.get(id, conflicts=True, revs=True)
            assert document.body == canonical(doc.winner.data)
            conflicts = [f"{key[0]}-{key[1]}" for key in leaves[1:] if not doc.nodes[key].deleted]
            assert document.extra.get("_conflicts", []) == conflicts
            assert document.extra["_revisions"]["ids"] == [digest for _, digest in doc.history(leaves[0])]
        for key in leaves:
            assert barrel.get(id, rev=f"{key[0]}-{key[1]}").body == canonical(doc.nodes[key].data)
    info = barrel.info()
    winners = [doc.winner for doc in model.docs.values()]
    assert info.seq == model.seq
    assert info.doc_count == sum(not node.deleted for node in winners)
    assert info.deleted_count == sum(node.deleted for node in winners)
    assert info.bytes == sum(len(canonical(node.data)) for node in winners if not node.deleted)


@quick
@given(histories)
def test_the_log_tells_every_change_as_it_was(store: Store, history: list[list[tuple[Any, ...]]]) -> None:
    made = pair(store, history)
    entries = {entry.seq: entry for entry in made.barrel.tail(0)}
    purged_at = {change.id: change.seq for change in made.model.log if change.after is None}
    for change in made.model.log:
        if change.after is not None and change.seq < purged_at.get(change.id, 0):
            assert change.seq not in entries
            continue
        entry = entries.pop(change.seq)
        came, left = change.moved()
        assert entry.id == change.id
        assert {path for path, _ in entry.gone} == left
        assert entry.purged == (change.after is None)
        if change.after is None:
            continue
        assert tuple(entry.changes) == change.after.changes
        assert entry.deleted == change.after.deleted
        if entry.body is None:
            assert not entry.newest  # the revision was purged since
            continue
        assert {path for path, _ in entry.paths} == set(change.after.paths)
        assert entry.entered == came
        before = change.before.changes if change.before else ()
        assert not entry.conflicts_changed or before != change.after.changes
    assert entries == {}


@quick
@given(histories)
def test_changes_are_the_newest_of_each_document(store: Store, history: list[list[tuple[Any, ...]]]) -> None:
    made = pair(store, history)
    newest = sorted((doc.seq, id, tuple(made.model.state(id).changes)) for id, doc in made.model.docs.items())  # type: ignore[union-attr]
    for since in range(made.model.seq + 1):
        told, at = drain(made.barrel, since, [], page=2)
        assert [(row.seq, row.id, tuple(row.changes)) for row in told] == [row for row in newest if row[0] > since]
        assert at == made.model.seq
        assert made.barrel.pending(since) == len(told)
    back = made.barrel.changes(descending=True).results
    assert [(row.seq, row.id, tuple(row.changes)) for row in back] == newest[::-1]


@pytest.mark.parametrize("way", ["index", "log"])
@quick
@given(history=histories, patterns=st.sampled_from(PATTERNS), stop=st.integers(1, 4), compacted=st.booleans())
def test_a_listener_that_applies_what_it_is_told_holds_what_matches(
    store: Store, way: str, history: list[list[tuple[Any, ...]]], patterns: list[str], stop: int, compacted: bool
) -> None:
    made = pair(store, history)
    barrel, model = made.barrel, made.model
    if compacted:
        store.compact(barrel.name)
    parsed = [Pattern.parse(pattern) for pattern in patterns]
    now = model.states_at(model.seq)
    wanted = matching(now, parsed)
    budget, replaying.MATCHES_MAX = replaying.MATCHES_MAX, 50_000 if way == "index" else 0
    try:
        for since in range(model.seq + 1):
            then = model.states_at(since)
            begun = matching(then, parsed)
            told, at = drain(barrel, since, parsed)
            assert heard(begun, told) == wanted
            for row in told:
                assert row.seq > since
                assert row.rev == now[row.id].changes[0]
                assert sorted(row.paths) == now[row.id].matching(row.id, parsed) or row.removed  # type: ignore[arg-type]
                if way == "log" and since and not row.removed and not compacted and "purge" not in str(history):
                    assert row.entered == (row.id not in begun)
            # Broken off after some rows, and taken up from there.
            first, at = drain(barrel, since, parsed, page=1, stop=stop)
            rest, _ = drain(barrel, at, parsed)
            assert heard(heard(begun, first), rest) == wanted
    finally:
        replaying.MATCHES_MAX = budget


@quick
@given(history=histories, patterns=st.sampled_from(PATTERNS), compacted=st.booleans())
def test_a_listener_on_the_tail_holds_what_matches(
    store: Store, history: list[list[tuple[Any, ...]]], patterns: list[str], compacted: bool
) -> None:
    made = pair(store, history)
    barrel, model = made.barrel, made.model
    if compacted:
        store.compact(barrel.name)
    parsed = [Pattern.parse(pattern) for pattern in patterns]
    wanted = matching(model.states_at(model.seq), parsed)
    for since in range(model.seq + 1):
        known = matching(model.states_at(since), parsed)
        for entry in barrel.tail(since):
            if entry.purged:
                continue
            paths = dict.fromkeys(path for path, _ in entry.paths) | dict.fromkeys(entry.entered)
            state = State(tuple(entry.changes), entry.deleted, paths)
            if state.matching(entry.id, parsed):
                known[entry.id] = entry.rev
            elif any(pattern.matches(path.split("/")) for path, _ in entry.gone for pattern in parsed):
                known.pop(entry.id, None)
        assert known == wanted


@quick
@given(histories)
def test_the_store_stays_sound(history: list[list[tuple[Any, ...]]]) -> None:
    with TemporaryDirectory() as folder, Store.open(folder) as store:
        made = pair(store, history)
        assert store.check().problems == []
        store.compact(made.barrel.name)
        assert store.check().problems == []
