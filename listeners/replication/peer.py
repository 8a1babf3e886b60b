"""The other side of a replication: what a peer has to offer, and the values that pass.

The same protocol stands before a barrel in this process, a Spile over HTTP or MQTT, and a server that speaks
CouchDB's protocol. Positions and handles are opaque: only the peer that gave them knows what they mean.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import msgspec

from feeds.errors import SpileError
from feeds.rows import Row
from listeners.replication.checkpoints import Checkpoint
from listeners.replication.filters import Filter

BATCH_ROWS = 500
"""Rows of a batch: a request's own cost is spread over them, and a commit is shared by several batches."""
BATCH_BYTES = 1 << 20
"""Bytes of documents that rows bring along. One document alone may be larger."""
TOGETHER_BYTES = 16 << 20
"""Of revisions that a peer gives together: after so many it leaves the rest to be asked for again."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a peer is. `store` and `barrel` name it for good; `epoch` is its present life."""

    store: str
    barrel: str
    epoch: str
    is_empty: bool = False
    """Whether nothing was ever written to it."""
    tells_expiry: bool = False
    """Whether its deletions by expiry are to be replicated."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a source, in order; everything up to `position` has been told then.

    Rows have every leaf in `changes`, and maybe the winner's document in `doc`.
    """

    rows: list[Row]
    position: str
    caught_up: bool = False


class Wanted(msgspec.Struct, frozen=True):
    """A revision to fetch; `known` are revisions from which the target may have its attachments."""

    id: str
    rev: str
    known: tuple[str, ...] = ()


class Blob(msgspec.Struct, frozen=True):
    """A content to be copied: one revision's attachment that has it, its digest as in stubs, and its length."""

    id: str
    rev: str
    name: str
    digest: str
    length: int


class Fetched(msgspec.Struct, frozen=True):
    """A revision as a source gives it: the whole document as JSON, with `_revisions`, and stubs of attachments."""

    id: str
    rev: str
    json: bytes
    blobs: tuple[Blob, ...] = ()
    """The contents that its attachments name."""


Differences: TypeAlias = Mapping[str, tuple[Sequence[str], Sequence[str]]]
"""By document: the revisions that are missing, and those here that they may descend from."""
Refusals: TypeAlias = Mapping[str, SpileError]
"""By document, why something was not done to it; what was done to the others is not told."""
Read: TypeAlias = Callable[[int], AsyncGenerator[bytes, None]]
"""The bytes of a content from an offset on."""
Told: TypeAlias = Callable[[SpileError | None], None]
"""Hears what keeps a call from being answered, and None when it is over."""
Handles: TypeAlias = Mapping[str, str]
"""By digest, what a target calls a content that was sent to it and that no document names yet."""


class Peer(Protocol):
    """A barrel somewhere. Everything raises SpileError; those that are `retryable` may be asked again as they are."""

    @property
    def name(self) -> str:
        """Where it is, as may be shown: without secrets."""
        ...

    async def identity(self) -> Identity:
        """Who it is now; NotFound where there is no such barrel, BadPeer where there is no peer."""
        ...

    async def create(self) -> None:
        """Make the barrel, unless there is one already. BadRequest where that cannot be asked for."""
        ...

    async def behind(self, position: str) -> int | None:
        """How many changes there are at most behind a position of its own; None where that is not known."""
        ...

    def changes(
        self, since: str | None, filter: Filter, *, docs: bool, follow: bool, told: Told
    ) -> AsyncGenerator[Page, None]:
        """Rows behind a position (None: from the first one), each document's newest state in order.

        What was read may be told again. A position that does not hold any more begins at the first one. With `docs`
        rows bring the winner's document along, where it is at hand. With `follow` it goes on as changes come; else
        the last page is `caught_up`. What the filter's patterns leave out is left out, and what left them is told as
        `removed`; the rest of the filter is for the caller, though a peer may see to it. Where the filter
        `asks_for_deletions`, those of which nothing tells what was deleted are told as well, with empty `paths`. A
        feed that is lost is had again by itself, of which `told` hears: why it is lost, and None when it is there
        again.
        """
        ...

    async def revs_diff(self, asked: Mapping[str, Sequence[str]]) -> Differences:
        """Which of these revisions are not here; documents of which all are here are left out.

        TooLarge where that is too much for one question; see `comparing`.
        """
        ...

    async def fetch(self, wanted: Sequence[Wanted]) -> list[Fetched | SpileError]:
        """Revisions with their histories, in order; NotFound stands for one that is not here (any more).

        Of many that are large the first ones alone may be given. TooLarge where fewer have to be asked for.
        """
        ...

    async def missing_blobs(self, digests: Sequence[str]) -> set[str]:
        """Those of the contents that documents of this barrel cannot name, since none has them."""
        ...

    def read_blob(self, blob: Blob, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The bytes of a content, from an offset on."""
        ...

    async def write_blob(self, blob: Blob, read: Read) -> str:
        """Take a content, verified by its digest and length; the handle by which the next `write` may name it."""
        ...

    async def write(self, docs: Sequence[Fetched], handles: Handles) -> list[bool | SpileError]:
        """Write revisions as they are (`new_edits=false`), durably; for each whether it is new, or what refused it.

        A peer that cannot tell says that all are new.
        """
        ...

    async def purge(self, revs: Mapping[str, Sequence[str]]) -> Refusals:
        """Remove the branches that end in these leaves, here alone; what refused it, by document.

        NotFound stands for a document that is not here (any more), Conflict for one of which a named revision is no
        leaf (any more): nothing of that one was removed.
        """
        ...

    async def checkpoint(self, id: str) -> Checkpoint | None:
        """What was saved under this id."""
        ...

    async def save_checkpoint(self, id: str, checkpoint: Checkpoint, rev: str | None) -> str:
        """Save it over the revision `rev` (None: there is none); the new one. Conflict where another is there."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...
