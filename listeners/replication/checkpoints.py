"""How far a replication is, as both sides keep it, and where one goes on that was interrupted.

Pure. A checkpoint holds the sessions of one replication, newest first. The target's is written first, then the
source's: what both know of one session is surely at the target, if it is still the life of the target that it was
written to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

HISTORY_MAX = 50
VERSION = 1


class Session(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One session's own record: the position that it reached, and what it did."""

    session_id: str
    recorded_seq: str
    start_time: str = ""
    end_time: str = ""
    docs_read: int = 0
    docs_written: int = 0
    doc_write_failures: int = 0
    target_only: bool = False
    """The source takes no checkpoints."""
    target_epoch: str = ""
    """The life of the target that this is about; empty where that is not told."""
    number: int = 0
    """Which record of its session this is."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record as it is stored in a `_local` document. `rev` is that document's own."""

    session_id: str
    source_last_seq: str
    history: tuple[Session, ...]
    replicator: str = "spile"
    version: int = VERSION
    rev: str | None = None

    def stored(self) -> dict[str, Any]:
        """The fields that are stored."""
        told: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        told.pop("rev", None)
        return told


def checkpoint_in(document: Mapping[str, Any]) -> Checkpoint | None:
    """What a peer had stored, out of its whole `_local` document; as `read_checkpoint`."""
    rev = document.get("_rev")
    stored = {key: value for key, value in document.items() if key[:1] != "_"}
    return read_checkpoint(stored, rev if isinstance(rev, str) else None)


def read_checkpoint(stored: Any, rev: str | None) -> Checkpoint | None:
    """What a peer had stored; None where that is no checkpoint: then there is nothing to go on from."""
    try:
        found = msgspec.convert(stored, Checkpoint)
    except msgspec.ValidationError:
        return None
    return msgspec.structs.replace(found, rev=rev) if found.history else None


def resume_at(source: Checkpoint | None, target: Checkpoint | None, target_epoch: str) -> str | None:
    """The newest position that both sides know of in this life of the target, None to begin at the first.

    Of a session that both know, the source's record counts: it was written when the target had taken it. A target
    that stands further back has lost what it had taken, and its own record counts.
    """
    if target is None:
        return None
    known = {} if source is None else {session.session_id: session for session in source.history}
    for session in target.history:
        if session.target_epoch not in ("", target_epoch):
            continue  # it was written by whoever did not know yet that the target had been created again
        if session.target_only:
            return session.recorded_seq
        if session.session_id in known:
            return min(known[session.session_id], session, key=lambda each: each.number).recorded_seq
    return None


def newest_of(found: Checkpoint | None, session_id: str) -> int:
    """The number of a session's record in a checkpoint; 0 where there is none."""
    history = () if found is None else found.history
    return max((each.number for each in history if each.session_id == session_id), default=0)


def with_session(before: Checkpoint | None, session: Session) -> Checkpoint:
    """The checkpoint with a session's record in front, in place of what that session recorded before."""
    others = () if before is None else tuple(each for each in before.history if each.session_id != session.session_id)
    return Checkpoint(
        session_id=session.session_id,
        source_last_seq=session.recorded_seq,
        history=(session, *others)[:HISTORY_MAX],
        rev=None if before is None else before.rev,
    )
