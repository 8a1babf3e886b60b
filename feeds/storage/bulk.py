"""Many documents of one request as writes, each checked by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from feeds.body import read_json
from feeds.errors import BadRequest, SpileError
from feeds.writes import Write


def bulk_writes(
    docs: Sequence[bytes | str | Mapping[str, Any]], new_edits: bool, update: bool, bytes_max: int
) -> list[Write | SpileError]:
    """A write for each document, or why it is refused."""
    prepared: list[Write | SpileError] = []
    for doc in docs:
        try:
            if new_edits:
                prepared.append(Write.put(doc, update=update, bytes_max=bytes_max))
            else:
                prepared.append(Write.replicate(doc, bytes_max=bytes_max))
        except SpileError as refusal:
            refusal.details.setdefault("id", named_id(doc))
            prepared.append(refusal)
    return prepared


def read_bulk(body: bytes, bytes_max: int) -> list[Write | SpileError]:
    """The writes of a request's body `{"docs": […], "new_edits"?: true, "update"?: false}`."""
    request = read_json(body)
    if type(request) is not dict or type(request.get("docs")) is not list:
        raise BadRequest('A bulk request is {"docs": […]}', hint="Send the documents as an array under docs.")
    for name in ("new_edits", "update"):
        if type(request.get(name, False)) is not bool:
            raise BadRequest(f"{name} must be true or false")
    unknown = request.keys() - {"docs", "new_edits", "update"}
    if unknown:
        raise BadRequest(f"A bulk request has no field {sorted(unknown)[0]!r}")
    return bulk_writes(request["docs"], request.get("new_edits", True), request.get("update", False), bytes_max)


def named_id(doc: Any) -> str | None:
    """The id that a refused document gave, if one can be made out."""
    if isinstance(doc, (bytes, bytearray, str)):
        try:
            doc = msgspec.json.decode(doc)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
    named = doc.get("_id") if isinstance(doc, Mapping) else None
    return named if isinstance(named, str) else None
