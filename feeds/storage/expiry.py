"""When a document says that it expires.

Pure: reads no clock.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def expiry_time(value: Any) -> float | None:
    """The Unix time that an RFC 3339 text names; None for anything else, which then never expires."""
    if type(value) is not str or len(value) > 64:
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
