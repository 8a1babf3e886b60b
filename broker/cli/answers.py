"""What a service answers, as far as the command line looks into it."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from broker.cli.backend import BulkResult
from feeds.errors import Unavailable

__all__ = ["BulkAnswer", "HealthAnswer", "LeavesAnswer", "ResultsAnswer", "read_answer", "strange"]

T = TypeVar("T")


class BulkAnswer(msgspec.Struct):
    """What became of each document."""

    results: list[BulkResult]


class LeavesAnswer(msgspec.Struct):
    """The live leaves of a document."""

    leaves: list[msgspec.Raw]


class ResultsAnswer(msgspec.Struct):
    """What became of each part of a call."""

    results: list[dict[str, Any]]


class HealthAnswer(msgspec.Struct):
    """How the service is."""

    ok: bool
    state: str
    version: str
    parts: dict[str, dict[str, Any]]


def read_answer(body: bytes, kind: type[T], url: str, *needed: str) -> T:
    """The answer as this kind, an object with the members that are needed; Unavailable for anything else."""
    try:
        answer = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise strange(url, error) from error
    if isinstance(answer, dict) and (lacking := [name for name in needed if name not in answer]):
        raise strange(url, f"there is no {lacking[0]!r} in it")
    return answer


def strange(url: str, why: object) -> Unavailable:
    """What is told of an answer that is none of Spile's; `url` is one that may be shown."""
    return Unavailable(
        f"{url} answers, but not as Spile does: {why}",
        hint="Check --url or SPILE_URL; another program may be listening there.",
    )
