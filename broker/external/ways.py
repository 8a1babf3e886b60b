"""What is known of a broker's ways: whether it takes dots in topics, and whether it keeps clients apart.

Both are tried beside the connection, in tasks of their own: what a broker is slow to answer, or never does, holds up
neither a start nor a take-over. A trial that fails is tried again with growing waits, however often the connection is
made again meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, stop_never
from tenacity.stop import stop_base

from broker.external.access import BrokerAccess
from broker.external.limits import ExternalLimits
from broker.external.names import TopicNames, is_plain
from broker.external.probing import closes_on_dots, unprotected
from feeds.errors import Unavailable
from listeners.backoff import Backoff

log = logging.getLogger("spile.mqtt")

Kind = Literal["auto", "plain", "nats"]

SURE_S = 5.0  # for the answer to be there, before who waits is told that it is not
BOUNDS_TRIES = 7  # in half a minute, which is longer than a broker needs to start
TRY_AGAIN_S = 0.5
OPEN = "Clients can publish what only the service may: enforce the access file, see docs/how-to/external-brokers.md."


class Ways:
    """What is known of one broker, and the tasks that find out the rest.

    Until it is known whether the broker takes dots neither way to write them is safe: plain, a NATS closes the
    connection on them; encoded, another broker's subscribers do not hear them. So neither is taken: what has no such
    character stands at every broker alike and goes at once, and what has one waits in `sure_of`. Of the access file
    nothing is said until it was tried: nothing depends on that.
    """

    def __init__(
        self,
        access: BrokerAccess,
        limits: ExternalLimits,
        *,
        prefix: str,
        kind: Kind,
        device: BrokerAccess | None,
        connected: Callable[[], Awaitable[object]],
    ) -> None:
        """`connected` returns once there is a connection: what cannot be reached at all is not tried."""
        self.names = TopicNames(prefix, dots_encoded=kind == "nats")
        """How topics stand there; to be asked after `sure_of`."""
        self.open_to_clients: tuple[str, ...] | None = None
        """What clients can publish to and should not; None while that is not known."""
        self.untried: dict[str, str] = {}
        """What could not be tried lately, and why."""
        self._access = access
        self._limits = limits
        self._device = device
        self._connected = connected
        self._known = kind != "auto"
        self._settled = asyncio.Event()  # it is known, or nobody shall wait for it any more
        if self._known:
            self._settled.set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to find out what is not known."""
        if not self._known:
            self._tasks.append(asyncio.create_task(self._try_dots(), name="spile-mqtt-dots"))
        if self._device is not None:
            self._tasks.append(asyncio.create_task(self._try_bounds(self._device), name="spile-mqtt-bounds"))

    def hurry(self) -> None:
        """Nobody shall wait any more."""
        self._settled.set()

    async def stop(self) -> None:
        """Find out nothing more."""
        self.hurry()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def failed(self) -> BaseException:
        """Return only when one of the tasks has failed, and why: never, unless there is a bug."""
        left = set(self._tasks)
        while left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled() and (error := task.exception()) is not None:
                    return error
        never: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        return await never

    def learn(self, dots_encoded: bool) -> None:
        """It is known now whether `.` and space have to be encoded."""
        self.names = TopicNames(self.names.prefix, dots_encoded=dots_encoded)
        self._known = True
        self._settled.set()

    async def sure_of(self, topics: Iterable[str]) -> None:
        """Return when it is known how these topics stand at the broker, which is at once for most.

        Unavailable where that takes too long.
        """
        if self._known or all(map(is_plain, topics)):
            return
        try:
            async with asyncio.timeout(SURE_S):
                await self._settled.wait()
        except TimeoutError:
            pass
        if not self._known:
            raise Unavailable(
                f"Whether {self._access.address} takes `.` and space in topics is not known yet"
                f": {self.untried.get('dots', 'it has not answered')}",
                hint="It is tried again. Where you know it, set broker_kind: nats for NATS before 2.10, else plain.",
            )

    # The tasks

    async def _try_dots(self) -> None:
        """Without end: what has dots waits for it."""
        async for attempt in self._again("dots", "takes `.` and space in topics", stop_never):
            with attempt:
                await self._connected()
                self.learn(await closes_on_dots(self._access, self._limits, self.names.prefix))
        self.untried.pop("dots", None)
        if self.names.dots_encoded:
            log.info("%s takes no `.` and no space in topics: both are encoded", self._access.address)

    async def _try_bounds(self, device: BrokerAccess) -> None:
        """A few times: a device's login that is wrong does not become right, and may be locked for too many."""
        found: tuple[str, ...] = ()
        try:
            async for attempt in self._again("bounds", "keeps clients apart", stop_after_attempt(BOUNDS_TRIES)):
                with attempt:
                    await self._connected()
                    found = await unprotected(self._access, device, self._limits, self.names.prefix)
        except Unavailable as fault:
            self.untried["bounds"] = fault.reason
            log.warning(
                "whether %s keeps clients apart could not be tried, and is tried no more: %s",
                self._access.address,
                fault.reason,
            )
            return
        self.untried.pop("bounds", None)
        self.open_to_clients = found
        if found:
            log.warning("clients of %s can publish under %s. %s", self._access.address, ", ".join(found), OPEN)

    def _again(self, what: str, words: str, stop: stop_base) -> AsyncRetrying:
        waits = Backoff(TRY_AGAIN_S, self._limits.retry_max_s)

        def note(state: RetryCallState) -> None:
            fault = state.outcome.exception() if state.outcome else None
            assert isinstance(fault, Unavailable)
            self.untried[what] = fault.reason
            if state.attempt_number & (state.attempt_number - 1) == 0:  # the 1st, 2nd, 4th, 8th…
                told = "whether %s %s could not be tried, and is tried again: %s"
                log.warning(told, self._access.address, words, fault.reason)

        return AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop,
            wait=lambda _state: waits.next(),
            before_sleep=note,
            reraise=True,
        )
