"""Who follows the barrels, and how far everyone is behind; forgetting a listener."""

from __future__ import annotations

from broker.http.answers import Answer, json_answer
from broker.http.call import Call
from broker.http.endpoint import Route, route
from broker.lags import Lags, here
from feeds.errors import Conflict, Forbidden, NotFound, Unavailable
from listeners.lags import LagReport
from listeners.stream.messages import check_listener_name


def routes(lags: Lags) -> list[Route]:
    """The routes over one look at the barrels."""

    async def all_listeners(call: Call) -> Answer:
        call.allow("read")
        return _answer(call, await lags.of(None))

    async def listeners_of(call: Call) -> Answer:
        name = call.param("barrel")
        call.allow("read", name)
        return _answer(call, await lags.of(name))

    return [
        route("GET", "/listeners", "all_listeners", all_listeners),
        route("GET", "/barrels/{barrel}/listeners", "listeners", listeners_of),
        route("DELETE", "/barrels/{barrel}/listeners/{listener}", "forget_listener", forget),
    ]


async def forget(call: Call) -> Answer:
    """Forget where a listener stands, so that it begins anew; also one of a barrel that is no more."""
    barrel, name = call.param("barrel"), check_listener_name(call.param("listener"))
    call.allow("admin", barrel)
    streams = call.services.streams
    if streams is None:
        raise Unavailable("This service follows no feeds.")
    for each in streams.standings(barrel).streams:
        if each.name == name:
            raise Conflict(
                f"{each.client} listens as {name!r} now, and would store its place again",
                hint="Stop the listener first, and forget it then.",
            )
    if not await streams.forget_cursor(barrel, name):
        raise NotFound(f"No listener {name!r} is known in {barrel!r}", hint="GET …/listeners names those that are.")
    return json_answer({"forgotten": name})


def _answer(call: Call, report: LagReport) -> Answer:
    """What of it the client may read."""
    allowed: dict[str, bool] = {}

    def may_read(barrel: str) -> bool:
        if barrel not in allowed:
            try:
                call.allow("read", barrel)
                allowed[barrel] = True
            except Forbidden:
                allowed[barrel] = False
        return allowed[barrel]

    return json_answer(
        {
            "listeners": [each for each in report.listeners if may_read(each.barrel)],
            "streams": [each for each in report.streams if may_read(each.barrel)],
            "publishers": [each for each in report.publishers if may_read(each.barrel)],
            "here": here(),
        }
    )
