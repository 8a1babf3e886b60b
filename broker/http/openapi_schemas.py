"""The shapes in the description: parameters, options, headers, bodies and answers."""

from __future__ import annotations

from typing import Any, Final

_Schema = dict[str, Any]


def ref(name: str) -> _Schema:
    """A schema of the components."""
    return {"$ref": f"#/components/schemas/{name}"}


def error_response(about: str) -> _Schema:
    """An answer that carries an error."""
    return {"description": about, "content": {"application/json": {"schema": ref("Error")}}}


def _object(required: str, properties: _Schema, *, more: bool = False, about: str = "") -> _Schema:
    made: _Schema = {"type": "object", "properties": properties, "required": required.split()}
    if not more:
        made["additionalProperties"] = False
    if about:
        made["description"] = about
    return made


def _list(items: _Schema) -> _Schema:
    return {"type": "array", "items": items}


def _path(name: str, schema: _Schema, about: str) -> _Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": about}


def _header(name: str, about: str, schema: _Schema) -> _Schema:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": about}


_TEXT: Final[_Schema] = {"type": "string"}
_FLAG: Final[_Schema] = {"type": "boolean"}
_COUNT: Final[_Schema] = {"type": "integer", "minimum": 0}
_TRUE: Final[_Schema] = {"const": True}
_BYTES: Final[_Schema] = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
_POSITION: Final[_Schema] = {"type": "string", "pattern": r"^[0-9]{1,19}-[0-9a-z]{1,32}$"}
_SINCE: Final[_Schema] = {"type": "string", "pattern": r"^(first|now|(0|[1-9][0-9]{0,17})(-[0-9a-z]{1,32})?)$"}
_ID: Final[_Schema] = {"type": "string", "minLength": 1, "maxLength": 512}
_REV: Final[_Schema] = {"type": "string", "pattern": r"^[1-9][0-9]{0,9}-[^\s,\"']{1,128}$"}
_BARREL: Final[_Schema] = {"type": "string", "pattern": r"^[a-z][a-z0-9_$()+/-]*$", "minLength": 1, "maxLength": 128}

PARAMETERS: Final[dict[str, _Schema]] = {
    "barrel": _path("barrel", _BARREL, "The barrel's name; `/` in it is written %2F."),
    "id": _path("id", _ID, "The document's id: UTF-8 of 1 to 512 bytes without control characters."),
    "name": _path("name", _ID, "The attachment's name, percent-encoded as one segment."),
    "upload": _path("upload", {"type": "string", "minLength": 1, "maxLength": 128}, "The upload's id."),
    "sha256": _path(
        "sha256", {"type": "string", "pattern": "^(sha256-)?[0-9a-f]{64}$"}, "The content's sha256 in hex."
    ),
    "listener": _path(
        "listener",
        {"type": "string", "minLength": 1, "maxLength": 128},
        "The listener's name, percent-encoded.",
    ),
    "path": _path(
        "path",
        {"type": "string", "minLength": 1},
        "A key path without its value, such as `locations/+/country`; `+` or `*` stands for any one segment. "
        "Documents by their ids are under `_id`: `_id/fr/*`.",
    ),
}

OPTIONS: Final[dict[str, tuple[_Schema, str]]] = {
    "rev": (_REV, "A revision."),
    "local.rev": (_TEXT, "The revision that is replaced, `0-<n>`."),
    "revs": (_FLAG, "Add `_revisions`, the history of this revision."),
    "conflicts": (_FLAG, "Add `_conflicts`, the other live leaves."),
    "history": (
        _FLAG,
        "Add `_history`, the history and what is still kept of it, and `_branches`, the same of every other leaf.",
    ),
    "update": (_FLAG, "Extend the winner, whatever it is."),
    "since": (_SINCE, "A position, `first` or `now`: what came after it is told."),
    "limit": (_COUNT | {"maximum": 2**53}, "At most so many rows."),
    "conflicts.limit": ({"type": "integer", "minimum": 1, "maximum": 1000}, "At most so many; 100 by itself."),
    "find.limit": ({"type": "integer", "minimum": 1, "maximum": 1000}, "At most so many hits; 100 by itself."),
    "pattern": (
        _list(_TEXT),
        "An MQTT topic filter over paths; repeated, any of them matches.",
    ),
    "docs": (_FLAG, "With the documents."),
    "attachments": (
        {"type": "string", "enum": ["stubs", "contents"]},
        "With documents: attachments as stubs, or with their bytes as base64 `data`, up to 1 MiB of a document.",
    ),
    "document.attachments": (
        _FLAG,
        "With the bytes of attachments as base64 `data`, up to 16 MiB; those beyond stay stubs.",
    ),
    "upload": (_TEXT, "A finished upload whose content it is, in place of a body."),
    "descending": (_FLAG, "Backwards; changes then want a limit of 1000 at most."),
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
    "from": (_TEXT, "The least value, as JSON, or as plain text where it is no JSON."),
    "to": (_TEXT, "The greatest value, as JSON, or as plain text where it is no JSON."),
    "prefix": (_TEXT, "What a text value begins with."),
    "order": ({"type": "string", "enum": ["key", "value"]}, "By key path or by value."),
    "after": (_TEXT, "`next` of the page before."),
    "consistent": (_FLAG, "Wait until the index has everything that was written before."),
}

