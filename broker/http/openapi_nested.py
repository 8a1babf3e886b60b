"""The shapes of nested calls in the description: their options, their bodies, and who has what in their answers."""

from __future__ import annotations

from typing import Any, Final

from broker.http.openapi_shapes import FLAG, ID, TEXT, Schema, list_of, object_of, ref
from listeners.nested.messages import PEER_TEXT_MAX, SEEN_MAX
from listeners.nested.reach import DEPTH_MAX, SECONDS_MAX, WANTED_MAX

_TIMEOUT_MAX: Final = int(SECONDS_MAX * 1000)
_ORDER: Final[Schema] = {"type": "string", "enum": ["order", "first"]}


def _number(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


OPTIONS: Final[dict[str, tuple[Schema, str]]] = {
    "p2p_write": (_number(1, WANTED_MAX), "Pass it on to peers until so many services have it, this one counted."),
    "p2p_read": (_ORDER, "Where it is not here, ask the peers: in their order, or all at once."),
    "p2p_depth": (_number(1, DEPTH_MAX), "How many steps from here a nested call goes; 3 by itself."),
    "p2p_timeout": (_number(1, _TIMEOUT_MAX), "Milliseconds for all of a nested call; 10,000 by itself."),
    "keep": (FLAG, "Keep here what a peer had."),
}

_BOUNDS: Final = {
    "timeout": _number(0, _TIMEOUT_MAX),
    "seen": list_of({"type": "string", "maxLength": PEER_TEXT_MAX}) | {"maxItems": SEEN_MAX},
}
P2P_WRITE_IN: Final = object_of(
    "id rev wanted",
    {"id": ID, "rev": TEXT, "wanted": _number(1, WANTED_MAX), "depth": _number(1, DEPTH_MAX), **_BOUNDS},
)
P2P_READ_IN: Final = object_of(
    "id",
    {
        "id": ID,
        "rev": {"type": ["string", "null"]},
        "order": _ORDER,
        "depth": _number(0, DEPTH_MAX),
        **_BOUNDS,
        "keep": FLAG,
    },
)

_HOLDERS: Final = list_of(object_of("peer store barrel", {"peer": TEXT, "store": TEXT, "barrel": TEXT}))
_FAILED: Final = list_of(
    object_of(
        "peer step error reason",
        {
            "peer": TEXT,
            "step": {"type": "string"},
            "error": TEXT,
            "reason": TEXT,
            "unknown": {"const": True, "description": "It may have done it all the same."},
        },
    )
)

SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "PassedOn": object_of(
        "wanted reached complete holders failed",
        {
            "wanted": _number(1, WANTED_MAX),
            "reached": {"type": "integer", "minimum": 1},
            "complete": FLAG,
            "holders": _HOLDERS,
            "failed": _FAILED,
        },
    ),
    "LookedUp": object_of(
        "answered failed",
        {
            "answered": _HOLDERS,
            "failed": _FAILED,
            "doc": ref("Document"),
            "deleted": {"const": True},
            "peer": TEXT,
            "kept": FLAG,
            "not_kept": TEXT,
        },
    ),
}
