"""The shapes of replications in the description: how one is asked for, and how it is told."""

from __future__ import annotations

from typing import Final

from broker.http.openapi_shapes import COUNT, FLAG, ID, TEXT, Schema, list_of, object_of, ref

_ASKED: Final[Schema] = {"type": "string", "minLength": 1}
_TEXT_OR_NONE: Final[Schema] = {"type": ["string", "null"]}
_LEAVES: Final[Schema] = {"enum": ["ignore", "purge"]}
_SELECTOR: Final[Schema] = {"type": ["object", "null"]}
_BEHIND: Final[Schema] = {"type": ["integer", "null"], "minimum": 0}

REPLICATION_IN: Final = object_of(
    "source target",
    {
        "source": _ASKED | {"description": "A barrel of this service by its name, or one elsewhere by its URL."},
        "target": _ASKED,
        "continuous": FLAG,
        "both": FLAG | {"description": "There and back."},
        "patterns": list_of(TEXT),
        "ids": {"anyOf": [{"type": "null"}, list_of(ID) | {"minItems": 1}]},
        "selector": _SELECTOR | {"description": "A Mango selector."},
        "leaves": _LEAVES | {"description": "What becomes of a document at the target that matches no more."},
        "create_target": FLAG,
        "source_token": _TEXT_OR_NONE | {"description": "What the source's service asks for; never shown again."},
        "target_token": _TEXT_OR_NONE,
    },
)

_COUNTED: Final = dict.fromkeys(
    (
        *(
            "read",
            "missing",
            "fetched",
            "written",
            "refused",
            "gone",
            "left",
            "purged",
            "bytes",
            "blobs",
            "blob_bytes",
        ),
        *("retries", "checkpoints"),
    ),
    COUNT,
)
_PROGRESS: Final = {
    **_COUNTED,
    "rate": {"type": "number", "minimum": 0, "description": "Documents per second, lately."},
    "behind": _BEHIND | {"description": "Changes of the source that are still to be looked at, at most."},
    "refusals": list_of(
        object_of("id rev error reason", {"id": TEXT, "rev": TEXT, "error": TEXT, "reason": TEXT, "target": TEXT})
    ),
}
_STATE: Final[Schema] = {
    "enum": ["starting", "running", "idle", "waiting", "paused", "stopped", "done", "failed", "cancelled"]
}
_WHY: Final = {"state": _STATE, "reason": _TEXT_OR_NONE, "error": _TEXT_OR_NONE}

SCHEMAS: Final[dict[str, Schema]] = {
    "Replication": object_of(
        "id source target state progress directions",
        {
            "id": TEXT,
            "source": TEXT,
            "target": TEXT,
            "continuous": FLAG,
            "both": FLAG,
            "patterns": list_of(TEXT),
            "ids": {"anyOf": [{"type": "null"}, list_of(TEXT)]},
            "selector": _SELECTOR,
            "leaves": _LEAVES,
            "create_target": FLAG,
            "created": TEXT,
            "created_by": TEXT,
            "document": _TEXT_OR_NONE | {"description": "The one of `_replicator` that describes it."},
            "credentials": list_of({"enum": ["source", "target"]}) | {"description": "The ends it signs in to."},
            **_WHY,
            "since": TEXT,
            "hint": _TEXT_OR_NONE,
            "retry_at": _TEXT_OR_NONE,
            "runs_at": _TEXT_OR_NONE | {"description": "The process that runs it, or did."},
            "told_at": _TEXT_OR_NONE | {"description": "When this was so; another process tells every 2 s."},
            "progress": object_of("", _PROGRESS),
            "directions": list_of(
                object_of(
                    "source target state",
                    {
                        **{"source": TEXT, "target": TEXT, **_WHY},
                        **{"position": _TEXT_OR_NONE, "replication": _TEXT_OR_NONE, **_PROGRESS},
                        **{"session": _TEXT_OR_NONE, "began": _TEXT_OR_NONE},
                    },
                )
            ),
        },
    ),
    "Replications": object_of("replications", {"replications": list_of(ref("Replication"))}),
}
