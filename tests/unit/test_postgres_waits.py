"""How long a connection to PostgreSQL is waited for, and that what is left to send is sent meanwhile."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("psycopg")
from psycopg.waiting import Ready, Wait

from feeds.storage.postgres import BoundedConnection, NoAnswer


def asks(*waits: Wait) -> Generator[Wait, Ready, list[Ready]]:
    """What psycopg does: waits for these, one after the other, and gives what was ready."""
    found = []
    for wait in waits:
        found.append((yield wait))
    return found


def bounded(generator: Any, unsent: Iterator[bool], answer_s: float = 10.0) -> Generator[Any, Any, Any]:
    """The waits for a connection on which `unsent` tells at each look whether there is more to send."""
    connection: Any = SimpleNamespace(pgconn=SimpleNamespace(flush=lambda: next(unsent)), answer_s=answer_s)
    return BoundedConnection._bounded(connection, generator)


def driven(waits: Generator[Any, Any, Any], *ready: Ready) -> tuple[list[Wait], Any]:
    """What is waited for when this becomes ready each time, and what comes out."""
    asked = [next(waits)]
    try:
        for each in ready:
            asked.append(waits.send(each))
    except StopIteration as end:
        return asked, end.value
    raise AssertionError(f"it still waits: {asked}")


def test_waits_go_through_as_they_are() -> None:
    told = driven(bounded(asks(Wait.R, Wait.W, Wait.RW), iter([False])), Ready.R, Ready.W, Ready.RW)
    assert told == ([Wait.R, Wait.W, Wait.RW], [Ready.R, Ready.W, Ready.RW])


def test_while_an_answer_is_waited_for_what_is_left_is_sent() -> None:
    waits = bounded(asks(Wait.R), iter([True, True, False]))
    assert driven(waits, Ready.W, Ready.W, Ready.R) == ([Wait.RW, Wait.RW, Wait.R], [Ready.R])


def test_an_answer_that_comes_meanwhile_is_taken() -> None:
    assert driven(bounded(asks(Wait.R), iter([True])), Ready.RW) == ([Wait.RW], [Ready.R])


def test_a_connection_on_which_nothing_moves_is_given_up() -> None:
    waits = bounded(asks(Wait.R), iter([False] * 9), answer_s=-1.0)
    next(waits)
    with pytest.raises(NoAnswer):
        waits.send(Ready.NONE)


def test_a_connection_on_which_something_moves_is_not() -> None:
    waits = bounded(asks(*[Wait.R] * 3), iter([False] * 9), answer_s=-1.0)
    assert driven(waits, Ready.R, Ready.R, Ready.R)[1] == [Ready.R] * 3