CONDITIONS: Final[dict[str, _Schema]] = {
    "If-Match": _header("If-Match", "Only if the document is at this revision.", _TEXT),
    "If-None-Match": _header("If-None-Match", "`*`: only if the document is not there.", {"const": "*"}),
    "If-None-Match-Read": _header("If-None-Match", "The entity tag of what is held already.", _TEXT),
    "Idempotency-Key": _header(
        "Idempotency-Key",
        "Names this request: repeated with the same body within 24 h, it is answered again and not done again.",
        {"type": "string", "minLength": 1, "maxLength": 128},
    ),
    "If-Match-Attachment": _header(
        "If-Match", "Only if the document is at this revision, or the attachment has this tag.", _TEXT
    ),
    "If-Match-Read": _header("If-Match", "Only if the content has this tag.", _TEXT),
    "If-None-Match-Attachment": _header("If-None-Match", "`*`: only if there is none of that name.", {"const": "*"}),
    "Accept": _header("Accept", "`multipart/related`: with the contents of attachments behind the document.", _TEXT),
    "Range": _header("Range", "One range of bytes; of several, the whole is sent.", _TEXT),
    "If-Range": _header("If-Range", "The range only if the content has this tag, else the whole.", _TEXT),
    "Repr-Digest": _header("Repr-Digest", "The sha-256 or md5 (RFC 9530) that the content has to have.", _TEXT),
    "Content-Digest": _header("Content-Digest", "The same, of the bytes of this request.", _TEXT),
    "Content-MD5": _header("Content-MD5", "The md5 of the bytes of this request, in base64.", _TEXT),
    "Digest": _header("Digest", "As Repr-Digest, the way RFC 3230 wrote it.", _TEXT),
    "Upload-Length": _header("Upload-Length", "The bytes that the content has in the end.", _BYTES),
    "Upload-Complete": _header("Upload-Complete", "`?1`: these are the last bytes.", {"enum": ["?0", "?1"]}),
    "Upload-Offset": _header("Upload-Offset", "Where the part begins.", _BYTES) | {"required": True},
    "Last-Event-ID": _header("Last-Event-ID", "Where an event source stands; beats `since`.", _TEXT),
}

_ROW: Final = {
    "seq": _COUNT,
    "id": _TEXT,
    "rev": _TEXT,
    "changes": _list(_TEXT),
    "paths": _list(_TEXT),
    "entered": _TRUE,
    "removed": _TRUE,
    "deleted": _TRUE,
    "expired": _TRUE,
    "doc": ref("Document"),
    "doc_omitted": _TRUE,
    "attachments": {
        "type": "object",
        "properties": {"came": _list(_TEXT), "changed": _list(_TEXT), "went": _list(_TEXT)},
    },
}
_WRITTEN: Final = {"id": _TEXT, "rev": _TEXT, "seq": _COUNT, "repeated": _TRUE, "unchanged": _TRUE}
_USER_KEY: Final[_Schema] = {"type": "string", "pattern": "^[^_]", "minLength": 1, "maxLength": 256}
_FUNCTION: Final[_Schema] = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_.:-]*$", "maxLength": 128}
_SETTINGS: Final[dict[str, _Schema]] = {
    "retain": _FLAG,
    "publish": {
        "anyOf": [{"type": "null"}, _list({"type": "string", "pattern": "^[a-z]{1,20}(/[a-z]{1,20})?(/#)?$"})]
    },
    "path_qos": {"enum": [0, 1]},
    "ttl": {"anyOf": [{"type": "null"}, {"type": "number", "exclusiveMinimum": 0, "maximum": 3153600000}]},
    "ttl_field": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[^_]", "maxLength": 256}]},
    "replicate_expiry": _FLAG,
    "revs_limit": {"type": "integer", "minimum": 1, "maximum": 1000000},
    "log_kept": {"type": "number", "minimum": 0, "maximum": 3153600000},
    "merge": {
        "anyOf": [
            {"type": "null"},
            _object("rule", {"rule": {"const": "fields"}}),
            _object("rule field", {"rule": {"const": "newest"}, "field": _USER_KEY}),
            _object("rule name", {"rule": {"const": "python"}, "name": _FUNCTION}),
        ]
    },
}

