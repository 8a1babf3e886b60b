"""A selector as a value: read once, then asked for each document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from feeds.selector.bounds import Bound, bounds_of
from feeds.selector.canonical import canonical
from feeds.selector.compiling import compiled
from feeds.selector.model import Node
from feeds.selector.parsing import parse


@dataclass(frozen=True, slots=True)
class Selector:
    """Which documents are meant. Two that mean the same, as far as can be told, are equal.

    `matches` takes a document as a plain dict, with `_id`, `_rev` and `_deleted` where conditions are to see them,
    and says whether it is meant; it keeps nothing, and may be asked from several threads. `canonical` is the selector
    as JSON in one form, for an id or a comparison.
    """

    canonical: str
    matches: Callable[[dict[str, Any]], bool] = field(compare=False, repr=False)
    _node: Node = field(compare=False, repr=False)

    @classmethod
    def parse(cls, value: object) -> Selector:
        """The selector that somebody wrote, as decoded JSON.

        BadRequest names what cannot be meant and where it stands; TooLarge what goes beyond a limit. The value is
        copied, and may be changed afterwards.
        """
        node = parse(value)
        return cls(canonical(node), compiled(node), node)

    @property
    def is_everything(self) -> bool:
        """Whether this matches every document, as `{}` does."""
        return self.canonical == "{}"

    def bounds(self) -> tuple[Bound, ...]:
        """What every matching document has in the path index, the narrowest first; none where nothing is known.

        Any one of them gives candidates, which then have to be matched. Documents under `_design/`, and deleted ones,
        are in the index with their ids alone: whoever wants them looks at them apart.
        """
        return bounds_of(self._node)

    def __str__(self) -> str:
        return self.canonical
