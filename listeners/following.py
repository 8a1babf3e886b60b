"""Following one feed over a link: carries out what the receiver asks, and makes lost links anew.

Runs on one event loop; acknowledgements may come from any thread. What the messages mean is the receiver's.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from feeds.errors import SpileError, Unavailable
from feeds.positions import Position
from listeners.backoff import Backoff
from listeners.errors import LinkLost
from listeners.inbox import Inbox
from listeners.stream.actions import Action, CaughtUp, Deliver, Discard, Finished, Item, Send, Wanted
from listeners.stream.messages import decode_array
from listeners.stream.receiver import Receiver

log = logging.getLogger("spile.listeners")

PATIENCE_S = 10.0  # for a first answer, so that a wrong address is told soon

# A link that takes no message for so long is dead, whatever its socket says.
_SEND_S_MAX = 15.0
# How long acknowledgements may lie until the receiver learns of them, when there is no other reason to look.
_LOOK_S = 0.5


class Events(Protocol):
    """What a link tells, on the event loop."""

    def message(self, data: bytes) -> None: ...

    def refused(self, error: SpileError) -> None: ...

    def lost(self, error: SpileError) -> None: ...


class Link(Protocol):
    """One connection to a service, for one stream."""

    @property
    def address(self) -> str: ...

    async def connect(self, events: Events) -> None:
        """Connect; raises Unavailable, Unauthorized and the like. Nothing is told before it returns."""
        ...

    async def send(self, data: bytes, *, opens: bool) -> None:
        """Send an open, or credit and close; raises LinkLost."""
        ...

    async def close(self) -> None:
        """Let go of the connection; never raises."""
        ...


class Following:
    """One feed on its way into an inbox, until it ends or is closed."""

    def __init__(
        self,
        wanted: Wanted,
        dial: Callable[[], Link],
        inbox: Inbox,
        *,
        patience_s: float | None = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Follow over links that `dial` makes. `patience_s`: how long to try until a service answers for the
        first time, None for ever; later on it is tried for ever."""
        self._dial = dial
        self._inbox = inbox
        self._patience_s = patience_s
        self._clock = clock
        self._receiver = Receiver(wanted, nonce=lambda: secrets.token_hex(8))
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[bytes] = deque()
        self._refusal: SpileError | None = None
        self._lost: SpileError | None = None
        self._acked: Item | None = None
        self._looked_at: Item | None = None
        self._acks = 0
        self._acks_wake = max(1, wanted.window // 8)
        self._closing = False
        self._answered = False
        self._began_at = clock()
        self.caught_up = False

    # From the application, in any thread

    def acknowledged(self, item: Item) -> None:
        """The application is done with this item and all before it."""
        self._acked = item
        self._acks += 1
        if self._acks >= self._acks_wake or not self._inbox:
            self._acks = 0
            self._wake_up()

    def close(self) -> None:
        """Acknowledge what is done, and end."""
        self._closing = True
        self._wake_up()

    @property
    def position(self) -> Position | None:
        """Up to where everything is acknowledged; None before a service has answered."""
        return self._receiver.position

    def _wake_up(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:
            # The loop is closed: the feed is over, and nobody is left to look.
            log.debug("An acknowledgement came after the end")

    # From the link

    def message(self, data: bytes) -> None:
        """An array arrived."""
        self._arrived.append(data)
        self._wake.set()

    def refused(self, error: SpileError) -> None:
        """The service will not have a message."""
        self._refusal = error
        self._wake.set()

    def lost(self, error: SpileError) -> None:
        """The link is gone."""
        self._lost = error
        self._wake.set()

    # The task

    async def run(self) -> None:
        """Follow to the end. What went wrong is the inbox's `error`."""
        try:
            await self._follow()
        except SpileError as error:
            self._inbox.finish(error)
        except Exception:
            log.exception("Following failed")
            self._inbox.finish(SpileError("The listener failed; its log says why."))
            raise
        finally:
            self._inbox.finish(None)

    async def _follow(self) -> None:
        backoff = Backoff(0.25, 30.0)
        while not self._receiver.finished and not self._closing:
            link = self._dial()
            self._arrived.clear()
            self._lost = self._refusal = None
            try:
                await link.connect(self)
            except SpileError as error:
                await link.close()
                if not error.retryable or self._impatient():
                    raise
                log.info("No link to %s yet: %s", link.address, error.reason)
                await self._rest(backoff.next())
                continue
            try:
                await self._talk(link, backoff)
            finally:
                await link.close()
            if not self._receiver.finished:
                self._receiver.lost(self._clock())
                log.info("The link to %s is lost, trying again: %s", link.address, self._lost)
                await self._rest(backoff.next())

    async def _talk(self, link: Link, backoff: Backoff) -> None:
        """Until the link is lost or the feed is over."""
        receiver = self._receiver
        try:
            await self._do(link, receiver.connected(self._clock()))
            while True:
                await self._look(link)
                if receiver.finished or self._lost is not None:
                    return
                if receiver.open:
                    self._answered = True
                    self._inbox.begin()
                    backoff.reset()
                elif self._impatient():
                    raise Unavailable(
                        f"No service answers at {link.address}.",
                        hint="Check the address, and that the service runs.",
                    )
                await self._wait()
        except LinkLost as error:
            self._lost = error

    async def _look(self, link: Link) -> None:
        """Everything that happened since the last time."""
        receiver, now = self._receiver, self._clock()
        acked = self._acked  # another thread may set it at any time: it is never taken away here
        if acked is not None and acked is not self._looked_at:
            self._looked_at = acked
            await self._do(link, receiver.acked(acked, now))
        while self._arrived:
            data = self._arrived.popleft()
            await self._do(link, receiver.received(decode_array(data), len(data), now))
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            await self._do(link, receiver.refused(refusal, now))
        if self._closing:
            await self._do(link, receiver.closed(now))
        await self._do(link, receiver.tick(now))

    async def _do(self, link: Link, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Deliver):
                self._inbox.put(action.items)
            elif isinstance(action, Send):
                try:
                    async with asyncio.timeout(_SEND_S_MAX):
                        await link.send(action.data, opens=action.opens)
                except TimeoutError:
                    raise LinkLost(f"{link.address} takes no messages.") from None
            elif isinstance(action, Discard):
                self._inbox.discard()
            elif isinstance(action, CaughtUp):
                self.caught_up = True
            elif isinstance(action, Finished):
                self._inbox.finish(action.error)

    async def _wait(self) -> None:
        now = self._clock()
        deadline = self._receiver.deadline
        wait_s = _LOOK_S if self._inbox else 60.0
        if deadline is not None:
            wait_s = min(wait_s, max(0.0, deadline - now))
        if not self._answered and self._patience_s is not None:
            wait_s = min(wait_s, max(0.0, self._began_at + self._patience_s - now))
        await self._pause(wait_s)

    async def _rest(self, seconds: float) -> None:
        """Wait before the next attempt, unless the application wants no more."""
        until = self._clock() + seconds
        while not self._closing and (left := until - self._clock()) > 0:
            await self._pause(left)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless something happens before."""
        timer = self._loop.call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
        self._wake.clear()

    def _impatient(self) -> bool:
        if self._answered or self._patience_s is None:
            return False
        return self._clock() - self._began_at >= self._patience_s
