"""The other processes that use the same database: what they do is told to this one's hooks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from feeds.directory import Directory, Listed
from feeds.errors import SpileError
from feeds.storage.publishers import StoredPublishers

if TYPE_CHECKING:
    from feeds.store import Store

log = logging.getLogger("spile.store")


class Neighbours:
    """Told by the watch, on its thread."""

    def __init__(
        self, store: Store, directory: Directory, publishers: StoredPublishers, tell: Callable[[str, str], None]
    ) -> None:
        """`tell` hears of barrels that were created, configured or dropped."""
        self._store = store
        self._directory = directory
        self._publishers = publishers
        self._tell = tell
        self._unpublished = False  # whether there are barrels that may not know of this process's publishers

    def looked(self, read: Callable[[], Listed]) -> None:
        """The watch looks at the database: tell what others did."""
        told, heads = self._directory.look(read)
        for what, name in told:
            self._tell(what, name)
            self._unpublished |= what == "created" and bool(self._publishers.here)
        for name, seq in heads:
            self._store.writer.tell(name, seq)
        if self._unpublished:
            self._publish_all()

    def heard(self, barrel: str, seq: int) -> None:
        """Another process wrote to a barrel."""
        self._store.writer.tell(barrel, seq)

    def _publish_all(self) -> None:
        """See to it that barrels which others made keep what this process's brokers have not been told."""
        try:
            for broker in self._publishers.here:
                self._publishers.add(broker, None)
        except SpileError as error:
            log.warning("new barrels are not yet known to the publisher, which is tried again: %s", error.reason)
        else:
            self._unpublished = False
