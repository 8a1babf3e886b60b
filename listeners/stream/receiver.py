"""The listener's end of one stream: what a message, an acknowledgement or a moment's passing leads to.

Pure: events go in with the time, actions come out. `listeners.following` carries them out over a link; the
service's end is `sender`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from feeds.errors import BadRequest, SpileError
from feeds.positions import Position
from feeds.rows import Row
from listeners.backoff import Backoff
from listeners.errors import error_of
from listeners.stream.actions import (
    Action,
    CaughtUp,
    Deliver,
    Discard,
    Finished,
    Item,
    ReceiverLimits,
    Send,
    Wanted,
)
from listeners.stream.messages import Array, Close, Credit, Open, encode

DEFAULT_LIMITS = ReceiverLimits()


@dataclass(slots=True)
class _Arrived:
    """An array of the run whose items are not all acknowledged: its last ordinal, its seq, its size."""

    ordinal: int
    seq: int
    rows: int
    bytes: int
    snapshot: bool


class Receiver:
    """Follows one feed through lost connections and messages.

    `position` is where the listener stands: everything up to it was acknowledged by the application (or did
    not concern it). Every reopening starts there. It is None until a service has fixed it.
    """

    def __init__(
        self,
        wanted: Wanted,
        *,
        nonce: Callable[[], str],
        backoff: Backoff | None = None,
        limits: ReceiverLimits = DEFAULT_LIMITS,
    ) -> None:
        self.wanted = wanted
        self.position: Position | None = None
        self.finished = False
        self._nonce = nonce
        self._backoff = backoff or Backoff(0.05, 5.0)
        self._limits = limits
        self._connected = False
        self._run = ""
        self._started = False
        self._start_wait_s = limits.start_s
        self._done = False
        self._ordinal = 0  # of the last item delivered, over all runs
        self._acked_ordinal = 0
        self._first_ordinal = 1  # of the present run
        self._arrived: deque[_Arrived] = deque()
        self._epoch = ""
        self._received = 0  # the seq that the last array led to
        self._snapshot = False  # arrays now received belong to a snapshot
        self._snapshot_acked: int | None = None  # what credit says, until a snapshot's end is acknowledged
        self._told_caught_up = False
        self._credited = 0  # the last ack that was sent
        self._acked_rows = 0  # since then
        self._acked_bytes = 0
        self._spoke_at = 0.0
        self._heard_at = 0.0
        self._reopen_at: float | None = None

    # Events

    def connected(self, now: float) -> list[Action]:
        """There is a link to a service."""
        self._connected = True
        return self._open(now)

    def lost(self, now: float) -> list[Action]:
        """The link is gone; what was delivered stays valid until a new run starts."""
        self._connected = False
        self._run = ""
        self._started = False
        self._reopen_at = None
        return []

    def received(self, array: Array[Row], size: int, now: float) -> list[Action]:
        """An array arrived, `size` bytes long."""
        if self.finished or not self._run or array.run != self._run:
            return []
        if array.end is not None and array.end.code != "done":
            # Also after all was told: whoever has not acknowledged it yet would have its cursor stored by nobody.
            return self._ended(error_of(array.end.code, array.end.reason, array.end.hint), now)
        if self._done:
            return []
        try:
            seq = Position.parse(array.seq)
            prev = Position.parse(array.prev)
        except BadRequest as fault:
            return self._finish(fault)
        if not self._started:
            if not array.start:
                return self._reopen(now)
            return self._start(array, seq, now)
        if prev.seq != self._received or prev.epoch != self._epoch:
            return self._reopen(now)
        self._heard_at = now
        if array.start:
            return []  # the start came twice
        if self._snapshot and array.caught_up and array.snapshot != "end":
            return self._reopen(now)  # the end of an empty snapshot was lost: positions cannot show that
        return self._accept(array, seq.seq, size, now)

    def refused(self, error: SpileError, now: float) -> list[Action]:
        """The transport was told that the service will not have the last message."""
        return [] if self.finished or not self._run else self._ended(error, now)

    def acked(self, item: Item, now: float) -> list[Action]:
        """The application is done with this item and all before it."""
        if item.ordinal <= self._acked_ordinal or self.finished:
            return []
        self._acked_ordinal = item.ordinal
        if item.ordinal < self._first_ordinal:
            return self._acked_earlier_run(item)
        arrived = self._arrived
        last = 0
        while arrived and arrived[0].ordinal <= item.ordinal:
            whole = arrived.popleft()
            last = whole.ordinal
            self._acked_rows += whole.rows
            self._acked_bytes += whole.bytes
            self._move(whole.seq, whole.snapshot)
        if item.ordinal != last:
            # Within an array: the position moves with each row, the credit's count with the whole. That a
            # snapshot is over says only its end, which may have the position of its last row.
            closing = item.snapshot and not arrived[0].snapshot
            self._move(min(item.seq, arrived[0].seq - 1) if closing else item.seq, item.snapshot)
        return self._credit_if_due(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        if self.finished or not self._connected:
            return []
        if self._reopen_at is not None:
            return self._open(now) if now >= self._reopen_at else []
        if not self._started:
            if now - self._heard_at < self._start_wait_s:
                return []
            self._start_wait_s = min(2 * self._start_wait_s, self._limits.silence_s)
            return self._open(now)
        if not self._done and now - self._heard_at >= self._limits.silence_s:
            return self._reopen(now)
        return self._credit_if_due(now)

    def closed(self, now: float) -> list[Action]:
        """The application wants no more: a last acknowledgement, and the close."""
        if self.finished:
            return []
        actions = self._farewell(now)
        self.finished = True
        return [*actions, Finished()]

    @property
    def deadline(self) -> float | None:
        """When `tick` is to be called at the latest; None while only an event can change anything."""
        if self.finished or not self._connected:
            return None
        if self._reopen_at is not None:
            return self._reopen_at
        if not self._started:
            return self._heard_at + self._start_wait_s
        at = self._spoke_at + self._limits.credit_s
        if not self._done:
            at = min(at, self._heard_at + self._limits.silence_s)
        if self._ack() > self._credited:
            at = min(at, self._spoke_at + self._ack_wait_s())
        return at

    @property
    def open(self) -> bool:
        """Whether a service has started the present run."""
        return self._started

    # Opening

    def _open(self, now: float) -> list[Action]:
        self._run = self._nonce()
        self._started = False
        self._done = False
        self._reopen_at = None
        self._heard_at = self._spoke_at = now
        wanted = self.wanted
        since = wanted.since if self.position is None else self.position
        message = Open(
            run=self._run,
            name=wanted.name,
            since=None if since is None else str(since),
            patterns=list(wanted.patterns),
            window=wanted.window,
            bytes=wanted.bytes,
            docs=wanted.docs,
            attachments=wanted.attachments,
            deletions=wanted.deletions,
            follow=wanted.follow,
        )
        return [Send(encode(message), opens=True)]

    def _reopen(self, now: float) -> list[Action]:
        """Open again: at once when the last run got somewhere, else a little later each time."""
        self._run = ""
        self._started = False
        self._reopen_at = now + self._backoff.next()
        return []

    def _start(self, array: Array[Row], start: Position, now: float) -> list[Action]:
        """A run begins, and with it everything that was delivered but not told is void."""
        epoch = start.epoch or ""
        self._started = True
        self._start_wait_s = self._limits.start_s
        self._heard_at = now
        self._epoch = epoch
        self._received = self._credited = start.seq
        self._arrived.clear()
        self._acked_rows = self._acked_bytes = 0
        self._first_ordinal = self._ordinal + 1
        self._told_caught_up = False
        self._snapshot = array.snapshot == "start"
        actions: list[Action] = [Discard()]
        if self._snapshot:
            self._snapshot_acked = start.seq
            actions.append(Deliver([self._item(start.seq, None, boundary="start")]))
            self._arrived.append(_Arrived(self._ordinal, start.seq, 0, 0, snapshot=True))
            return actions
        self._snapshot_acked = None
        here = self.position
        if here is None or here.epoch != epoch or here.seq < start.seq:
            self.position = Position(start.seq, epoch)
        return actions

    # Rows

    def _accept(self, array: Array[Row], seq: int, size: int, now: float) -> list[Action]:
        self._backoff.reset()
        self._received = seq
        here = self.position
        told = here.seq if here is not None and self._snapshot_acked is None else -1
        items = [self._item(row.seq, row) for row in array.rows if row.seq > told]
        if array.snapshot == "end" and self._snapshot:
            items.append(self._item(seq, None, boundary="end"))
        actions: list[Action] = []
        if items:
            actions.append(Deliver(items))
            within = self._snapshot and array.snapshot != "end"
            self._arrived.append(_Arrived(self._ordinal, seq, len(array.rows), size, within))
        elif self._arrived:
            self._arrived[-1].seq = seq
            self._arrived[-1].bytes += size
        else:
            self._acked_rows += len(array.rows)
            self._acked_bytes += size
            self._move(seq, self._snapshot)
        if array.snapshot == "end":
            self._snapshot = False
        if array.caught_up and not self._told_caught_up:
            self._told_caught_up = True
            actions.append(CaughtUp())
        self._done = array.end is not None
        return actions + self._credit_if_due(now)

    def _item(self, seq: int, row: Row | None, boundary: str | None = None) -> Item:
        self._ordinal += 1
        return Item(self._ordinal, seq, self._epoch, row, self._snapshot, boundary)

    def _move(self, seq: int, snapshot: bool) -> None:
        """Everything up to `seq` is acknowledged; in a snapshot that frees credit only."""
        if snapshot:
            self._snapshot_acked = max(seq, self._snapshot_acked or 0)
            return
        self._snapshot_acked = None
        here = self.position
        if here is None or here.epoch != self._epoch or here.seq < seq:
            self.position = Position(seq, self._epoch)

    def _acked_earlier_run(self, item: Item) -> list[Action]:
        """An item of a run that is over: it still counts, if it was no part of a snapshot."""
        here = self.position
        counts = not item.snapshot and item.boundary is None and self._snapshot_acked is None
        if counts and here is not None and here.epoch == item.epoch and here.seq < item.seq:
            self.position = Position(item.seq, item.epoch)
        return []

    # Credit and ends

    def _ack(self) -> int:
        """What the service may take as acknowledged in this run."""
        if self._snapshot_acked is not None:
            return self._snapshot_acked
        return min(self.position.seq, self._received) if self.position else self._credited

    def _credit_if_due(self, now: float) -> list[Action]:
        if not self._started or not self._connected:
            return []
        if self._done and not self._arrived:
            actions = self._farewell(now)
            self.finished = True
            return [*actions, Finished()]
        ack = self._ack()
        wanted = self.wanted
        due = (
            self._acked_rows * 2 >= max(wanted.window, 1)
            or self._acked_bytes * 2 >= max(wanted.bytes, 1)
            or (ack > self._credited and now - self._spoke_at >= self._ack_wait_s())
            or now - self._spoke_at >= self._limits.credit_s
        )
        if not due:
            return []
        self._credited = ack
        self._acked_rows = self._acked_bytes = 0
        self._spoke_at = now
        return [self._credit(ack)]

    def _ack_wait_s(self) -> float:
        """How soon to acknowledge: with nothing left to tell at once, for the service may wait for it."""
        return self._limits.busy_ack_s if self._arrived else self._limits.idle_ack_s

    def _credit(self, ack: int) -> Send:
        message = Credit(
            run=self._run, ack=f"{ack}-{self._epoch}", window=self.wanted.window, bytes=self.wanted.bytes
        )
        return Send(encode(message))

    def _farewell(self, now: float) -> list[Action]:
        if not self._started or not self._connected:
            return []
        actions: list[Action] = []
        if (ack := self._ack()) > self._credited:
            actions.append(self._credit(ack))
        self._spoke_at = now
        return [*actions, Send(encode(Close(run=self._run)))]

    def _ended(self, error: SpileError, now: float) -> list[Action]:
        """The service ended the run. A stream that had started may be had again; a refused open may not,
        unless the error passes by itself."""
        if error.code == "replaced" or not (self._started or error.retryable):
            return self._finish(error)
        return self._reopen(now)

    def _finish(self, error: SpileError) -> list[Action]:
        self.finished = True
        return [Finished(error)]
