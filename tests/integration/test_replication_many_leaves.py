"""Documents with more leaves than fit into a message: what is asked about them is divided until it fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from replication_tools import QUICK, alike, brought, subject
from requests_tools import serving
from store_tools import revisions

from broker.requests import RequestLimits
from feeds import Barrel
from feeds.errors import TooLarge
from listeners.replication import Filter, MqttPeer, over_mqtt
from listeners.replication.comparing import compared
from listeners.replication.retrying import persistently

PACKET_BYTES = 16 << 10


def torn(barrel: Barrel, id: str, count: int) -> list[str]:
    """A document with so many leaves, which it tells."""
    digests = [f"{number:0100d}" for number in range(count)]
    barrel.bulk([revisions(id, digest) for digest in digests], new_edits=False)
    return [f"1-{digest}" for digest in digests]


async def asked_of(peer: Any, asked: Mapping[str, Sequence[str]]) -> tuple[dict[str, Any], list[str]]:
    too_much: list[str] = []
    told = await compared(
        peer,
        asked,
        lambda call: persistently(call, QUICK, lambda error: None),
        lambda id, rev, error: too_much.append(f"{id}/{rev}"),
    )
    return dict(told), too_much


async def test_over_mqtt_a_document_with_more_leaves_than_fit_into_a_message_is_compared_in_parts(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, limits=RequestLimits(answer_bytes_max=PACKET_BYTES)) as service:
        known = torn(service.barrel, "a", 400)
        peer = MqttPeer(f"mqtt://127.0.0.1:{service.broker.port}/geo", packet_bytes=PACKET_BYTES)
        new = [f"2-{number:0100d}" for number in range(400)]
        told, too_much = await asked_of(peer, {"a": known + new, "b": ["1-a"]})
        missing, ancestors = told["a"]
        assert (set(missing) == set(new), len(missing)) == (True, 400)
        assert set(ancestors) < set(known) and len(ancestors) >= 100
        assert (told["b"], too_much) == ((["1-a"], []), [])
        await peer.close()


async def test_it_goes_over_mqtt_with_all_its_leaves_and_is_purged_there(tmp_path: Path) -> None:
    filter = Filter.of(selector={"_id": {"$exists": True}, "out": {"$exists": False}})
    async with (
        subject("local", tmp_path / "a") as one,
        serving(tmp_path / "b", limits=RequestLimits(answer_bytes_max=PACKET_BYTES)) as service,
    ):
        peer = MqttPeer(f"mqtt://127.0.0.1:{service.broker.port}/geo", packet_bytes=PACKET_BYTES)
        torn(one.barrel, "torn", 400)
        one.barrel.put({"_id": "whole"})
        done = await brought(one.peer, peer, filter=filter)
        assert (done["written"], done["refused"]) == (401, 0)
        alike(one.barrel, service.barrel)
        one.barrel.put({"_id": "torn", "out": True}, update=True)
        done = await brought(one.peer, peer, filter=filter, leaves="purge")
        assert (done["purged"], done["refused"]) == (1, 0)
        assert [row.id for row in service.barrel.changes().results] == ["whole"]
        await peer.close()


class Narrow:
    """A target that takes so many revisions in one question."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.asked = 0

    async def revs_diff(self, asked: Mapping[str, Sequence[str]]) -> dict[str, tuple[list[str], list[str]]]:
        self.asked += 1
        if sum(map(len, asked.values())) > self.most:
            raise TooLarge("That is too much")
        return {id: (list(revs), ["1-a", f"2-{id}"]) for id, revs in asked.items()}


@pytest.mark.parametrize("most", [1, 2, 5, 100])
async def test_whatever_a_target_takes_all_is_asked_about_once(most: int) -> None:
    asked = {"a": [f"1-{number}" for number in range(9)], "b": ["1-b"], "c": []}
    told, too_much = await asked_of(Narrow(most), asked)
    assert {id: sorted(missing) for id, (missing, _) in told.items()} == {
        id: sorted(revs) for id, revs in asked.items()
    }
    assert told["a"][1] == ["1-a", "2-a"]
    assert too_much == []


async def test_what_is_too_much_by_itself_is_named_and_the_others_are_compared() -> None:
    told, too_much = await asked_of(Narrow(0), {"a": ["1-a", "1-b"], "c": []})
    assert (told, too_much) == ({"c": ([], ["1-a", "2-c"])}, ["a/1-a", "a/1-b"])


async def test_contents_are_asked_about_in_messages_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    async with serving(tmp_path) as service:
        peer = MqttPeer(f"mqtt://127.0.0.1:{service.broker.port}/geo", packet_bytes=PACKET_BYTES)
        ask = peer._calls.ask

        async def counted(name: str, body: bytes, kind: Any) -> Any:
            sizes.append(len(body))
            return await ask(name, body, kind)

        monkeypatch.setattr(peer._calls, "ask", counted)
        digests = [f"sha256-{number:064x}" for number in range(1_500)]
        assert await peer.missing_blobs(digests) == set(digests)
        await peer.close()
    assert max(sizes) < PACKET_BYTES
    assert len(sizes) < 30
    assert over_mqtt.DIGESTS_MAX == 1_000
