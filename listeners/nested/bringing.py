"""One revision from one peer to another, as a replicator brings it: what is missing, with its contents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from feeds.errors import SpileError
from feeds.rows import Row
from listeners.replication.batches import Batches, sent
from listeners.replication.peer import Fetched, Peer
from listeners.replication.progress import Progress
from listeners.replication.retrying import Patience, persistently
from listeners.replication.session import first_error

T = TypeVar("T")

PATIENCE = Patience(attempts=2, first_s=0.05, max_s=0.2)
"""Once more, since a connection that was kept may have been closed meanwhile; then another peer is of more use."""


SMALL_BYTES = 64 << 10


async def brought(source: Peer, target: Peer, id: str, rev: str, progress: Progress) -> tuple[str, str] | None:
    """Bring one revision over with its history and contents; the code and reason of what refuses it, if anything.

    What it cannot be told of yet is raised as the SpileError that keeps it.
    """
    row = Row(seq=0, id=id, rev=rev, changes=[rev])
    try:
        await Batches(source, target, progress, persistent).bring([row])
    except BaseExceptionGroup as failed:
        raise first_error(failed) from None
    if progress.refusals:
        return progress.refusals[-1].error, progress.refusals[-1].reason
    if progress.gone:
        return "not_found", f"{rev} of {id!r} is not there any more to be fetched."
    return None


async def written(target: Peer, doc: Fetched, progress: Progress) -> tuple[str, str] | None:
    """Write one small revision without asking whether it is there: sending it costs less."""
    (outcome,) = await persistent(lambda: sent(target, [doc], {}, progress))
    if isinstance(outcome, SpileError):
        if outcome.retryable:
            raise outcome
        return outcome.code, outcome.reason
    return None


def is_small(doc: Fetched) -> bool:
    """Whether it is better sent at once."""
    return not doc.blobs and len(doc.json) <= SMALL_BYTES


async def persistent(call: Callable[[], Awaitable[T]]) -> T:
    """A call of a peer, made once more where that may help."""
    return await persistently(call, PATIENCE, _nothing)


def _nothing(error: SpileError | None) -> None:
    """Whoever waits hears of what comes of it."""
