"""What of a barrel is replicated: everything, or what stands under patterns, has these ids, or fits a selector.

Pure. The patterns that a filter comes to are looked up in the source's index, so that whoever wants 1 % reads 1 %;
what they let through too much is left out row by row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import msgspec

from feeds.body import INTEGER_MAX, INTEGER_MIN, check_id
from feeds.errors import BadRequest
from feeds.matching import PathFilter
from feeds.paths import id_levels, value_segment
from feeds.patterns import parse_patterns
from feeds.rows import Row
from feeds.selector import Bound, Reading, Selector
from listeners.stream.messages import PATTERNS_MAX

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_UNREADABLE = (msgspec.MsgspecError, RecursionError)
"""What a document raises with numbers that are none here, or with more levels than anybody reads."""


class Verdict(Enum):
    """What is to be done about a row."""

    GOES = "goes"
    STAYS = "stays"
    LEFT = "left"  # the document matches no more
    ASK_PARENT = "ask parent"  # a deletion: whether it goes is told by what was deleted
    ASK_DOCUMENT = "ask document"  # the row came without it


@dataclass(frozen=True)
class Filter:
    """Which documents are meant; with nothing set all are. Make it with `Filter.of`."""

    patterns: tuple[str, ...] = ()
    ids: frozenset[str] | None = None
    selector: Selector | None = None

    @classmethod
    def of(
        cls,
        *,
        patterns: Iterable[str] = (),
        ids: Iterable[str] | None = None,
        selector: object = None,
    ) -> Filter:
        """The filter that somebody wrote; BadRequest for what cannot be meant. A selector narrows the others."""
        parsed = tuple(sorted(str(pattern) for pattern in parse_patterns(patterns)))
        if parsed and ids is not None:
            raise BadRequest("Patterns and ids are two ways to choose documents", hint="Give the one or the other.")
        chosen = None if ids is None else frozenset(check_id(id) for id in ids)
        if not isinstance(selector, Selector):
            selector = None if selector is None else Selector.parse(selector)
        if selector is not None and selector.is_everything:
            selector = None
        return cls(parsed, chosen, selector)

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return not self.patterns and self.ids is None and self.selector is None

    @property
    def needs_documents(self) -> bool:
        """Whether rows are to bring documents along, to be looked into."""
        return self.selector is not None

    def canonical(self) -> dict[str, Any]:
        """What is meant, in one form."""
        told: dict[str, Any] = {}
        if self.patterns:
            told["patterns"] = list(self.patterns)
        if self.ids is not None:
            told["ids"] = sorted(self.ids)
        if self.selector is not None:
            told["selector"] = self.selector.canonical
        return told

    @cached_property
    def asked(self) -> tuple[str, ...]:
        """The patterns that find every document which is meant, and maybe some more; none: all are looked at."""
        if self.patterns:
            return self.patterns
        if self.ids is not None:
            found = sorted("_id/" + id_levels(id) for id in self.ids)
        elif self.selector is not None:
            found = _patterns_of(self.selector)
        else:
            return ()
        return tuple(found) if len(found) <= PATTERNS_MAX else ()

    @property
    def asks_for_deletions(self) -> bool:
        """Whether the feed is to tell of all deletions of which it does not know what was deleted."""
        return bool(self.asked) and self.ids is None

    def judge(self, row: Row) -> Verdict:
        """What a row says. A deletion goes where what it deleted was meant: patterns tell that by `removed`."""
        if self.ids is not None and row.id not in self.ids:
            return Verdict.STAYS
        if row.deleted:
            return Verdict.ASK_PARENT if self.selector is not None or _is_untold(row) else Verdict.GOES
        if row.removed:
            return Verdict.LEFT
        if self.selector is None:
            return Verdict.GOES
        if not isinstance(row.doc, msgspec.Raw):
            return Verdict.ASK_DOCUMENT
        return Verdict.GOES if self.fits(row.doc) else Verdict.LEFT

    def fits(self, doc: bytes | msgspec.Raw) -> bool:
        """Whether a document is one that the selector means; one that no Spile takes goes, so that it is named."""
        if self.selector is None:
            return True
        try:
            return self.selector.matches(_decode(doc))
        except _UNREADABLE:
            return True

    def meant(self, deletion: Row, parent: bytes) -> bool:
        """Whether what was deleted is meant, as its last body tells."""
        if not self.fits(parent):
            return False
        if not self.patterns or not _is_untold(deletion):
            return True
        try:
            body = {key: value for key, value in _decode(parent).items() if key[:1] != "_"}
            return bool(PathFilter(parse_patterns(self.patterns)).matching(deletion.id, _encode(body), False))
        except _UNREADABLE:
            return True


def _is_untold(deletion: Row) -> bool:
    """Whether the feed did not know under which patterns the document stood."""
    return not deletion.removed and deletion.paths == []


EVERYTHING = Filter()


def _patterns_of(selector: Selector) -> list[str]:
    """Patterns for the narrowest thing that is known of all matches; none where nothing is.

    Whether every path of a barrel fits into its index is not known from here: only what surely does is used.
    """
    for bound in selector.bounds():
        found = None if bound.needs_every_path else _of_bound(bound)
        if found is not None:
            # Documents under _design/ stand in the index with their ids alone.
            return [*found, "_id/_design/#"]
    return []


def _of_bound(bound: Bound) -> list[str] | None:
    found: dict[str, None] = {}
    for reading in bound.readings:
        told = _of_reading(reading)
        if told is None:
            return None
        found.update(dict.fromkeys(told))
    return list(found)


def _of_reading(reading: Reading) -> list[str] | None:
    if reading.pattern == "_id":
        same = type(reading.low) is str and reading.low == reading.high
        return ["_id/" + id_levels(reading.low)] if same and reading.low else None
    if reading.prefix is None and reading.low is not msgspec.UNSET and _is_same(reading.low, reading.high):
        return [f"{reading.pattern}/{segment}" for segment in _segments(reading.low)]
    return [reading.pattern + "/+"]


def _is_same(low: Any, high: Any) -> bool:
    return type(low) is type(high) and low == high


def _segments(value: Any) -> list[str]:
    """How a value may stand in paths: equal numbers are written in several ways."""
    if type(value) not in (int, float):
        return [value_segment(value)]
    forms = {value_segment(value), value_segment(float(value))}
    if INTEGER_MIN <= value <= INTEGER_MAX and value == int(value):
        forms.add(value_segment(int(value)))
    if value == 0:
        forms.add(value_segment(-0.0))
    return sorted(forms)
