"""Documents by their ids: which ids a pattern over `_id/…` means, and the documents that have them, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection

from feeds.body import ID_BYTES_MAX
from feeds.paths import decode_segment, id_levels
from feeds.patterns import Pattern
from feeds.storage.queries import Queries

Span = tuple[str, str]  # ids from the first up to, not including, the second

# Ids have no control characters: this sorts behind the id itself and before all that begin with it.
JUST_BEHIND = "\x01"
LAST = "\U0010ffff" * (ID_BYTES_MAX // 4 + 1)  # behind every id, also of those that begin with some text

_PAGE, _PAGE_MAX = 64, 1_024  # documents read at a time


class IdPattern:
    """The ids that a pattern beginning with `_id` means: those in `spans` that match. `exact` where it is one."""

    def __init__(self, levels: Sequence[str]) -> None:
        self.exact: str | None = None
        self.spans: list[Span] = []
        self._pattern = Pattern(tuple(levels))
        wild = next((at for at, level in enumerate(levels) if level in ("+", "#")), None)
        literal = [decode_segment(level) for level in levels[1:wild]]
        known = [level for level in literal if level is not None]
        if len(known) < len(literal) or len(levels) == 1:
            return  # no id is encoded like that
        place = "/".join(known)
        if wild is None:
            self.exact = place
        elif not known:
            self.spans = [("", LAST)]
            return
        if wild is None or levels[wild] == "#":
            self.spans.append((place, place + JUST_BEHIND))
        if wild is not None:
            self.spans.append((place + "/", place + "0"))  # "0" is what follows on "/"

    def matches(self, document_id: str) -> bool:
        """Whether a document of this id is meant."""
        return self._pattern.matches(("_id", *id_levels(document_id).split("/")))


def documents_in(
    connection: Connection, queries: Queries, barrel: int, spans: Sequence[Span], *, descending: bool = False
) -> Iterator[Any]:
    """Rows of the documents in these spans, deleted ones too, in the order of ids; read as they are asked for."""
    statement = queries.docs_between_back if descending else queries.docs_between
    page = _PAGE
    for low, high in reversed(spans) if descending else spans:
        while low < high:
            rows = connection.exec_driver_sql(statement, (barrel, low, high, page)).all()
            yield from rows
            if len(rows) < page:
                break
            last = rows[-1][2]
            low, high = (low, last) if descending else (last + JUST_BEHIND, high)
            page = min(4 * page, _PAGE_MAX)
