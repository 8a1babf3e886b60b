"""The one error that only the service itself can be guilty of. All others are those of `feeds.errors`."""

from __future__ import annotations

from feeds.errors import SpileError


class Internal(SpileError):
    """The service failed at this request."""

    code = "internal"
    hint = "The service's log tells what happened, under your client's name and this topic."
