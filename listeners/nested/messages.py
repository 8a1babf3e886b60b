"""What services ask each other in nested calls, and what they answer, as JSON.

Pure. What comes from elsewhere is bounded and checked here; who has a document is only believed of who said so.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from feeds.errors import BadRequest
from listeners.nested.reach import DEPTH, SECONDS, Order, Reach, Search
from listeners.replication.errors import BadPeer

HERE = "here"
"""What a service calls itself in its answer."""
SEEN_MAX = 256
TOLD_MAX = 100
"""Barrels, and failures, that one answer names."""
PEER_TEXT_MAX = 500

T = TypeVar("T")


class WriteAsked(msgspec.Struct, forbid_unknown_fields=True):
    """See that a revision that you have gets to `wanted` barrels, yours counted."""

    id: str
    rev: str
    wanted: int
    depth: int = DEPTH
    timeout: int = int(SECONDS * 1000)
    """Milliseconds."""
    seen: list[str] = []
    """Barrels that are not to be asked, as `<store>/<barrel>`: they have it, or are asked by somebody else."""

    def reach(self) -> Reach:
        """The bounds, checked."""
        _check_seen(self.seen)
        return Reach(self.wanted, self.depth, self.timeout / 1000)


class ReadAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Give a document; look for it at your peers where you do not have it, if `depth` is not 0."""

    id: str
    rev: str | None = None
    order: Order = "order"
    depth: int = DEPTH
    timeout: int = int(SECONDS * 1000)
    seen: list[str] = []
    keep: bool = False

    def search(self) -> Search:
        """The bounds, checked."""
        _check_seen(self.seen)
        return Search(self.order, self.depth, self.timeout / 1000, self.keep)


class Holder(msgspec.Struct, frozen=True):
    """A barrel that answered: `peer` is the way to it, as `hub/far`."""

    peer: str
    store: str
    barrel: str

    @property
    def key(self) -> str:
        """What tells it from all other barrels anywhere."""
        return key_of(self.store, self.barrel)


class Miss(msgspec.Struct, frozen=True, omit_defaults=True):
    """A peer that did not do what it was asked, and why; `unknown` where it may have done it."""

    peer: str
    step: str
    """`write`, `pass_on` or `read`."""
    error: str
    reason: str
    unknown: bool = False


class WriteTold(msgspec.Struct):
    """Who has the revision now, and who not and why."""

    wanted: int
    reached: int
    complete: bool
    holders: list[Holder]
    failed: list[Miss]


class ReadTold(msgspec.Struct, omit_defaults=True):
    """The document as the first one has it that was found to know it; or who was asked in vain."""

    answered: list[Holder]
    """Those that do not have it."""
    failed: list[Miss]
    doc: Raw | UnsetType = UNSET
    """With `_revisions`."""
    deleted: bool = False
    """It is known to be deleted, and there is no `doc`."""
    peer: str | None = None
    """Whose it is; `here` where nobody else was asked."""
    kept: bool | None = None
    """Whether it was written here; None where that was not asked for."""
    not_kept: str | None = None
    """Why not."""

    @property
    def is_found(self) -> bool:
        """Whether somebody knew of it."""
        return self.deleted or isinstance(self.doc, Raw)


def key_of(store: str, barrel: str) -> str:
    """A barrel as it is told in `seen`."""
    return f"{store}/{barrel}"


def read_asked(body: bytes, kind: type[T]) -> T:
    """A request from elsewhere; BadRequest says what does not fit."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest(f"The body is not what is wanted here: {error}") from None


def read_told(body: bytes, kind: type[T], name: str) -> T:
    """A peer's answer; BadPeer where it is none."""
    try:
        told = msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadPeer(f"{name} answers a nested call, but not as a Spile does: {str(error)[:120]}") from None
    return told


def below(name: str, holder: Holder) -> Holder:
    """A barrel that a peer told of, as it is told here."""
    return Holder(_way(name, holder.peer), holder.store[:PEER_TEXT_MAX], holder.barrel[:PEER_TEXT_MAX])


def missed_below(name: str, miss: Miss) -> Miss:
    """A failure that a peer told of, as it is told here."""
    reason = miss.reason[:PEER_TEXT_MAX]
    return Miss(_way(name, miss.peer), miss.step[:20], miss.error[:80], reason, miss.unknown)


def _way(name: str, peer: str) -> str:
    return name if peer == HERE else f"{name}/{peer}"[:PEER_TEXT_MAX]


def _check_seen(seen: list[str]) -> None:
    if len(seen) > SEEN_MAX or any(len(each) > PEER_TEXT_MAX for each in seen):
        raise BadRequest(f"`seen` names more than {SEEN_MAX} barrels, or what is none")
