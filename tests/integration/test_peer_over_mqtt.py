"""What is particular to a peer over MQTT: packets, lost messages and links, and who else may answer."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from brokers import Mosquitto
from external_tools import KINDS as BROKERS
from http_tools import eventually
from meddling import Meddling
from mqtt_tools import leave_no_client
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from ports import free_port
from proxy import Proxy
from replication_tools import QUICK, Subject, alike, brought, leaves, subject
from requests_tools import serving as over_embedded
from store_tools import revisions
from test_peer_contract import blob_of, fetched, reading

from broker.access import TokenGate
from broker.serve import serving as over_external
from broker.settings import load_settings
from feeds import Store
from feeds.errors import BadRequest, Conflict, Forbidden, NotFound, SpileError, Timeout, Unauthorized, Unavailable
from listeners.replication import (
    BadPeer,
    Fetched,
    MqttPeer,
    Options,
    Replicator,
    Wanted,
    opened_peer,
    over_mqtt_blobs,
)
from listeners.replication.checkpoints import Checkpoint, Session
from listeners.replication.filters import EVERYTHING
from listeners.replication.over_mqtt_calls import CallTimes

TIMES = CallTimes(first=20.0, answer=20.0, again=0.3)


@asynccontextmanager
async def at_mosquitto(
    place: Path,
    *lines: str,
    meddle: Callable[[], Meddling] | None = None,
    packet_bytes: int = 1 << 18,
    **settings: Any,
) -> AsyncIterator[tuple[Subject, Proxy]]:
    """A new barrel, and a peer before it that reaches the broker through a door only."""
    async with AsyncExitStack() as stack:
        process = Mosquitto(place / "broker", *lines)
        stack.callback(process.kill)
        stack.push_async_callback(leave_no_client)
        given = {"data": place / "data", "http": "127.0.0.1:0", "broker": process.url, **settings}
        service = await stack.enter_async_context(over_external(load_settings(given)))
        door = stack.enter_context(Proxy(lambda: process.port, meddle=meddle))
        peer = MqttPeer(f"mqtt://127.0.0.1:{door.port}/geo", packet_bytes=packet_bytes, times=TIMES)
        stack.push_async_callback(peer.close)
        yield Subject("mosquitto", peer, service.store, service.store.create("geo")), door


def fill(store: Store) -> None:
    """Documents small and large, with histories, conflicts, deletions and attachments."""
    barrel = store.barrel("geo")
    barrel.bulk([{"_id": f"{'long/' * 20}{number}", "n": number} for number in range(300)])
    barrel.bulk([revisions("c", "bb", "aa", n=1), revisions("c", "cc", "aa", n=2)], new_edits=False)
    rev = barrel.put({"_id": "large", "text": "x" * 150_000}).rev
    barrel.put({"_id": "large", "_rev": rev, "text": "y" * 200_000})
    barrel.delete("c", rev=barrel.get("c").rev)
    chance = random.Random(1)
    for number, size in enumerate((0, 10, 20_000, 300_000)):
        barrel.attach("attached", str(number), chance.randbytes(size))


# -- replication over each broker


@pytest.mark.parametrize("kind", ["mqtt", *BROKERS])
async def test_all_goes_over_in_both_directions(tmp_path: Path, kind: str) -> None:
    async with subject("local", tmp_path / "a") as one, subject(kind, tmp_path / "b") as other:
        await asyncio.to_thread(fill, one.store)
        there = await brought(one.peer, other.peer)
        assert (there["refused"], there["blobs"]) == (0, 4)
        other.barrel.put({"_id": "from there", "n": 1})
        other.barrel.put({"_id": "large", "text": "z" * 300_000}, update=True)
        back = await brought(other.peer, one.peer)
        assert (back["refused"], back["written"]) == (0, 2)
        alike(one.barrel, other.barrel)
        assert (await brought(one.peer, other.peer))["written"] == 0


async def test_a_broker_that_takes_small_packets_only(tmp_path: Path) -> None:
    bounded = {"publish_bytes_max": 40_000, "broker_packet_bytes_max": 100_000}
    lines = ("max_packet_size 100100",)
    async with (
        subject("local", tmp_path / "a") as one,
        at_mosquitto(tmp_path / "b", *lines, packet_bytes=90_000, **bounded) as (other, _),
    ):
        await asyncio.to_thread(fill, one.store)
        assert (await brought(one.peer, other.peer))["refused"] == 0
        alike(one.barrel, other.barrel)
        async with subject("local", tmp_path / "c") as third:
            assert (await brought(other.peer, third.peer))["refused"] == 0
            alike(one.barrel, third.barrel)


async def test_an_address_is_enough(tmp_path: Path) -> None:
    async with subject("mqtt", tmp_path) as it, opened_peer(it.peer.name) as peer:
        assert (await peer.identity()).store == it.store.id
    for wrong in ("http://127.0.0.1/geo", "mqtt://127.0.0.1/"):
        with pytest.raises(BadRequest):
            MqttPeer(wrong)


# -- what is lost on the way


async def test_what_is_lost_doubled_or_late_is_made_good(tmp_path: Path) -> None:
    made: list[Meddling] = []
    topics = ("from/anonymous/spile-replicate", "to/anonymous/spile-replicate")

    def meddle() -> Meddling:
        made.append(Meddling(random.Random(len(made)), topics, drop=0.2, double=0.2, delay=0.2, delay_s=0.05))
        return made[-1]

    async with (
        subject("local", tmp_path / "a") as one,
        at_mosquitto(tmp_path / "b", meddle=meddle) as (other, _),
    ):
        await asyncio.to_thread(fill, one.store)
        assert (await brought(one.peer, other.peer))["refused"] == 0
        alike(one.barrel, other.barrel)
        async with subject("local", tmp_path / "c") as third:
            assert (await brought(other.peer, third.peer))["refused"] == 0
            alike(one.barrel, third.barrel)
    assert any(each.dropped for each in made)


async def test_a_link_that_is_cut_fails_what_is_on_its_way_and_is_made_again(tmp_path: Path) -> None:
    async with at_mosquitto(tmp_path) as (it, door):
        await it.peer.identity()
        door.black_hole()
        waiting = asyncio.create_task(it.peer.identity())
        await eventually(lambda: not waiting.done())
        door.heal()
        door.reset()
        with pytest.raises(Unavailable):
            await waiting
        assert (await it.peer.identity()).store == it.store.id
        assert door.connections == 2


async def test_a_link_that_is_cut_again_and_again_brings_all(tmp_path: Path) -> None:
    chance = random.Random(4)
    async with (
        subject("local", tmp_path / "a") as one,
        at_mosquitto(tmp_path / "b") as (other, door),
    ):
        await asyncio.to_thread(fill, one.store)
        replicator = Replicator(one.peer, other.peer, Options(continuous=True, checkpoint_s=0.1))
        task = asyncio.create_task(replicator.run())
        for number in range(6):
            cuts = door.cuts
            door.cut_after(chance.randrange(1_000, 150_000), chance.choice(["up", "down"]))  # type: ignore[arg-type]
            await eventually(lambda cuts=cuts: door.cuts > cuts or replicator.stats()["state"] == "idle", 60)
            one.barrel.put({"_id": f"again{number}"})
        door.heal()
        await eventually(lambda: leaves(other.barrel).keys() == leaves(one.barrel).keys(), 60)
        replicator.stop()
        await task
        assert replicator.stats()["refused"] == 0
        alike(one.barrel, other.barrel)


async def test_an_upload_is_gone_on_with_after_its_name_was_forgotten(tmp_path: Path) -> None:
    data = random.Random(2).randbytes(2_000_000)
    blob = blob_of(data)
    async with over_embedded(tmp_path) as service:
        peer = MqttPeer(f"mqtt://127.0.0.1:{service.broker.port}/geo")
        offsets: list[int] = []

        async def read(offset: int) -> AsyncGenerator[bytes, None]:
            offsets.append(offset)
            yield data[offset : offset + 1_000_000]
            if len(offsets) == 1:
                await eventually(lambda: service.requests.stats()["blob_uploads"] == 1)
                service.requests.close()  # as a service does that stops
            yield data[offset + 1_000_000 :]

        handle = await peer.write_blob(blob, read)
        assert offsets[1:] and offsets[-1] > 0
        stub = {"f": {"stub": True, "digest": blob.digest, "length": len(data), "revpos": 1}}
        (doc,) = fetched(revisions("d", "aa", _attachments=stub))
        assert await peer.write([Fetched(doc.id, doc.rev, doc.json, (blob,))], {blob.digest: handle}) == [True]
        assert b"".join(service.barrel.attachment("d", "f").read()) == data
        await peer.close()


async def test_a_content_whose_sending_was_given_up_is_gone_on_with_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_mqtt_blobs, "_RESTS_S", (0.01, 0.02))
    data = random.Random(5).randbytes(2_000_000)
    blob = blob_of(data)
    async with over_embedded(tmp_path) as service:
        peer = MqttPeer(f"mqtt://127.0.0.1:{service.broker.port}/geo")
        offsets: list[int] = []

        async def read(offset: int) -> AsyncGenerator[bytes, None]:
            offsets.append(offset)
            yield data[offset:1_500_000]
            raise Unavailable("The source is away")

        with pytest.raises(Unavailable):
            await peer.write_blob(blob, read)
        reached = max(offsets)
        assert reached > 0
        offsets.clear()

        async def back(offset: int) -> AsyncGenerator[bytes, None]:
            offsets.append(offset)
            yield data[offset:]

        handle = await peer.write_blob(blob, back)
        assert offsets[-1] >= reached  # where it stands is asked with the first part
        stub = {"f": {"stub": True, "digest": blob.digest, "length": len(data), "revpos": 1}}
        (doc,) = fetched(revisions("d", "aa", _attachments=stub))
        assert await peer.write([Fetched(doc.id, doc.rev, doc.json, (blob,))], {blob.digest: handle}) == [True]
        assert b"".join(service.barrel.attachment("d", "f").read()) == data
        await peer.close()


async def test_a_content_that_is_forgotten_in_the_middle_is_begun_anew(tmp_path: Path) -> None:
    data = random.Random(6).randbytes(2_000_000)
    blob = blob_of(data)
    async with over_embedded(tmp_path) as service:
        peer = MqttPeer(f"mqtt://127.0.0.1:{service.broker.port}/geo")
        offsets: list[int] = []

        async def read(offset: int) -> AsyncGenerator[bytes, None]:
            offsets.append(offset)
            yield data[offset : offset + 1_000_000]
            if len(offsets) == 1:
                await eventually(lambda: service.requests.stats()["blob_uploads"] == 1)
                service.store.writer.call(lambda transaction: transaction.execute("DELETE FROM uploads"))
            yield data[offset + 1_000_000 :]

        with pytest.raises(Unavailable):
            await peer.write_blob(blob, read)
        handle = await peer.write_blob(blob, read)
        assert offsets == [0, 0]
        stub = {"f": {"stub": True, "digest": blob.digest, "length": len(data), "revpos": 1}}
        (doc,) = fetched(revisions("d", "aa", _attachments=stub))
        assert await peer.write([Fetched(doc.id, doc.rev, doc.json, (blob,))], {blob.digest: handle}) == [True]
        assert b"".join(service.barrel.attachment("d", "f").read()) == data
        await peer.close()


async def test_a_service_that_falls_back_again_and_again_is_not_sent_to_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(over_mqtt_blobs, "_RESTS_S", (0.001, 0.01))
    blob, data = blob_of(b"abcdefgh" * 100), b"abcdefgh" * 100

    class Forgetful:
        name = "a service"
        asked = 0

        async def ask(self, name: str, body: bytes, kind: Any) -> Any:
            if name != "blob_put":
                return None
            self.asked += 1
            told = json.loads(body)
            if told["offset"]:
                fault = Conflict("It stands elsewhere")
                fault.details["size"] = 0
                raise fault
            return kind("u", 100, None)

    calls = Forgetful()
    async with asyncio.timeout(30):
        with pytest.raises(Unavailable):
            await over_mqtt_blobs.blob_written(calls, blob, reading(data), 100, over_mqtt_blobs.Broken())  # type: ignore[arg-type]
    assert calls.asked < 50


async def test_what_comes_of_a_content_that_is_none_is_given_up(tmp_path: Path) -> None:
    async with over_embedded(tmp_path) as service:
        peer = MqttPeer(f"mqtt://127.0.0.1:{service.broker.port}/geo")
        for number in range(10):  # more than one client may have begun
            data = random.Random(number).randbytes(500_000)
            with pytest.raises(SpileError) as refused:
                await peer.write_blob(blob_of(data, 600_000), reading(data))  # type: ignore[arg-type]
            assert refused.value.code == "unfit"
        await peer.close()


# -- who answers, if anybody


async def test_where_no_broker_answers(tmp_path: Path) -> None:
    peer = MqttPeer(f"mqtt://127.0.0.1:{free_port()}/geo")
    with pytest.raises(Unavailable, match="No MQTT broker answers"):
        await peer.identity()
    await peer.close()


async def test_where_no_spile_answers(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as process:
        peer = MqttPeer(f"{process.url}/geo", times=CallTimes(first=0.5))
        with pytest.raises(Timeout, match="No Spile answers"):
            await peer.identity()
        await peer.close()


async def test_without_a_login_that_is_asked_for(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, anyone=False) as process:
        peer = MqttPeer(f"{process.url}/geo")
        with pytest.raises(Unauthorized):
            await peer.identity()
        await peer.close()


async def test_the_token_is_the_password_and_is_never_shown(tmp_path: Path) -> None:
    async with over_embedded(tmp_path, gate=TokenGate("secret-word")) as service:
        address = f"mqtt://127.0.0.1:{service.broker.port}/geo"
        for peer in (MqttPeer(address, token="secret-word"), MqttPeer(address.replace("//", "//me:secret-word@"))):
            assert (await peer.identity()).store == service.store.id
            assert [page.caught_up async for page in _pages(peer)] == [True]
            assert "secret-word" not in peer.name
            await peer.close()
        peer = MqttPeer(address, token="other")
        with pytest.raises(Unauthorized) as refused:
            await peer.identity()
        assert "other" not in str(refused.value)
        await peer.close()


@pytest.mark.parametrize("size", [10, 400_000])
async def test_rights_that_end_during_the_run_end_it(tmp_path: Path, size: int) -> None:
    rights = {"read", "write", "admin"}

    def decide(who: str, verb: str, barrel: str, path: str) -> None:
        if verb not in rights:
            raise Forbidden(f"{verb} is not for {who} any more")

    async with subject("local", tmp_path / "a") as one, over_embedded(tmp_path / "b", decide=decide) as service:
        peer = MqttPeer(f"mqtt://127.0.0.1:{service.broker.port}/geo")
        replicator = Replicator(one.peer, peer, Options(continuous=True, patience=QUICK, checkpoint_s=0.05))
        task = asyncio.create_task(replicator.run())
        one.barrel.put({"_id": "before"})
        await eventually(lambda: service.barrel.head() == 1 and replicator.stats()["state"] == "idle")
        rights.remove("write")
        one.barrel.put({"_id": "after", "text": "x" * size})
        with pytest.raises(Forbidden, match="write is not for"):
            await task
        assert (replicator.stats()["state"], replicator.stats()["error"]) == ("failed", "forbidden")
        rights.add("write")
        assert (await brought(one.peer, peer))["written"] == 1
        await peer.close()


def _pages(peer: MqttPeer) -> Any:
    return peer.changes(None, EVERYTHING, docs=True, follow=False, told=lambda error: None)


class Impostor:
    """What answers every call at a broker; `says` makes the payload of a call's name and token."""

    def __init__(self, port: int, says: Callable[[str, str], bytes]) -> None:
        self.calls: list[str] = []
        self._says = says
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self._loop = asyncio.get_running_loop()
        self.ready = self._loop.create_future()
        client.on_connect = lambda *_: client.subscribe("from/#", 1)
        client.on_subscribe = lambda *_: self._loop.call_soon_threadsafe(self.ready.set_result, None)
        client.on_message = self._answer
        client.connect("127.0.0.1", port)
        client.loop_start()

    def _answer(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        _, user, name, *_, call = message.topic.split("/")
        self.calls.append(call)
        payload = self._says(call, json.loads(message.payload)["_token"])
        client.publish(f"to/{user}/{name}/result/geo/{call}", payload, 1)

    async def close(self) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)
        del self._client


