"""What is said of each operation in the description: its words, its body, its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from broker.http.openapi_nested import P2P_READ_IN, P2P_WRITE_IN
from broker.http.openapi_replications import REPLICATION_IN
from broker.http.openapi_schemas import (
    ASK_IN,
    BINARY,
    BULK_IN,
    DOCUMENT_IN,
    LOCAL_IN,
    PATCH_IN,
    READ_IN,
    RESOLUTION_IN,
    REVS_IN,
)
from broker.http.openapi_shapes import ref

_JSON: Final = "application/json"
_BYTES: Final = "application/octet-stream"
Answers = Mapping[int, tuple[str, Mapping[str, str | None]]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`answers` by status: what it means, and the schema's name by content type (None: text)."""

    tag: str
    summary: str
    answers: Answers
    errors: Mapping[int, str] = field(default_factory=dict)
    headers: Sequence[str] = ()
    body: Mapping[str, Any] | None = None
    body_kinds: Sequence[str] = (_JSON,)
    body_required: bool = True
    options_of: str = ""
    """Whose options these are, where one means something of its own: `find.limit` before `limit`."""


def _json(schema: str, about: str = "Done.", status: int = 200) -> Answers:
    return {status: (about, {_JSON: schema})}


_BARREL_MISSING: Final = {404: "There is no such barrel."}
_MISSING: Final = {404: "There is no such barrel, or the document is missing or deleted."}
_WRITE: Final = {
    **_BARREL_MISSING,
    409: "The document has changed since the revision sent.",
    412: "The condition does not hold.",
    413: "The document is larger than the limit.",
    422: "The Idempotency-Key was used for another request.",
    507: "There is no space left.",
}
_WRITTEN: Final[Answers] = {
    200: ("A new revision of a living document, or the same as before.", {_JSON: "Written"}),
    201: ("The document lives from now on.", {_JSON: "Written"}),
    202: ("It is written, and fewer have it than `p2p_write` asked for.", {_JSON: "Written"}),
}
_KEYED: Final = ("Idempotency-Key",)
_CHANGES: Final[Answers] = {
    200: (
        "Rows, in the order of their changes.",
        {_JSON: "Changes", "application/x-ndjson": None, "text/event-stream": None},
    )
}
_CHANGES_ERRORS: Final = {**_BARREL_MISSING, 410: "The position is of another epoch, or outside of the log."}

_NO_REPLICATION: Final = {404: "There is no such replication."}
_UNREADABLE: Final = {500: "An attachment is damaged."}
_CONTENT: Final[Answers] = {
    200: ("The content.", {"*/*": None}),
    206: ("A part of it.", {"*/*": None}),
    304: ("It is what If-None-Match holds.", {}),
}
_NO_UPLOAD: Final = {404: "There is no such upload of yours in a barrel of this name."}

