"""Options of a request, from its query string and its JSON body: CouchDB's way.

Pure. What is not known is ignored, as CouchDB does; in the query string most values are JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from broker.couch.errors import CouchError, bad_request
from broker.http.options import FIELDS_MAX

_decode = msgspec.json.Decoder().decode
_BOOLEANS: Final = {"true": True, "false": False}
_NUMBER_MAX: Final = 2**53


class Query:
    """What a request asks for. The last of a repeated option counts; the body beats the query string."""

    __slots__ = ("_body", "_texts")

    def __init__(self, query: bytes, body: Mapping[str, Any] | None = None) -> None:
        try:
            pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
        except ValueError as error:
            raise bad_request(f"The query string cannot be read: {error}") from error
        self._texts = dict(pairs)
        self._body = body or {}

    def over(self, body: Mapping[str, Any]) -> Query:
        """The same with the fields of a JSON body."""
        query = Query(b"")
        query._texts, query._body = self._texts, body
        return query

    def has(self, *names: str) -> bool:
        """Whether one of these was given."""
        return any(name in self._texts or name in self._body for name in names)

    def text(self, name: str) -> str | None:
        """The option as plain text."""
        value = self._body.get(name, self._texts.get(name))
        if value is None or isinstance(value, str):
            return value
        raise _refused(name, value, "text")

    def flag(self, name: str, default: bool = False) -> bool:
        """A yes or no."""
        value = self._body.get(name, self._texts.get(name))
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        found = _BOOLEANS.get(value) if isinstance(value, str) else None
        if found is None:
            raise _refused(name, value, "boolean")
        return found

    def number(self, name: str) -> int | None:
        """A whole number from 0 on."""
        value = self._body.get(name, self._texts.get(name))
        if value is None:
            return None
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 16:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _NUMBER_MAX:
            raise _refused(name, value, "non-negative integer")
        return value

    def json(self, *names: str) -> Any:
        """The option as a JSON value, under the first of these names that was given; None when there is none."""
        for name in names:
            if name in self._body:
                return self._body[name]
            if name in self._texts:
                try:
                    return _decode(self._texts[name])
                except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                    raise bad_request(f"invalid UTF-8 JSON in the option `{name}`: {error}") from error
        return None

    def raw(self, name: str) -> Any:
        """The value as it was given: text of the query string, or a JSON value of the body."""
        return self._body.get(name, self._texts.get(name))


def _refused(name: str, value: Any, wanted: str) -> CouchError:
    shown = str(value)[:80]
    return CouchError(400, "query_parse_error", f"Invalid value for {wanted} parameter `{name}`: {shown!r}")
