"""What a reader of `_changes` may ask for, and which rows it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from broker.couch.errors import CouchError, bad_request
from broker.couch.query import Query
from broker.http.feed_options import FeedOptions
from feeds.errors import BadRequest
from feeds.paths import id_levels
from feeds.patterns import BYTES_MAX, LEVELS_MAX, Pattern, parse_patterns
from feeds.positions import FIRST, NOW, Mark, Position, parse_since
from feeds.rows import Row
from feeds.selector import Selector
from listeners.stream.messages import PATTERNS_MAX

MODES: Final = ("normal", "longpoll", "continuous", "eventsource")
_TIMEOUT_S: Final = 60.0
_HEARTBEAT_S: Final = 60.0
_MS_MAX: Final = 24 * 3600 * 1000
_HEARTBEAT_MS_MIN: Final = 100

_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Asked:
    """A reader's wish. Times in seconds; None: never."""

    mode: str
    since: Position | Mark
    limit: int | None
    descending: bool
    all_leaves: bool
    docs: bool
    conflicts: bool
    attachments: bool
    heartbeat_s: float | None
    timeout_s: float | None
    ids: frozenset[str] | None = None
    selector: Selector | None = None
    designs: bool = False
    """Design documents only."""

    @property
    def reads_docs(self) -> bool:
        """Whether rows have to bring their documents."""
        return self.docs or self.selector is not None

    @property
    def chooses(self) -> bool:
        """Whether rows are looked at that are not told."""
        return self.ids is not None or self.selector is not None or self.designs

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """What finds every row that is told, and maybe some more; none: all are looked at."""
        if self.designs:
            return parse_patterns(["_id/_design/#"])
        if not self.ids or len(self.ids) > PATTERNS_MAX:
            return ()
        paths = sorted("_id/" + id_levels(id) for id in self.ids)
        if any(len(path.encode()) > BYTES_MAX or path.count("/") >= LEVELS_MAX for path in paths):
            return ()  # an id of many characters that are encoded there, or none of a document
        return parse_patterns(paths)

    def tells(self, row: Row) -> bool:
        """Whether a row is one of those asked for."""
        if row.removed and not row.deleted:
            return False
        if self.ids is not None and row.id not in self.ids:
            return False
        if self.designs and not row.id.startswith("_design/"):
            return False
        if self.selector is None:
            return True
        return isinstance(row.doc, msgspec.Raw) and self.selector.matches(_decode(row.doc))

    def as_feed(self) -> FeedOptions:
        """The same for whoever follows the stream."""
        return FeedOptions(
            mode=self.mode,
            since=self.since,
            patterns=self.patterns,
            docs=self.reads_docs,
            attachments="stubs",
            limit=self.limit,
            descending=self.descending,
            heartbeat_s=self.heartbeat_s,
            timeout_s=self.timeout_s,
        )


def read_asked(query: Query, body: Mapping[str, Any], last_event_id: str | None) -> Asked:
    """The wish in a request's options and body."""
    mode = query.text("feed") or "normal"
    if mode not in MODES:
        raise bad_request("Supported `feed` types: normal, continuous, longpoll, eventsource")
    style = query.text("style") or "main_only"
    if style not in ("main_only", "all_docs"):
        raise bad_request("Supported `style` values: main_only, all_docs")
    heartbeat_s = _heartbeat(query)
    asked = {
        "mode": mode,
        "since": _since(query, last_event_id if mode == "eventsource" else None),
        "limit": query.number("limit"),
        "descending": query.flag("descending") and mode == "normal",
        "all_leaves": style == "all_docs",
        "docs": query.flag("include_docs"),
        "conflicts": query.flag("conflicts"),
        "attachments": query.flag("attachments") and query.flag("include_docs"),
        "heartbeat_s": heartbeat_s,
        "timeout_s": _timeout(query, heartbeat_s),
    }
    return Asked(**asked, **_filter(query, body))  # type: ignore[arg-type]


def _filter(query: Query, body: Mapping[str, Any]) -> dict[str, Any]:
    name = query.text("filter")
    if name is None:
        ids = body.get("doc_ids")
        return {} if ids is None else {"ids": _ids(ids)}
    if name == "_doc_ids":
        return {"ids": _ids(body["doc_ids"] if "doc_ids" in body else query.json("doc_ids"))}
    if name == "_selector":
        if "selector" not in body:
            raise bad_request("Selector must be specified in POST payload")
        try:
            return {"selector": Selector.parse(body["selector"])}
        except BadRequest as error:
            raise CouchError(400, "invalid_selector_json", error.reason) from error
    if name == "_design":
        return {"designs": True}
    raise CouchError(
        404,
        "not_found",
        f"The filter {name!r} is a function of a design document, which Spile keeps and does not run. "
        "Filter by _doc_ids or _selector.",
    )


def _ids(given: Any) -> frozenset[str]:
    if not isinstance(given, list) or not all(isinstance(id, str) for id in given):
        raise bad_request("`doc_ids` filter parameter is not a list of doc ids.")
    return frozenset(given)


def _since(query: Query, last_event_id: str | None) -> Position | Mark:
    """The place that a client was given. What is none any more, or was another server's, is the beginning."""
    value = last_event_id or query.raw("since")
    if isinstance(value, str) and value[:1] == '"':
        value = query.json("since")
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
        value = int(value)
    if value == "now":
        return NOW
    if value in (None, "", "first"):
        return FIRST
    try:
        return parse_since(value)
    except BadRequest:
        return FIRST


def _heartbeat(query: Query) -> float | None:
    given = query.raw("heartbeat")
    if given is None or given is False or given == "false":
        return None
    if given is True or given == "true":
        return _HEARTBEAT_S
    number = query.number("heartbeat")
    if not number:
        raise bad_request("The heartbeat value should be a positive integer (in milliseconds).")
    return min(max(number, _HEARTBEAT_MS_MIN), _MS_MAX) / 1000


def _timeout(query: Query, heartbeat_s: float | None) -> float | None:
    """How long nothing may be told until the answer ends; with a heartbeat and no timeout it does not end."""
    number = query.number("timeout")
    if number is None:
        return None if heartbeat_s is not None else _TIMEOUT_S
    return min(number, _MS_MAX) / 1000