OPERATIONS: Final[dict[str, Operation]] = {
    "welcome": Operation("service", "Who answers here, and which version", _json("Welcome")),
    "health": Operation(
        "service",
        "The state of every part",
        {200: ("Requests are served.", {_JSON: "Health"}), 503: ("A part is failing.", {_JSON: "Health"})},
    ),
    "metrics": Operation("service", "Figures for Prometheus", {200: ("Figures.", {"text/plain": None})}),
    "description": Operation("service", "This description", _json("Description")),
    "list_barrels": Operation("barrels", "Every barrel", _json("Barrels")),
    "create_barrel": Operation(
        "barrels",
        "Make a barrel",
        _json("Barrel", "Made.", 201),
        {409: "The name is taken.", 413: "The settings are too large."},
        body=ref("Settings"),
        body_required=False,
    ),
    "tell_barrel": Operation("barrels", "What is told about a barrel", _json("Barrel"), _BARREL_MISSING),
    "configure_barrel": Operation(
        "barrels",
        "Change settings of a barrel",
        _json("Barrel"),
        {**_BARREL_MISSING, 413: "The settings are too large."},
        body=ref("Settings"),
        body_required=False,
    ),
    "drop_barrel": Operation("barrels", "Drop a barrel with everything in it", _json("Dropped"), _BARREL_MISSING),
    "create_document": Operation(
        "documents", "Write a document; without `_id` one is made", _WRITTEN, _WRITE, _KEYED, DOCUMENT_IN
    ),
    "get_document": Operation(
        "documents",
        "Read a document",
        {
            200: ("The document.", {_JSON: "Document", "multipart/related": None}),
            304: ("It is what If-None-Match holds.", {}),
        },
        {**_MISSING, **_UNREADABLE},
        ("If-None-Match-Read", "Accept"),
        options_of="document",
    ),
    "put_document": Operation(
        "documents",
        "Write a document; as `multipart/related` with contents of attachments behind it",
        _WRITTEN,
        _WRITE,
        ("If-Match", "If-None-Match", "Idempotency-Key"),
        DOCUMENT_IN,
    ),
    "patch_document": Operation(
        "documents",
        "Apply a JSON merge patch",
        _WRITTEN,
        {**_WRITE, **_MISSING},
        ("If-Match", "Idempotency-Key"),
        PATCH_IN,
        ("application/merge-patch+json", _JSON),
    ),
    "delete_document": Operation(
        "documents", "Delete a document", _WRITTEN, {**_WRITE, **_MISSING}, ("If-Match", "Idempotency-Key")
    ),
    "bulk": Operation(
        "documents",
        "Write many documents",
        _json("BulkAnswer", "One result each, in order."),
        _WRITE,
        _KEYED,
        BULK_IN,
    ),
    "list_conflicts": Operation(
        "documents",
        "The documents in conflict, a page of them",
        _json("Conflicts", "In the order of their ids; `next` is the `after` of the page behind."),
        _BARREL_MISSING,
        options_of="conflicts",
    ),
    "get_conflict": Operation(
        "documents",
        "The live leaves of a document, the winner first",
        _json("Leaves"),
        {**_MISSING, 413: "They are too large to be shown together."},
    ),
    "resolve_conflict": Operation(
        "documents",
        "End a conflict: one leaf stands, or a document in place of all",
        _json("Written", "The other leaves are deleted."),
        {**_MISSING, **_WRITE, 409: "There is no such leaf or no conflict, or there are others than those seen."},
        _KEYED,
        RESOLUTION_IN,
    ),
    "p2p_write": Operation(
        "replication",
        "Pass on a revision that is here, to peers and by them to theirs",
        _json("PassedOn", "Who has it now, and who not and why."),
        {**_MISSING, 413: "Too much was asked for."},
        body=P2P_WRITE_IN,
    ),
    "p2p_read": Operation(
        "replication",
        "Look for a document here, at peers, and by them at theirs",
        _json("LookedUp", "With `doc` if somebody has it, `deleted` if somebody knows that it was deleted."),
        {**_BARREL_MISSING, 413: "Too much was asked for."},
        body=P2P_READ_IN,
    ),
    "get_many": Operation(
        "documents",
        "Read many documents",
        _json("ReadAnswer", "One result each, in order."),
        {**_BARREL_MISSING, 413: "Too much was asked for."},
        body=READ_IN,
    ),
    "revs_diff": Operation(
        "replication",
        "Which revisions are not known here",
        _json("RevsDiff", "By id, those of which some are missing."),
        {**_BARREL_MISSING, 413: "Too much was asked for."},
        body=REVS_IN,
    ),
    "purge": Operation(
        "documents",
        "Remove documents here alone, for good",
        _json("BulkAnswer", "One result each, in order."),
        {**_MISSING, 413: "Too much was asked for."},
        body=REVS_IN,
    ),
    "get_attachment": Operation(
        "attachments",
        "Read an attachment, or a part of it",
        _CONTENT,
        {**_MISSING, **_UNREADABLE, 412: "The condition does not hold.", 416: "The range lies outside."},
        ("Range", "If-Range", "If-Match-Read", "If-None-Match-Read"),
    ),
    "put_attachment": Operation(
        "attachments",
        "Put an attachment onto a document, or begin the document with it",
        {
            200: ("It stands in the place of another one.", {_JSON: "Attached"}),
            201: ("There was none of that name.", {_JSON: "Attached"}),
        },
        {**_WRITE, **_MISSING},
        (
            *("If-Match-Attachment", "If-None-Match-Attachment", "Idempotency-Key"),
            *("Repr-Digest", "Content-Digest", "Content-MD5", "Digest"),
        ),
        BINARY,
        (_BYTES,),
        body_required=False,
    ),
    "delete_attachment": Operation(
        "attachments",
        "Take an attachment from a document",
        _json("Written"),
        {**_WRITE, **_MISSING},
        ("If-Match-Attachment", "Idempotency-Key"),
    ),
    "get_blob": Operation(
        "replication",
        "Read a content that some document of the barrel has, or a part of it",
        _CONTENT,
        {404: "No document of the barrel has it.", **_UNREADABLE, 412: "It is another.", 416: "Outside of it."},
        ("Range", "If-Range", "If-Match-Read", "If-None-Match-Read"),
        options_of="blob",
    ),
    "list_uploads": Operation(
        "attachments",
        "Your uploads, the oldest first",
        _json("Uploads"),
        _BARREL_MISSING,
        options_of="uploads",
    ),
    "start_upload": Operation(
        "attachments",
        "Begin an upload that can be gone on with",
        _json("Upload", "Begun; `Location` is where it goes on.", 201),
        {**_BARREL_MISSING, 413: "It is larger than the limit.", 507: "There is no space left."},
        ("Upload-Length", "Upload-Complete", "Repr-Digest"),
        BINARY,
        (_BYTES,),
        body_required=False,
    ),
    "tell_upload": Operation("attachments", "How far an upload is", _json("Upload"), _NO_UPLOAD),
    "append_upload": Operation(
        "attachments",
        "Send the next part of an upload, maybe its last",
        _json("Upload"),
        {**_NO_UPLOAD, 409: "It stands elsewhere, see `Upload-Offset`; or somebody else goes on with it."}
        | {413: "It is larger than the limit.", 507: "There is no space left."},
        ("Upload-Offset", "Upload-Complete", "Repr-Digest", "Content-Digest", "Content-MD5"),
        BINARY,
        ("application/partial-upload",),
        body_required=False,
    ),
    "abort_upload": Operation(
        "attachments", "Give an upload up", _json("Aborted"), {**_NO_UPLOAD, 409: "It is used."}
    ),
    "get_local": Operation("replication", "Read a local document", _json("Document"), _MISSING),
    "put_local": Operation(
        "replication",
        "Write a local document",
        {200: ("Replaced.", {_JSON: "LocalWritten"}), 201: ("Made.", {_JSON: "LocalWritten"})},
        _WRITE,
        ("If-Match",),
        LOCAL_IN,
        options_of="local",
    ),
    "delete_local": Operation(
        "replication",
        "Delete a local document",
        _json("LocalWritten"),
        {**_WRITE, **_MISSING},
        ("If-Match",),
        options_of="local",
    ),
    "changes": Operation("changes", "Read or follow changes", _CHANGES, _CHANGES_ERRORS, ("Last-Event-ID",)),
    "ask_changes": Operation(
        "changes",
        "Read or follow changes, the options in the body",
        _CHANGES,
        {**_CHANGES_ERRORS, 413: "The options are too large."},
        body=ASK_IN,
    ),
    "feed_handshake": Operation(
        "changes",
        "The stream over WebSocket: arrays down, credit up",
        {101: ("Spoken over WebSocket from here on.", {})},
        {**_BARREL_MISSING, 400: "This is no WebSocket handshake."},
    ),
    "all_listeners": Operation("changes", "Who follows, and how far everyone is behind", _json("Listeners")),
    "listeners": Operation(
        "changes", "Who follows a barrel, and how far everyone is behind", _json("Listeners"), _BARREL_MISSING
    ),
    "forget_listener": Operation(
        "changes",
        "Forget where a listener stands, so that it begins anew",
        _json("Forgotten"),
        {404: "There is no such listener.", 409: "It is connected, and would store its place again."},
    ),
    "create_replication": Operation(
        "replication",
        "Have a replication run from now on, or run it once and wait",
        {
            200: ("It is there already; or it has ended, with `wait`.", {_JSON: "Replication"}),
            201: ("It is kept from now on.", {_JSON: "Replication"}),
        },
        {404: "There is no such barrel (`wait`).", 413: "There are as many as there may be."}
        | {409: "Others write its checkpoints (`wait`).", 502: "An end is no peer (`wait`).", 504: "It is silent."},
        body=REPLICATION_IN,
    ),
    "list_replications": Operation("replication", "Every replication, the oldest first", _json("Replications")),
    "get_replication": Operation("replication", "How a replication stands", _json("Replication"), _NO_REPLICATION),
    "cancel_replication": Operation(
        "replication", "Cancel a replication, and forget it", _json("Replication"), _NO_REPLICATION
    ),
    "pause_replication": Operation(
        "replication",
        "Let a replication rest",
        _json("Replication"),
        {**_NO_REPLICATION, 409: "It has ended."},
    ),
    "resume_replication": Operation(
        "replication",
        "Have a replication run: at once where it waits, again where it has ended",
        _json("Replication"),
        _NO_REPLICATION,
    ),
    "find": Operation(
        "documents", "Find documents by what stands under a path", _json("Found"), _BARREL_MISSING, options_of="find"
    ),
}
