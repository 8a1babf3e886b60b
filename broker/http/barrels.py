"""Barrels: listing, making, telling about, setting up and dropping them."""

from __future__ import annotations

from typing import Any

from broker.http.answers import Answer, json_answer
from broker.http.call import Call
from broker.http.endpoint import route
from feeds.barrels import BarrelSettings
from feeds.body import read_json
from feeds.errors import BadRequest

_SETTINGS_BYTES_MAX = 1 << 20


async def list_barrels(call: Call) -> Answer:
    """Every barrel and what is told about it."""
    call.allow("read")
    return json_answer({"barrels": await call.in_thread(call.services.store.barrels)})


async def create_barrel(call: Call) -> Answer:
    """Make a barrel with the settings in the body (none: the defaults)."""
    name = call.param("barrel")
    call.allow("admin", name)
    settings = BarrelSettings.parse(await _settings(call))
    barrel = await call.in_thread(call.services.store.create, name, settings)
    return json_answer(await call.in_thread(barrel.info), 201)


async def tell_barrel(call: Call) -> Answer:
    """What is told about one barrel."""
    name = call.param("barrel")
    call.allow("read", name)
    return json_answer(await call.in_thread(call.barrel().info))


async def configure_barrel(call: Call) -> Answer:
    """Change the settings that the body names; the others stay."""
    name = call.param("barrel")
    call.allow("admin", name)
    given = await _settings(call)
    return json_answer(await call.in_thread(call.services.store.configure, name, given))


async def drop_barrel(call: Call) -> Answer:
    """Drop a barrel with everything in it."""
    name = call.param("barrel")
    call.allow("admin", name)
    await call.in_thread(call.services.store.drop, name)
    return json_answer({"dropped": name})


async def _settings(call: Call) -> dict[str, Any]:
    body = await call.body(_SETTINGS_BYTES_MAX)
    given = read_json(body) if body.strip() else {}
    if not isinstance(given, dict):
        raise BadRequest("Settings are a JSON object.", hint='Send an object, like {"retain": true}.')
    return given


ROUTES = [
    route("GET", "/barrels", "list_barrels", list_barrels),
    route("POST", "/barrels/{barrel}", "create_barrel", create_barrel),
    route("GET", "/barrels/{barrel}", "tell_barrel", tell_barrel),
    route("PATCH", "/barrels/{barrel}", "configure_barrel", configure_barrel),
    route("DELETE", "/barrels/{barrel}", "drop_barrel", drop_barrel),
]
