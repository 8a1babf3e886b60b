"""The shapes of bodies and answers in the description."""

from __future__ import annotations

from typing import Final

from broker.http.openapi_parameters import OPTIONS
from broker.http.openapi_shapes import (
    BARREL,
    COUNT,
    FLAG,
    ID,
    POSITION,
    REV,
    TEXT,
    TRUE,
    Schema,
    list_of,
    object_of,
    ref,
)

_ROW: Final = {
    "seq": COUNT,
    "id": TEXT,
    "rev": TEXT,
    "changes": list_of(TEXT),
    "paths": list_of(TEXT),
    "entered": TRUE,
    "removed": TRUE,
    "deleted": TRUE,
    "expired": TRUE,
    "doc": ref("Document"),
    "doc_omitted": TRUE,
    "attachments": {
        "type": "object",
        "properties": {"came": list_of(TEXT), "changed": list_of(TEXT), "went": list_of(TEXT)},
    },
}
_WRITTEN: Final = {"id": TEXT, "rev": TEXT, "seq": COUNT, "repeated": TRUE, "unchanged": TRUE}
_USER_KEY: Final[Schema] = {"type": "string", "pattern": "^[^_]", "minLength": 1, "maxLength": 256}
_FUNCTION: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_.:-]*$", "maxLength": 128}
_SETTINGS: Final[dict[str, Schema]] = {
    "retain": FLAG,
    "publish": {
        "anyOf": [{"type": "null"}, list_of({"type": "string", "pattern": "^[a-z]{1,20}(/[a-z]{1,20})?(/#)?$"})]
    },
    "path_qos": {"enum": [0, 1]},
    "ttl": {"anyOf": [{"type": "null"}, {"type": "number", "exclusiveMinimum": 0, "maximum": 3153600000}]},
    "ttl_field": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[^_]", "maxLength": 256}]},
    "replicate_expiry": FLAG,
    "revs_limit": {"type": "integer", "minimum": 1, "maximum": 1000000},
    "log_kept": {"type": "number", "minimum": 0, "maximum": 3153600000},
    "peers": {"anyOf": [{"type": "null"}, list_of({"type": "string", "pattern": "^[a-z]{1,3}$"}) | {"maxItems": 32}]},
    "merge": {
        "anyOf": [
            {"type": "null"},
            object_of("rule", {"rule": {"const": "fields"}}),
            object_of("rule field", {"rule": {"const": "newest"}, "field": _USER_KEY}),
            object_of("rule name", {"rule": {"const": "python"}, "name": _FUNCTION}),
        ]
    },
}

_STATE: Final[Schema] = {"enum": ["running", "waiting", "failing"]}
_TIME_OR_NONE: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
_TEXT_OR_NONE: Final[Schema] = {"type": ["string", "null"]}
_PART: Final = object_of(
    "ok state since failure hint",
    {"ok": FLAG, "state": _STATE, "since": _TIME_OR_NONE, "failure": _TEXT_OR_NONE, "hint": _TEXT_OR_NONE},
    more=True,
)

_BEHIND: Final[dict[str, Schema]] = {
    "barrel": BARREL,
    "position": _TEXT_OR_NONE,
    "seq_behind": COUNT,
    "seconds_behind": {"type": "number", "minimum": 0},
    "snapshot": FLAG,
}

