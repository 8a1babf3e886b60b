"""Who is told of a change, against a model that matches every pattern with every path."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.errors import SpileError
from feeds.paths import id_levels
from feeds.patterns import Pattern
from feeds.rows import LogEntry
from listeners.stream.interests import Interest, Interests
from listeners.stream.sender import Told

WORDS = st.sampled_from(["a", "b", "c"])
PATHS = st.frozensets(st.lists(WORDS, min_size=2, max_size=2).map("/".join), max_size=4)
PATTERNS = st.sampled_from(["a/#", "+/b", "a/b", "#", "_id/#", "_id/x", "c/+", "b"])


class Stream:
    def __init__(self, patterns: list[str], docs: bool) -> None:
        self.interest = Interest(tuple(Pattern.parse(text) for text in dict.fromkeys(patterns)), docs)

    def offer(self, rows: list[Told], looked_at: int) -> bool:
        return True

    def behind(self) -> None:
        raise AssertionError

    def fail(self, error: SpileError) -> None:
        raise AssertionError(error)


def entry(old: frozenset[str] | None, new: frozenset[str] | None) -> LogEntry:
    """The change of document x from these paths to those; None: not there before, deleted now."""
    body = None if new is None else msgspec.json.encode(_tree(new))
    before, after = old or frozenset(), new or frozenset()
    return LogEntry(
        7,
        "x",
        "1-r" if old is None else "2-r",
        ["1-r" if old is None else "2-r"],
        0 if new is None else 1,
        new is None,
        False,
        old is None,
        False,
        False,
        True,
        body,
        msgspec.json.encode(sorted(after - before)),
        msgspec.json.encode([[path, path.split("/")[1]] for path in sorted(before - after)]),
        0,
        old is None,
    )


def _tree(paths: frozenset[str]) -> dict[str, str]:
    """A document whose paths are these: one value under each key, as the model needs no arrays."""
    return {path.split("/")[0]: path.split("/")[1] for path in sorted(paths)}


def single(paths: frozenset[str]) -> frozenset[str]:
    """Of several values under one key the last: what `_tree` makes of them."""
    return frozenset({path.split("/")[0]: path for path in sorted(paths)}.values())


@settings(max_examples=300, deadline=None)
@given(
    old=st.none() | PATHS,
    new=st.none() | PATHS,
    wants=st.lists(st.tuples(st.lists(PATTERNS, max_size=3), st.booleans()), min_size=1, max_size=6),
)
def test_each_stream_is_told_once_what_its_patterns_match(
    old: frozenset[str] | None, new: frozenset[str] | None, wants: list[tuple[list[str], bool]]
) -> None:
    old = None if old is None else single(old)
    new = None if new is None else single(new)
    streams = [Stream(patterns, docs) for patterns, docs in wants]
    interests = Interests()
    for stream in streams:
        interests.add(stream)
    told: dict[Stream, list[bytes]] = {}
    for group, (seq, row) in interests.told(entry(old, new)):
        assert seq == 7
        for each in group:
            assert isinstance(each, Stream)
            told.setdefault(each, []).append(row)
    own = f"_id/{id_levels('x')}"
    present = (new or frozenset()) | {own}
    before = frozenset() if old is None else old | {own}
    for stream in streams:
        patterns = stream.interest.patterns

        def matching(paths: frozenset[str], patterns: tuple[Pattern, ...] = patterns) -> set[str]:
            return {path for path in paths if any(pattern.matches(path.split("/")) for pattern in patterns)}

        now, then = matching(present), matching(before)
        if patterns and not now and not then:
            assert stream not in told
            continue
        (row,) = told[stream]
        data = msgspec.json.decode(row)
        assert data.get("deleted", False) == (new is None)
        assert ("doc" in data) == stream.interest.docs
        if not patterns:
            assert "paths" not in data
            continue
        assert set(data["paths"]) == (now or then)
        assert data.get("removed", False) == (not now)
        assert data.get("entered", False) == (bool(now) and not then)


def test_a_stream_that_was_removed_is_told_no_more() -> None:
    interests = Interests()
    one, other = Stream(["a/#"], False), Stream(["a/#"], False)
    interests.add(one)
    interests.add(other)
    interests.remove(one)
    interests.remove(one)
    assert len(interests) == 1
    assert [group for group, _ in interests.told(entry(None, frozenset({"a/b"})))] == [{other}]
    interests.remove(other)
    assert interests.told(entry(None, frozenset({"a/b"}))) == []
