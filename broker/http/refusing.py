"""A request that is refused by its head: what stands for it at the connection, and its answer as bytes.

Nothing of it is kept but whether its body has come.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from broker.http.answers import Answer


class _Nobody:
    """An event that nobody waits for."""

    def set(self) -> None:
        """Nobody hears it."""


class Refused:
    """In the place of uvicorn's request, for as long as its refusal is held; what it is told of is let go."""

    __slots__ = ("disconnected", "keep_alive", "more_body", "response_complete")

    message_event: Final = _Nobody()

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self.more_body = True


def refusal_bytes(answer: Answer, *, bodiless: bool, closes: bool) -> bytes:
    """The whole answer as it goes over the wire."""
    lines = [
        b"HTTP/1.1 %d %b" % (answer.status, HTTPStatus(answer.status).phrase.encode()),
        b"content-type: " + answer.content_type,
        b"content-length: %d" % len(answer.body),
        *(name + b": " + value for name, value in answer.headers),
    ]
    if closes:
        lines.append(b"connection: close")
    lines.append(b"\r\n" if bodiless else b"\r\n" + answer.body)
    return b"\r\n".join(lines)
