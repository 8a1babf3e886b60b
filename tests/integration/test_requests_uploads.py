"""Documents larger than a message, sent in ranges."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.requests import RequestLimits
from broker.requests.assembly import Assembly
from feeds import StoreSettings
from feeds.errors import BadRequest

from .requests_tools import Device, Service, serving, until

WHOLE = json.dumps({"text": "x" * 300_000, "n": 1}).encode()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path) as service:
        yield service


@pytest.fixture
async def device(service: Service) -> Device:
    return await service.device()


def part(offset: int, length: int, whole: bytes = WHOLE, /, **changed: Any) -> dict[str, Any]:
    """A range of `whole`."""
    return {
        "upload": "u1",
        "verb": "put",
        "id": "big",
        "digest": sha256(whole).hexdigest(),
        "offset": offset,
        "total": len(whole),
        "data": b64encode(whole[offset : offset + length]).decode(),
        **changed,
    }


async def sent(device: Device, body: dict[str, Any]) -> Any:
    """What is answered to a range: the result, or the refusal."""
    answer = await device.asked("call/geo/body_put", body)
    if answer.topic == "result/geo/body_put":
        return answer.body["result"]
    assert answer.topic == "rejected/call/geo/body_put", answer
    return answer.body


async def test_a_document_is_put_together_from_ranges_in_any_order(service: Service, device: Device) -> None:
    assert await sent(device, part(200_000, 150_000)) == {"upload": "u1", "received": len(WHOLE) - 200_000}
    assert (await sent(device, part(0, 100_000)))["received"] == len(WHOLE) - 100_000
    result = await sent(device, part(90_000, 110_000))
    assert result == {"upload": "u1", "id": "big", "rev": service.barrel.get("big").rev, "seq": 1}
    assert len(service.barrel.get("big").data["text"]) == 300_000
    assert service.requests.stats()["upload_bytes"] == 0


async def test_ranges_that_come_again_do_no_harm(service: Service, device: Device) -> None:
    first = part(0, 200_000, verb="set")
    assert await sent(device, first) == await sent(device, first)
    result = await sent(device, part(200_000, 200_000, verb="set"))
    assert await sent(device, part(200_000, 200_000, verb="set")) == result
    assert await sent(device, first) == result
    assert service.barrel.head() == 1


async def test_all_verbs_that_write_a_whole_text_are_served(service: Service, device: Device) -> None:
    assert (await sent(device, part(0, len(WHOLE))))["seq"] == 1
    assert (await sent(device, part(0, len(WHOLE), upload="u2")))["error"] == "conflict"
    assert (await sent(device, part(0, len(WHOLE), upload="u3", verb="set")))["seq"] == 2
    patch = b'{"text": "short", "n": null}'
    assert (await sent(device, part(0, 99, patch, upload="u4", verb="merge")))["seq"] == 3
    data = service.barrel.get("big").data
    assert data["text"] == "short" and "n" not in data


async def test_a_wrong_digest_is_refused_and_the_upload_dropped(service: Service, device: Device) -> None:
    body = part(0, len(WHOLE), digest="0" * 64)
    refusal = await sent(device, {**body, "_token": "t"})
    assert (refusal["error"], refusal["upload"], refusal["token"]) == ("bad_request", "u1", "t")
    assert service.requests.stats()["uploads"] == 0 and service.barrel.head() == 0


async def test_a_refused_document_ends_its_upload(service: Service, device: Device) -> None:
    whole = b'{"_secret": 1}'
    refusal = await sent(device, part(0, 99, whole))
    assert (refusal["error"], refusal["upload"]) == ("bad_request", "u1")
    assert service.requests.stats()["uploads"] == 0
    assert (await sent(device, part(0, 99, b'{"a": 1}')))["seq"] == 1


async def test_a_token_makes_the_write_once_even_when_the_upload_is_forgotten(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=RequestLimits(upload_s=0.05)) as service:
        device = await service.device()
        body = part(0, len(WHOLE), verb="set", _token="t")
        first = await sent(device, body)
        await until(lambda: service.requests.stats()["uploads_remembered"] == 0)
        assert await sent(device, body) == {**first, "repeated": True}
        assert service.barrel.head() == 1


async def test_an_upload_that_is_not_gone_on_with_is_forgotten(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=RequestLimits(upload_s=0.05)) as service:
        device = await service.device()
        await sent(device, part(0, 10))
        await until(lambda: service.requests.stats()["uploads"] == 0)
        assert service.requests.stats()["upload_bytes"] == 0


async def test_uploads_survive_a_new_connection_and_belong_to_their_client(service: Service) -> None:
    device, other = await service.device("d1"), await service.device("d2")
    await sent(device, part(0, 200_000))
    assert (await sent(other, part(200_000, 200_000)))["received"] == len(WHOLE) - 200_000
    service.devices.remove(device)
    await device.close()
    device = await service.device("d1")
    assert (await sent(device, part(200_000, 200_000)))["seq"] == 1


async def test_an_upload_has_one_purpose(service: Service, device: Device) -> None:
    await sent(device, part(0, 10))
    for changed in ({"verb": "set"}, {"id": "other"}, {"digest": "1" * 64}, {"total": len(WHOLE) + 1}):
        refusal = await sent(device, part(0, 10, **changed))
        assert (refusal["error"], refusal["upload"]) == ("bad_request", "u1")
    assert (await sent(device, part(0, len(WHOLE))))["seq"] == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"data": "§"},
        {"data": "abc"},
        {"offset": -1},
        {"offset": len(WHOLE)},
        {"total": 0},
        {"verb": "delete"},
        {"digest": "abc"},
        {"upload": ""},
        {"odd": 1},
    ],
)
async def test_a_range_that_makes_no_sense_is_refused(
    service: Service, device: Device, changed: dict[str, Any]
) -> None:
    assert (await sent(device, part(0, 10, **changed)))["error"] == "bad_request"
    assert service.requests.stats()["uploads"] == 0


async def test_uploads_are_bounded(tmp_path: Path) -> None:
    limits = RequestLimits(uploads_per_client=3, upload_bytes_per_client=2_000, upload_bytes_max=3_500)
    async with serving(tmp_path, limits=limits, settings=StoreSettings(document_bytes_max=1_500)) as service:
        device, other, third = [await service.device(name) for name in ("d1", "d2", "d3")]
        assert (await sent(device, part(0, 10, total=1_501)))["error"] == "too_large"
        for name in "ab":
            assert "received" in await sent(device, part(0, 10, upload=name, total=1_000))
        assert (await sent(device, part(0, 10, upload="c", total=1_000)))["error"] == "overloaded"
        for name in "abc":
            assert "received" in await sent(other, part(0, 10, upload=name, total=200))
        assert (await sent(other, part(0, 10, upload="d", total=200)))["error"] == "overloaded"
        assert (await sent(third, part(0, 10, total=1_200)))["error"] == "overloaded"
        assert service.requests.stats()["upload_bytes"] == 2_600


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=1, max_size=60), st.data())
def test_ranges_make_the_whole_in_whatever_order_and_however_often_they_come(
    whole: bytes, data: st.DataObject
) -> None:
    assembly = Assembly(len(whole), 100)
    have: set[int] = set()
    while not assembly.complete:
        offset = data.draw(st.integers(0, len(whole)))
        length = data.draw(st.integers(0, len(whole) - offset))
        assembly.add(offset, whole[offset : offset + length])
        have |= set(range(offset, offset + length))
        assert assembly.received == len(have)
        if length == 0:
            missing = min(set(range(len(whole))) - have, default=None)
            if missing is not None:
                assembly.add(missing, whole[missing : missing + 1])
                have.add(missing)
    assert assembly.whole() == whole


def test_gaps_are_bounded() -> None:
    assembly = Assembly(100, 3)
    for offset in (0, 10, 20):
        assembly.add(offset, b"x")
    with pytest.raises(BadRequest):
        assembly.add(30, b"x")
    assembly.add(1, b"x" * 9)
    assembly.add(30, b"x")
    with pytest.raises(BadRequest):
        assembly.add(99, b"xx")
