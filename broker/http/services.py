"""What the HTTP face is given to work with, put together by the composition root.

Nothing here is global: two applications in one process share only what they are both handed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from prometheus_client import CollectorRegistry

from broker.health import Parts
from broker.lags import Lags
from broker.regulation import Regulator
from broker.replication.tasks import Tasks
from feeds import Store
from listeners.nested import Nest
from listeners.stream.service import StreamService

Verb = Literal["read", "write", "admin"]

Gauges = Mapping[str, Callable[[], Mapping[str, Any]]]
"""Figures by part. A nested mapping is shown with its key as label `name`."""


class Access(Protocol):
    """Who asks, and whether they may. `feeds.errors` Unauthorized and Forbidden are raised, nothing is returned."""

    def who(self, headers: Sequence[tuple[bytes, bytes]], host: str) -> str:
        """The identity behind a request's headers (names in lower case) and its client's address."""
        ...

    def decide(self, who: str, verb: Verb, barrel: str, path: str) -> None:
        """Whether `who` may read or write what stands under `path` in `barrel`, or administer the barrel.

        `path` is `_id/<levels>` for a document, a path or a pattern where one is asked for, and `#` for the whole
        barrel. An empty `barrel` is the service itself.
        """
        ...


class OpenAccess:
    """Everyone is `anonymous` and may do everything: for loopback, where the machine's users are trusted."""

    def who(self, headers: Sequence[tuple[bytes, bytes]], host: str) -> str:
        """Always `anonymous`."""
        return "anonymous"

    def decide(self, who: str, verb: Verb, barrel: str, path: str) -> None:
        """Always yes."""


def anyone(name: str, password: str) -> str | None:
    """A cookie for everyone, where everyone may do everything: it is looked at by nobody."""
    return "everyone"


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """A limit on everything that a client can make grow."""

    document_bytes_max: int = 8 << 20
    bulk_bytes_max: int = 64 << 20
    attachment_bytes_max: int = 16 << 30
    """One attachment."""
    uploads_max: int = 64
    """Attachments on their way in at once: each has a thread, and some MiB on their way to the disk."""
    downloads_max: int = 256
    """Attachments on their way out at once, but for small ones: each holds a piece of up to 1 MiB, or two."""
    connections_max: int = 10_000
    """Connections open at once."""
    requests_max: int = 512
    """Requests in work at once; live feeds are counted by themselves."""
    bytes_max: int = 256 << 20
    """Bytes of request bodies in memory at once."""
    live_max: int = 2000
    """Long-polls, continuous answers, event sources and WebSockets at once."""
    body_s_max: float = 30.0
    """How long a client may send nothing while its body is awaited."""
    send_s_max: float = 120.0
    """How long a client may take nothing of its answer; then it is cut off."""
    hosts: frozenset[str] = frozenset()
    """Names that the `Host` header may carry (without the port); empty: any. It stops DNS rebinding."""
    origins: frozenset[str] = frozenset()
    """Other web origins (`https://host:port`) whose pages may change state and open WebSockets."""


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that HTTP serves."""

    store: Store
    streams: StreamService | None
    readers: ThreadPoolExecutor
    access: Access
    health: Callable[[], Parts]
    registry: CollectorRegistry
    version: str
    limits: HttpLimits = HttpLimits()
    gauges: Gauges = field(default_factory=dict)
    lags: Lags | None = None
    """How far everyone is behind, where it is told elsewhere too."""
    regulator: Regulator = field(default_factory=Regulator)
    nest: Nest | None = None
    """The peers that nested calls go to."""
    sign_in: Callable[[str, str], str | None] = anyone
    """A cookie for who gives this name and password, None where they are wrong."""
    replications: Tasks | None = None
    """Those that the service runs, where it does."""