def result(**fields: Any) -> Callable[[str, str], bytes]:
    return lambda _call, token: json.dumps({"result": fields, "token": token}).encode()


@asynccontextmanager
async def before(place: Path, says: Callable[[str, str], bytes]) -> AsyncIterator[MqttPeer]:
    """A peer before an impostor."""
    with Mosquitto(place) as process:
        impostor = Impostor(process.port, says)
        await asyncio.wait_for(impostor.ready, 20)
        peer = MqttPeer(f"{process.url}/geo", times=TIMES)
        try:
            yield peer
        finally:
            await peer.close()
            await impostor.close()


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (lambda _call, _token: b"<html>", "not as a Spile"),
        (lambda _call, _token: b"\xff\xfe", "not as a Spile"),
        (lambda _call, token: b'{"token":"%b"}' % token.encode(), "neither a result nor an error"),
        (result(service="other", store="s", barrel="b", epoch="e", seq=1), "not a Spile"),
        (result(service="spile", store="s"), "not as a Spile"),
    ],
)
async def test_what_answers_is_no_spile(tmp_path: Path, says: Callable[[str, str], bytes], told: str) -> None:
    async with before(tmp_path, says) as peer:
        with pytest.raises(BadPeer, match=told):
            await peer.identity()


async def test_other_answers_than_were_asked_for(tmp_path: Path) -> None:
    async with before(tmp_path, result(results=[])) as peer:
        with pytest.raises(BadPeer, match="asked for 1 documents"):
            await peer.fetch([Wanted("a", "1-a")])
        with pytest.raises(BadPeer, match="sent 1 documents"):
            await peer.write(fetched(revisions("a", "aa")), {})
    wrong = result(digest="d", offset=7, length=1, total=3, data="eHl6")
    async with before(tmp_path / "b", wrong) as peer:
        with pytest.raises(BadPeer, match="what is at 7"):
            [piece async for piece in peer.read_blob(blob_of(b"xyz"))]
    async with before(tmp_path / "c", result(results=[{"doc": {"_id": "b", "_rev": "1-b"}}])) as peer:
        (told,) = await peer.fetch([Wanted("a", "1-a")])
        assert isinstance(told, SpileError) and told.code == "unfit"


async def test_a_refusal_comes_as_the_error_that_it_is(tmp_path: Path) -> None:
    async with at_mosquitto(tmp_path) as (it, _):
        await it.peer.save_checkpoint("c", _checkpoint(), None)
        with pytest.raises(Conflict):
            await it.peer.save_checkpoint("c", _checkpoint(), None)
        it.store.drop("geo")
        with pytest.raises(NotFound):
            await it.peer.behind("1-e")
        await it.peer.create()
        await it.peer.create()
        assert (await it.peer.identity()).is_empty


def _checkpoint() -> Checkpoint:
    session = Session(session_id="s", recorded_seq="1-e")
    return Checkpoint(session_id="s", source_last_seq="1-e", history=(session,))


async def test_a_once_that_finds_nobody_ends_with_the_error(tmp_path: Path) -> None:
    async with subject("local", tmp_path / "a") as one:
        with Mosquitto(tmp_path / "b") as process:
            peer = MqttPeer(f"{process.url}/geo", times=CallTimes(first=0.1))
            with pytest.raises(Timeout):
                await Replicator(one.peer, peer, Options(patience=QUICK)).run()
            await peer.close()
