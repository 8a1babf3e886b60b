"""When a document says that it expires.

Pure: reads no clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from feeds.errors import BadRequest
from feeds.faults import shown

if TYPE_CHECKING:
    from feeds.barrels import BarrelSettings

# A date, a time and an offset, as RFC 3339 has them; it lets a space or a small letter stand for the T.
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(\.\d{1,32})?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


def expiry_time(value: Any) -> float | None:
    """The Unix time that an RFC 3339 text names; None for anything else, which then never expires."""
    found = _TIME.fullmatch(value) if type(value) is str else None
    if found is None:
        return None
    date, minute, second, fraction, offset = found.groups()
    leap = second == "60"
    try:
        parsed = datetime.fromisoformat(f"{date}T{minute}:{'59' if leap else second}{offset.upper()}")
        return parsed.timestamp() + leap + float(fraction or 0)
    except (ValueError, OverflowError):
        return None


def expiry_of(settings: BarrelSettings, now: float, data: Mapping[str, Any]) -> float | None:
    """When a document that is written `now` expires, by the settings of its barrel."""
    ends = []
    if settings.ttl is not None:
        ends.append(now + settings.ttl)
    if settings.ttl_field is not None:
        named = expiry_time(data.get(settings.ttl_field))
        if named is not None:
            ends.append(named)
    return min(ends, default=None)


def check_expiry(field: str, data: Mapping[str, Any]) -> None:
    """Refuse a document whose `field` is there and names no time: it would never expire, and nobody would know."""
    value = data.get(field)
    if value is not None and expiry_time(value) is None:
        raise BadRequest(
            f"{shown(field)} tells when the document expires, and {_told(value)} is no RFC 3339 time",
            hint="Write it like 2031-05-04T12:00:00Z or 2031-05-04T14:00:00+02:00, or leave it out.",
        )


def _told(value: Any) -> str:
    if isinstance(value, str):
        return shown(value)
    return {dict: "an object", list: "an array", bool: "a boolean"}.get(type(value), "a number")
