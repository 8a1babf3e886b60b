"""`_changes`: the log once, forwards or back, as pages; following it is in `broker.couch.live`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from broker.couch.errors import bad_request
from broker.couch.face import check_json, database, decoded, query_of
from broker.couch.feed_options import Asked, read_asked
from broker.couch.live import continuous, long_poll
from broker.couch.paging import paged_answer
from broker.couch.rows import Change, told_rows
from broker.http.answers import AnyAnswer
from broker.http.call import Call
from feeds import Barrel
from feeds.positions import Position
from feeds.storage.replay import changes_back
from listeners.stream.contents import PAGE_ROWS_MAX

_ASKED_BYTES_MAX: Final = 8 << 20
# As in Spile's own changes: read and encoded in a few milliseconds, and what an answer holds in memory.
_PAGE_ROWS: Final = 1000
_PAGE_BYTES: Final = 256 << 10
_HEAD: Final = b'{"results":['


async def changes(call: Call) -> AnyAnswer:
    """The newest state of every document that changed after `since`, once or as it comes."""
    query = query_of(call)
    body: Mapping[str, Any] = {}
    if call.method == "POST":
        check_json(call)
        text = await call.body(_ASKED_BYTES_MAX)
        found = decoded(text, Any) if text.strip() else {}
        if not isinstance(found, dict):
            raise bad_request("Request body must be a JSON object")
        body = found
    asked = read_asked(query, body, call.header(b"last-event-id"))
    barrel = database(call)
    if asked.mode in ("continuous", "eventsource"):
        return await continuous(call, barrel, asked)
    if asked.mode == "longpoll" and asked.limit != 0:
        # A place that waiting does not move: `now` is now.
        start = await call.in_thread(barrel.resolve, asked.since)
        asked = replace(asked, since=Position(start.after, barrel.epoch))
        page = await paged_answer(call, _forwards(barrel, asked), contents=asked.attachments)
        return await long_poll(call, barrel, asked, page)
    pages = _backwards(barrel, asked) if asked.descending else _forwards(barrel, asked)
    return await paged_answer(call, pages, contents=asked.attachments)


def _forwards(barrel: Barrel, asked: Asked) -> Iterator[bytes]:
    """The answer in pieces, an empty one for a page that tells nothing. Blocks. A position that does not hold any
    more is the beginning."""
    start = barrel.resolve(asked.since)
    replay = barrel.replay(start.after, asked.patterns, docs=asked.reads_docs, leaves=False)
    piece, comma = _HEAD, b""
    left = asked.limit
    seq, done = start.after, replay.upto <= start.after or left == 0
    most = PAGE_ROWS_MAX if asked.attachments else _PAGE_ROWS
    try:
        while not done:
            # Of many that are looked at few may be told: pages are whole then, however few are asked for.
            page = replay.next(most if left is None or asked.chooses else min(most, left), _PAGE_BYTES)
            rows = told_rows(barrel, page.rows, asked, barrel.epoch, left)
            seq, done = page.seq, page.caught_up
            if left is not None and rows:
                left -= len(rows)
                seq, done = (seq, done) if left else (Position.parse(rows[-1].seq.decode()).seq, True)
            if rows:
                yield piece + comma + _joined(rows)
                piece, comma = b"", b","
            else:
                yield b""
        pending = barrel.pending(seq) if left == 0 else 0
        yield piece + _tail(barrel.position(seq), pending)
    finally:
        replay.close()


def _backwards(barrel: Barrel, asked: Asked) -> Iterator[bytes]:
    """The newest first. Blocks."""
    after = barrel.resolve(asked.since).after if asked.since is not None else 0
    queries, database_ = barrel.store.queries, barrel.store.database
    barrel.info()  # what has expired is deleted by then
    upto = head = barrel.head()
    piece, comma = _HEAD, b""
    left = asked.limit
    while upto > after and left != 0:
        limit = _PAGE_ROWS if left is None or asked.chooses else min(_PAGE_ROWS, left)
        with database_.snapshot() as connection:
            found, at = changes_back(
                connection,
                queries,
                barrel.key,
                after,
                upto,
                asked.patterns,
                docs=asked.reads_docs,
                limit=limit,
                whole=False,
            )
        if at is None:
            break
        upto = at - 1
        rows = told_rows(barrel, found, asked, barrel.epoch, left)
        left = None if left is None else left - len(rows)
        if rows:
            head = Position.parse(rows[-1].seq.decode()).seq
            yield piece + comma + _joined(rows)
            piece, comma = b"", b","
        else:
            yield b""
    yield piece + _tail(barrel.position(head), 0)


def _joined(rows: list[Change]) -> bytes:
    return b",".join([row.json for row in rows])


def _tail(last_seq: str, pending: int) -> bytes:
    return b'],"last_seq":"%b","pending":%d}' % (last_seq.encode(), pending)
