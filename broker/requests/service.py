"""The service of requests over MQTT: takes what clients publish under `from/`, and sees every one answered.

It knows the verbs and their answers; what they do stands in the modules of this package, what is allowed in a
document in feeds.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

from broker.mqtt.contract import Client, Message
from broker.mqtt.topicnames import rest_of_request
from broker.regulation import Limit, Regulator
from broker.regulation.limit import shown
from broker.requests.answers import rejected
from broker.requests.bodies import recognition
from broker.requests.calls import Calls
from broker.requests.entries import Entry
from broker.requests.errors import Internal
from broker.requests.limits import RequestLimits
from broker.requests.reading import get
from broker.requests.serving import Asked, Decide, Serving, Verb
from broker.requests.streaming import Answer, Streaming
from broker.requests.topics import (
    REQUESTS,
    answer_topic,
    parse_place,
    refused_topic,
    rejected_topic,
)
from broker.requests.writing import write
from feeds import Store
from feeds.errors import BadRequest, Forbidden, SpileError
from listeners.nested import Nest
from listeners.stream.service import StreamService

log = logging.getLogger("spile.requests")

Serve = Callable[[Serving, Asked], Awaitable[bytes]]

# The verbs that are answered once: how they are served, and on which kind of topic.
_ANSWERED: dict[str, tuple[Serve, str]] = {
    "put": (write, "accepted/put"),
    "set": (write, "accepted/set"),
    "merge": (write, "accepted/merge"),
    "delete": (write, "accepted/delete"),
    "get": (get, "document"),
}


# What waits for the writer, as verbs and as calls by name.
_WRITING = frozenset(("put", "set", "merge", "delete"))
_WRITING_CALLS = frozenset(("bulk", "local", "body_put", "blob_drop", "blob_put", "create", "purge", "resolve"))


def _writes(verb: str, rest: str) -> bool:
    return verb in _WRITING or (verb == "call" and rest.rpartition("/")[2] in _WRITING_CALLS)


def _anyone(who: str, verb: Verb, barrel: str, path: str) -> None:
    """Everyone may do everything: for loopback, where the machine's users are trusted."""


