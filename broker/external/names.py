"""Topics as they stand at an external broker: under a prefix, and without what the broker would close on.

Pure. Within Spile topics have neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from broker.mqtt.topicnames import topic_fault
from feeds.errors import BadRequest

PORTABLE = re.compile(r"[A-Za-z0-9_-]+").fullmatch
"""What users and client ids are made of where brokers keep them apart by their access files."""

_WRITTEN_TWO_WAYS = re.compile("[. ]|%2E|%20").search
_LEVELS_MAX = 190  # of a topic; Mosquitto closes above 200


class TopicNames:
    """Turns Spile's topics into the broker's and back. With `dots_encoded`, `.` and space are `%2E` and `%20`."""

    def __init__(self, prefix: str = "", *, dots_encoded: bool = False) -> None:
        self.prefix = prefix
        self.dots_encoded = dots_encoded
        self.outward: Callable[[str], str] = self._encoded if dots_encoded else self._prefixed

    def inward(self, topic: str) -> str | None:
        """Spile's topic for one of the broker's; None for what is not under the prefix."""
        if not topic.startswith(self.prefix):
            return None
        topic = topic[len(self.prefix) :]
        # No text of Spile's own has these: it leaves both characters plain, and a `%` of the user's is `%25`.
        return topic.replace("%2E", ".").replace("%20", " ") if self.dots_encoded else topic

    def _prefixed(self, topic: str) -> str:
        return self.prefix + topic

    def _encoded(self, topic: str) -> str:
        return self.prefix + topic.replace(".", "%2E").replace(" ", "%20")


def is_plain(topic: str) -> bool:
    """Whether a topic, ours or the broker's, is the same with `dots_encoded` and without."""
    return _WRITTEN_TWO_WAYS(topic) is None


def check_prefix(text: str) -> str:
    """A prefix with its closing `/`, or none; ValueError says what is wrong."""
    text = text.strip("/")
    if not text:
        return ""
    fault = topic_fault(text)
    if fault is None and not all(map(PORTABLE, text.split("/"))):
        fault = "its levels are made of A-Z, a-z, 0-9, _ and -"
    if fault is not None:
        raise ValueError(f"{text[:200]!r} is no prefix of topics: {fault}")
    return text + "/"


def check_topic(topic: str) -> None:
    """BadRequest for a topic that no broker takes."""
    fault = topic_fault(topic)
    if fault is None and topic.startswith("$"):
        fault = "topics that begin with `$` are the broker's own"
    if fault is None and topic.count("/") >= _LEVELS_MAX:
        fault = f"it has more than {_LEVELS_MAX} levels"
    if fault is not None:
        raise BadRequest(f"{topic[:200]!r} cannot be published to: {fault}.")
