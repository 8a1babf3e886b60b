"""Documents that clients write, as writes of `feeds`; and whose rules they break where they break some.

What CouchDB refuses too is refused in its words, with the whole request. What only Spile's limits refuse is
`forbidden` by itself: replicators count that among their `doc_write_failures`, name the document, and go on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from broker.couch import stubs
from broker.couch.errors import CouchError, bad_request
from broker.couch.face import check_reserved, illegal_id
from broker.http.answers import encode_json
from feeds import Write
from feeds.errors import BadRequest, MissingStub, SpileError, TooLarge

_decode = msgspec.json.Decoder().decode

_ATTACHMENTS: Final = b'"_attachments"'
_REVISIONS: Final = b'"_revisions"'
# What a reader was given beside the document and sends back, as CouchDB lets it.
_BESIDE: Final = ("_revs_info", "_local_seq")
_REVS_INFO, _LOCAL_SEQ = (f'"{name}"'.encode() for name in _BESIDE)
_KNOWN: Final = frozenset(
    {
        *("_id", "_rev", "_deleted", "_revisions", "_attachments", "_conflicts", "_deleted_conflicts"),
        *("_history", "_branches", *_BESIDE),
    }
)
_REV: Final = re.compile(r"[0-9]+-.+", re.DOTALL)


def edited(text: bytes, bytes_max: int, *, id: str | None = None, rev: str | None = None) -> Write:
    """A document that is changed here: its `_rev`, or `rev`, is what it is based on."""
    try:
        write = Write.put(_native(text, edits=True), id=id, rev=rev, bytes_max=bytes_max)
    except (BadRequest, TooLarge) as error:
        raise _contradiction(text, id, rev) or refused(text, error) from error
    check_reserved(write.id)
    return write


def grafted(text: bytes, bytes_max: int) -> Write:
    """A revision that was made elsewhere (`new_edits=false`)."""
    try:
        return Write.replicate(_native(text, edits=False), bytes_max=bytes_max)
    except (BadRequest, TooLarge) as error:
        named = _with_rev(text)
        if named is None:
            raise refused(text, error, replicated=True) from error
    return grafted(named, bytes_max)


def _with_rev(text: bytes) -> bytes | None:
    """A document that names its revision by its history alone with a `_rev` as well; None where that is not so."""
    try:
        doc = _decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if not isinstance(doc, dict) or "_rev" in doc or not isinstance(doc.get("_revisions"), dict):
        return None
    start, ids = doc["_revisions"].get("start"), doc["_revisions"].get("ids")
    if not isinstance(start, int) or not isinstance(ids, list) or not ids or not isinstance(ids[0], str):
        return None
    return encode_json({**doc, "_rev": f"{start}-{ids[0]}"})


def _native(text: bytes, *, edits: bool) -> bytes | dict[str, Any]:
    """The document as `feeds` takes it: its own text wherever nothing is to be translated."""
    plain = _ATTACHMENTS not in text and _REVS_INFO not in text and _LOCAL_SEQ not in text
    if plain and not (edits and _REVISIONS in text):
        return text
    try:
        doc = _decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return text  # and is refused for it
    if not isinstance(doc, dict):
        return text
    for name in _BESIDE:
        doc.pop(name, None)
    if edits:
        doc.pop("_revisions", None)
    if "_attachments" in doc:
        doc["_attachments"] = stubs.given(doc["_attachments"])
    return doc


def _contradiction(text: bytes, id: str | None, rev: str | None) -> CouchError | None:
    """What a document says otherwise than the request."""
    try:
        doc = _decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if not isinstance(doc, dict):
        return None
    if id is not None and isinstance(doc.get("_id"), str) and doc["_id"] != id:
        return bad_request("Document ID must match the one in the URL")
    if rev is not None and isinstance(doc.get("_rev"), str) and doc["_rev"] != rev:
        return bad_request("Document rev from request body and query string have different values")
    return None


def refused(text: bytes, error: SpileError, *, replicated: bool = False) -> SpileError:
    """Why a document is refused: by CouchDB's rules, else by a limit of Spile's."""
    try:
        doc = _decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return bad_request("invalid UTF-8 JSON")
    fault = fault_of(doc, replicated=replicated)
    if fault is not None:
        return fault
    if isinstance(error, TooLarge):
        return CouchError(413, "document_too_large", error.reason)
    return CouchError(403, "forbidden", f"{error.reason}. {error.hint}")


def fault_of(doc: Any, *, replicated: bool = False) -> CouchError | None:
    """What CouchDB itself would refuse a document for; None where that is nothing."""
    if not isinstance(doc, Mapping):
        return bad_request("Document must be a JSON object")
    id, rev = doc.get("_id", "x"), doc.get("_rev")
    if not isinstance(id, str):
        return illegal_id("Document id must be a string")
    if not id:
        return illegal_id("Document id must not be empty")
    if id.startswith("_") and not (id.startswith(("_design/", "_local/")) and not id.endswith("/")):
        return illegal_id()
    strange = next((key for key in doc if key.startswith("_") and key not in _KNOWN), None)
    if strange is not None:
        return CouchError(400, "doc_validation", f"Bad special document member: {strange}")
    if "_rev" in doc and not (isinstance(rev, str) and _REV.fullmatch(rev)):
        return bad_request("Invalid rev format")
    if replicated and rev is None:
        return bad_request("A document with new_edits=false has a _rev.")
    if not isinstance(doc.get("_deleted", False), bool):
        return bad_request("_deleted must be true or false")
    return _fault_of_history(doc) if replicated else _fault_of_attachments(doc)


def _fault_of_history(doc: Mapping[str, Any]) -> CouchError | None:
    if "_revisions" in doc:
        told = doc["_revisions"]
        start, ids = (told.get("start"), told.get("ids")) if isinstance(told, dict) else (None, None)
        good = isinstance(start, int) and isinstance(ids, list) and all(isinstance(id, str) for id in ids)
        if not good or not ids or int(start or 0) < len(ids) or doc["_rev"] != f"{start}-{ids[0]}":
            return CouchError(400, "doc_validation", "_revisions does not begin with _rev")
    return _fault_of_attachments(doc)


def _fault_of_attachments(doc: Mapping[str, Any]) -> CouchError | None:
    given = doc.get("_attachments", {})
    if not isinstance(given, Mapping):
        return bad_request("Attachments property must be a JSON object.")
    for name, each in given.items():
        if name.startswith("_"):
            return bad_request("Attachment name can't start with '_'")
        data = each.get("data") if isinstance(each, dict) else None
        if data is not None:
            try:
                stubs.check_data(name, data)
            except CouchError as fault:
                return fault
    return None


def told_of_write(error: SpileError) -> SpileError:
    """What the store says of a write, in the words of the face."""
    if isinstance(error, MissingStub):
        return stubs.missing_stub(str(error.details.get("id", "")), str(error.details.get("name", "")))
    if isinstance(error, BadRequest) and not isinstance(error, CouchError):
        return CouchError(403, "forbidden", f"{error.reason}. {error.hint}")
    return error
