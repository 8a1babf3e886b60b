"""Nested calls: what is said about them in options, their answers, and the calls between services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from broker.http.answers import Answer, Header, encode_json
from broker.http.call import Call
from broker.http.endpoint import route
from broker.http.options import Options
from broker.http.presence import while_there
from broker.nested import reach_of, search_of
from feeds import Barrel
from feeds.body import check_id
from feeds.paths import id_levels
from listeners.nested import Reach, ReadAsked, ReadTold, Search, WriteAsked, WriteTold
from listeners.nested.messages import read_asked
from listeners.nested.reach import DEPTH_MAX, SECONDS_MAX, WANTED_MAX, Order

WRITE_OPTIONS: Final = ("p2p_write", "p2p_depth", "p2p_timeout")
READ_OPTIONS: Final = ("p2p_read", "p2p_depth", "p2p_timeout", "keep")

_TIMEOUT_MS_MAX: Final = int(SECONDS_MAX * 1000)
_ASKED_BYTES_MAX: Final = 1 << 20
_ORDERS: Final[dict[str, Order | None]] = {"order": "order", "first": "first", "": None}


def write_reach(options: Options) -> Reach | None:
    """How far the write of this request is to be passed on."""
    wanted = options.number("p2p_write", least=1, most=WANTED_MAX)
    return reach_of(wanted, _depth(options), _timeout(options))


def read_search(options: Options, *, here_only: bool) -> Search | None:
    """How the document of this request is looked for elsewhere."""
    order = options.choice("p2p_read", ("order", "first"), "")
    keep = options.flag("keep")
    return search_of(_ORDERS[order], _depth(options), _timeout(options), keep=keep, here_only=here_only)


def whose_headers(told: ReadTold) -> list[Header]:
    """Whose a document is, and whether it was kept."""
    headers: list[Header] = [(b"spile-peer", (told.peer or "").encode("ascii", "replace"))]
    if told.kept is not None:
        headers.append((b"spile-kept", b"true" if told.kept else b"false"))
    return headers


async def passed_on(
    call: Call, barrel: Barrel, id: str, rev: str, reach: Reach, seen: Sequence[str] = ()
) -> WriteTold:
    """Pass on a revision that is here, for as long as the client waits for it."""
    return await while_there(call, call.nest.pass_on(barrel, id, rev, reach, seen), "spile-http-pass-on")


async def p2p_write(call: Call) -> Answer:
    """Pass on a revision that is here."""
    call.admit()
    asked = read_asked(await call.body(_ASKED_BYTES_MAX), WriteAsked)
    name, reach = call.param("barrel"), asked.reach()
    call.allow("write", name, f"_id/{id_levels(check_id(asked.id))}")
    barrel = call.services.store.barrel(name)
    with call.nest.place():
        await call.in_thread(lambda: barrel.get(asked.id, rev=asked.rev))
        return Answer(200, encode_json(await passed_on(call, barrel, asked.id, asked.rev, reach, asked.seen)))


async def p2p_read(call: Call) -> Answer:
    """Give a document from here, or from peers."""
    call.admit()
    asked = read_asked(await call.body(_ASKED_BYTES_MAX), ReadAsked)
    name, search = call.param("barrel"), asked.search()
    path = f"_id/{id_levels(check_id(asked.id))}"
    call.allow("read", name, path)
    if asked.keep:
        call.allow("write", name, path)
    barrel = call.services.store.barrel(name)
    with call.nest.place():
        looking = call.nest.look(barrel, asked.id, asked.rev, search, asked.seen)
        return Answer(200, encode_json(await while_there(call, looking, "spile-http-look")))


def _depth(options: Options) -> int | None:
    return options.number("p2p_depth", least=1, most=DEPTH_MAX)


def _timeout(options: Options) -> int | None:
    return options.number("p2p_timeout", least=1, most=_TIMEOUT_MS_MAX)


ROUTES = [
    route("POST", "/barrels/{barrel}/docs/_p2p_write", "p2p_write", p2p_write, reads=True),
    route("POST", "/barrels/{barrel}/docs/_p2p_read", "p2p_read", p2p_read, reads=True),
]
