"""Reading options: from a query string or a JSON object, with one meaning for both.

Pure. A wrong option is refused by name; which options an endpoint knows is told by its route.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from feeds.body import INTEGER_MAX, INTEGER_MIN
from feeds.errors import BadRequest

FIELDS_MAX: Final = 1000

_BOOLEANS: Final = {"true": True, "false": False}


class Options:
    """What a request asks for. Values are text (from a query, each name maybe repeated) or JSON values."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, list[Any]]) -> None:
        self._values = values

    @classmethod
    def from_query(cls, query: bytes, known: Collection[str]) -> Options:
        """The options of a query string; BadRequest for one that is not `known`, or for text that is not UTF-8."""
        if not query:
            return _NONE
        try:
            pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
        except ValueError as error:
            raise BadRequest(
                "The query string cannot be read.",
                hint=f"Percent-encode UTF-8, and send at most {FIELDS_MAX} options.",
            ) from error
        values: dict[str, list[Any]] = {}
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        _refuse_unknown(values, known)
        return cls(values)

    @classmethod
    def from_json(cls, body: Mapping[str, Any], known: Collection[str]) -> Options:
        """The options of a JSON object, where a list stands for a repeated option."""
        values = {name: value if isinstance(value, list) else [value] for name, value in body.items()}
        _refuse_unknown(values, known)
        return cls(values)

    def over(self, other: Options) -> Options:
        """These options, and from `other` what is not among them."""
        return Options({**other._values, **self._values})

    def has(self, name: str) -> bool:
        """Whether the option was given."""
        return name in self._values

    def text(self, name: str) -> str | None:
        """The option as text, or None when it was not given."""
        value = self._single(name)
        if value is None or isinstance(value, str):
            return value
        raise _refused(name, value, "text")

    def texts(self, name: str) -> list[str]:
        """Every value of an option that may be repeated."""
        values = self._values.get(name, [])
        for value in values:
            if not isinstance(value, str):
                raise _refused(name, value, "text")
        return list(values)

    def flag(self, name: str, default: bool = False) -> bool:
        """A yes or no: `true` or `false`."""
        value = self._single(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        found = _BOOLEANS.get(value) if isinstance(value, str) else None
        if found is None:
            raise _refused(name, value, "`true` or `false`")
        return found

    def number(self, name: str, *, least: int = 0, most: int) -> int | None:
        """A whole number between `least` and `most`, or None when it was not given."""
        value = self._single(name)
        if value is None:
            return None
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _refused(name, value, f"a whole number from {least} to {most}")
        return value

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        """One of `choices`."""
        value = self._single(name)
        if value is None:
            return default
        if not isinstance(value, str) or value not in choices:
            raise _refused(name, value, "one of " + ", ".join(f"`{choice}`" for choice in choices))
        return value

    def scalar(self, name: str) -> Any:
        """A text, number, boolean or null: written as JSON, and as plain text where it is no JSON.

        None when it was not given; `has` tells that from null.
        """
        value = self._single(name)
        if isinstance(value, str):
            try:
                value = msgspec.json.decode(value)
            except (msgspec.MsgspecError, RecursionError):
                return value
        too_long = isinstance(value, int) and not INTEGER_MIN <= value <= INTEGER_MAX
        if isinstance(value, dict | list) or too_long:
            raise _refused(name, value, "a single value: text, number (integers of 64 bits), boolean or null")
        return value

    def raw(self, name: str) -> Any:
        """The one value as it was given."""
        return self._single(name)

    def _single(self, name: str) -> Any:
        values = self._values.get(name)
        if values is None:
            return None
        if len(values) != 1:
            raise BadRequest(f"The option `{name}` was given {len(values)} times.", hint="Give it once.")
        return values[0]


_NONE: Final = Options({})


def _refuse_unknown(values: Collection[str], known: Collection[str]) -> None:
    for name in values:
        if name not in known:
            raise BadRequest(
                f"There is no option `{name[:80]}` here.",
                hint="Known here: " + (", ".join(sorted(known)) or "none") + ".",
            )


def _refused(name: str, value: Any, wanted: str) -> BadRequest:
    return BadRequest(
        f"The option `{name}` is {str(value)[:80]!r}, which is not {wanted}.", hint=f"Give {wanted}, or leave it out."
    )
