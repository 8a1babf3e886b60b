"""Loading documents: from pieces to batches, each sent until it is answered, and what became of them.

Batches go one after the other, since the order decides what an update extends; while one is on its way
the next is made ready. Where the documents come from and how progress is shown is left to others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

import tenacity

from broker.cli.backend import BulkResult
from broker.cli.elements import Piece
from broker.cli.exits import with_code
from broker.cli.inputs import BadInput, BrokenInput
from broker.cli.lane import Lane
from feeds.errors import SpileError, StorageFull, Timeout, Unavailable
from listeners.errors import Unreached

__all__ = ["LoadReport", "Loader", "Refusal"]

BATCH_BYTES_MAX = 8 << 20
"""A batch is sent at this size even if it holds few documents; far below what the service takes at once."""

REFUSALS_NAMED_MAX = 10

ATTEMPTS_UNTOLD = 3
"""A service that is short of time for a moment is no news; one that cannot after so many attempts is."""

_log = logging.getLogger("spile.cli")

Send = Callable[[bytes, str], list[BulkResult]]
"""Sends a bulk body under an idempotency key and answers with a result for each document, in order."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A document that was not stored, or a line that held none."""

    source: str
    line: int
    id: str | None
    error: str
    reason: str

    def __str__(self) -> str:
        identity = f" {self.id}:" if self.id and self.id not in self.reason else ""
        return with_code(f"{self.source} line {self.line:,}:{identity} {self.reason}", self.error)


@dataclass(slots=True)
class LoadReport:
    """What became of the documents so far; `first_refusals` names the first ones.

    `last_seq` is that of the newest document that was stored.
    """

    stored: int = 0
    refused: int = 0
    skipped: int = 0
    last_seq: int | None = None
    seconds: float = 0.0
    first_refusals: list[Refusal] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Documents stored in a second."""
        return self.stored / self.seconds if self.seconds > 0 else 0.0

    def add(self, refusal: Refusal) -> None:
        if len(self.first_refusals) < REFUSALS_NAMED_MAX:
            self.first_refusals.append(refusal)


@dataclass(slots=True)
class _Batch:
    source: str
    lines: list[int] = field(default_factory=list)
    docs: list[bytes] = field(default_factory=list)
    size: int = 0

    def body(self, update: bool) -> bytes:
        return b'{"docs":[' + b",\n".join(self.docs) + (b'],"update":true}' if update else b"]}")


class Loader:
    """Sends what it is given in batches; `report` is true at every moment.

    `run_id` makes the idempotency keys of this run its own. A send that fails in a way that may pass is
    repeated under the same key for up to `patience` seconds.
    """

    def __init__(
        self,
        send: Send,
        *,
        run_id: str,
        batch: int = 1000,
        update: bool = False,
        skip_bad: bool = False,
        patience: float = 60.0,
        on_answer: Callable[[LoadReport], None] = lambda report: None,
    ) -> None:
        self.report = LoadReport()
        self._send = send
        self._run_id = run_id
        self._batch_max = batch
        self._update = update
        self._skip_bad = skip_bad
        self._patience = patience
        self._on_answer = on_answer
        self._unanswered = False
        self._stopping = threading.Event()
        self._lane: Lane[list[BulkResult]] = Lane("spile-load", waiting_max=1)
        self._sent: deque[tuple[_Batch, Future[list[BulkResult]]]] = deque()
        self._batches = 0
        self._began = time.monotonic()

    @property
    def underway(self) -> int:
        """How many documents were handed on and are not answered yet."""
        return sum(len(batch.lines) for batch, _ in self._sent)

    @property
    def in_doubt(self) -> int:
        """How many documents were sent without an answer, so that they may be stored or not."""
        return len(self._sent[0][0].lines) if self._sent and self._unanswered else 0

    def load(self, source: str, pieces: Iterator[Piece], check: Callable[[Piece], bytes]) -> None:
        """Send every piece that `check` makes a document of, and wait until all are answered.

        Raises BadInput for a piece that is none (with `skip_bad` only where nothing more can be read): then
        the batches before its own are stored, its own is not; so too for what raises BrokenInput. Raises what a
        send raised after `patience`.
        """
        try:
            batch = _Batch(source)
            for piece in pieces:
                try:
                    doc = check(piece)
                except BadInput as bad:
                    if not self._skip_bad:
                        raise
                    self.report.skipped += 1
                    self.report.add(Refusal(source, bad.line, None, "bad_request", bad.problem))
                    continue
                if batch.docs and batch.size + len(doc) > BATCH_BYTES_MAX:
                    batch = self._post(batch)
                batch.docs.append(doc)
                batch.lines.append(piece.line)
                batch.size += len(doc)
                if len(batch.docs) >= self._batch_max:
                    batch = self._post(batch)
            self._post(batch)
        except (BadInput, BrokenInput):
            self._settle_all()
            raise
        self._settle_all()

    def close(self) -> None:
        """Give up what was not sent yet; what is on its way is not waited for."""
        self._stopping.set()
        self._lane.close()

    def _post(self, batch: _Batch) -> _Batch:
        """Hand a batch on, once there is room, and begin the next."""
        if batch.docs:
            while len(self._sent) >= 2:
                self._settle_first()
            key = f"load-{self._run_id}-{self._batches}"
            self._batches += 1
            body = batch.body(self._update)
            batch.docs.clear()
            self._sent.append((batch, self._lane.submit(lambda: self._send_until_answered(body, key))))
        return _Batch(batch.source)

    def _settle_all(self) -> None:
        while self._sent:
            self._settle_first()

    def _settle_first(self) -> None:
        batch, answer = self._sent[0]
        results = answer.result()
        self._sent.popleft()
        if len(results) != len(batch.lines):
            raise Unavailable(f"{len(batch.lines)} documents were sent, {len(results)} results came back")
        report = self.report
        for line, result in zip(batch.lines, results, strict=True):
            if result.error is None:
                report.stored += 1
            else:
                report.refused += 1
                report.add(Refusal(batch.source, line, result.id, result.error, result.reason or ""))
        if seqs := [result.seq for result in results if result.seq is not None]:
            report.last_seq = max(report.last_seq or 0, *seqs)
        report.seconds = time.monotonic() - self._began
        self._on_answer(report)

    def _send_until_answered(self, body: bytes, key: str) -> list[BulkResult]:
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
            stop=tenacity.stop_after_delay(self._patience) | tenacity.stop_when_event_set(self._stopping),
            sleep=tenacity.sleep_using_event(self._stopping),
            before_sleep=self._tell_of_waiting,
            reraise=True,
        ):
            with attempt:
                try:
                    answer = self._send(body, key)
                except (Unavailable, Timeout) as error:
                    self._unanswered |= not isinstance(error, Unreached | StorageFull)
                    raise
                self._unanswered = False
                return answer
        raise AssertionError("tenacity ends by an answer or by raising")

    def _tell_of_waiting(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number == ATTEMPTS_UNTOLD and state.outcome is not None:
            _log.warning("trying again for up to %.0f s: %s", self._patience, state.outcome.exception())


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, SpileError) and error.retryable and not isinstance(error, StorageFull)
