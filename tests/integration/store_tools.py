"""A held clock, and a look into the tables, for the tests of the store."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from feeds import Barrel, SpileError, Store


class Clock:
    """A time that stands still until a test moves it."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def rows(store: Store, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """What the tables hold."""
    with store.database.reading() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(_marked(store, sql), parameters).all()]


def change(store: Store, sql: str, *parameters: Any) -> None:
    """Change the tables behind the store's back."""
    store.writer.call(lambda transaction: transaction.execute(_marked(store, sql), *parameters))


def _marked(store: Store, sql: str) -> str:
    """The statement with the database's own marks for parameters and bytes."""
    if store.statements.is_sqlite:
        return sql
    return re.sub(r"\bx'([0-9a-f]*)'", r"'\\x\1'::bytea", sql.replace("%", "%%").replace("?", "%s"))


def careless(store: Store) -> None:
    """Commits need not reach the disk, as in a test that shows nothing about that."""
    if store.statements.is_sqlite:
        store.writer.call(lambda transaction: None)
        assert store.writer._session is not None
        store.writer._session.connection.exec_driver_sql("PRAGMA synchronous = OFF").close()


def count(store: Store, table: str) -> int:
    """How many rows a table has."""
    return int(rows(store, f"SELECT count(*) FROM {table}")[0][0])


def refusal(call: Callable[[], Any]) -> SpileError:
    """The error that the call ends with."""
    try:
        call()
    except SpileError as error:
        return error
    raise AssertionError("it was not refused")


def revisions(id: str, *digests: str, generation: int = 0, **fields: Any) -> dict[str, Any]:
    """A replicated document whose newest revision is the first digest, and the others its ancestors."""
    start = generation or len(digests)
    return {
        "_id": id,
        "_rev": f"{start}-{digests[0]}",
        "_revisions": {"start": start, "ids": list(digests)},
        **fields,
    }


def replicate(barrel: Barrel, *docs: dict[str, Any]) -> list[Any]:
    """Write revisions that were made elsewhere; every one must be accepted."""
    outcomes = barrel.bulk(docs, new_edits=False)
    assert not [outcome for outcome in outcomes if isinstance(outcome, SpileError)], outcomes
    return outcomes


@contextmanager
def held(store: Store) -> Iterator[threading.Event]:
    """The writer's thread stands still until the event is set, so that operations gather into one group."""
    running, go = threading.Event(), threading.Event()

    def wait(_transaction: Any) -> None:
        running.set()
        go.wait(30)

    waiting = threading.Thread(target=store.writer.call, args=(wait,))
    waiting.start()
    running.wait(30)
    try:
        yield go
    finally:
        go.set()
        waiting.join()
