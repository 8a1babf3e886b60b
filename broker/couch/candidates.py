"""Where a selector's documents are looked for: by the path index, by their ids, or among all."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from feeds import Barrel
from feeds.selector import Bound, Reading, Selector
from feeds.storage.ids import JUST_BEHIND, LAST
from feeds.storage.listing import list_documents

CANDIDATES_MAX = 20_000  # ids held at once; where more stand under a condition, all documents are looked at in turn
_HITS = 1_000


@dataclass(frozen=True, slots=True)
class Candidates:
    """Documents among which every match is: those of some ids, or of a range of ids."""

    name: str
    """The path of the index that narrowed it, or `_all_docs`."""
    is_narrowed: bool
    ids: Sequence[str] | None = None
    """In order."""
    low: str = ""
    high: str = LAST

    def chunks(self, barrel: Barrel, after: str | None, size: int) -> Iterator[list[str]]:
        """Their ids in order, behind one of them, without design documents. Blocks."""
        if self.ids is not None:
            begin = 0 if after is None else bisect_right(self.ids, after)
            for at in range(begin, len(self.ids), size):
                yield [id for id in self.ids[at : at + size] if not _is_design(id)]
            return
        low, more = self.low if after is None else max(self.low, after + JUST_BEHIND), True
        while more and low < self.high:
            page = list_documents(barrel, low, self.high, limit=size)
            more = page.more
            if page.documents:
                low = page.documents[-1].id + JUST_BEHIND
            yield [each.id for each in page.documents if not each.deleted and not _is_design(each.id)]


EVERYTHING = Candidates("_all_docs", is_narrowed=False)


def candidates_of(barrel: Barrel, selector: Selector) -> Generator[bytes, None, Candidates]:
    """The narrowest that is known; an empty piece of an answer after each look into the index. Blocks."""
    has_every_path = barrel.info().skipped_paths == 0
    for bound in selector.bounds():
        if bound.path == "_id":
            found = _by_id(bound.readings)
        elif bound.needs_every_path and not has_every_path:
            continue
        else:
            found = yield from _by_index(barrel, bound)
        if found is not None:
            return found
    return EVERYTHING


def _is_design(id: str) -> bool:
    return id.startswith("_design/")


def _by_id(readings: Sequence[Reading]) -> Candidates | None:
    """A range of ids that all readings lie in; equal ones by themselves."""
    texts = [each.low for each in readings if isinstance(each.low, str) and each.low == each.high]
    if len(texts) == len(readings):
        return Candidates("_all_docs", True, sorted(set(texts)))
    if len(readings) != 1:
        return None
    (only,) = readings
    if only.prefix is not None:
        return Candidates("_all_docs", True, None, only.prefix, only.prefix + LAST)
    low = only.low if isinstance(only.low, str) else ""
    high = only.high + JUST_BEHIND if isinstance(only.high, str) else LAST
    return Candidates("_all_docs", True, None, low, high)


def _by_index(barrel: Barrel, bound: Bound) -> Generator[bytes, None, Candidates | None]:
    ids: set[str] = set()
    for reading in bound.readings:
        after: str | None = None
        while True:
            page = barrel.find(
                reading.pattern,
                from_=reading.low,
                to=reading.high,
                prefix=reading.prefix,
                limit=_HITS,
                after=after,
            )
            ids.update(hit.id for hit in page.results)
            if len(ids) > CANDIDATES_MAX:
                return None
            yield b""
            after = page.next
            if after is None:
                break
    return Candidates(bound.path, True, sorted(ids))
