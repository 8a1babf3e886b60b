"""What was received and waits to be told: handed from the event loop to whoever listens, in any thread.

Bounded by the listener's window, which the service keeps to; nothing is received without credit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from feeds.errors import SpileError
from listeners.stream.actions import Item


class Inbox:
    """Items in order. `ready` is called on the event loop when there is something new to look at."""

    def __init__(self, ready: Callable[[], None]) -> None:
        self._items: deque[Item] = deque()
        self._ready = ready
        self.begun = False
        self.finished = False
        self.error: SpileError | None = None

    def __len__(self) -> int:
        return len(self._items)

    def begin(self) -> None:
        """A service has fixed where the feed begins."""
        if not self.begun:
            self.begun = True
            self._ready()

    def put(self, items: list[Item]) -> None:
        """These are to be told next."""
        self._items.extend(items)
        self._ready()

    def discard(self) -> None:
        """What waits will come again."""
        self._items.clear()

    def finish(self, error: SpileError | None) -> None:
        """There will be no more, for this reason; a second one changes nothing."""
        if not self.finished:
            self.error = error
            self.finished = True
            self._ready()

    def take(self) -> Item | None:
        """The next item; None when there is none now."""
        try:
            return self._items.popleft()
        except IndexError:
            return None
