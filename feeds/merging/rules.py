"""The rules themselves: of some live leaves one is taken, or a content is made.

Both built-in ones are joins (commutative, associative, idempotent): which leaves a replica learns of first does not
matter for what stands in the end. They look at nothing but contents, since revisions tell who merged in which order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, TypeAlias

from feeds.attachments.stubs import Stub, Stubs
from feeds.body import canonical, check_values
from feeds.errors import BadRequest
from feeds.merging.leaf import LiveLeaf, Merged
from feeds.storage.expiry import expiry_time

Rule: TypeAlias = Callable[[Sequence[LiveLeaf]], Merged | None]
"""Given at least two leaves, the greatest revision first; one of them, or a content, or None to leave them be."""

Function: TypeAlias = Callable[[Sequence[LiveLeaf]], LiveLeaf | Mapping[str, Any] | None]
"""What a program registers: as a rule, and a content may be given by the user's keys alone."""


def newest(field: str) -> Rule:
    """The leaf whose `field` is the latest: others < numbers < texts < RFC 3339 times, which count as the moment that
    they name. Where several are the latest, the greatest content wins."""

    def rule(leaves: Sequence[LiveLeaf]) -> Merged:
        return max(leaves, key=lambda leaf: (_age(leaf.doc.get(field)), leaf.meaning))

    return rule


def fields(leaves: Sequence[LiveLeaf]) -> Merged:
    """Every key that some leaf has, with the greatest value under it; objects are merged key by key.

    null < false < true < numbers < texts < arrays < objects; arrays are taken whole.
    """
    return Merged(canonical(reduce(_joined, (leaf.doc for leaf in leaves))), attachments_of(leaves))


def function_rule(function: Function) -> Rule:
    """The rule that a registered function stands for; what it gives is checked, BadRequest otherwise."""

    def rule(leaves: Sequence[LiveLeaf]) -> Merged | None:
        found = function(leaves)
        if found is None or isinstance(found, Merged):
            return found
        if not isinstance(found, Mapping):
            raise BadRequest(f"it gave {type(found).__name__}, and neither a leaf nor a mapping nor None")
        data = dict(found)
        for key in data:
            if type(key) is not str or key[:1] == "_":
                raise BadRequest(f"it gave a document with the key {key!r}")
        check_values(data)
        return Merged(canonical(data), attachments_of(leaves))

    return rule


def attachments_of(leaves: Sequence[Merged]) -> Stubs:
    """The attachments of all leaves; of those of one name the one that came or was changed last in its branch."""
    found: dict[str, Stub] = {}
    for leaf in leaves:
        for name, stub in leaf.attachments.items():
            there = found.get(name)
            if there is None or (stub.revpos, stub.meaning) > (there.revpos, there.meaning):
                found[name] = stub
    return found


def _age(value: Any) -> tuple[int, float | str, str]:
    if type(value) is int or type(value) is float:
        return 1, value, ""
    if type(value) is not str:
        return 0, 0, ""
    moment = expiry_time(value)
    return (3, moment, "") if moment is not None else (2, value, "")


def _joined(one: Any, other: Any) -> Any:
    if type(one) is dict and type(other) is dict:
        return {
            key: one[key] if key not in other else other[key] if key not in one else _joined(one[key], other[key])
            for key in (*one, *(key for key in other if key not in one))
        }
    return one if _rank(one) >= _rank(other) else other


def _rank(value: Any) -> tuple[int, Any, bytes]:
    """Where a value stands; only equal values have equal ranks, but for objects."""
    kind = type(value)
    if kind is dict:
        return 5, 0, b""
    if kind is list:
        return 4, 0, canonical({"": value})
    if kind is str:
        return 3, value, b""
    if kind is int or kind is float:
        return 2, value, canonical({"": value})
    return (0 if value is None else 1), bool(value), b""
