"""The service's end of one stream: which array goes out next, given credit and what was looked at.

Pure: it reads no clock and no barrel. Whoever drives it (`feeder`) brings rows, credit and the time, and
carries the arrays away; the listener's end is `receiver`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from feeds.errors import BadRequest, SpileError, Timeout
from feeds.positions import SEQ_MAX, Position
from listeners.stream.messages import Array, Credit, End, Open, encode

Told = tuple[int, bytes]  # a row on its way: its seq and its JSON

# What an array has beside its rows: the keys, a run, two positions.
_FRAME_BYTES = 256


@dataclass(frozen=True, slots=True)
class SenderLimits:
    """Bounds of a stream at the service. The promise is a heartbeat in 10 s; a beat earlier leaves room."""

    array_bytes: int = 64 << 10
    heartbeat_s: float = 8.0
    silence_s: float = 60.0
    pending_bytes: int = 1 << 20


DEFAULT_LIMITS = SenderLimits()


class Sender:
    """One run of a stream, from its start array to its end.

    `position` is what the last array brought the listener to, `acked` what it acknowledged. Rows are offered
    in seq order and wait in a bounded buffer for credit; when they would exceed it, they are let go and the
    sender is back at `position` (`behind`), for the rows to be read from the log again.
    """

    def __init__(
        self,
        opened: Open,
        *,
        epoch: str,
        start: int,
        snapshot: bool = False,
        now: float,
        limits: SenderLimits = DEFAULT_LIMITS,
    ) -> None:
        """A stream from `start` on; with `snapshot` it begins with one, whose end is told by `snapshot_ends_at`."""
        self.run = opened.run
        self.follow = opened.follow
        self.epoch = epoch
        self.window = opened.window
        self.bytes = opened.bytes
        self.position = start
        self.acked = start
        self.looked_at = start
        self._limits = limits
        self._snapshot_upto = SEQ_MAX if snapshot else None
        self._cursor_from = start
        self._pending: deque[Told] = deque()
        self._pending_bytes = 0
        self._unacked: deque[tuple[int, int]] = deque()
        self._unacked_bytes = 0
        self._started = False
        self._level = False
        self._told_level = False
        self._end: End | None = None
        self._ended = False
        self._given_up = False
        self._heard_at = now
        self._sent_at = now

    # What came in

    def snapshot_ends_at(self, seq: int) -> None:
        """The snapshot tells everything up to this seq."""
        self._snapshot_upto = seq
        # Of an empty snapshot the end cannot be told from the start by its position: wait for what comes after.
        self._cursor_from = max(seq, self.position + 1)

    def offer(self, rows: Iterable[Told], looked_at: int) -> bool:
        """What just happened, up to `looked_at`, with no more after it. What is known already is passed over.

        False when it does not fit into the buffer: then all that waits is let go (`rewind`).
        """
        self.page(rows, looked_at, level=True)
        if len(self._pending) > max(self.window, 1) or (
            self._pending_bytes > self._limits.pending_bytes and len(self._pending) > 1
        ):
            self.rewind()
            return False
        return True

    def page(self, rows: Iterable[Told], looked_at: int, *, level: bool) -> None:
        """Rows read from the log, as many as there was `room` for; `level` when the log had no more."""
        if looked_at > self.looked_at:
            known = self.looked_at
            for row in rows:
                if row[0] > known:
                    self._pending.append(row)
                    self._pending_bytes += len(row[1])
            self.looked_at = looked_at
        self._level = level

    def look(self, looked_at: int) -> None:
        """Nothing up to here concerns this stream, and there was no more."""
        if looked_at > self.looked_at:
            self.looked_at = looked_at
        self._level = True

    def rewind(self) -> None:
        """Let go of what waits: it is read again from `position`."""
        self._pending.clear()
        self._pending_bytes = 0
        self.looked_at = self.position
        self._level = self._told_level = False

    def credited(self, credit: Credit, now: float) -> None:
        """The listener's word; an older one changes nothing.

        BadRequest when it acknowledges what was not sent.
        """
        self._heard_at = now
        ack = Position.parse(credit.ack)
        if ack.seq > self.position or ack.epoch not in (None, self.epoch):
            raise BadRequest(
                f"{credit.ack} was not sent: this run stands at {self.position}-{self.epoch}.",
                hint="Acknowledge positions that came in this run's arrays, after they were handled.",
            )
        if ack.seq < self.acked:
            return
        self.acked = ack.seq
        self.window = credit.window
        self.bytes = credit.bytes
        unacked = self._unacked
        while unacked and unacked[0][0] <= ack.seq:
            self._unacked_bytes -= unacked.popleft()[1]

    def fail(self, error: SpileError) -> None:
        """End with this error, in place of all that waits."""
        if self._end is None:
            self._end = End.of(error)
            self._pending.clear()
            self._pending_bytes = 0

    def tick(self, now: float) -> None:
        """Let time pass: a listener that said nothing for too long is given up."""
        if now - self._heard_at >= self._limits.silence_s:
            self._given_up = self._ended
            self.fail(Timeout(f"Nothing was heard from the listener for {self._limits.silence_s:.0f} s."))

    # What goes out

    def next_array(self, now: float) -> bytes | None:
        """The array to send now, encoded; None when there is nothing to say. Call again until it is None."""
        if self._ended:
            return None
        if not self._started:
            return self._start(now)
        if self._end is not None:
            self._ended = True
            return self._array(now, [], self.position, end=self._end)
        rows, last = self._take()
        drained = not self._pending
        seq = self.looked_at if drained else last
        level = drained and self._level
        closes_snapshot = drained and self._snapshot_upto is not None and seq >= self._snapshot_upto
        if level and not self.follow:
            self._end = End("done")
            self._ended = True
        elif not (rows or closes_snapshot or (level and not self._told_level)) and not self.due(now):
            return None
        self._told_level = level
        if closes_snapshot:
            self._snapshot_upto = None
        return self._array(now, rows, seq, caught_up=level, snapshot_ends=closes_snapshot, end=self._end)

    def due(self, now: float) -> bool:
        """Whether the heartbeat is due."""
        return now - self._sent_at >= self._limits.heartbeat_s

    def room(self) -> tuple[int, int] | None:
        """How many rows and bytes to read next; None as long as there is no credit or rows still wait."""
        if self._pending or self._end is not None or self._level:
            return None
        rows, bytes_ = self.window - len(self._unacked), self.bytes - self._unacked_bytes
        if not self._unacked:
            rows, bytes_ = max(1, rows), max(1, bytes_)
        return (rows, min(bytes_, self._limits.pending_bytes)) if rows > 0 and bytes_ > 0 else None

    @property
    def cursor(self) -> int | None:
        """What may be stored as the listener's cursor; None within a snapshot, where the old one counts."""
        if self._snapshot_upto is not None or self.acked < self._cursor_from:
            return None
        return self.acked

    @property
    def handled(self) -> int:
        """Up to where nothing is left that the listener is to be told, or has to acknowledge."""
        waiting = self._unacked or self._pending
        return waiting[0][0] - 1 if waiting else self.looked_at

    @property
    def in_snapshot(self) -> bool:
        """Whether what is sent belongs to a snapshot."""
        return self._snapshot_upto is not None

    @property
    def level(self) -> bool:
        """Whether the last thing known is that there is nothing more to look at."""
        return self._level

    @property
    def ending(self) -> bool:
        """Whether the stream has come to its end, told or not."""
        return self._end is not None

    @property
    def finished(self) -> bool:
        """Whether nothing more will be sent, nor is any acknowledgement awaited."""
        if not self._ended or self._end is None:
            return False
        return self._given_up or self._end.code != "done" or self.acked >= self.position

    @property
    def heard_at(self) -> float:
        """When the listener was last heard."""
        return self._heard_at

    @property
    def buffered(self) -> int:
        """Rows that wait here for credit."""
        return len(self._pending)

    @property
    def unacknowledged(self) -> tuple[int, int]:
        """Rows and bytes that are on their way, or with the listener."""
        return len(self._unacked), self._unacked_bytes

    # How it is made

    def _start(self, now: float) -> bytes:
        self._started = True
        self._sent_at = now
        at = f"{self.position}-{self.epoch}"
        snapshot = None if self._snapshot_upto is None else "start"
        return encode(Array(run=self.run, start=True, prev=at, seq=at, rows=[], snapshot=snapshot))  # type: ignore[arg-type]

    def _take(self) -> tuple[list[msgspec.Raw], int]:
        """Waiting rows that credit and the size of an array allow, and the seq they lead to."""
        pending, unacked = self._pending, self._unacked
        rows: list[msgspec.Raw] = []
        size, last = _FRAME_BYTES, self.position
        while pending:
            seq, row = pending[0]
            length = len(row)
            if unacked and (len(unacked) >= self.window or self._unacked_bytes + length > self.bytes):
                break
            if rows and size + length >= self._limits.array_bytes:
                break
            pending.popleft()
            self._pending_bytes -= length
            unacked.append((seq, length))
            self._unacked_bytes += length
            size += length + 1
            rows.append(msgspec.Raw(row))
            last = seq
        return rows, last

    def _array(
        self,
        now: float,
        rows: list[msgspec.Raw],
        seq: int,
        *,
        caught_up: bool = False,
        snapshot_ends: bool = False,
        end: End | None = None,
    ) -> bytes:
        previous, self.position = self.position, seq
        self._sent_at = now
        return encode(
            Array(
                run=self.run,
                prev=f"{previous}-{self.epoch}",
                seq=f"{seq}-{self.epoch}",
                rows=rows,
                caught_up=caught_up,
                snapshot="end" if snapshot_ends else None,
                end=end,
            )
        )


def refusal(run: str, error: SpileError) -> bytes:
    """The array that answers an open which leads to no stream: no positions, only the end."""
    return encode(Array(run=run, rows=[], end=End.of(error)))