_STATE: Final[_Schema] = {"enum": ["running", "waiting", "failing"]}
_TIME_OR_NONE: Final[_Schema] = {"type": ["string", "null"], "format": "date-time"}
_TEXT_OR_NONE: Final[_Schema] = {"type": ["string", "null"]}
_PART: Final = _object(
    "ok state since failure hint",
    {"ok": _FLAG, "state": _STATE, "since": _TIME_OR_NONE, "failure": _TEXT_OR_NONE, "hint": _TEXT_OR_NONE},
    more=True,
)

_BEHIND: Final[dict[str, _Schema]] = {
    "barrel": _BARREL,
    "position": _TEXT_OR_NONE,
    "seq_behind": _COUNT,
    "seconds_behind": {"type": "number", "minimum": 0},
    "snapshot": _FLAG,
}

SCHEMAS: Final[dict[str, _Schema]] = {
    "Error": _object("error reason hint", {"error": _TEXT, "reason": _TEXT, "hint": _TEXT}, more=True),
    "Welcome": _object(
        "service version store you", {"service": _TEXT, "version": _TEXT, "store": _TEXT, "you": _TEXT}
    ),
    "Health": _object(
        "ok state version parts",
        {"ok": _FLAG, "state": _STATE, "version": _TEXT, "parts": {"type": "object", "additionalProperties": _PART}},
    ),
    "Description": {"type": "object"},
    "Settings": _object("", _SETTINGS),
    "Barrel": _object(
        "name epoch seq doc_count deleted_count bytes created settings",
        {
            "name": _BARREL,
            "epoch": _TEXT,
            "seq": _COUNT,
            "doc_count": _COUNT,
            "deleted_count": _COUNT,
            "bytes": _COUNT,
            "skipped_paths": _COUNT,
            "created": {"type": "string", "format": "date-time"},
            "settings": ref("Settings"),
        },
    ),
    "Barrels": _object("barrels", {"barrels": _list(ref("Barrel"))}),
    "Dropped": _object("dropped", {"dropped": _TEXT}),
    "Document": _object("_id _rev", {"_id": _ID, "_rev": _TEXT}, more=True),
    "Written": _object("id rev seq", _WRITTEN),
    "Attached": _object("id rev seq digest length", {**_WRITTEN, "digest": _TEXT, "length": _COUNT}),
    "Upload": _object(
        "upload size length complete",
        {
            "upload": _TEXT,
            "size": _COUNT,
            "length": {"type": ["integer", "null"], "minimum": 0},
            "complete": _FLAG,
            "digest": _TEXT,
            "md5": _TEXT,
        },
    ),
    "Aborted": _object("aborted", {"aborted": _TEXT}),
    "LocalWritten": _object("id rev", {"id": _TEXT, "rev": _TEXT}),
    "Refusal": _object(
        "error reason", {"id": {"type": ["string", "null"]}, "error": _TEXT, "reason": _TEXT}, more=True
    ),
    "BulkAnswer": _object("results", {"results": _list({"anyOf": [ref("Written"), ref("Refusal")]})}),
    "ReadAnswer": _object(
        "results",
        {"results": _list({"anyOf": [_object("doc", {"doc": ref("Document")}), ref("Refusal")]})},
    ),
    "Conflicts": _object(
        "results next",
        {
            "results": _list(
                _object(
                    "id rev conflicts seq",
                    {"id": _TEXT, "rev": _TEXT, "conflicts": _list(_TEXT), "seq": _COUNT, "reason": _TEXT},
                )
            ),
            "next": {"type": ["string", "null"]},
        },
    ),
    "Leaves": _object("id leaves", {"id": _TEXT, "leaves": _list(ref("Document"))}),
    "RevsDiff": {
        "type": "object",
        "additionalProperties": _object("missing", {"missing": _list(_TEXT), "possible_ancestors": _list(_TEXT)}),
    },
    "Row": _object("seq id rev changes", _ROW),
    "Changes": _object(
        "results last_seq pending epoch",
        {"results": _list(ref("Row")), "last_seq": _POSITION, "pending": _COUNT, "epoch": _TEXT},
    ),
    "Listeners": _object(
        "listeners streams publishers here",
        {
            "listeners": _list(
                _object(
                    "barrel name position at seq_behind seconds_behind snapshot connected client dead_letters",
                    {
                        "name": _TEXT,
                        "at": _TIME_OR_NONE,
                        "connected": _FLAG,
                        "client": _TEXT_OR_NONE,
                        "dead_letters": _COUNT,
                        **_BEHIND,
                    },
                )
            ),
            "streams": _list(
                _object(
                    "barrel client stream name position seq_behind seconds_behind snapshot",
                    {"client": _TEXT, "stream": _TEXT, "name": _TEXT_OR_NONE, **_BEHIND},
                )
            ),
            "publishers": _list(
                _object("barrel broker position seq_behind seconds_behind", {"broker": _TEXT, **_BEHIND})
            ),
            "here": _TEXT,
        },
    ),
    "Forgotten": _object("forgotten", {"forgotten": _TEXT}),
    "Found": _object(
        "results next",
        {
            "results": _list(_object("id path", {"id": _TEXT, "path": _TEXT, "value": {}, "doc": ref("Document")})),
            "next": {"type": ["string", "null"]},
        },
    ),
}


