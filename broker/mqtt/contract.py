"""The seams of MQTT: what a publisher promises, and what the broker asks its surroundings.

An embedded broker and an external one both stand behind `Publisher`; `Gate` and `Requests` are given by the
composition root. Nothing here knows a socket.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from broker.mqtt.topicnames import client_name


class Message(msgspec.Struct, frozen=True):
    """Something to publish.

    `payload` may be a callable: it is called at most once, and only when somebody is going to receive it or it
    is retained. `retain` with an empty payload clears what was retained under the topic.
    """

    topic: str
    payload: bytes | Callable[[], bytes]
    qos: int = 0
    retain: bool = False


class Publisher(Protocol):
    """Hands messages to a broker."""

    async def publish(self, batch: Sequence[Message]) -> None:
        """Return when the broker has acknowledged every message of the batch.

        For the embedded broker that is: each is in the bounded queue of every matching session (persistent
        sessions at QoS 1 and 2, and what is retained: durably). An external one has acknowledged the last message
        of the batch, and every one of QoS 1. Raises `Unavailable` otherwise; the caller then publishes the batch
        again, and some of it may arrive twice. Raises `BadRequest` where the broker will never take a message (an
        external one: for its topic or its size); the caller finds it by publishing each alone, and passes it.
        """
        ...

    def wants(self, prefix: str) -> bool:
        """False only if certainly no subscription could match a topic that begins with these levels.

        Says nothing about retaining: a message to be retained is to be published whatever this says.
        """
        ...

    def levels(self, prefix: str) -> frozenset[str] | None:
        """Which level may follow these in a topic that some subscription matches; None where any may."""
        ...


@dataclass(frozen=True, slots=True)
class Client:
    """Who is connected. `name` is `<user or anonymous>/<client id>`, both encoded like topic segments."""

    user: str | None
    client_id: str
    name: str

    @classmethod
    def of(cls, user: str | None, client_id: str) -> Client:
        """The client with its name worked out."""
        return cls(user, client_id, client_name(user, client_id))


@dataclass(frozen=True, slots=True)
class Refused:
    """A login that is not let in, why, and what the client is told: 4 bad user or password, 5 not allowed."""

    reason: str
    code: int = 5


class Gate(Protocol):
    """Access decisions: pure and fast, since they are asked in the middle of traffic."""

    def authenticate(self, client_id: str, user: str | None, password: bytes | None) -> str | Refused | None:
        """The user that this login stands for; None for nobody in particular."""
        ...

    def may_publish(self, client: Client, topic: str) -> str | None:
        """None for yes, else the reason why not."""
        ...

    def may_subscribe(self, client: Client, topic_filter: str) -> str | None:
        """None for yes, else the reason why not. Asked again when a stored session comes back."""
        ...

    def may_receive(self, client: Client, topic: str) -> bool:
        """Asked at delivery: for topics under `to/` and `from/`, and of filters that begin with a wildcard."""
        ...


class Requests(Protocol):
    """What serves the topics under `from/`."""

    def accepts(self, topic: str) -> bool:
        """Whether a publication to this topic is a request, and not for other clients."""
        ...

    def begin(self, client: Client, topic: str, payload: bytes) -> Coroutine[Any, Any, None] | Message:
        """What serves one request, or the answer that refuses it, before anything else is made of it.

        Called in order of arrival, and what serves is run at once, with many of one client under way; the PUBACK is
        sent when it has returned, in order. What it raises is logged, counted and told to the client, and the
        request is acknowledged. A refusal's PUBACK is held back for a moment.
        """
        ...

    def room(self) -> int:
        """How many requests more would be let in now, about."""
        ...

    async def handle(self, client: Client, topic: str, payload: bytes) -> None:
        """Serve one request or see it refused, where nothing is held back."""
        ...

    async def refused(self, client: Client, topic: str, payload: bytes, reason: str) -> None:
        """Tell the client of a publication that the gate denied; it is acknowledged afterwards."""
        ...

    def gone(self, client: Client) -> None:
        """The client's connection has ended."""
        ...
