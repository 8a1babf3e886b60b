"""A client that leaves in the middle of a nested call: its place is free again, there and at the peers it went to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from nested_tools import Town, town

from .mqtt_tools import until


async def ask(there: Town, what: str, rev: str) -> Any:
    """A nested call of one kind, which goes over `b` to `c` and has all the time in the world."""
    client, place = there.services["a"].client, "/barrels/geo/docs"
    if what == "read":
        return await there.get("a", "FR", p2p_read="order")
    if what == "write":
        return await there.put("a", "FR", {}, p2p_write=3)
    if what == "p2p_read":
        return await client.post(f"{place}/_p2p_read", json={"id": "FR", "depth": 2, "timeout": 60_000})
    return await client.post(f"{place}/_p2p_write", json={"id": "IT", "rev": rev, "wanted": 3, "timeout": 60_000})


@pytest.mark.parametrize("what", ["read", "write", "p2p_read", "p2p_write"])
async def test_who_leaves_gives_the_places_back_wherever_the_call_has_gone(tmp_path: Path, what: str) -> None:
    async with town(tmp_path, {"a": ["b"], "b": ["c"], "c": []}) as there:
        rev = there.barrel("a").put({"_id": "IT"}).rev
        there.proxies["c"].freeze()

        def in_work() -> list[int]:
            nests = [there.services[name].app.services.nest for name in "ab"]
            return [nest.stats()["depth"]["nested_calls"] for nest in nests if nest is not None]

        asking = asyncio.create_task(ask(there, what, rev))
        await until(lambda: in_work() == [1, 1] and there.proxies["c"].connections)
        asking.cancel()
        await until(lambda: in_work() == [0, 0])
        if what == "write":
            assert there.barrel("a").get("FR").rev == there.barrel("b").get("FR").rev
