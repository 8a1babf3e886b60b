"""Names and filters of topics: what is valid, what matches what, whose topics are whose.

Pure. The encoding of a segment is that of paths, so that a client's name and a document's value read alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from feeds.paths import decode_segment, encode_segment

__all__ = [
    "ANONYMOUS",
    "client_name",
    "decode_segment",
    "encode_segment",
    "filter_fault",
    "matches",
    "rest_of_request",
    "topic_fault",
]

ANONYMOUS = "anonymous"
TOPIC_BYTES_MAX = 65_535  # what the two length bytes of MQTT can say


def client_name(user: str | None, client_id: str) -> str:
    """The two levels that name a client in `from/…` and `to/…`: `<user>/<client id>`, both encoded."""
    return f"{ANONYMOUS if user is None else encode_segment(user)}/{encode_segment(client_id)}"


def topic_fault(topic: str) -> str | None:
    """Why nothing can be published to `topic`; None when it is a valid topic name."""
    if not topic:
        return "a topic has at least one character"
    if "+" in topic or "#" in topic:
        return "a topic that is published to has no wildcards"
    return _text_fault(topic)


def filter_fault(topic_filter: str) -> str | None:
    """Why nobody can subscribe to `topic_filter`; None when it is a valid filter."""
    if not topic_filter:
        return "a topic filter has at least one character"
    levels = topic_filter.split("/")
    for number, level in enumerate(levels, 1):
        if level == "#" and number < len(levels):
            return "`#` stands only at the end of a filter"
        if len(level) > 1 and ("+" in level or "#" in level):
            return "`+` and `#` take a whole level"
    return _text_fault(topic_filter)


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid filter matches a valid topic: the slow rule that the trie is checked against.

    A wildcard in the first level does not match a topic that begins with `$`; `a/#` matches `a` too.
    """
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    return _levels_match(wanted, levels)


def rest_of_request(topic: str) -> str:
    """What follows `from/<user>/<client id>/` in a request's topic: verb, barrel, and so on."""
    parts = topic.split("/", 3)
    return parts[3] if len(parts) == 4 else ""


def _levels_match(wanted: Sequence[str], levels: Sequence[str]) -> bool:
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place == len(levels) or (level != "+" and level != levels[place]):
            return False
    return len(wanted) == len(levels)


def _text_fault(text: str) -> str | None:
    if "\0" in text:
        return "a topic holds no NUL character"
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        return "a topic is valid UTF-8"
    return None if size_bytes <= TOPIC_BYTES_MAX else f"a topic has at most {TOPIC_BYTES_MAX} bytes"
