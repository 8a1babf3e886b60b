"""What clients say about nested calls, the same over HTTP and MQTT, and the service's nest made from its settings."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from broker.settings import Settings
from feeds import Store
from feeds.errors import BadRequest, Unavailable
from listeners.nested import Neighbours, Nest, Reach, ReadTold, Search
from listeners.nested.reach import DEPTH, SECONDS, Order

PARTLY: Final = 202
"""The HTTP status of a write that fewer have than were asked for."""

_HINT: Final = "Give `p2p_write` for a write, or `p2p_read` (`order` or `first`) for a read, beside it."


def make_nest(settings: Settings, store: Store) -> Nest:
    """Peers as the setting names them; none is spoken to before it is needed."""
    return Nest(store, Neighbours({place.name: place for place in settings.peers}))


def reach_of(wanted: int | None, depth: int | None, timeout_ms: int | None) -> Reach | None:
    """How far a write is to be passed on; None where that is not asked for."""
    if wanted is None:
        if depth is not None or timeout_ms is not None:
            raise BadRequest("`p2p_depth` and `p2p_timeout` say nothing without a nested call", hint=_HINT)
        return None
    return Reach(wanted, DEPTH if depth is None else depth, SECONDS if timeout_ms is None else timeout_ms / 1000)


def search_of(
    order: Order | None, depth: int | None, timeout_ms: int | None, *, keep: bool, here_only: bool
) -> Search | None:
    """How a document is looked for; None where that is not asked for. `here_only`: something beside it is wanted that
    only what is here can give."""
    if order is None:
        if depth is not None or timeout_ms is not None or keep:
            raise BadRequest("`keep`, `p2p_depth` and `p2p_timeout` say nothing without a nested call", hint=_HINT)
        return None
    if here_only and not keep:
        raise BadRequest(
            "Conflicts, history and contents of attachments can only be told of a document that is here.",
            hint="Ask for it with `keep`, or leave them out.",
        )
    return Search(
        order, DEPTH if depth is None else max(1, depth), SECONDS if timeout_ms is None else timeout_ms / 1000, keep
    )


def whose(told: ReadTold) -> dict[str, Any]:
    """Whose a document is that was found, and whether it was kept."""
    shown: dict[str, Any] = {"peer": told.peer}
    if told.kept is not None:
        shown["kept"] = told.kept
    if told.not_kept is not None:
        shown["not_kept"] = told.not_kept
    return shown


def not_kept(told: ReadTold) -> Unavailable:
    """What is told where something is wanted of a document that could not be written here."""
    return Unavailable(
        f"{told.peer} has the document, and it could not be kept here: {told.not_kept}",
        hint="Ask for it without conflicts, history and contents of attachments, or try again.",
    )


def shown(told: ReadTold, revs: bool) -> bytes:
    """A document that was found, as it would be shown if it was here; with `_revisions` only where asked for."""
    assert isinstance(told.doc, msgspec.Raw)
    doc = bytes(told.doc)
    if revs:
        return doc
    fields = msgspec.json.decode(doc, type=dict[str, msgspec.Raw])
    fields.pop("_revisions", None)
    return msgspec.json.encode(fields)
