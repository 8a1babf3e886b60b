"""What every request is served with: the store, threads to read on, limits, and who may do what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from broker.mqtt.contract import Client
from broker.mqtt.topicnames import ANONYMOUS
from broker.regulation import Regulator
from broker.requests.attached import with_contents
from broker.requests.bodies import Body, read_body
from broker.requests.lanes import Lanes, outcomes_of
from broker.requests.limits import RequestLimits
from broker.requests.naming import Names
from broker.requests.topics import Place
from feeds import Barrel, Outcome, Store, Token, Write, Written
from feeds.errors import SpileError
from feeds.paths import id_levels
from listeners.nested import Nest

T = TypeVar("T")

Verb = Literal["read", "write", "admin"]

Decide = Callable[[str, Verb, str, str], None]
"""Whether `who` may do this in a barrel under a path; raises Forbidden where not."""

Prepared = tuple[Write, Token | None]

Result = tuple[bytes, str | None]
"""What a call results in, as JSON, and the token that goes with it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: who asks, where it goes, and its body as it came."""

    client: Client
    place: Place
    payload: bytes
    began: float = 0.0
    """Since when it waits."""

    @property
    def who(self) -> str:
        """The identity that access is decided for."""
        return self.client.user if self.client.user is not None else ANONYMOUS


class Serving:
    """The parts that requests are served with, and the few things that all of them do."""

    def __init__(
        self,
        store: Store,
        readers: Executor,
        limits: RequestLimits,
        decide: Decide,
        regulator: Regulator,
        nest: Nest | None = None,
    ) -> None:
        self.store = store
        self.nest = nest or Nest(store)
        self.limits = limits
        self.regulator = regulator
        self.lanes = Lanes()
        self.names = Names(limits.uploads_per_client, limits.upload_s, limits.uploads_remembered)
        self._readers = readers
        self._decide = decide

    @property
    def document_bytes_max(self) -> int:
        """Of one document."""
        return self.store.settings.document_bytes_max

    def allow(self, asked: Asked, verb: Verb, path: str = "#") -> None:
        """Forbidden unless the client may do this under `path` of the barrel."""
        self._decide(asked.who, verb, asked.place.barrel, path)

    def barrel(self, asked: Asked) -> Barrel:
        """The barrel that the topic names; NotFound."""
        return self.store.barrel(asked.place.barrel)

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Blocking work, on one of the readers' threads."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, function, *arguments)

    async def checked(self, size: int, check: Callable[[], T]) -> T:
        """Read something of `size` bytes: at once while that is quick, else on a thread."""
        return check() if size <= self.limits.inline_bytes_max else await self.in_thread(check)

    async def body(self, asked: Asked) -> Body:
        """The request's body, taken apart."""
        return await self.checked(len(asked.payload), lambda: read_body(asked.payload))

    async def outcomes(self, asked: Asked, future: Future[list[Outcome]]) -> list[Outcome]:
        """Wait for the writer; how long the request has waited by then regulates what is let in."""
        return await self.regulator.wait_for(outcomes_of(future), asked.began)

    async def write_one(self, asked: Asked, size: int, prepare: Callable[[], Prepared]) -> Written:
        """Prepare one write of `size` bytes and wait for its outcome; what refuses it is raised.

        Nothing is awaited before the client's turn is taken, so that writes keep the order they came in.
        """
        with self.lanes.lane(asked.client.name) as lane:
            async with lane.turn:
                write, token = await self.checked(size, prepare)
                self.allow(asked, "write", document_path(write.id))
                barrel = self.barrel(asked)
                write = await with_contents(self, asked, barrel, write)
                lane.last = future = barrel.submit((write,), token=token)
            outcome = (await self.outcomes(asked, future))[0]
        if isinstance(outcome, SpileError):
            raise outcome
        return outcome


def document_path(id: str) -> str:
    """Where a document stands among the paths of its barrel."""
    return f"_id/{id_levels(id)}"
