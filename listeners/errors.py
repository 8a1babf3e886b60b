"""Errors as they come back over a link: code, reason and hint made an error of the one tree again.

The tree itself is `feeds.errors`; here stand only those that concern listeners alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from feeds.errors import SpileError, Unavailable


class Replaced(SpileError):
    """Another listener took this name, and with it the cursor."""

    code = "replaced"
    hint = "Let one listener at a time use a name; give every other one a name of its own."


class Closed(SpileError):
    """The service knows no such stream; it was closed, or the service started anew."""

    code = "closed"
    hint = "Open the stream again from the last position that was acknowledged."
    retryable = True


class LinkLost(Unavailable):
    """The connection to the service is lost."""

    hint = "It is made again by itself; nothing is lost."


class Unreached(Unavailable):
    """The service cannot be reached: nothing was sent to it."""

    hint = "See that a service runs at this address, and that it can be reached from here."


class Refused(SpileError):
    """The service refused, with a code that this version does not know."""


def _tree(cls: type[SpileError]) -> Iterator[type[SpileError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from _tree(below)


def error_of(code: str, reason: str | None = None, hint: str | None = None) -> SpileError:
    """The error that a service told of; with an unknown code it is a Refused that carries it."""
    for cls in _tree(SpileError):
        if cls.code == code and cls is not Refused:
            return cls(reason, hint=hint)
    return Refused(f"{reason or 'No reason was given.'} ({code})", hint=hint)
