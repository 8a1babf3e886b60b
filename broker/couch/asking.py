"""What a `_find` may ask for, and the bookmarks that go on from its pages. Pure."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from broker.couch.errors import CouchError, bad_request
from feeds.errors import SpileError
from feeds.selector import Selector
from feeds.selector.fields import UnfitField, read_field

_LIMIT: Final = 25
_LIMIT_MAX: Final = 10_000
_SORTED_BY_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """A wish: which documents, which of their fields, in which order, and which page."""

    selector: Selector
    given: Any
    fields: tuple[tuple[str, ...], ...]
    sort: tuple[tuple[tuple[str, ...], bool], ...]
    """Fields, and whether each goes down."""
    limit: int
    skip: int
    conflicts: bool
    stats: bool
    after: str | None
    """The id behind which a page begins; None for the first one."""
    key: tuple[Any, ...]
    """What that document is sorted by, as it was then; nothing where nothing is sorted."""


def read_find(body: Mapping[str, Any]) -> Asked:
    """The wish in a request's body."""
    if "selector" not in body:
        raise CouchError(400, "missing_required_key", "Missing required key: selector")
    try:
        selector = Selector.parse(body["selector"])
    except SpileError as error:
        raise CouchError(400, "invalid_selector_json", error.reason) from error
    sort = _sort(body.get("sort"))
    after, key = _bookmark(body.get("bookmark"), len(sort))
    return Asked(
        selector,
        body["selector"],
        _fields(body.get("fields")),
        sort,
        min(_number(body, "limit", _LIMIT), _LIMIT_MAX),
        _number(body, "skip", 0),
        body.get("conflicts") is True,
        body.get("execution_stats") is True,
        after,
        key,
    )


def bookmark_after(id: str, key: Sequence[Any] = ()) -> str:
    """Where a page that ends with this document is gone on from, whatever becomes of it; `key` is what it is sorted
    by."""
    return urlsafe_b64encode(msgspec.json.encode(_Bookmark(id, list(key)))).decode()


class _Bookmark(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    after: str
    key: list[Any] = []


def _bookmark(given: Any, fields: int) -> tuple[str | None, tuple[Any, ...]]:
    if given in (None, "", "nil"):
        return None, ()
    try:
        found = msgspec.json.decode(urlsafe_b64decode(given), type=_Bookmark)
    except (Base64Error, ValueError, TypeError, msgspec.MsgspecError, RecursionError) as error:
        raise CouchError(400, "invalid_bookmark", "Invalid bookmark value") from error
    if len(found.key) != fields:
        raise CouchError(400, "invalid_bookmark", "The bookmark is of another question")
    return found.after, tuple(found.key)


def _number(body: Mapping[str, Any], name: str, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise CouchError(400, f"invalid_{name}", f"`{name}` must be a whole number from 0 on")
    return value


def read_path(name: Any) -> tuple[str, ...]:
    """The keys that a field's name goes through."""
    try:
        if not isinstance(name, str):
            raise UnfitField("it is no text")
        return read_field(name)
    except UnfitField as error:
        raise bad_request(f"{str(name)[:80]!r} is no name of a field: {error}") from error


def _fields(given: Any) -> tuple[tuple[str, ...], ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise CouchError(400, "invalid_fields", "`fields` must be an array of names")
    return tuple(map(read_path, given))


def _sort(given: Any) -> tuple[tuple[tuple[str, ...], bool], ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > _SORTED_BY_MAX:
        raise CouchError(400, "invalid_sort_json", f"`sort` must be an array of at most {_SORTED_BY_MAX} fields")
    return tuple(map(sorted_by, given))


def sorted_by(each: Any) -> tuple[tuple[str, ...], bool]:
    """A field to sort by, and whether down: `"name"` or `{"name": "desc"}`."""
    if isinstance(each, dict) and len(each) == 1:
        ((name, way),) = each.items()
        if way in ("asc", "desc"):
            return read_path(name), way == "desc"
    elif isinstance(each, str):
        return read_path(each), False
    raise CouchError(400, "invalid_sort_json", 'A field to sort by is a name, or {"name": "asc" or "desc"}')