SCHEMAS: Final[dict[str, Schema]] = {
    "Error": object_of("error reason hint", {"error": TEXT, "reason": TEXT, "hint": TEXT}, more=True),
    "Welcome": object_of("service version store you", {"service": TEXT, "version": TEXT, "store": TEXT, "you": TEXT}),
    "Health": object_of(
        "ok state version parts",
        {"ok": FLAG, "state": _STATE, "version": TEXT, "parts": {"type": "object", "additionalProperties": _PART}},
    ),
    "Description": {"type": "object"},
    "Settings": object_of("", _SETTINGS),
    "Barrel": object_of(
        "name epoch seq doc_count deleted_count bytes created settings",
        {
            "name": BARREL,
            "epoch": TEXT,
            "seq": COUNT,
            "doc_count": COUNT,
            "deleted_count": COUNT,
            "bytes": COUNT,
            "skipped_paths": COUNT,
            "created": {"type": "string", "format": "date-time"},
            "settings": ref("Settings"),
        },
    ),
    "Barrels": object_of("barrels", {"barrels": list_of(ref("Barrel"))}),
    "Dropped": object_of("dropped", {"dropped": TEXT}),
    "Document": object_of("_id _rev", {"_id": ID, "_rev": TEXT}, more=True),
    "Written": object_of("id rev seq", {**_WRITTEN, "p2p": ref("PassedOn")}),
    "Attached": object_of("id rev seq digest length", {**_WRITTEN, "digest": TEXT, "length": COUNT}),
    "Upload": object_of(
        "upload size length complete",
        {
            "upload": TEXT,
            "size": COUNT,
            "length": {"type": ["integer", "null"], "minimum": 0},
            "complete": FLAG,
            "doc": TEXT,
            "digest": TEXT,
            "md5": TEXT,
        },
    ),
    "Uploads": object_of(
        "results next",
        {
            "results": list_of(
                object_of(
                    "upload length complete touched",
                    {
                        "upload": TEXT,
                        "length": {"type": ["integer", "null"], "minimum": 0},
                        "complete": FLAG,
                        "doc": TEXT,
                        "label": TEXT,
                        "touched": {"type": "string", "format": "date-time"},
                    },
                )
            ),
            "next": {"type": ["string", "null"]},
        },
    ),
    "Aborted": object_of("aborted", {"aborted": TEXT}),
    "LocalWritten": object_of("id rev", {"id": TEXT, "rev": TEXT}),
    "Refusal": object_of(
        "error reason", {"id": {"type": ["string", "null"]}, "error": TEXT, "reason": TEXT}, more=True
    ),
    "BulkAnswer": object_of("results", {"results": list_of({"anyOf": [ref("Written"), ref("Refusal")]})}),
    "ReadAnswer": object_of(
        "results",
        {"results": list_of({"anyOf": [object_of("doc", {"doc": ref("Document")}), ref("Refusal")]})},
    ),
    "Conflicts": object_of(
        "results next",
        {
            "results": list_of(
                object_of(
                    "id rev conflicts seq",
                    {"id": TEXT, "rev": TEXT, "conflicts": list_of(TEXT), "seq": COUNT, "reason": TEXT},
                )
            ),
            "next": {"type": ["string", "null"]},
        },
    ),
    "Leaves": object_of("id leaves", {"id": TEXT, "leaves": list_of(ref("Document"))}),
    "RevsDiff": {
        "type": "object",
        "additionalProperties": object_of("missing", {"missing": list_of(TEXT), "possible_ancestors": list_of(TEXT)}),
    },
    "Row": object_of("seq id rev changes", _ROW),
    "Changes": object_of(
        "results last_seq pending epoch",
        {"results": list_of(ref("Row")), "last_seq": POSITION, "pending": COUNT, "epoch": TEXT},
    ),
    "Listeners": object_of(
        "listeners streams publishers here",
        {
            "listeners": list_of(
                object_of(
                    "barrel name position at seq_behind seconds_behind snapshot connected client dead_letters",
                    {
                        "name": TEXT,
                        "at": _TIME_OR_NONE,
                        "connected": FLAG,
                        "client": _TEXT_OR_NONE,
                        "dead_letters": COUNT,
                        **_BEHIND,
                    },
                )
            ),
            "streams": list_of(
                object_of(
                    "barrel client stream name position seq_behind seconds_behind snapshot",
                    {"client": TEXT, "stream": TEXT, "name": _TEXT_OR_NONE, **_BEHIND},
                )
            ),
            "publishers": list_of(
                object_of("barrel broker position seq_behind seconds_behind", {"broker": TEXT, **_BEHIND})
            ),
            "here": TEXT,
        },
    ),
    "Forgotten": object_of("forgotten", {"forgotten": TEXT}),
    "Found": object_of(
        "results next",
        {
            "results": list_of(object_of("id path", {"id": TEXT, "path": TEXT, "value": {}, "doc": ref("Document")})),
            "next": {"type": ["string", "null"]},
        },
    ),
}


def _or_null(*kinds: str) -> Schema:
    return {"type": [*kinds, "null"]}


_ATTACHMENT: Final = object_of(
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

DOCUMENT_IN: Final = object_of(
    "",
    {
        "_attachments": _ATTACHMENTS,
        "_id": ID,
        "_rev": REV,
        "_deleted": FLAG,
        "_conflicts": {},
        "_history": {},
        "_branches": {},
    },
    about="A JSON object; keys that begin with `_` are reserved, all others are the user's.",
) | {"patternProperties": {"^(?!_)": True}}
LOCAL_IN: Final = DOCUMENT_IN | {"properties": {"_id": TEXT, "_rev": TEXT, "_deleted": FLAG}}
BULK_IN: Final = object_of("docs", {"docs": list_of({"type": "object"}), "new_edits": FLAG, "update": FLAG})
READ_IN: Final = object_of(
    "docs",
    {"docs": list_of(object_of("id", {"id": TEXT, "rev": {"type": ["string", "null"]}, "revs": FLAG}, more=True))},
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
RESOLUTION_IN: Final = object_of(
    "",
    {"rev": {"anyOf": [REV, {"type": "null"}]}, "doc": DOCUMENT_IN, "leaves": list_of(REV)},
    about="Either `rev`, the leaf that stands, or `doc`, what stands in place of all; `leaves`: those that you saw.",
)
REVS_IN: Final = {
    "type": "object",
    "additionalProperties": list_of(REV),
}


def _in_body(name: str, schema: Schema) -> Schema:
    """An option in a JSON body: a single value where a list is meant, and a position as an integer."""
    if schema.get("type") == "array":
        return {"anyOf": [schema, schema["items"]]}
    return {"anyOf": [schema, COUNT]} if name == "since" else schema


ASK_IN: Final = object_of(
    "",
    {
        name: _in_body(name, schema)
        for name, (schema, _) in OPTIONS.items()
        if name in ("since", "limit", "pattern", "docs", "attachments", "descending", "feed", "heartbeat", "timeout")
    },
)
