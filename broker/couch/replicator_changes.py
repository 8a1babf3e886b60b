"""`_changes` of `_replicator`: once, or as soon as there is something to tell.

There are few documents, and they change seldom: whoever waits looks again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from broker.couch.errors import bad_request
from broker.couch.face import json_object, query_of
from broker.couch.feed_options import Asked, read_asked
from broker.couch.replicator import document_of, operators
from broker.http.answers import AnyAnswer, Header, Streamed, encode_json, json_answer
from broker.http.call import Call
from broker.http.live import earliest
from broker.replication.documents import Described
from broker.replication.tasks import Tasks
from feeds.positions import NOW, Position

LOOK_S: Final = 0.5
_ASKED_BYTES_MAX: Final = 1 << 20
_UNBUFFERED: Final[list[Header]] = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


async def replicator_changes(call: Call) -> AnyAnswer:
    """Every document that has changed after `since`."""
    tasks = operators(call)
    body: Mapping[str, Any] = await json_object(call, _ASKED_BYTES_MAX) if call.method == "POST" else {}
    asked = read_asked(query_of(call), body, None)
    if asked.mode not in ("normal", "longpoll"):
        raise bad_request("_replicator supports the `feed` types normal and longpoll")
    after = asked.since.seq if isinstance(asked.since, Position) else 0
    if asked.since == NOW:
        found = await tasks.ask(lambda register: register.after())
        after = found[-1].stored.seq if found else 0
    told = await _told(tasks, asked, after)
    if told["results"] or asked.mode == "normal" or asked.limit == 0:
        return json_answer(told)
    return Streamed(_Waiting(tasks, asked, after), headers=list(_UNBUFFERED), live=True)


async def _told(tasks: Tasks, asked: Asked, after: int) -> dict[str, Any]:
    found = await tasks.ask(lambda register: register.after(after))
    rows = [each for each in found if _is_meant(each, asked)]
    if asked.descending:
        rows.reverse()
    shown = rows if asked.limit is None else rows[: asked.limit]
    last = found[-1].stored.seq if found else after
    if shown and len(shown) < len(rows):
        last = shown[-1].stored.seq
    elif not shown and rows:
        last = after
    return {
        "results": [_row(each, asked.docs) for each in shown],
        "last_seq": str(last),
        "pending": len(rows) - len(shown),
    }


def _is_meant(each: Described, asked: Asked) -> bool:
    if asked.designs or (asked.ids is not None and each.id not in asked.ids):
        return False
    return asked.selector is None or asked.selector.matches(document_of(each))


def _row(each: Described, docs: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"seq": str(each.stored.seq), "id": each.id, "changes": [{"rev": each.stored.rev}]}
    if each.deleted:
        row["deleted"] = True
    if docs:
        row["doc"] = document_of(each)
    return row


class _Waiting:
    """White space until there is something to tell, or nothing was told for too long; then all of the answer."""

    def __init__(self, tasks: Tasks, asked: Asked, after: int) -> None:
        self._tasks = tasks
        self._asked = asked
        self._after = after
        self._clock = asyncio.get_running_loop().time
        self._beat_at = self._in(asked.heartbeat_s)
        self._ends_at = self._in(asked.timeout_s)
        self._answered = False

    async def next(self) -> bytes | None:
        while not self._answered:
            told = await _told(self._tasks, self._asked, self._after)
            now = self._clock()
            if told["results"] or (self._ends_at is not None and now >= self._ends_at):
                self._answered = True
                return encode_json(told)
            if self._beat_at is not None and now >= self._beat_at:
                self._beat_at = self._in(self._asked.heartbeat_s)
                return b"\n"
            due = earliest(self._beat_at, self._ends_at)
            await asyncio.sleep(LOOK_S if due is None else max(0.0, min(LOOK_S, due - now)))
        return None

    async def close(self) -> None:
        self._answered = True

    def _in(self, seconds: float | None) -> float | None:
        return None if seconds is None else self._clock() + seconds
