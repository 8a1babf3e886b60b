"""The thread that checkpoints SQLite's log, and its end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from running import until
from sqlalchemy import Connection

from feeds import Store
from feeds.errors import Unavailable
from feeds.storage import checkpoints
from feeds.storage.checkpoints import Checkpointer
from feeds.storage.database import Database


class ClosingEvent(threading.Event):
    """An event in whose clearing somebody closes: the last moment at which that could be overlooked."""

    def __init__(self, closes: threading.Event) -> None:
        super().__init__()
        self.closes = closes

    def clear(self) -> None:
        self.closes.set()
        self.set()
        super().clear()


def test_who_closes_while_a_checkpoint_begins_is_not_overlooked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    with Store.open(tmp_path) as store:
        checkpointer = Checkpointer(store.database)
        before, checkpointer._due = checkpointer._due, ClosingEvent(checkpointer._stopping)
        before.set()  # on from the event that it waited for to the one in whose clearing is closed
        checkpointer.hint()
        until(lambda: not checkpointer._thread.is_alive(), "the thread ends")
        checkpointer.close()


def test_where_no_connection_can_be_had_the_store_works_and_checkpoints_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.01)
    refused = threading.Event()
    connect = Database.connect

    def grudging(database: Database) -> Connection:
        if threading.current_thread().name == "spile-checkpoints" and not refused.is_set():
            refused.set()
            raise Unavailable("there are no file descriptors left")
        return connect(database)

    monkeypatch.setattr(Database, "connect", grudging)
    with Store.open(tmp_path) as store:
        store.create("geo").put({}, id="x")
        checkpointer = store._checkpointer
        assert checkpointer is not None
        until(lambda: refused.is_set() and checkpointer._connection is not None, "it was tried again")
        assert store.barrel("geo").get("x").seq == 1
