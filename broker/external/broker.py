"""The external broker: publishing to it, requests from it, and what is known of its ways.

It is the only publisher and the only server of `from/` among the processes of one store: they share a client id, so
that the broker ends the older connection, and none is made without asking `may_connect` first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from broker.external.access import BrokerAccess
from broker.external.connection import Arrived, Connection, Ended
from broker.external.desk import REQUESTS, Acknowledgements, Desk
from broker.external.keeper import Keeper, Standby
from broker.external.limits import ExternalLimits
from broker.external.names import check_topic
from broker.external.state import ExternalStats
from broker.external.suspects import Suspects
from broker.external.ways import OPEN, Kind, Ways
from broker.external.window import Window
from broker.health import PartHealth
from broker.mqtt.contract import Message, Requests
from feeds.errors import BadRequest, Unavailable

log = logging.getLogger("spile.mqtt")

_SET_ASIDE = "The broker closes the connection on some messages, which were passed; the log names their topics."
_CONTROL = Message("to/spile/probe", b"{}", 1)


async def _always() -> bool:
    """Whoever is alone may always connect."""
    return True


class ExternalBroker:
    """A broker that runs by itself; see `Publisher`.

    `may_connect` is asked before every attempt to connect, and again once the connection stands: with several
    processes on one store, only the holder of the lock says yes. `device` is an account without rights, whose bounds
    are tried at the start. `prefix` ends with `/`, or is empty.
    """

    def __init__(
        self,
        access: BrokerAccess,
        *,
        requests: Requests | None,
        prefix: str = "",
        kind: Kind = "auto",
        device: BrokerAccess | None = None,
        limits: ExternalLimits = ExternalLimits(),  # noqa: B008 - it is frozen
        may_connect: Callable[[], Awaitable[bool]] = _always,
    ) -> None:
        self.access = access
        self._limits = limits
        self._desk = Desk(requests, limits) if requests is not None else None
        self._changes = Window("mqtt_in_flight", limits.window, limits.window_bytes)
        self._answers = Window("mqtt_answers", limits.answers, limits.answers_bytes)
        self._suspects = Suspects(limits.refused_s, limits.refused_topics)
        self._may_connect = may_connect
        self._keeper = Keeper(self._connect, may_connect, self._ended, limits)
        self._ways = Ways(access, limits, prefix=prefix, kind=kind, device=device, connected=self._keeper.stands)
        self._told_away = False
        self._calm = asyncio.Event()  # cleared while a suspect goes alone
        self._calm.set()
        self._unheard = 0

    @property
    def prefix(self) -> str:
        """What stands before Spile's topics."""
        return self._ways.names.prefix

    async def topic_there(self, topic: str) -> str:
        """How one of Spile's topics stands at the broker. Unavailable where that is not known."""
        await self._ways.sure_of([topic])
        return self._outward(topic)

    # Its life.

    async def start(self) -> None:
        """Connect. A broker that cannot be reached is tried again for ever, after saying so.

        Raises Unauthorized or BadRequest for what only an operator can mend: the login, TLS, another protocol.
        """
        await self._keeper.start()
        self._ways.start()

    def hurry(self) -> None:
        """The service stops: whoever publishes while the broker is away is told so at once."""
        self._ways.hurry()
        self._keeper.hurry()

    async def stop(self) -> None:
        """Stop in order: requests under way, then the connection."""
        self.hurry()
        if self._desk is not None:
            await self._desk.stop()
        await self._ways.stop()
        await self._keeper.stop()

    @property
    def connects(self) -> int:
        """How many connections it has had so far."""
        return self._keeper.link.connects

    async def failed(self) -> BaseException:
        """Return only when one of its tasks has failed, and why: never, unless there is a bug."""
        watching = [
            asyncio.create_task(self._keeper.failed(), name="spile-mqtt-external-watch"),
            asyncio.create_task(self._ways.failed(), name="spile-mqtt-ways-watch"),
        ]
        try:
            done, _ = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in watching:
                task.cancel()

    def wake(self) -> None:
        """Something has changed: ask `may_connect` and try now, however long the present wait is."""
        self._keeper.wake()

    def let_go(self, reason: str) -> None:
        """End the connection, as a process does that is no longer the one to have it."""
        if (connection := self._keeper.connection) is not None:
            connection.end(reason)

    # Publishing.

    async def publish(self, batch: Sequence[Message]) -> None:
        """Return when the broker has acknowledged the batch; see `Publisher`.

        What goes with QoS 0 is not acknowledged by itself. The last message of a batch always goes with QoS 1: a
        broker takes a connection's messages in order, so that its acknowledgement stands for those before.
        """
        if not batch:
            return
        now = time.monotonic()
        for message in batch:
            self._check(message, now)
        if batch[-1].qos == 0:
            batch = [*batch[:-1], msgspec.structs.replace(batch[-1], qos=1)]
        try:
            # The first time it is said at once that the broker is away, so that it shows; then it is waited for.
            connection = await self._keeper.have(self._limits.wait_s if self._told_away else 0)
            await self._ways.sure_of(message.topic for message in batch)
            if self._suspects:
                await self._publish_with_care(connection, batch)
            else:
                await connection.publish(batch, self._changes, self._outward)
        except Unavailable:
            self._told_away = True
            raise
        self._told_away = False

    def wants(self, prefix: str) -> bool:
        """Always: an external broker does not tell who listens."""
        return True

    def levels(self, prefix: str) -> frozenset[str] | None:
        """Any, for the same reason."""
        return None

    async def publish_to(self, client_name: str, message: Message) -> bool:
        """Publish to one client; False when the broker is away. Whether the client listens is not known."""
        try:
            self._check(message, time.monotonic())
            await self._calm.wait()
            connection = await self._keeper.have(0)
            await self._ways.sure_of([message.topic])
            await connection.publish([message], self._answers, self._outward)
        except (Unavailable, BadRequest) as fault:
            self._unheard += 1
            log.debug("%s does not hear %.200r: %s", client_name, message.topic, fault.reason)
            return False
        return True

    # How it is.

    @property
    def failure(self) -> str | None:
        """Why nothing is published at present; None while it is."""
        link = self._keeper.link
        return None if link.connected else link.reason

    def health(self) -> PartHealth:
        """The state of the connection."""
        figures: dict[str, object] = {
            "broker": str(self.access.address),
            "connects": self._keeper.link.connects,
            "acknowledged": self._keeper.acknowledged,
            "in_flight": self._changes.messages,
            "set_aside": self._suspects.set_aside,
        }
        open_to_clients = self._ways.open_to_clients
        if open_to_clients is not None:
            figures["open_to_clients"] = list(open_to_clients)
        if self._ways.untried:
            figures["untried"] = dict(self._ways.untried)
        hint = OPEN if open_to_clients else _SET_ASIDE if self._suspects.set_aside else None
        return self._keeper.link.health(figures, hint)

    def stats(self) -> ExternalStats:
        """A look at the connection."""
        desk, link = self._desk, self._keeper.link
        return ExternalStats(
            connected=link.connected,
            connects=link.connects,
            acknowledged=self._keeper.acknowledged,
            received=desk.received if desk is not None else 0,
            set_aside=self._suspects.set_aside,
            requests_dropped=desk.dropped if desk is not None else 0,
            request_failures=desk.failures if desk is not None else 0,
            unheard=self._unheard,
            queues={
                self._changes.name: self._changes.messages,
                self._answers.name: self._answers.messages,
                "mqtt_requests": len(desk) if desk is not None else 0,
            },
        )

    # Messages.

    @property
    def _outward(self) -> Callable[[str], str]:
        return self._ways.names.outward

    def _check(self, message: Message, now: float) -> None:
        check_topic(message.topic)
        if self._suspects.refuses(message.topic, now):
            raise BadRequest(f"The broker closes the connection on {message.topic[:200]!r}.")

    async def _publish_with_care(self, connection: Connection, batch: Sequence[Message]) -> None:
        """Publish what was under way when the broker closed the connection each alone, and all else as ever."""
        together: list[Message] = []
        for message in batch:
            if message.topic not in self._suspects:
                together.append(message)
                continue
            await connection.publish(together, self._changes, self._outward)
            together = []
            await self._publish_alone(connection, message)
        await connection.publish(together, self._changes, self._outward)

    async def _publish_alone(self, connection: Connection, message: Message) -> None:
        """Publish a suspect with nothing else under way; it is one no more if it is taken, or will not be sent."""
        self._calm.clear()
        try:
            while self._changes.messages or self._answers.messages:
                await connection.quiet()
            if self._suspects.closed_on(message.topic):
                # Set aside is only what fails where something else is taken: a full disk there takes nothing.
                await connection.publish([_CONTROL], self._changes, self._outward)
                self._suspects.clear(_CONTROL.topic)
            await connection.publish([msgspec.structs.replace(message, qos=1)], self._changes, self._outward)
        except Unavailable:
            ended = connection.ended.result()
            alone = ended.unacknowledged == {self._changes.name: [message.topic]}
            if ended.by_broker and alone and self._suspects.convict(message.topic, time.monotonic()):
                log.error("the broker closes the connection on %.500r, which is set aside", message.topic)
            raise
        except BadRequest:
            self._suspects.clear(message.topic)
            raise
        finally:
            self._calm.set()
        self._suspects.clear(message.topic)

    # Connections.

    def _ended(self, ended: Ended) -> None:
        if ended.by_broker:
            self._suspects.blame(ended.unacknowledged.get(self._changes.name, ()))

    async def _connect(self) -> Connection:
        """A connection that is ready: requests come."""
        desk, limits = self._desk, self._limits
        if desk is None:
            return await self._still_ours(await Connection.open(self.access, limits))
        # A session that was kept brings its requests at once, before the connection is there to answer them.
        early: list[Arrived] = []
        take: Callable[[Arrived], None] = early.append
        connection = await self._still_ours(await Connection.open(self.access, limits, lambda message: take(message)))
        try:
            await connection.subscribe(f"{self.prefix}{REQUESTS}#")
        except BaseException:
            connection.end("it could not be made ready")
            raise
        line = Acknowledgements(connection, limits.unacknowledged)
        take = lambda message: desk.take(message, self._ways, line)
        for message in early:
            take(message)
        return connection

    async def _still_ours(self, connection: Connection) -> Connection:
        """The connection, if this process may still have one now that it stands.

        Whoever takes the lock later connects later, and so ends this one, whatever is on its way here. Without
        this look a process that was held up between asking and connecting would end its successor's, and publish.
        """
        try:
            if not await self._may_connect():
                raise Standby
        except BaseException:
            connection.end("it is not this process's to have")
            raise
        return connection
