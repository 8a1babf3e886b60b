"""Conflicts over MQTT: the calls `conflicts` and `resolve`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from .requests_tools import Device, Service, serving


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path) as service:
        for side in "ab":
            service.barrel.bulk([{"_id": "x", "_rev": f"1-{side}", "side": side}], new_edits=False)
        yield service


@pytest.fixture
async def device(service: Service) -> Device:
    return await service.device()


async def called(device: Device, name: str, body: Any = b"") -> Any:
    """The result of a call, or why it is refused."""
    answer = await device.asked(f"call/geo/{name}", body)
    return answer.body["result"] if answer.topic.startswith("result/") else answer.body["error"]


async def test_conflicts_are_listed_shown_and_resolved(device: Device) -> None:
    listed = await called(device, "conflicts")
    assert listed["results"] == [{"id": "x", "rev": "1-b", "conflicts": ["1-a"], "seq": 2}]
    shown = await called(device, "conflicts", {"id": "x"})
    assert [leaf["side"] for leaf in shown["leaves"]] == ["b", "a"]
    assert await called(device, "resolve", {"id": "x", "rev": "1-a", "leaves": ["1-a"]}) == "conflict"
    resolved = await called(device, "resolve", {"id": "x", "rev": "1-a", "leaves": ["1-a", "1-b"]})
    assert resolved["rev"] == "1-a"
    assert (await called(device, "conflicts"))["results"] == []


async def test_a_token_resolves_once_and_comes_back(service: Service, device: Device) -> None:
    body = {"id": "x", "doc": {"side": "both"}, "_token": "t"}
    answers = [(await device.asked("call/geo/resolve", body)).body for _ in range(2)]
    assert [answer["token"] for answer in answers] == ["t", "t"]
    assert answers[0]["result"]["rev"] == answers[1]["result"]["rev"]
    assert service.barrel.get("x").data["side"] == "both"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("resolve", {}),
        ("resolve", {"id": "x"}),
        ("resolve", {"id": "x", "rev": "1-a", "doc": {}}),
        ("resolve", {"id": "x", "rev": "1-a", "more": 1}),
        ("resolve", {"id": "x", "doc": []}),
        ("conflicts", {"limit": 0}),
        ("conflicts", {"id": "x", "after": "y"}),
    ],
)
async def test_what_makes_no_sense_is_refused(device: Device, name: str, body: Any) -> None:
    assert await called(device, name, body) == "bad_request"
