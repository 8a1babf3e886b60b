"""Which topics a broker closes the connection on, found by sending what was under way again, each alone.

Pure: the time comes in. A topic is set aside when the broker has closed the connection twice with nothing else
under way; for a while messages to it are then refused without asking the broker.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

CLOSINGS = 2


class Suspects:
    """What is known of the topics of one broker."""

    def __init__(self, refused_s: float, topics_max: int) -> None:
        self.set_aside = 0
        self.last: str | None = None
        """The topic that was set aside last."""
        self._refused_s = refused_s
        self._topics_max = topics_max
        self._closings: dict[str, int] = {}
        self._refused: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._closings)

    def __contains__(self, topic: str) -> bool:
        return topic in self._closings

    def closed_on(self, topic: str) -> bool:
        """Whether the broker has closed the connection on this one alone before."""
        return self._closings.get(topic, 0) > 0

    def blame(self, topics: Iterable[str]) -> None:
        """The broker closed the connection while these were under way, oldest first.

        Only so many are suspected at once: the oldest of these, since a broker takes messages in order, rather than
        what was under way at an earlier closing and was not sent again since.
        """
        for topic in islice(topics, self._topics_max):
            closings = self._closings.pop(topic, 0)
            while len(self._closings) >= self._topics_max:
                del self._closings[next(iter(self._closings))]
            self._closings[topic] = closings

    def convict(self, topic: str, now: float) -> bool:
        """The broker closed the connection on this one alone; whether that makes it set aside."""
        self._closings[topic] = self._closings.get(topic, 0) + 1
        if self._closings[topic] < CLOSINGS:
            return False
        del self._closings[topic]
        self.set_aside += 1
        self.last = topic
        while len(self._refused) >= self._topics_max:
            del self._refused[next(iter(self._refused))]
        self._refused[topic] = now + self._refused_s
        return True

    def clear(self, topic: str) -> None:
        """The broker has taken it."""
        self._closings.pop(topic, None)

    def refuses(self, topic: str, now: float) -> bool:
        """Whether a message to this topic is not to be tried."""
        until = self._refused.get(topic)
        if until is None:
            return False
        if now < until:
            return True
        del self._refused[topic]
        return False
