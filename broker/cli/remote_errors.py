"""Making an error of what a service answered."""

from __future__ import annotations

from typing import Any

import msgspec

from feeds.errors import Deleted, Missing, SpileError, Unavailable

__all__ = ["error_of"]


class Refused(SpileError):
    """The service refused."""


def error_of(status: int, body: bytes, url: str) -> SpileError:
    """The error that `body` (`{error, reason, hint}`) tells; Unavailable if that is no answer of Spile's."""
    try:
        told = msgspec.json.decode(body, type=dict[str, Any])
        code, reason = str(told["error"]), str(told["reason"])
    except (msgspec.DecodeError, KeyError):
        return Unavailable(
            f"{url} answers with status {status}, but not as Spile does",
            hint="Check --url or SPILE_URL; another program may be listening there.",
        )
    hint = str(told["hint"]) if told.get("hint") else None
    if told.get("missing"):
        return Missing(reason, hint=hint)
    if told.get("deleted"):
        return Deleted(reason, hint=hint)
    # A code that this version does not know keeps its name.
    kind: type[SpileError] = _known().get(code) or type("Refused", (Refused,), {"code": code})
    return kind(reason, hint=hint)


def _known() -> dict[str, type[SpileError]]:
    """Every class that can stand for a code; of several with one code the most general."""
    known: dict[str, type[SpileError]] = {}
    waiting: list[type[SpileError]] = [SpileError]
    while waiting:
        kind = waiting.pop(0)
        if kind.__module__ == "feeds.errors":
            known.setdefault(kind.code, kind)
        waiting.extend(kind.__subclasses__())
    known.pop(SpileError.code)
    return known
