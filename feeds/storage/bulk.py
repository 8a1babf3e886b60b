"""Many documents of one request as writes, each checked by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from feeds.body import read_json
from feeds.errors import BadRequest, SpileError
from feeds.writes import Write


class BulkRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`{"docs": […], "new_edits"?: true, "update"?: false}`, its documents still the texts they came in."""

    docs: list[msgspec.Raw]
    new_edits: bool | msgspec.UnsetType = msgspec.UNSET
    update: bool | msgspec.UnsetType = msgspec.UNSET

    def texts(self) -> Iterator[bytes]:
        """The documents, one after the other."""
        return map(bytes, self.docs)

    def writes(self, bytes_max: int) -> list[Write | SpileError]:
        """A write for each document, or why it is refused: also where only its own text cannot be read."""
        return bulk_writes(self.texts(), self.new_edits is not False, self.update is True, bytes_max)


R = TypeVar("R", bound=BulkRequest)


def bulk_writes(
    docs: Iterable[bytes | str | Mapping[str, Any]], new_edits: bool, update: bool, bytes_max: int
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
    """The writes of a request's body."""
    return bulk_request(body, BulkRequest).writes(bytes_max)


def bulk_request(body: bytes, kind: type[R]) -> R:
    """A request's body, its documents not looked into; BadRequest where what is around them is wrong."""
    try:
        request = msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        read_json(body)  # which tells better why a text is no JSON
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
        raise BadRequest(
            f'A bulk request is {{"docs": […]}}: {error}',
            hint=f"Send the documents as an array under docs; fields are {known}.",
        ) from None
    given = sum(value is not msgspec.UNSET for value in msgspec.structs.astuple(request))
    if body.count(b":") - sum(text.count(b":") for text in request.texts()) > given:
        read_json(body)  # a field may be there twice, and documents with it
    return request


def named_id(doc: Any) -> str | None:
    """The id that a refused document gave, if one can be made out."""
    if isinstance(doc, (bytes, bytearray, str)):
        try:
            doc = msgspec.json.decode(doc)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
    named = doc.get("_id") if isinstance(doc, Mapping) else None
    return named if isinstance(named, str) else None
