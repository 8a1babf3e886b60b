"""The paths of a document: its leaves, as segments from the root with the value as the last one.

Pure. A leaf is kept as (shape, places, value): the shape is the key path with every array position written
`+`, the places are those positions, so that a million arrays share one shape in the index. Texts, topics and
indexed bytes are made from leaves only where somebody needs them.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import msgspec

from feeds.values import cut_text

LEVELS_MAX = 64  # of a path, its value included; the depth brokers and humans still follow
PATH_BYTES_MAX = 1024  # of an encoded path; topics may hold 65,535, but nobody subscribes to those

ATTACHMENTS = "_attachments"

SURELY_FITS = 62  # characters of a shape without places: were they all slashes, a path would have 64 levels
_SURELY_SHORT = 120  # characters of shape and places: 4 bytes each at most, and 300 of an encoded, cut text

_ESCAPED = re.compile(
    "[%/+#*\x00-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)
_escaped = _ESCAPED.search
_json = msgspec.json.Encoder().encode
_SHORT = 64  # segments up to this length are remembered, as keys repeat from document to document
_REMEMBERED_MAX = 20_000
_remembered: dict[str, str] = {}


# One leaf of a document: its key path (the shape), the array positions on the way, and the value. The places are ""
# without arrays, else positions joined by "/": "0", "2/11". A plain tuple, as there are millions of them.
Leaf: TypeAlias = tuple[str, str, Any]


def encode_segment(text: str) -> str:
    """One segment as it stands in paths, topics and patterns: reserved characters percent-encoded."""
    if _escaped(text) is None:
        return text
    return _ESCAPED.sub(lambda found: "".join(f"%{byte:02X}" for byte in found.group().encode()), text)


def decode_segment(segment: str) -> str | None:
    """The text that `segment` stands for; None when no text is encoded like that."""
    if "%" not in segment:
        return segment if _escaped(segment) is None else None
    try:
        text = re.sub("(?:%[0-9A-F]{2})+", lambda run: bytes.fromhex(run.group().replace("%", "")).decode(), segment)
    except UnicodeDecodeError:
        return None
    return text if encode_segment(text) == segment else None


def value_segment(value: Any) -> str:
    """The last segment of a leaf: a text (cut, encoded), or canonical JSON of anything else."""
    if type(value) is str:
        return encode_segment(cut_text(value))
    return _json(value).decode()


def id_levels(document_id: str) -> str:
    """The document's id as levels of a topic: its own slashes stay levels, all else is encoded."""
    return "/".join(map(encode_segment, document_id.split("/")))


def leaf_path(leaf: Leaf) -> str:
    """The leaf's whole path text, its array positions filled in and its value as last segment."""
    return f"{key_path(leaf)}/{value_segment(leaf[2])}"


def key_path(leaf: Leaf) -> str:
    """The leaf's path without the value, array positions filled in."""
    shape, places, _ = leaf
    if not places:
        return shape
    positions = iter(places.split("/"))
    return "/".join(next(positions) if level == "+" else level for level in shape.split("/"))


def document_leaves(data: dict[str, Any]) -> list[Leaf]:
    """Every leaf of a document's user keys, and the names of its attachments.

    Other keys with a leading `_` at the top are not the user's. Of names that are cut to the same text one stands.
    """
    leaves: list[Leaf] = []
    add = leaves.append
    for key, value in data.items():
        if key[:1] == "_":
            if key == ATTACHMENTS:
                leaves += [(ATTACHMENTS, "", name) for name in {cut_text(name): name for name in value}.values()]
            continue
        segment = _remembered.get(key) or _segment(key)
        if type(value) is dict or type(value) is list:
            _walk(value, segment, "", add)
        else:
            add((segment, "", value))
    return leaves


def _segment(key: str) -> str:
    segment = encode_segment(key)
    if len(key) <= _SHORT:
        if len(_remembered) >= _REMEMBERED_MAX:
            _remembered.clear()
        _remembered[key] = segment
    return segment


def _walk(value: Any, shape: str, places: str, add: Any) -> None:
    if not value:
        add((shape, places, value))
    elif type(value) is dict:
        for key, inner in value.items():
            below = f"{shape}/{_remembered.get(key) or _segment(key)}"
            if type(inner) is dict or type(inner) is list:
                _walk(inner, below, places, add)
            else:
                add((below, places, inner))
    else:
        below = shape + "/+"
        before = places + "/" if places else ""
        for position, inner in enumerate(value):
            at = f"{before}{position}"
            if type(inner) is dict or type(inner) is list:
                _walk(inner, below, at, add)
            else:
                add((below, at, inner))


def fits(leaf: Leaf) -> bool:
    """Whether the leaf is within the limits for paths: 64 levels, 1,024 bytes."""
    shape, places, _ = leaf
    levels = shape.count("/") + 2
    if len(shape) + len(places) <= _SURELY_SHORT and levels <= LEVELS_MAX:
        return True
    return levels <= LEVELS_MAX and len(leaf_path(leaf).encode()) <= PATH_BYTES_MAX


def document_paths(data: dict[str, Any]) -> list[tuple[str, Any]]:
    """Every path of a document within the limits as (text, value)."""
    return [(leaf_path(leaf), leaf[2]) for leaf in document_leaves(data) if fits(leaf)]
