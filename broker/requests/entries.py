"""What a request over MQTT holds while it is in work."""

from __future__ import annotations

from broker.regulation import Limit, Ticket


class Entry:
    """A request that was let in, until it is released."""

    __slots__ = ("_bytes", "_name", "_requests", "_size", "_ticket", "began")

    def __init__(
        self, requests: Limit, bytes: Limit, name: str, size: int, ticket: Ticket | None, began: float
    ) -> None:
        self.began = began
        self._requests = requests
        self._bytes = bytes
        self._name = name
        self._size = size
        self._ticket = ticket

    def take(self) -> None:
        """Take its place within the limits; where there is none, it is released."""
        try:
            self._requests.take(1, self._name)
            try:
                self._bytes.take(self._size, self._name)
            except BaseException:
                self._requests.give(1, self._name)
                raise
        except BaseException:
            if self._ticket is not None:
                self._ticket.release()
            raise

    def release(self) -> None:
        """It is answered or refused."""
        self._requests.give(1, self._name)
        self._bytes.give(self._size, self._name)
        if self._ticket is not None:
            self._ticket.release()
