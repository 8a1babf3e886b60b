"""How much may be under way at once, in messages and bytes; whoever finds no room waits in line."""

from __future__ import annotations

import asyncio
from collections import deque


class Window:
    """A named bound on what is sent and not yet acknowledged. Used on one event loop."""

    def __init__(self, name: str, messages: int, size: int) -> None:
        self.name = name
        self.messages = 0
        self.bytes = 0
        self._messages_max = messages
        self._bytes_max = size
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    def enter(self, size: int) -> bool:
        """Take room for a message if there is some, and nobody waits for it; a lone message always has room."""
        if self._line or not self._has_room(size):
            return False
        self._take(size)
        return True

    async def wait(self, size: int) -> None:
        """Take room as soon as there is some, in order of arrival."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(size)
            raise

    def leave(self, size: int) -> None:
        """Give room back."""
        self.messages -= 1
        self.bytes -= size
        while self._line:
            wanted, turn = self._line[0]
            if not turn.done():
                if not self._has_room(wanted):
                    return
                self._take(wanted)
                turn.set_result(None)
            self._line.popleft()

    def _has_room(self, size: int) -> bool:
        return not self.messages or (self.messages < self._messages_max and self.bytes + size <= self._bytes_max)

    def _take(self, size: int) -> None:
        self.messages += 1
        self.bytes += size
