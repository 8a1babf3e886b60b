"""One running stream at the service: its sender, and where its rows come from.

Past rows come from a replay of its own, in pages as its credit allows; at the head they come from the hub. It owns
no message format (`messages`) and makes no decision on what to send (`sender`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from feeds.barrel import Barrel
from feeds.errors import BadRequest, SpileError, Unavailable
from feeds.patterns import parse_patterns
from feeds.positions import Position, parse_since
from feeds.rows import Row, Start
from feeds.storage.replay import Replay
from listeners.cursors import Cursors
from listeners.stream.contents import PAGE_ROWS_MAX, Unfilled, filled, with_contents
from listeners.stream.hub import Hub, InThread
from listeners.stream.interests import Interest
from listeners.stream.messages import Credit, Open, fitting
from listeners.stream.sender import Sender, SenderLimits, Told, refusal

log = logging.getLogger("spile.streams")

Send = Callable[[bytes], Awaitable[None]]

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Around:
    """What a stream needs of its service."""

    barrel: Callable[[str], Barrel]  # blocking; raises NotFound
    hub: Callable[[Barrel], Hub]
    cursors: Cursors
    in_thread: InThread  # where many wait for their turn
    at_once: InThread  # for what is quick
    clock: Callable[[], float]
    limits: SenderLimits
    page_rows: int
    page_bytes: int
    contents_bytes_max: int


class Feeder:
    """Runs one stream from its open to its end. Everything but reading the store happens on the event loop."""

    def __init__(
        self, opened: Open, barrel: str, send: Send, around: Around, doc_bytes_max: int | None = None
    ) -> None:
        """Prepare the stream; BadRequest for a pattern or a place to begin that means nothing."""
        self.opened = opened
        self.barrel_name = barrel
        self.interest = Interest(parse_patterns(opened.patterns), opened.docs, doc_bytes_max, opened.deletions)
        self._contents = opened.docs and opened.attachments == "contents"
        self._unfilled = Unfilled()
        self.started_at = around.clock()
        self._since = parse_since(opened.since)
        self._send = send
        self._around = around
        self._barrel: Barrel | None = None
        self._hub: Hub | None = None
        self._sender: Sender | None = None
        self._error: SpileError | None = None
        self._replay: Replay | None = None
        self._leaves = True
        self._in_snapshot = False
        self._live = False
        self._at_end = False  # of the replay, so that the hub can take over
        self._kept: int | None = None  # the cursor as it was given away last
        self._fenced = False  # the cursor belongs to another stream now
        self._wake = asyncio.Event()

    # From the service and the hub

    def credited(self, credit: Credit) -> None:
        """The listener's word. One that makes no sense ends the stream."""
        sender = self._sender
        if sender is None:
            return
        try:
            sender.credited(credit, self._around.clock())
        except BadRequest as error:
            sender.fail(error)
        self._keep_cursor(sender)
        self._wake.set()

    def offer(self, rows: list[Told], looked_at: int) -> bool:
        """From the hub: what just happened. False when there is no room; it is read from the log later."""
        assert self._sender is not None
        if self._contents and rows:
            self._live = self._unfilled.add(rows, looked_at)
            if not self._live:
                self._unfilled.clear()
                self._sender.rewind()
        else:
            self._live = self._sender.offer(rows, looked_at)
        self._wake.set()
        return self._live

    def behind(self) -> None:
        """From the hub: what comes next is not in the log any more. Newest states are read from where the stream is;
        with patterns that ends it, as nobody knows what has left (`EpochChanged`)."""
        assert self._sender is not None
        self._unfilled.clear()
        self._sender.rewind()
        self._live = False
        self._wake.set()

    def fail(self, error: SpileError) -> None:
        """End with this error, as soon as the transport takes it."""
        self._error = self._error or error
        if self._sender is not None:
            self._sender.fail(error)
        self._wake.set()

    def replaced(self, error: SpileError) -> None:
        """Another stream has taken the listener's name: this one moves the cursor no more."""
        self._fenced = True
        self.fail(error)

    def tick(self) -> bool:
        """Let time pass. False when the transport has been stuck for so long that the stream is to be dropped."""
        sender, now = self._sender, self._around.clock()
        if sender is None:
            return now - self.started_at < 2 * self._around.limits.silence_s
        sender.tick(now)
        if sender.ending or sender.due(now):
            self._wake.set()
        return now - sender.heard_at < 2 * self._around.limits.silence_s

    @property
    def handled(self) -> Position | None:
        """Up to where the listener has done all that concerns it; None before the stream has begun."""
        sender, hub = self._sender, self._hub
        if sender is None or hub is None:
            return None
        busy = sender.buffered or sender.unacknowledged[0] or self._unfilled
        return Position(max(sender.handled, hub.seq) if self._live and not busy else sender.handled, sender.epoch)

    @property
    def in_snapshot(self) -> bool:
        """Whether the listener is being told everything anew."""
        return self._sender is not None and self._sender.in_snapshot

    def stats(self) -> dict[str, object]:
        """Where the stream is, and what it holds; how far that is behind is told by `listeners.lags`."""
        sender, hub = self._sender, self._hub
        stats: dict[str, object] = {"barrel": self.barrel_name, "name": self.opened.name}
        if sender is None or hub is None:
            return {**stats, "position": None, "live": False}
        rows, bytes_ = sender.unacknowledged
        return {
            **stats,
            "position": f"{sender.position}-{sender.epoch}",
            "acknowledged": f"{sender.acked}-{sender.epoch}",
            "window": sender.window,
            "bytes": sender.bytes,
            "unacknowledged_rows": rows,
            "unacknowledged_bytes": bytes_,
            "buffered": sender.buffered,
            "live": self._live,
        }

    # The stream's task

    async def run(self) -> None:
        """Carry the stream to its end. A transport that fails ends it without a word."""
        try:
            sender = self._sender = await self._start()
            if self._error is not None:
                sender.fail(self._error)
            await self._carry(sender)
        except SpileError as error:
            await self._tell(error)
        finally:
            if self._hub is not None:
                self._hub.detach(self)

    async def _tell(self, error: SpileError) -> None:
        """What went wrong, as the last array."""
        if self._sender is None:
            await self._send(refusal(self.opened.run, error))
            return
        self._sender.fail(error)
        await self._send_waiting(self._sender)

    async def _send_waiting(self, sender: Sender) -> None:
        while (array := sender.next_array(self._around.clock())) is not None:
            await self._send(array)

    async def _start(self) -> Sender:
        around, interest = self._around, self.interest

        def look() -> tuple[Barrel, Start, bool]:
            barrel = around.barrel(self.barrel_name)
            since = self._since
            if self.opened.name is not None:
                since = around.cursors.read(barrel.name, self.opened.name) or since
            start = barrel.resolve(since, patterns=bool(interest.patterns))
            return barrel, start, start.leaves

        barrel, start, self._leaves = await around.at_once(look)
        self._barrel = barrel
        self._hub = around.hub(barrel)
        sender = Sender(
            self.opened,
            epoch=barrel.epoch,
            start=start.after,
            snapshot=start.snapshot,
            now=around.clock(),
            limits=around.limits,
        )
        self._in_snapshot = start.snapshot
        self._keep_cursor(sender)
        return sender

    async def _carry(self, sender: Sender) -> None:
        hub = self._hub
        assert hub is not None
        await self._send_waiting(sender)  # the start, which is not to wait until something is read
        while True:
            if not self._live and not sender.ending:
                if self._at_end and not sender.buffered:
                    self._at_end = False
                    self._live = hub.attach(self, sender.looked_at)
                if not self._live and (room := sender.room()):
                    await self._read(sender, room)
            if self._unfilled and not sender.ending:
                await self._fill(sender, hub)
            while (array := self._next(sender, hub)) is not None:
                await self._send(array)
            if sender.finished:
                return
            if self._has_more(sender):
                continue
            await self._wake.wait()
            self._wake.clear()

    def _has_more(self, sender: Sender) -> bool:
        """Whether there is something to do without waiting for anything."""
        if self._unfilled:
            return not sender.ending
        return not self._live and bool(sender.room() or (self._at_end and not sender.buffered))

    def _next(self, sender: Sender, hub: Hub) -> bytes | None:
        if self._live and not self._unfilled:
            sender.look(hub.seq)
        return sender.next_array(self._around.clock())

    async def _read(self, sender: Sender, room: tuple[int, int]) -> None:
        """A page of the past, as large as there is room."""
        around, barrel = self._around, self._barrel
        assert barrel is not None
        rows_max = min(room[0], PAGE_ROWS_MAX if self._contents else around.page_rows)
        bytes_max = min(room[1], around.page_bytes)
        after, leaves, begun = sender.looked_at, self._leaves, self._replay

        def read() -> tuple[Replay, list[Told], int, bool]:
            replay = begun or self._replayed(barrel, after, leaves=leaves)
            if replay.upto <= after:
                return replay, [], after, True
            page = replay.next(rows_max, bytes_max)
            rows = [self._with_contents(barrel, row) for row in page.rows] if self._contents else page.rows
            return replay, [(row.seq, _encode(self._fitting(row))) for row in rows], page.seq, page.caught_up

        reading = asyncio.ensure_future(around.in_thread(read))
        reading.add_done_callback(lambda _: self._wake.set())
        try:
            while not reading.done() and not sender.finished:
                # Choosing the rows of a large barrel may take long; the listener is to know that somebody is here,
                # and is told at once that the stream has ended.
                await self._wake.wait()
                self._wake.clear()
                await self._send_waiting(sender)
        finally:
            reading.cancel()
        if not reading.done():
            return
        replay, rows, looked_at, caught_up = reading.result()
        if self._in_snapshot:
            self._in_snapshot = False
            sender.snapshot_ends_at(replay.upto)
        self._replay = None if caught_up else replay
        self._leaves = True if caught_up else leaves
        self._at_end = caught_up and sender.follow
        sender.page(rows, looked_at, level=caught_up and not sender.follow)

    def _replayed(self, barrel: Barrel, after: int, *, leaves: bool) -> Replay:
        interest = self.interest
        return barrel.replay(
            after,
            interest.patterns,
            docs=interest.docs,
            doc_bytes_max=interest.doc_bytes_max,
            leaves=leaves,
            deletions=interest.deletions,
        )

    async def _fill(self, sender: Sender, hub: Hub) -> None:
        """Give some of what just happened its contents, and have it sent."""
        barrel = self._barrel
        assert barrel is not None
        rows, looked_at = self._unfilled.first
        full = await self._around.in_thread(lambda: filled(rows, lambda row: self._with_contents(barrel, row)))
        if not self._unfilled.done(rows):
            return  # it was let go meanwhile, and is read again
        if not sender.offer(full, looked_at):
            hub.detach(self)
            self._unfilled.clear()
            self._live = False

    def _fitting(self, row: Row) -> Row:
        if not isinstance(row.paths, msgspec.UnsetType):
            row.paths = fitting(row.paths, self.interest.doc_bytes_max)
        return row

    def _with_contents(self, barrel: Barrel, row: Row) -> Row:
        return with_contents(barrel, row, self._around.contents_bytes_max, self.interest.doc_bytes_max)

    def _keep_cursor(self, sender: Sender) -> None:
        name, cursor = self.opened.name, sender.cursor
        if name is not None and cursor is not None and cursor != self._kept and not self._fenced:
            self._around.cursors.move(self.barrel_name, name, Position(cursor, sender.epoch))
            self._kept = cursor


def stopping() -> SpileError:
    """What streams are told when their service ends."""
    return Unavailable("The service is stopping.", hint="Open the stream again when it is back.")
