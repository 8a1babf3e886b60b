"""What changes a barrel as a whole: the calls `create` and `purge`, with the bodies and results of HTTP's."""

from __future__ import annotations

from broker.requests.answers import encode_json, written_fields
from broker.requests.serving import Asked, Result, Serving
from feeds import Write
from feeds.barrels import BarrelSettings
from feeds.errors import SpileError


async def create(serving: Serving, asked: Asked) -> Result:
    """Make the barrel of the topic with the settings in the body (none: the defaults); what is told about it."""
    with serving.lanes.lane(asked.client.name) as lane:
        async with lane.turn:
            body = await serving.body(asked)
            serving.allow(asked, "admin")
            settings = BarrelSettings.parse(body.fields)
            barrel = await serving.in_thread(serving.store.create, asked.place.barrel, settings)
            return encode_json(await serving.in_thread(barrel.info)), body.token


async def purge(serving: Serving, asked: Asked) -> Result:
    """Remove documents here alone, by `{id: [rev, …]}`: the branches that end in these revisions, or all for `[]`."""
    with serving.lanes.lane(asked.client.name) as lane:
        async with lane.turn:
            body = await serving.body(asked)
            serving.allow(asked, "admin")
            barrel = serving.barrel(asked)
            writes = [Write.purge(id, tuple(revs)) for id, revs in body.as_(dict[str, list[str]]).items()]
            future = None
            if writes:
                lane.last = future = barrel.submit(writes)
        outcomes = [] if future is None else await serving.outcomes(asked, future)
    results = [
        {"id": write.id, **(told.as_dict() if isinstance(told, SpileError) else written_fields(told))}
        for write, told in zip(writes, outcomes, strict=True)
    ]
    return encode_json({"results": results}), body.token
