"""The pure parts of replication: where to go on, what is done, what is meant, what is verified."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.errors import BadRequest, SpileError
from feeds.rows import Row
from listeners.replication.checkpoints import (
    HISTORY_MAX,
    Checkpoint,
    Session,
    read_checkpoint,
    resume_at,
    with_session,
)
from listeners.replication.errors import Unfit
from listeners.replication.filters import Filter, Verdict
from listeners.replication.identifying import replication_id
from listeners.replication.peer import Identity
from listeners.replication.progress import Prefix, Progress
from listeners.replication.verifying import check_revisions, of_row, verified

# -- where to go on


def record(session: str, position: int, **more: Any) -> Session:
    return Session(session_id=session, recorded_seq=str(position), **more)


def checkpoint(*sessions: Session) -> Checkpoint:
    return Checkpoint(session_id=sessions[0].session_id, source_last_seq=sessions[0].recorded_seq, history=sessions)


def test_without_a_checkpoint_at_the_target_it_begins_at_the_first_change() -> None:
    assert resume_at(None, None, "e") is None
    assert resume_at(checkpoint(record("a", 5)), None, "e") is None


def test_of_a_common_session_the_source_s_record_counts() -> None:
    # The target's is written first: what it has beyond the source's may be of a life that is over.
    assert resume_at(checkpoint(record("a", 5)), checkpoint(record("a", 9)), "e") == "5"


def test_it_goes_on_at_the_newest_session_that_both_know() -> None:
    source = checkpoint(record("c", 30), record("a", 10))
    target = checkpoint(record("b", 20), record("a", 11))
    assert resume_at(source, target, "e") == "10"


def test_strangers_begin_at_the_first_change() -> None:
    assert resume_at(checkpoint(record("a", 5)), checkpoint(record("b", 9)), "e") is None


def test_a_target_that_stands_further_back_than_the_source_knows_has_lost_what_it_had() -> None:
    source, target = checkpoint(record("a", 9, number=2)), checkpoint(record("a", 5, number=1))
    assert resume_at(source, target, "e") == "5"
    assert resume_at(target, source, "e") == "5"


@pytest.mark.parametrize("target_only", [False, True])
def test_what_is_told_of_another_life_of_the_target_does_not_count(target_only: bool) -> None:
    before = record("a", 5, target_epoch="e", target_only=target_only)
    after = record("b", 9, target_epoch="old", target_only=target_only)
    source = None if target_only else checkpoint(after, before)
    assert resume_at(source, checkpoint(after), "e") is None
    assert resume_at(source, checkpoint(after, before), "e") == "5"


def test_where_the_source_takes_no_checkpoints_the_target_s_count() -> None:
    assert resume_at(None, checkpoint(record("a", 9, target_only=True)), "e") == "9"


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.booleans()), max_size=30))
def test_a_crash_anywhere_loses_no_more_than_what_was_not_saved_on_both_sides(
    steps: list[tuple[int, bool, bool]],
) -> None:
    """Each step moves on, saves at the target, maybe at the source, and maybe crashes into a new session."""
    source: Checkpoint | None = None
    target: Checkpoint | None = None
    session, at, both = 0, 0, 0
    for far, saved, crashed in steps:
        at += far
        target = with_session(target, record(str(session), at))
        if saved:
            source = with_session(source, record(str(session), at))
            both = at
        if crashed:
            resumed = int(resume_at(source, target, "e") or 0)
            assert resumed == both
            session, at = session + 1, resumed


def test_the_history_is_bounded_and_has_each_session_once() -> None:
    made: Checkpoint | None = None
    for number in range(3 * HISTORY_MAX):
        made = with_session(made, record(str(number // 2), number))
    assert made is not None
    assert len(made.history) == HISTORY_MAX
    assert len({each.session_id for each in made.history}) == HISTORY_MAX
    assert made.history[0].recorded_seq == made.source_last_seq == str(3 * HISTORY_MAX - 1)


def test_a_checkpoint_is_read_back_and_what_is_none_is_not() -> None:
    made = checkpoint(record("a", 5))
    assert read_checkpoint(made.stored(), "0-3") == msgspec.structs.replace(made, rev="0-3")
    for strange in ({}, {"history": []}, {**made.stored(), "history": "x"}, {**made.stored(), "history": []}):
        assert read_checkpoint(strange, "0-1") is None


# -- what is done


@given(st.permutations(range(8)), st.integers(0, 8))
def test_the_prefix_is_what_is_done_without_a_gap(order: list[int], count: int) -> None:
    prefix = Prefix(None)
    numbers = [prefix.begin(str(at)) for at in range(8)]
    done = set(order[:count])
    for at in order[:count]:
        prefix.done(numbers[at])
    whole = next((at for at in range(8) if at not in done), 8)
    assert prefix.position == (str(whole - 1) if whole else None)
    assert prefix.is_all_done == (count == 8)


def test_refusals_are_named_but_bounded() -> None:
    progress = Progress(lambda: 0.0)
    for number in range(1000):
        progress.refuse(f"d{number}", "1-a", Unfit("It does not fit"))
    told = progress.stats()
    assert told["refused"] == 1000
    assert len(told["refusals"]) == 100
    assert told["refusals"][-1] == {"id": "d999", "rev": "1-a", "error": "unfit", "reason": "It does not fit"}


def test_what_a_peer_says_at_length_is_not_kept_at_length() -> None:
    progress = Progress(lambda: 0.0)
    progress.refuse("d" * 100_000, "1-" + "a" * 100_000, Unfit("no " * 100_000))
    progress.become("waiting", Unfit("no " * 100_000))
    assert len(msgspec.json.encode(progress.stats())) < 10_000


def test_the_rate_is_that_of_the_last_seconds() -> None:
    now = 100.0
    progress = Progress(lambda: now)
    for _ in range(20):
        progress.wrote(50, 100)
        now += 1.0
    assert 45 <= progress.rate <= 60
    now += 100.0
    assert progress.rate == 0.0


# -- what it is called

A, B = Identity("s1", "a", "e1"), Identity("s2", "b", "e2")


def test_the_name_depends_on_both_ends_and_the_filter_but_not_on_epochs() -> None:
    plain = replication_id(A, B, Filter())
    assert plain == replication_id(Identity("s1", "a", "other"), Identity("s2", "b", "another"), Filter())
    others = [
        replication_id(B, A, Filter()),
        replication_id(A, Identity("s2", "c", "e2"), Filter()),
        replication_id(A, B, Filter.of(patterns=["x/#"])),
        replication_id(A, B, Filter.of(ids=["x"])),
        replication_id(A, B, Filter.of(ids=[])),
        replication_id(A, B, Filter.of(selector={"x": 1})),
    ]
    assert len({plain, *others}) == 7


def test_equal_filters_have_one_name() -> None:
    one = Filter.of(patterns=["b/#", "/a/*", "b/#"])
    other = Filter.of(patterns=["a/#", "b/#"])
    assert replication_id(A, B, one) == replication_id(A, B, other)
    written = Filter.of(selector={"a": 1, "b": 2}), Filter.of(selector={"b": {"$eq": 2}, "a": {"$eq": 1}})
    assert replication_id(A, B, written[0]) == replication_id(A, B, written[1])


# -- what is meant


def row(id: str = "d", doc: dict[str, object] | None = None, **more: bool) -> Row:
    made = Row(1, id, "1-a", ["1-a"], **more)  # type: ignore[arg-type]
    if doc is not None:
        made.doc = msgspec.Raw(msgspec.json.encode({"_id": id, "_rev": "1-a", **doc}))
    return made


def test_patterns_and_ids_are_two_ways() -> None:
    with pytest.raises(BadRequest, match="two ways"):
        Filter.of(patterns=["a/#"], ids=["a"])


def test_ids_are_asked_for_by_their_paths_where_they_are_not_too_many() -> None:
    assert Filter.of(ids=["a/b", "c%"]).asked == ("_id/a/b", "_id/c%25")
    many = Filter.of(ids=[f"d{number}" for number in range(5_000)])
    assert many.asked == ()
    assert many.judge(row("d7")) is Verdict.GOES
    assert many.judge(row("other")) is Verdict.STAYS


@pytest.mark.parametrize(
    ("selector", "asked"),
    [
        ({"region": "Europe"}, {"region/Europe", "_id/_design/#"}),
        (
            {"region": {"$in": ["a", "b/c"]}},
            {"region/a", "region/b%2Fc", "region/+/a", "region/+/b%2Fc", "_id/_design/#"},
        ),
        ({"n": 1}, {"n/1", "n/1.0", "_id/_design/#"}),
        ({"n": 0}, {"n/0", "n/0.0", "n/-0.0", "_id/_design/#"}),
        ({"n": None}, {"n/null", "_id/_design/#"}),
        ({"n": True}, {"n/true", "_id/_design/#"}),
        ({"n": {"$beginsWith": "x"}}, {"n/+", "_id/_design/#"}),
        ({"_id": "a/b"}, {"_id/a/b", "_id/_design/#"}),
        ({"n": {"$gt": 5}}, set()),
        ({"$or": [{"a": 1}, {"b": 1}]}, set()),
    ],
)
def test_a_selector_asks_the_index_for_what_all_its_matches_have(selector: object, asked: set[str]) -> None:
    assert set(Filter.of(selector=selector).asked) == asked


def test_what_a_row_says() -> None:
    patterns = Filter.of(patterns=["a/#"])
    assert patterns.judge(row()) is Verdict.GOES
    assert patterns.judge(row(removed=True)) is Verdict.LEFT
    assert patterns.judge(row(removed=True, deleted=True)) is Verdict.GOES
    selector = Filter.of(selector={"a": 1})
    assert selector.judge(row(doc={"a": 1})) is Verdict.GOES
    assert selector.judge(row(doc={"a": 2})) is Verdict.LEFT
    assert selector.judge(row()) is Verdict.ASK_DOCUMENT
    assert selector.judge(row(deleted=True)) is Verdict.ASK_PARENT


def test_what_cannot_be_looked_into_goes_so_that_the_target_says_why_not() -> None:
    chosen = Filter.of(selector={"n": 1})
    for text in (b'{"_id":"a","n":1e400}', b'{"_id":"a","n":%b1%b}' % (b"[" * 3000, b"]" * 3000)):
        row = Row(1, "a", "2-a", ["2-a"], doc=msgspec.Raw(text))
        assert chosen.judge(row) is Verdict.GOES
        assert chosen.fits(text)
        assert Filter.of(patterns=["n/1"], selector={"n": 1}).meant(Row(1, "a", "2-a", ["2-a"], paths=[]), text)


def test_an_empty_selector_leaves_nothing_out() -> None:
    assert Filter.of(selector={}).is_everything


# -- what is verified


def doc(**fields: object) -> bytes:
    return msgspec.json.encode(
        {"_id": "d", "_rev": "2-bb", "_revisions": {"start": 2, "ids": ["bb", "aa"]}, **fields}
    )


def test_a_revision_that_fits_passes_with_the_contents_it_names() -> None:
    digest = "sha256-" + "0" * 64
    stubs = {
        "f": {"stub": True, "digest": digest, "length": 3, "revpos": 1},
        "link": {"link": "http://x/", "revpos": 1},
    }
    found = verified("d", "2-bb", doc(_attachments=stubs, user={"_id": "other"}))
    assert [(blob.name, blob.digest, blob.length) for blob in found.blobs] == [("f", digest, 3)]


@pytest.mark.parametrize(
    "wrong",
    [
        doc(_id="other"),
        doc(_rev="2-cc"),
        doc(_rev=7),
        doc(_revisions={"start": 3, "ids": ["bb"]}),
        doc(_revisions={"start": 2, "ids": ["cc"]}),
        doc(_revisions={"start": 2, "ids": []}),
        doc(_revisions={"start": 2, "ids": ["bb", "aa", "00"]}),
        b'{"_id":"d","_rev":"2-bb"}',
        doc(_attachments={"_f": {"stub": True}}),
        doc(_attachments={"f": {"follows": True}}),
        doc(_attachments={"f": {"upload": "x"}}),
        doc(_attachments=[]),
        b"[]",
        b'{"_id":"d","_rev":"2-bb"',
        b"\xff",
        b"",
    ],
)
def test_what_does_not_fit_is_told(wrong: bytes) -> None:
    with pytest.raises(Unfit):
        verified("d", "2-bb", wrong)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_whatever_comes_it_is_a_document_or_told_to_be_none(text: bytes) -> None:
    with pytest.raises(SpileError):
        verified("d", "1-a", text)


def test_a_row_s_document_counts_where_it_needs_no_history() -> None:
    assert of_row(row(doc={"a": 1})) is not None
    later = row(doc={"a": 1})
    later.rev = "2-a"
    assert of_row(later) is None
    assert of_row(row()) is None


def test_a_leaf_that_is_no_revision_is_told() -> None:
    check_revisions("d", ["1-a", "2-b"])
    with pytest.raises(Unfit, match="no revision"):
        check_revisions("d", ["1-a", "x"])
