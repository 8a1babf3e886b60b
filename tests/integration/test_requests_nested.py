"""Nested calls over MQTT: asked for by a device, and between services that see each other through a broker alone."""

from __future__ import annotations

import json
from base64 import b64encode
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from http_tools import served

from feeds.errors import Forbidden

from .requests_tools import Service, Verb, serving


async def mqtt_service(stack: AsyncExitStack, folder: Path, *peers: str, **more: Any) -> Service:
    return await stack.enter_async_context(serving(folder, peers=peers, **more))


def at(service: Service) -> str:
    return f"mqtt://127.0.0.1:{service.broker.port}"


async def test_a_device_asks_for_its_write_to_be_passed_on(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        far = await stack.enter_async_context(served(tmp_path / "far"))
        barrel = far.store.create("geo")
        here = await mqtt_service(stack, tmp_path / "here", f"far={far.url}")
        device = await here.device()
        fields = {"n": 1, "_token": "t", "_p2p_write": 2, "_p2p_depth": 1, "_p2p_timeout": 60_000}
        for n, verb in enumerate(("put", "set", "merge")):
            answer = await device.asked(f"{verb}/geo/FR", fields | {"n": n})
            assert answer.topic == f"accepted/{verb}/geo/FR"
            assert answer.body["p2p"]["complete"]
            assert [each["peer"] for each in answer.body["p2p"]["holders"]] == ["here", "far"]
            assert answer.body["token"] == "t"
            assert barrel.get("FR").rev == answer.body["rev"]
            assert not [key for key in here.barrel.get("FR").data if key.startswith("_p2p")]
        again = await device.asked("merge/geo/FR", fields | {"n": 2, "_p2p_write": 3})
        assert again.body["repeated"]
        assert not again.body["p2p"]["complete"]
        gone = await device.asked("delete/geo/FR", {"_rev": again.body["rev"], "_p2p_write": 2})
        assert not barrel.revs_diff({"FR": [gone.body["rev"]]})


async def test_services_that_reach_each_other_over_brokers_alone_pass_on_and_look_further(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        last = await mqtt_service(stack, tmp_path / "last")
        middle = await mqtt_service(stack, tmp_path / "middle", f"last={at(last)}")
        here = await mqtt_service(stack, tmp_path / "here", f"middle={at(middle)}")
        device = await here.device()
        put = await device.asked("put/geo/FR", {"n": 1, "_p2p_write": 3, "_p2p_timeout": 60_000})
        assert [each["peer"] for each in put.body["p2p"]["holders"]] == ["here", "middle", "middle/last"]
        assert last.barrel.get("FR").rev == put.body["rev"]

        last.barrel.put({"_id": "DE", "name": "x" * 400_000})
        last.barrel.put({"_id": "IT", "name": "Italia"})
        found = await device.asked("get/geo/IT", {"p2p_read": "order", "p2p_timeout": 60_000})
        assert (found.topic, found.body["p2p"]) == ("document/geo/IT", {"peer": "middle/last"})
        assert found.body["doc"]["name"] == "Italia"
        assert "_revisions" not in found.body["doc"]
        kept = await device.asked("get/geo/IT", {"p2p_read": "first", "keep": True, "p2p_timeout": 60_000})
        assert kept.body["p2p"] == {"peer": "middle/last", "kept": True}
        assert here.barrel.get("IT").rev == middle.barrel.get("IT").rev
        none = await device.asked("get/geo/XX", {"p2p_read": "order", "p2p_timeout": 60_000})
        assert (none.topic, none.body["missing"]) == ("rejected/get/geo/XX", True)
        assert [each["peer"] for each in none.body["p2p"]["answered"]] == ["middle", "middle/last"]


async def test_a_document_that_is_larger_than_a_message_comes_from_a_peer_in_parts(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        far = await mqtt_service(stack, tmp_path / "far")
        rev = far.barrel.put({"_id": "DE", "name": "x" * 400_000}).rev
        here = await mqtt_service(stack, tmp_path / "here", f"far={at(far)}")
        device = await here.device()
        refused = await device.asked("get/geo/DE", {"p2p_read": "order", "keep": True, "p2p_timeout": 60_000})
        assert refused.body["error"] == "too_large"  # for the device; here it is now
        assert here.barrel.get("DE").rev == rev


async def test_a_document_that_comes_in_ranges_is_passed_on_when_all_of_it_has_come(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        far = await stack.enter_async_context(served(tmp_path / "far"))
        far.store.create("geo")
        here = await mqtt_service(stack, tmp_path / "here", f"far={far.url}")
        device = await here.device()
        whole = json.dumps({"text": "x" * 300_000}).encode()
        about = {"upload": "u", "verb": "put", "id": "big", "digest": sha256(whole).hexdigest(), "total": len(whole)}
        about |= {"_p2p_write": 2, "_p2p_timeout": 60_000}

        async def sent(offset: int, length: int, **more: Any) -> Any:
            data = b64encode(whole[offset : offset + length]).decode()
            answer = await device.asked("call/geo/body_put", {**about, "offset": offset, "data": data, **more})
            return answer.body.get("result", answer.body)

        assert await sent(0, 150_000) == {"upload": "u", "received": 150_000}
        told = await sent(150_000, 160_000, _token="t")
        assert told["p2p"]["complete"]
        assert [each["peer"] for each in told["p2p"]["holders"]] == ["here", "far"]
        assert far.store.barrel("geo").get("big").rev == told["rev"]
        again = await sent(150_000, 160_000, _p2p_write=3)
        assert (again["rev"], again["p2p"]["wanted"], again["p2p"]["reached"]) == (told["rev"], 3, 2)
        assert (await sent(0, 10, upload="other", _p2p_write=0))["error"] == "bad_request"


@pytest.mark.parametrize(
    "fields",
    [
        {"_p2p_write": 0},
        {"_p2p_write": "2"},
        {"_p2p_write": 2, "_p2p_depth": 99},
        {"_p2p_timeout": 5},
        {"_p2p_writes": 2},
    ],
)
async def test_what_cannot_be_meant_is_refused_and_nothing_is_written(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with AsyncExitStack() as stack:
        here = await mqtt_service(stack, tmp_path)
        answer = await (await here.device()).asked("put/geo/FR", fields)
        assert (answer.topic, answer.body["error"]) == ("rejected/put/geo/FR", "bad_request")
        assert here.barrel.head() == 0


async def test_a_field_that_is_written_with_escapes_is_refused(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        here = await mqtt_service(stack, tmp_path)
        answer = await (await here.device()).asked("put/geo/FR", b'{"\\u005fp2p_write": 2}')
        assert answer.body["error"] == "bad_request"
        assert here.barrel.head() == 0


async def test_keeping_what_is_found_is_a_write(tmp_path: Path) -> None:
    def read_only(who: str, verb: Verb, barrel: str, path: str) -> None:
        if verb != "read":
            raise Forbidden

    async with AsyncExitStack() as stack:
        far = await stack.enter_async_context(served(tmp_path / "far"))
        far.store.create("geo").put({"_id": "FR"})
        here = await mqtt_service(stack, tmp_path / "here", f"far={far.url}", decide=read_only)
        device = await here.device()
        assert (await device.asked("get/geo/FR", {"p2p_read": "order"})).topic == "document/geo/FR"
        for place, body in (
            ("get/geo/FR", {"p2p_read": "order", "keep": True}),
            ("call/geo/p2p_read", {"id": "FR", "keep": True}),
            ("call/geo/p2p_write", {"id": "FR", "rev": "1-a", "wanted": 2}),
        ):
            assert (await device.asked(place, body)).body["error"] == "forbidden"
