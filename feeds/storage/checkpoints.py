"""Moving SQLite's write-ahead log into the database beside the writer, so that no commit has to wait for it.

A passive checkpoint blocks nobody. While writes come without a pause it may never catch up, and then the writer's own
(at `wal_autocheckpoint` pages) still bounds the log.
"""

from __future__ import annotations

import logging
import threading

from sqlalchemy import Connection

from feeds.errors import SpileError
from feeds.storage.database import Database
from feeds.storage.refusals import translated

log = logging.getLogger("spile.store")

EVERY_S = 0.25
AGAIN_S_MAX = 15.0  # between tries while it fails: on a full disk it may do so for long


class Checkpointer:
    """A thread that checkpoints soon after there was something to write."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="spile-checkpoints", daemon=True)
        self._thread.start()

    def hint(self) -> None:
        """Something was committed."""
        self._due.set()

    def close(self) -> None:
        """End the thread; SQLite checkpoints by itself when the last connection closes."""
        self._stopping.set()
        self._due.set()
        self._thread.join()
        if self._connection is not None:
            self._connection.close()

    def _loop(self) -> None:
        pause, failure = EVERY_S, None
        while True:
            self._due.wait()
            if self._stopping.wait(pause):
                return
            self._due.clear()
            if self._stopping.is_set():
                return  # what woke it was the end, and is cleared now
            try:
                self._checkpoint()
            except SpileError as error:
                if error.reason != failure:
                    failure = error.reason
                    log.warning("checkpointing failed, and is tried again: %s", failure)
                pause = min(pause * 2, AGAIN_S_MAX)
                self._due.set()
            else:
                pause, failure = EVERY_S, None

    def _checkpoint(self) -> None:
        if self._connection is None:
            self._connection = self._database.connect()
        with translated():
            self._connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").close()
