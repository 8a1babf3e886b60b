"""The one text that says what a selector means, however it was written.

Pure. Operators are explicit, negations stand at the conditions, and what has no order is sorted: two selectors with
the same text match the same documents. It is a selector itself.
"""

from __future__ import annotations

from typing import Any

import msgspec

from feeds.selector.fields import write_field
from feeds.selector.model import EVERYTHING, Condition, Constant, Every, Node
from feeds.selector.operators import ON_MEMBERS

_encode = msgspec.json.Encoder(order="deterministic").encode
_UNORDERED = frozenset({"$in", "$nin", "$all"})


def canonical(node: Node) -> str:
    """The selector as canonical JSON."""
    return "{}" if node == EVERYTHING else _encode(_written(node)).decode()


def _written(node: Node) -> dict[str, Any]:
    if isinstance(node, Constant):
        return {"$and": []} if node.holds else {"$nor": [{}]}
    if isinstance(node, Condition):
        return _condition(node)
    join = "$and" if isinstance(node, Every) else "$or"
    parts: dict[bytes, dict[str, Any]] = {}
    for part in map(_written, node.parts):
        # Where an or of twice the same comes to be an and, it is one with the and around it.
        parts.update((_encode(inner), inner) for inner in part.get(join, [part]))
    written = [parts[text] for text in sorted(parts)]
    return written[0] if len(written) == 1 else {join: written}


def _condition(condition: Condition) -> dict[str, Any]:
    operator, argument = condition.operator, condition.argument
    if operator in ON_MEMBERS:
        argument = _written(argument)
    elif operator in _UNORDERED:
        argument = sorted(argument, key=_encode)
    written: dict[str, Any] = {operator: argument}
    if condition.negated:
        written = {"$not": written}
    return {write_field(condition.path): written} if condition.path else written