def _or_null(*kinds: str) -> _Schema:
    return {"type": [*kinds, "null"]}


_ATTACHMENT: Final = _object(
    "",
    {
        "data": _or_null("string"),
        "stub": _or_null("boolean"),
        "follows": _or_null("boolean"),
        "link": _or_null("string"),
        "upload": _or_null("string"),
        "content_type": _or_null("string"),
        "digest": _or_null("string"),
        "length": _or_null("integer"),
        "revpos": _or_null("integer"),
    },
    about="Given by exactly one of data (base64), stub, link, upload and follows.",
)
_ATTACHMENTS: Final = {"type": "object", "additionalProperties": _ATTACHMENT}
BINARY: Final = {"type": "string", "format": "binary"}

DOCUMENT_IN: Final = _object(
    "",
    {
        "_attachments": _ATTACHMENTS,
        "_id": _ID,
        "_rev": _REV,
        "_deleted": _FLAG,
        "_conflicts": {},
        "_history": {},
        "_branches": {},
    },
    about="A JSON object; keys that begin with `_` are reserved, all others are the user's.",
) | {"patternProperties": {"^(?!_)": True}}
LOCAL_IN: Final = DOCUMENT_IN | {"properties": {"_id": _TEXT, "_rev": _TEXT, "_deleted": _FLAG}}
BULK_IN: Final = _object("docs", {"docs": _list({"type": "object"}), "new_edits": _FLAG, "update": _FLAG})
READ_IN: Final = _object(
    "docs",
    {"docs": _list(_object("id", {"id": _TEXT, "rev": {"type": ["string", "null"]}, "revs": _FLAG}, more=True))},
    more=True,
)
PATCH_IN: Final = {
    "type": "object",
    "description": "A JSON merge patch (RFC 7396).",
    "properties": {
        "_attachments": _ATTACHMENTS | {"additionalProperties": {"anyOf": [_ATTACHMENT, {"type": "null"}]}}
    },
    "patternProperties": {"^(?!_)": True},
    "additionalProperties": False,
}
RESOLUTION_IN: Final = _object(
    "",
    {"rev": {"anyOf": [_REV, {"type": "null"}]}, "doc": DOCUMENT_IN, "leaves": _list(_REV)},
    about="Either `rev`, the leaf that stands, or `doc`, what stands in place of all; `leaves`: those that you saw.",
)
REVS_IN: Final = {
    "type": "object",
    "additionalProperties": _list(_REV),
}


def _in_body(name: str, schema: _Schema) -> _Schema:
    """An option in a JSON body: a single value where a list is meant, and a position as an integer."""
    if schema.get("type") == "array":
        return {"anyOf": [schema, schema["items"]]}
    return {"anyOf": [schema, _COUNT]} if name == "since" else schema


ASK_IN: Final = _object(
    "",
    {
        name: _in_body(name, schema)
        for name, (schema, _) in OPTIONS.items()
        if name in ("since", "limit", "pattern", "docs", "attachments", "descending", "feed", "heartbeat", "timeout")
    },
)
