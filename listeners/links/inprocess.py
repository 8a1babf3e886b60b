"""A link within one process, to a stream service on the same event loop."""

from __future__ import annotations

import itertools

from feeds.errors import SpileError
from listeners.following import Events
from listeners.stream.service import StreamService

_numbers = itertools.count(1)
_STREAM = "feed"


class InProcessLink:
    """One stream of a service in this process."""

    def __init__(self, service: StreamService, barrel: str) -> None:
        """To the barrel of this name in the service's store."""
        self._service = service
        self._barrel = barrel
        self._owner = f"process/{next(_numbers)}"
        self._events: Events | None = None

    @property
    def address(self) -> str:
        """The barrel, for messages."""
        return f"{self._barrel} in this process"

    async def connect(self, events: Events) -> None:
        """Nothing is between the two."""
        self._events = events

    async def send(self, data: bytes, *, opens: bool) -> None:
        """Hand the message to the service."""
        events = self._events
        assert events is not None
        if opens:
            await self._service.open(self._owner, self._barrel, _STREAM, data, self._deliver)
            return
        try:
            answer = self._service.credit(self._owner, self._barrel, _STREAM, data)
        except SpileError as error:
            events.refused(error)
            return
        if answer is not None:
            events.message(answer)

    async def close(self) -> None:
        """End the stream."""
        self._service.gone(self._owner)
        self._events = None

    async def _deliver(self, array: bytes) -> None:
        if self._events is not None:
            self._events.message(array)
