"""Sending batches: order, retries, what is counted, and what a bad line leaves behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import msgspec
import pytest

from broker.cli.backend import BulkResult
from broker.cli.elements import Piece, lines
from broker.cli.identify import checker
from broker.cli.inputs import BadInput, BrokenInput
from broker.cli.loading import BATCH_BYTES_MAX, Loader
from feeds.errors import Conflict, Overloaded, SpileError, StorageFull, Timeout, Unavailable
from listeners.errors import Unreached


class Receiver:
    """Takes batches as a service does: under one key once, refusing documents that say so."""

    def __init__(self, failures: list[SpileError] | None = None) -> None:
        self.batches: list[list[dict[str, object]]] = []
        self.keys: list[str] = []
        self.updates: list[bool] = []
        self._failures = failures or []

    def __call__(self, body: bytes, key: str) -> list[BulkResult]:
        self.keys.append(key)
        if self._failures:
            raise self._failures.pop(0)
        asked = msgspec.json.decode(body)
        self.batches.append(asked["docs"])
        self.updates.append(asked.get("update", False))
        return [
            BulkResult(id=doc.get("_id"), error="conflict", reason="changed")
            if doc.get("refuse")
            else BulkResult(id=doc.get("_id"), rev="1-a", seq=place)
            for place, doc in enumerate(asked["docs"], 1)
        ]


def numbered(count: int) -> Iterator[Piece]:
    return lines([b"\n".join(b'{"n":%d}' % number for number in range(count))])


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def loaded(receiver: Receiver, pieces: Iterator[Piece], **options: object) -> Loader:
    loader = Loader(receiver, run_id="run", **options)  # type: ignore[arg-type]
    try:
        loader.load("file", pieces, checker())
    finally:
        loader.close()
    return loader


def test_documents_arrive_in_order_in_batches(receiver: Receiver) -> None:
    loader = loaded(receiver, numbered(25), batch=10)
    assert [len(batch) for batch in receiver.batches] == [10, 10, 5]
    assert [doc["n"] for batch in receiver.batches for doc in batch] == list(range(25))
    assert (loader.report.stored, loader.report.refused) == (25, 0)


def test_nothing_is_sent_of_nothing(receiver: Receiver) -> None:
    assert loaded(receiver, lines([])).report.stored == 0
    assert receiver.batches == []


def test_updates_say_so(receiver: Receiver) -> None:
    loaded(receiver, numbered(1), update=True)
    loaded(receiver, numbered(1))
    assert receiver.updates == [True, False]


def test_a_batch_ends_before_it_gets_too_large(receiver: Receiver) -> None:
    large = b'{"x":"%b"}' % (b"x" * (BATCH_BYTES_MAX // 2))
    loaded(receiver, lines([b"\n".join([large] * 3)]))
    assert [len(batch) for batch in receiver.batches] == [1, 1, 1]


def test_what_may_pass_is_sent_again_under_the_same_key() -> None:
    receiver = Receiver([Overloaded(), Unavailable("gone for a moment")])
    loader = loaded(receiver, numbered(20), batch=10)
    assert receiver.keys == ["load-run-0", "load-run-0", "load-run-0", "load-run-1"]
    assert loader.report.stored == 20


@pytest.mark.parametrize("failure", [Conflict(), StorageFull()])
def test_what_stays_is_raised_at_once_and_nothing_later_is_sent(failure: SpileError) -> None:
    receiver = Receiver([failure])
    with pytest.raises(type(failure)):
        loaded(receiver, numbered(100), batch=10)
    assert receiver.batches == []
    assert len(receiver.keys) == 1


def test_patience_ends() -> None:
    receiver = Receiver([Overloaded() for _ in range(100)])
    with pytest.raises(Overloaded):
        loaded(receiver, numbered(1), patience=0.0)


def test_who_waits_for_a_service_is_told_so_once(caplog: pytest.LogCaptureFixture) -> None:
    loaded(Receiver([Unavailable("gone for a moment") for _ in range(4)]), numbered(1), patience=120)
    assert caplog.messages == ["trying again for up to 120 s: gone for a moment"]
    caplog.clear()
    loaded(Receiver([Overloaded(), Overloaded()]), numbered(1))
    assert caplog.messages == []


def test_refused_documents_are_counted_and_the_first_ones_named(receiver: Receiver) -> None:
    docs = [b'{"_id":"d%d","refuse":%b}' % (n, b"true" if n % 2 else b"false") for n in range(50)]
    report = loaded(receiver, lines([b"\n".join(docs)]), batch=7).report
    assert (report.stored, report.refused) == (25, 25)
    assert [refusal.line for refusal in report.first_refusals] == list(range(2, 22, 2))
    assert str(report.first_refusals[0]) == "file line 2: d1: changed [conflict]"


def test_the_last_seq_is_that_of_the_newest_document_that_was_stored(receiver: Receiver) -> None:
    stored, refused = b'{"_id":"a"}\n', b'{"_id":"b","refuse":true}\n'
    assert loaded(receiver, lines([refused * 3])).report.last_seq is None
    assert loaded(receiver, lines([stored * 2 + refused * 2]), batch=2).report.last_seq == 2


def test_a_bad_line_stops_with_its_own_batch_unsent(receiver: Receiver) -> None:
    loader = Loader(receiver, run_id="run", batch=10)
    with pytest.raises(BadInput, match="line 26:"):
        loader.load("file", lines([b'{"a":1}\n' * 25 + b"oops\n" + b'{"a":1}\n']), checker())
    loader.close()
    assert [len(batch) for batch in receiver.batches] == [10, 10]
    assert loader.report.stored == 20


def test_an_input_that_breaks_off_leaves_every_batch_before_stored_and_counted(receiver: Receiver) -> None:
    def breaks_off() -> Iterator[Piece]:
        yield from numbered(25)
        raise BrokenInput("file ends early")

    loader = Loader(receiver, run_id="run", batch=10)
    with pytest.raises(BrokenInput):
        loader.load("file", breaks_off(), checker())
    loader.close()
    assert [len(batch) for batch in receiver.batches] == [10, 10]
    assert loader.report.stored == 20


def test_bad_lines_can_be_passed_over_and_counted(receiver: Receiver) -> None:
    report = loaded(receiver, lines([b'{"a":1}\noops\n{"a":2}\n[]\n']), skip_bad=True).report
    assert (report.stored, report.skipped, report.refused) == (2, 2, 0)
    assert [refusal.line for refusal in report.first_refusals] == [2, 4]


def test_progress_is_told_with_every_answer(receiver: Receiver) -> None:
    seen: list[int] = []
    loaded(receiver, numbered(30), batch=10, on_answer=lambda report: seen.append(report.stored))
    assert seen == [10, 20, 30]


def test_what_was_handed_on_and_not_answered_is_known(receiver: Receiver) -> None:
    may_answer = threading.Event()

    def send(body: bytes, key: str) -> list[BulkResult]:
        may_answer.wait()
        return receiver(body, key)

    def interrupted() -> Iterator[Piece]:
        yield from numbered(25)
        raise KeyboardInterrupt

    loader = Loader(send, run_id="run", batch=10)
    with pytest.raises(KeyboardInterrupt):
        loader.load("file", interrupted(), checker())
    assert (loader.report.stored, loader.underway) == (0, 20)
    may_answer.set()
    loader.close()
    assert loaded(receiver, numbered(25), batch=10).underway == 0


@pytest.mark.parametrize(
    ("failures", "in_doubt"),
    [
        ([Unavailable("cut off")], 10),
        ([Timeout()], 10),
        ([Unreached()], 0),
        ([Overloaded()], 0),
        ([StorageFull()], 0),
        ([Unavailable("cut off"), StorageFull()], 10),
    ],
)
def test_what_was_sent_without_an_answer_may_be_stored(failures: list[SpileError], in_doubt: int) -> None:
    loader = Loader(Receiver([*failures, StorageFull()]), run_id="run", batch=10)
    with pytest.raises(StorageFull):
        loader.load("file", numbered(25), checker())
    loader.close()
    assert (loader.report.stored, loader.in_doubt) == (0, in_doubt)


def test_an_answer_that_does_not_fit_is_not_taken_for_one() -> None:
    loader = Loader(lambda body, key: [], run_id="run", patience=0.0)
    with pytest.raises(Unavailable, match="3 documents were sent, 0 results"):
        loader.load("file", numbered(3), checker())
    loader.close()
