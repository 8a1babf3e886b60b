"""What a command asks for, whoever answers: a running service, or a store that the command opened itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import msgspec

from feeds.patterns import Pattern

if TYPE_CHECKING:
    from broker.cli.files import Incoming, Outgoing, Tell
    from broker.cli.replications import Replications

__all__ = [
    "HERE_ALONE",
    "Backend",
    "Beyond",
    "BulkResult",
    "ChangesQuery",
    "Fetched",
    "FindQuery",
    "Found",
    "GetQuery",
]

_PERCENT_ALONE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class BulkResult(msgspec.Struct, frozen=True):
    """What became of one document of a batch: `rev` and `seq`, or `error` and `reason`."""

    id: str | None = None
    rev: str | None = None
    seq: int | None = None
    error: str | None = None
    reason: str | None = None


class GetQuery(msgspec.Struct, frozen=True):
    """What is asked of a document: this `rev` instead of the winner, and what comes with it."""

    rev: str | None = None
    revs: bool = False
    conflicts: bool = False
    history: bool = False


class Beyond(msgspec.Struct, frozen=True):
    """What is asked of peers: how many shall have a write, or how a document is looked for, and how far."""

    write: int | None = None
    read: Literal["order", "first"] | None = None
    depth: int | None = None
    timeout_ms: int | None = None
    keep: bool = False

    def options(self) -> dict[str, str | int | bool | None]:
        """As the service takes them."""
        return {
            "p2p_write": self.write,
            "p2p_read": self.read,
            "p2p_depth": self.depth,
            "p2p_timeout": self.timeout_ms,
            "keep": self.keep,
        }


HERE_ALONE = Beyond()


class ChangesQuery(msgspec.Struct, frozen=True):
    """Which changes: after the position `since`, matching any of `patterns` (none: all)."""

    since: str = "first"
    patterns: tuple[str, ...] = ()
    docs: bool = False
    descending: bool = False


class FindQuery(msgspec.Struct, frozen=True):
    """Which documents stand under `path`; `from_` and `to` are JSON values, or else text."""

    path: str
    from_: str | None = None
    to: str | None = None
    prefix: str | None = None
    order: Literal["key", "value"] = "key"
    descending: bool = False
    docs: bool = False

    def levels(self) -> tuple[str, ...]:
        """The levels of `path` as those of a pattern; a `%` that encodes nothing stands for itself.

        Raises BadRequest for what is no pattern.
        """
        return Pattern.parse(_PERCENT_ALONE.sub("%25", self.path)).levels


class Found(msgspec.Struct, frozen=True):
    """A page of found documents, each `{id, path, value, doc?}` as JSON; `next` leads to the next page."""

    results: list[msgspec.Raw]
    next: str | None = None


class Fetched(msgspec.Struct, frozen=True):
    """An attachment that was fetched: its bytes are those of `digest`."""

    length: int
    digest: str
    content_type: str
    rev: str | None = None


class Backend(Protocol):
    """The calls of the command line. Barrels and ids are plain text; every call raises SpileError.

    Whoever answers names it as its base, and is closed at the end of a `with`.
    """

    def barrels(self) -> list[dict[str, Any]]: ...
    def info(self, barrel: str) -> dict[str, Any]: ...
    def create(self, barrel: str, settings: Mapping[str, Any]) -> dict[str, Any]: ...
    def configure(self, barrel: str, settings: Mapping[str, Any]) -> dict[str, Any]: ...
    def drop(self, barrel: str) -> None: ...

    def get(self, barrel: str, doc_id: str, query: GetQuery, beyond: Beyond = HERE_ALONE) -> bytes:
        """The document as JSON, from here or from `beyond`."""

    def put(
        self,
        barrel: str,
        doc_id: str,
        doc: bytes,
        *,
        rev: str | None = None,
        update: bool = False,
        beyond: Beyond = HERE_ALONE,
    ) -> dict[str, Any]:
        """Store it as `{id, rev, seq, p2p?}` tells; `update` extends the winner whatever it is."""

    def merge(
        self, barrel: str, doc_id: str, patch: bytes, *, rev: str | None = None, beyond: Beyond = HERE_ALONE
    ) -> dict[str, Any]: ...
    def delete(self, barrel: str, doc_id: str, *, rev: str, beyond: Beyond = HERE_ALONE) -> dict[str, Any]: ...
    def purge(self, barrel: str, doc_id: str, revs: Sequence[str]) -> dict[str, Any]:
        """Remove the branches that end in `revs`; none given: all of them."""

    def bulk(self, barrel: str, body: bytes, key: str) -> list[BulkResult]:
        """Store the documents of `{docs, update?}`, results in order; the same `key` stores nothing twice."""

    def attach(
        self,
        barrel: str,
        doc_id: str,
        name: str,
        file: Outgoing,
        *,
        content_type: str | None = None,
        rev: str | None = None,
        tell: Tell,
    ) -> dict[str, Any]:
        """Attach the file onto `rev`, or onto the winner; `{id, rev, seq, digest, length}`. A type that is not given
        is guessed from the name."""

    def fetch(
        self, barrel: str, doc_id: str, name: str, into: Incoming, *, rev: str | None = None, tell: Tell
    ) -> Fetched:
        """Bring the attachment of the winner, or of `rev`, verified."""

    def detach(self, barrel: str, doc_id: str, name: str, *, rev: str | None = None) -> dict[str, Any]: ...

    def conflicts(self, barrel: str, *, limit: int, after: str = "") -> dict[str, Any]:
        """A page of documents in conflict: `{results: [{id, rev, conflicts, seq, reason?}], next}`."""

    def conflict(self, barrel: str, doc_id: str) -> list[bytes]:
        """The live leaves of a document as JSON, the winner first."""

    def resolve(
        self,
        barrel: str,
        doc_id: str,
        *,
        rev: str | None = None,
        doc: bytes | None = None,
        leaves: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Let the leaf `rev` stand, or `doc` in place of all; refused if there are others than `leaves`, if any."""

    def find(self, barrel: str, query: FindQuery, *, limit: int, after: str | None = None) -> Found: ...
    def changes(self, barrel: str, query: ChangesQuery, *, limit: int | None) -> Iterator[bytes]:
        """Rows as JSON up to the present, however many there are, with flat memory."""

    def follow(self, barrel: str, query: ChangesQuery) -> Iterator[bytes]:
        """Rows as JSON as they come, without end; after a lost connection from the last row on."""

    def listeners(self, barrel: str | None) -> dict[str, Any]:
        """Who follows a barrel, or any: `{listeners, streams, publishers}`, each a list."""

    def forget(self, barrel: str, listener: str) -> None:
        """Forget where the listener stands; NotFound if nobody of that name was there."""

    def replications(self) -> Replications:
        """The replications that the service runs, or would with this store."""

    def listening_to(self, barrel: str) -> Any:
        """Where `listeners` hears this barrel: a URL, or the barrel itself."""

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
