"""What a request may say beside its body, in the description: in its path, as options, in headers."""

from __future__ import annotations

from typing import Final

from broker.http.openapi_shapes import (
    BARREL,
    BYTES,
    COUNT,
    FLAG,
    ID,
    REV,
    SINCE,
    TEXT,
    Schema,
    in_header,
    in_path,
    list_of,
)

PARAMETERS: Final[dict[str, Schema]] = {
    "barrel": in_path("barrel", BARREL, "The barrel's name; `/` in it is written %2F."),
    "id": in_path("id", ID, "The document's id: UTF-8 of 1 to 512 bytes without control characters."),
    "name": in_path("name", ID, "The attachment's name, percent-encoded as one segment."),
    "upload": in_path("upload", {"type": "string", "minLength": 1, "maxLength": 128}, "The upload's id."),
    "sha256": in_path(
        "sha256", {"type": "string", "pattern": "^(sha256-)?[0-9a-f]{64}$"}, "The content's sha256 in hex."
    ),
    "replication": in_path("replication", {"type": "string", "pattern": "^[0-9a-f]{32}$"}, "The replication's id."),
    "listener": in_path(
        "listener",
        {"type": "string", "minLength": 1, "maxLength": 128},
        "The listener's name, percent-encoded.",
    ),
    "path": in_path(
        "path",
        {"type": "string", "minLength": 1},
        "A key path without its value, such as `locations/+/country`; `+` or `*` stands for any one segment. "
        "Documents by their ids are under `_id`: `_id/fr/*`.",
    ),
}

OPTIONS: Final[dict[str, tuple[Schema, str]]] = {
    "rev": (REV, "A revision."),
    "local.rev": (TEXT, "The revision that is replaced, `0-<n>`."),
    "revs": (FLAG, "Add `_revisions`, the history of this revision."),
    "conflicts": (FLAG, "Add `_conflicts`, the other live leaves."),
    "history": (
        FLAG,
        "Add `_history`, the history and what is still kept of it, and `_branches`, the same of every other leaf.",
    ),
    "update": (FLAG, "Extend the winner, whatever it is."),
    "since": (SINCE, "A position, `first` or `now`: what came after it is told."),
    "limit": (COUNT | {"maximum": 2**53}, "At most so many rows."),
    "conflicts.limit": ({"type": "integer", "minimum": 1, "maximum": 1000}, "At most so many; 100 by itself."),
    "find.limit": ({"type": "integer", "minimum": 1, "maximum": 1000}, "At most so many hits; 100 by itself."),
    "pattern": (
        list_of(TEXT),
        "An MQTT topic filter over paths; repeated, any of them matches.",
    ),
    "docs": (FLAG, "With the documents."),
    "attachments": (
        {"type": "string", "enum": ["stubs", "contents"]},
        "With documents: attachments as stubs, or with their bytes as base64 `data`, up to 1 MiB of a document.",
    ),
    "document.attachments": (
        FLAG,
        "With the bytes of attachments as base64 `data`, up to 16 MiB; those beyond stay stubs.",
    ),
    "upload": (TEXT, "A finished upload whose content it is, in place of a body."),
    "doc": (ID, "The only document that may have the upload. Without, any may: that asks for the whole barrel."),
    "blob.doc": (ID, "The document that has it. Without, any does: that asks for the whole barrel."),
    "uploads.doc": (ID, "Those for this document. Without, all of yours: that asks for the whole barrel."),
    "uploads.limit": ({"type": "integer", "minimum": 1, "maximum": 1000}, "At most so many; 100 by itself."),
    "label": (
        {"type": "string", "minLength": 1, "maxLength": 256},
        "A text of your own, by which you find the upload again.",
    ),
    "descending": (FLAG, "Backwards; changes then want a limit of 1000 at most."),
    "feed": (
        {"type": "string", "enum": ["normal", "longpoll", "continuous", "eventsource"]},
        "Once, once something is there, or as it comes: a row a line, or server-sent events.",
    ),
    "heartbeat": (
        {"anyOf": [{"type": "integer", "minimum": 100, "maximum": 86400000}, {"type": "boolean"}]},
        "Milliseconds between signs of life while nothing comes.",
    ),
    "timeout": (
        {"type": "integer", "minimum": 0, "maximum": 86400000},
        "Milliseconds without a row after which a waiting feed ends.",
    ),
    "from": (TEXT, "The least value, as JSON, or as plain text where it is no JSON."),
    "to": (TEXT, "The greatest value, as JSON, or as plain text where it is no JSON."),
    "prefix": (TEXT, "What a text value begins with."),
    "order": ({"type": "string", "enum": ["key", "value"]}, "By key path or by value."),
    "after": (TEXT, "`next` of the page before."),
    "wait": (FLAG, "Replicate once, keep nothing, and answer when it has ended."),
    "consistent": (FLAG, "Wait until the index has everything that was written before."),
}

CONDITIONS: Final[dict[str, Schema]] = {
    "If-Match": in_header("If-Match", "Only if the document is at this revision.", TEXT),
    "If-None-Match": in_header("If-None-Match", "`*`: only if the document is not there.", {"const": "*"}),
    "If-None-Match-Read": in_header("If-None-Match", "The entity tag of what is held already.", TEXT),
    "Idempotency-Key": in_header(
        "Idempotency-Key",
        "Names this request: repeated with the same body within 24 h, it is answered again and not done again.",
        {"type": "string", "minLength": 1, "maxLength": 128},
    ),
    "If-Match-Attachment": in_header(
        "If-Match", "Only if the document is at this revision, or the attachment has this tag.", TEXT
    ),
    "If-Match-Read": in_header("If-Match", "Only if the content has this tag.", TEXT),
    "If-None-Match-Attachment": in_header(
        "If-None-Match", "`*`: only if there is none of that name.", {"const": "*"}
    ),
    "Accept": in_header("Accept", "`multipart/related`: with the contents of attachments behind the document.", TEXT),
    "Range": in_header("Range", "One range of bytes; of several, the whole is sent.", TEXT),
    "If-Range": in_header("If-Range", "The range only if the content has this tag, else the whole.", TEXT),
    "Repr-Digest": in_header("Repr-Digest", "The sha-256 or md5 (RFC 9530) that the content has to have.", TEXT),
    "Content-Digest": in_header("Content-Digest", "The same, of the bytes of this request.", TEXT),
    "Content-MD5": in_header("Content-MD5", "The md5 of the bytes of this request, in base64.", TEXT),
    "Digest": in_header("Digest", "As Repr-Digest, the way RFC 3230 wrote it.", TEXT),
    "Upload-Length": in_header("Upload-Length", "The bytes that the content has in the end.", BYTES),
    "Upload-Complete": in_header("Upload-Complete", "`?1`: these are the last bytes.", {"enum": ["?0", "?1"]}),
    "Upload-Offset": in_header("Upload-Offset", "Where the part begins.", BYTES) | {"required": True},
    "Last-Event-ID": in_header("Last-Event-ID", "Where an event source stands; beats `since`.", TEXT),
}