class RequestService:
    """Serves requests; the `Requests` of the MQTT broker. To be used on one event loop.

    `answer` publishes to one client, and waits while its queue is full. `decide` is asked for everything that
    a client wants to read or write; it raises Forbidden.
    """

    def __init__(
        self,
        store: Store,
        streams: StreamService | None,
        answer: Answer,
        readers: Executor,
        limits: RequestLimits = RequestLimits(),  # noqa: B008 - it is frozen
        *,
        decide: Decide = _anyone,
        regulator: Regulator | None = None,
        nest: Nest | None = None,
    ) -> None:
        self._answer = answer
        self._limits = limits
        self._regulator = regulator = regulator or Regulator()
        self._serving = serving = Serving(store, readers, limits, decide, regulator, nest)
        self._streaming = streaming = Streaming(serving, streams, answer)
        self._calls = calls = Calls(serving)
        self._answered = {**_ANSWERED, "call": (calls.call, "result")}
        self._carried = {"stream": streaming.open, "credit": streaming.credit}
        self._requests = Limit("mqtt_requests", limits.requests_max)
        self._bytes = Limit("mqtt_request_bytes", limits.bytes_max)
        regulator.watch((self._requests, self._bytes))
        self._served: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._unheard = 0

    # What the broker asks

    def accepts(self, topic: str) -> bool:
        """Whether a publication to this topic is a request."""
        return topic.startswith(f"{REQUESTS}/")

    def begin(self, client: Client, topic: str, payload: bytes) -> Coroutine[Any, Any, None] | Message:
        """What serves one request and sees it answered; or its refusal, where there is too much in work."""
        try:
            entry = self._enter(client.name, topic, len(payload))
        except SpileError as error:
            if len(payload) > self._limits.recognised_bytes_max:
                return self._reject(client, rejected_topic(client.name, topic), payload, error)
            return self._rejection(rejected_topic(client.name, topic), error, recognition(payload))
        return self._answered_for(client, topic, payload, entry)

    def room(self) -> int:
        """How many requests more would be let in now, about."""
        return min(self._regulator.room(), self._requests.most - self._requests.used)

    async def handle(self, client: Client, topic: str, payload: bytes) -> None:
        """Serve one request and see it answered, whatever becomes of it."""
        begun = self.begin(client, topic, payload)
        if isinstance(begun, Message):
            await self._publish(client, begun)
        else:
            await begun

    async def _answered_for(self, client: Client, topic: str, payload: bytes, entry: Entry) -> None:
        try:
            try:
                await self._serve(client, topic, payload, entry.began)
            finally:
                entry.release()
        except SpileError as error:
            await self._reject(client, rejected_topic(client.name, topic), payload, error)
        except Exception:
            log.exception("The request %.500s of %s has failed", topic, client.name)
            await self._reject(client, rejected_topic(client.name, topic), payload, Internal())

    async def refused(self, client: Client, topic: str, payload: bytes, reason: str) -> None:
        """Tell the client that it may not publish to this topic."""
        error = Forbidden(
            f"You may not publish to {topic[:500]!r}: {reason}.",
            hint=f"Requests go under {REQUESTS}/{client.name}/; other topics may be closed to you.",
        )
        await self._reject(client, refused_topic(client.name, topic), payload, error)

    def gone(self, client: Client) -> None:
        """The client's connection ended: so do its streams. Its uploads wait for it for a while."""
        self._streaming.gone(client.name)

    # Its life

    def close(self) -> None:
        """Forget what clients have begun to upload; requests in work are ended by the broker."""
        self._calls.uploads.close()
        self._serving.names.clear()

    def stats(self) -> dict[str, Any]:
        """What is in work and its limits, and what was done since the start."""
        return {
            **shown((self._requests, self._bytes)),
            "clients": len(self._serving.lanes),
            **self._calls.uploads.stats(),
            "blob_uploads": len(self._serving.names),
            "served": dict(self._served),
            "rejected": dict(self._rejected),
            "unheard": self._unheard,
        }

    def _enter(self, name: str, topic: str, size: int) -> Entry:
        """Let a request in; Overloaded and RateLimited say why not."""
        verb, _, rest = rest_of_request(topic).partition("/")
        ticket = None  # credit has none: it lets go of what is held
        if verb != "credit":
            ticket = self._regulator.admit(name, size, writes=_writes(verb, rest))
        entry = Entry(self._requests, self._bytes, name, size, ticket, self._regulator.now())
        entry.take()
        return entry

    async def _serve(self, client: Client, topic: str, payload: bytes, began: float) -> None:
        if not topic.startswith(f"{REQUESTS}/{client.name}/"):
            raise Forbidden("That is not your topic.", hint=f"Your requests go under {REQUESTS}/{client.name}/.")
        place = parse_place(topic)
        asked = Asked(client, place, payload, began)
        if place.verb in self._answered:
            serve, kind = self._answered[place.verb]
            answer = await serve(self._serving, asked)
            self._regulator.has_read(client.name, len(answer))
            await self._publish(client, Message(answer_topic(client.name, kind, place.tail), answer, qos=1))
        elif place.verb in self._carried:
            await self._carried[place.verb](asked)
        else:
            known = ", ".join((*self._answered, *self._carried))
            raise BadRequest(f"There is no verb {place.verb[:100]!r}.", hint=f"Verbs are {known}.")
        self._served[place.verb] += 1

    async def _reject(self, client: Client, topic: str, payload: bytes, error: SpileError) -> None:
        log.debug("%s is refused %.500s: %s", client.name, topic, error.reason)
        known = await self._serving.checked(len(payload), lambda: recognition(payload))
        await self._publish(client, self._rejection(topic, error, known))

    def _rejection(self, topic: str, error: SpileError, known: dict[str, str]) -> Message:
        self._rejected[error.code] += 1
        return Message(topic, rejected(error, known, self._limits.answer_bytes_max), qos=1)

    async def _publish(self, client: Client, message: Message) -> None:
        if not await self._answer(client.name, message):
            self._unheard += 1
