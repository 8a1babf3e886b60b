"""What a peer over HTTP does beyond what all peers do: contents whose sending broke off for longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from replication_tools import Subject, subject

from feeds.errors import BadRequest, Conflict, SpileError, Unavailable
from listeners.backoff import Backoff
from listeners.replication import HttpPeer, over_http
from listeners.replication.errors import BadPeer
from listeners.replication.over_http import PART_BYTES
from listeners.replication.peer import Blob, Fetched

CONTENT = bytes(range(256)) * (3 * PART_BYTES // 256)
DIGEST = f"sha256-{sha256(CONTENT).hexdigest()}"
BLOB = Blob("d", "1-a", "a", DIGEST, len(CONTENT))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_http, "_RESTS_S", (0.01, 0.02))


class Source:
    """A source of one content, which is away from some byte on until it is back."""

    def __init__(self, away_from: int) -> None:
        self.away_from: int | None = away_from
        self.offsets: list[int] = []
        self.meets_end: Callable[[], None] | None = None

    async def read(self, offset: int) -> AsyncGenerator[bytes, None]:
        self.offsets.append(offset)
        yield CONTENT[offset : self.away_from]
        if self.away_from is not None:
            if self.meets_end is not None:
                self.meets_end()
                await asyncio.sleep(60)
            raise Unavailable("The source is away")

    def is_back(self) -> None:
        self.away_from = None
        self.offsets.clear()


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Subject]:
    async with subject("http", tmp_path) as made:
        yield made


async def takes(target: Subject, handle: str) -> None:
    """The content is there under this handle."""
    stub = f'"a":{{"stub":true,"digest":"{DIGEST}","length":{len(CONTENT)},"revpos":1,"content_type":"text/plain"}}'
    doc = Fetched("d", "1-a", f'{{"_id":"d","_rev":"1-a","_attachments":{{{stub}}}}}'.encode(), (BLOB,))
    assert await target.peer.write([doc], {DIGEST: handle}) == [True]
    assert b"".join(target.barrel.attachment("d", "a").read()) == CONTENT


async def test_a_content_whose_sending_was_given_up_is_gone_on_with_the_next_time(target: Subject) -> None:
    source = Source(PART_BYTES + PART_BYTES // 2)
    with pytest.raises(Unavailable):
        await target.peer.write_blob(BLOB, source.read)
    source.is_back()
    handle = await target.peer.write_blob(BLOB, source.read)
    assert source.offsets == [PART_BYTES]
    await takes(target, handle)


async def test_a_content_whose_sending_was_broken_off_is_gone_on_with_by_the_next_session(target: Subject) -> None:
    source, begun = Source(PART_BYTES + PART_BYTES // 2), asyncio.Event()
    source.meets_end = begun.set
    sending = asyncio.create_task(target.peer.write_blob(BLOB, source.read))
    async with asyncio.timeout(30):
        await begun.wait()
    sending.cancel()
    await asyncio.wait([sending])
    source.is_back()
    await takes(target, await target.peer.write_blob(BLOB, source.read))
    assert source.offsets == [PART_BYTES]


async def test_a_content_that_is_forgotten_meanwhile_is_sent_anew(target: Subject) -> None:
    source = Source(PART_BYTES + PART_BYTES // 2)
    with pytest.raises(Unavailable):
        await target.peer.write_blob(BLOB, source.read)
    source.is_back()
    target.store.drop("geo")
    target.barrel = target.store.create("geo")
    await takes(target, await target.peer.write_blob(BLOB, source.read))
    assert source.offsets == [0]


async def test_a_content_that_is_forgotten_between_two_parts_is_no_refusal(target: Subject) -> None:
    async def read(offset: int) -> AsyncGenerator[bytes, None]:
        yield CONTENT[offset:PART_BYTES]
        if offset == 0:
            target.store.drop("geo")
            target.barrel = target.store.create("geo")
        yield CONTENT[max(offset, PART_BYTES) :]

    with pytest.raises(Unavailable):
        await target.peer.write_blob(BLOB, read)
    source = Source(0)
    source.is_back()
    await takes(target, await target.peer.write_blob(BLOB, source.read))


async def test_two_at_once_do_not_go_on_with_the_same_one(target: Subject) -> None:
    source = Source(PART_BYTES + PART_BYTES // 2)
    with pytest.raises(Unavailable):
        await target.peer.write_blob(BLOB, source.read)
    source.is_back()
    handles = await asyncio.gather(*(target.peer.write_blob(BLOB, source.read) for _ in range(2)))
    assert sorted(source.offsets) == [0, PART_BYTES]
    assert len(set(handles)) == 2


@pytest.mark.parametrize("often", [1, 3])
async def test_while_the_target_is_busy_with_a_part_that_was_cut_off_it_is_waited_for(
    target: Subject, often: int
) -> None:
    source, busy = Source(0), [Conflict("Another request goes on with the upload")] * often
    source.is_back()
    assert isinstance(target.peer, HttpPeer)
    requests = target.peer._requests.json

    async def json(method: str, *given: Any, **named: Any) -> Any:
        if method == "PATCH" and busy:
            raise busy.pop()
        return await requests(method, *given, **named)

    target.peer._requests.json = json  # type: ignore[method-assign]
    await takes(target, await target.peer.write_blob(BLOB, source.read))


async def test_a_target_that_stays_busy_is_asked_again_later_and_refuses_nothing(
    target: Subject,
) -> None:
    source = Source(0)
    source.is_back()
    assert isinstance(target.peer, HttpPeer)
    requests, busy = target.peer._requests.json, True

    async def json(method: str, *given: Any, **named: Any) -> Any:
        if method == "PATCH" and busy:
            raise Conflict("Another request goes on with the upload")
        return await requests(method, *given, **named)

    target.peer._requests.json = json  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="Another request"):
        await target.peer.write_blob(BLOB, source.read)
    busy = False
    await takes(target, await target.peer.write_blob(BLOB, source.read))


async def test_where_it_stands_is_asked_again_when_that_could_not_be_told(target: Subject) -> None:
    source = Source(PART_BYTES + PART_BYTES // 2)
    with pytest.raises(Unavailable):
        await target.peer.write_blob(BLOB, source.read)
    assert isinstance(target.peer, HttpPeer)
    requests, away = target.peer._requests.send, [Unavailable("away")]

    async def send(method: str, path: str, *given: object, **named: object) -> object:
        if method == "HEAD" and away:
            raise away.pop()
        return await requests(method, path, *given, **named)  # type: ignore[arg-type]

    target.peer._requests.send = send  # type: ignore[method-assign,assignment]
    source.is_back()
    with pytest.raises(SpileError):
        await target.peer.write_blob(BLOB, source.read)
    await target.peer.write_blob(BLOB, source.read)
    assert source.offsets == [PART_BYTES]


@pytest.mark.parametrize("told", ["half of it", "-1", "1" * 5000, "¹"])
async def test_a_target_that_does_not_say_how_far_it_is_is_no_peer(target: Subject, told: str) -> None:
    source = Source(PART_BYTES + PART_BYTES // 2)
    with pytest.raises(Unavailable):
        await target.peer.write_blob(BLOB, source.read)
    assert isinstance(target.peer, HttpPeer)

    async def send(method: str, path: str) -> httpx.Response:
        return httpx.Response(200, headers=[(b"upload-offset", told.encode("latin-1"))])

    target.peer._requests.send = send  # type: ignore[method-assign,assignment]
    with pytest.raises(BadPeer, match="how far"):
        await target.peer.write_blob(BLOB, source.read)


async def test_a_target_that_falls_back_again_and_again_is_not_sent_to_for_ever(target: Subject) -> None:
    assert isinstance(target.peer, HttpPeer)
    sent: list[str] = []

    async def json(method: str, path: str, kind: Any, body: bytes | None = None, **named: Any) -> Any:
        offset = int(named["headers"].get("Upload-Offset", 0))
        sent.append(f"{method} {offset}")
        if offset:
            raise Unavailable("Not now")
        return kind("u", len(body or b""), False)

    async def send(method: str, path: str) -> httpx.Response:
        return httpx.Response(200, headers={"upload-offset": "0"})

    target.peer._requests.json = json  # type: ignore[method-assign]
    target.peer._requests.send = send  # type: ignore[method-assign,assignment]
    async with asyncio.timeout(30):
        with pytest.raises(Unavailable):
            await target.peer.write_blob(BLOB, whole)
    assert len(sent) < 20


# -- what is damaged on its way, or breaks off

SMALL = CONTENT[:1000]
SMALL_BLOB = Blob("d", "1-a", "a", f"sha256-{sha256(SMALL).hexdigest()}", len(SMALL))


def damaging(peer: HttpPeer, often: int) -> list[str]:
    """Change a byte of what is sent of contents, so often; what was sent."""
    requests, sent = peer._requests.json, []

    async def json(method: str, path: str, kind: Any, body: bytes | None = None, **named: Any) -> Any:
        if "uploads" in path and body:
            sent.append(f"{method} {named['headers'].get('Upload-Offset', '0')}")
            if len(sent) <= often:
                body = bytes([body[0] ^ 1]) + body[1:]
        return await requests(method, path, kind, body, **named)

    peer._requests.json = json  # type: ignore[method-assign]
    return sent


async def whole(offset: int) -> AsyncGenerator[bytes, None]:
    yield CONTENT[offset:]


async def small(offset: int) -> AsyncGenerator[bytes, None]:
    yield SMALL[offset:]


async def test_a_part_that_was_damaged_on_its_way_is_sent_again(target: Subject) -> None:
    assert isinstance(target.peer, HttpPeer)
    sent = damaging(target.peer, 2)
    await takes(target, await target.peer.write_blob(BLOB, whole))
    assert sent == ["PATCH 0"] * 3 + [f"PATCH {PART_BYTES}", f"PATCH {2 * PART_BYTES}"]


async def test_a_small_content_that_was_damaged_on_its_way_is_sent_again(target: Subject) -> None:
    assert isinstance(target.peer, HttpPeer)
    sent = damaging(target.peer, 2)
    assert await target.peer.write_blob(SMALL_BLOB, small)
    assert sent == ["POST 0"] * 3


@pytest.mark.parametrize(("blob", "read"), [(BLOB, whole), (SMALL_BLOB, small)], ids=["large", "small"])
async def test_a_content_that_is_damaged_whenever_it_is_sent_is_refused(
    target: Subject, blob: Blob, read: Any
) -> None:
    assert isinstance(target.peer, HttpPeer)
    sent = damaging(target.peer, 1000)
    with pytest.raises(BadRequest):
        await target.peer.write_blob(blob, read)
    assert len(sent) == 3


async def test_a_content_of_other_bytes_is_not_sent_again_and_again(target: Subject) -> None:
    assert isinstance(target.peer, HttpPeer)
    sent = damaging(target.peer, 0)

    async def other(offset: int) -> AsyncGenerator[bytes, None]:
        yield bytes(len(CONTENT) - offset)

    with pytest.raises(BadRequest):
        await target.peer.write_blob(BLOB, other)
    assert len(sent) == 3  # each part once


class Noting(Backoff):
    """Notes the waits, and waits for none of them."""

    noted: ClassVar[list[float]] = []

    def next(self) -> float:
        self.noted.append(super().next())
        return 0.0


async def test_between_the_attempts_at_one_content_it_waits_longer_and_longer(
    target: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_http, "_RESTS_S", (0.01, 10.0))
    monkeypatch.setattr(over_http, "Backoff", Noting)
    monkeypatch.setattr(Noting, "noted", [])

    async def away(offset: int) -> AsyncGenerator[bytes, None]:
        raise Unavailable("The source is away")
        yield b""

    with pytest.raises(Unavailable):
        await target.peer.write_blob(BLOB, away)
    sending = list(Noting.noted)
    Noting.noted.clear()
    assert isinstance(target.peer, HttpPeer)
    target.peer._requests.streamed = lambda *given, **named: _Away()  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        [piece async for piece in target.peer.read_blob(Blob("d", "1-a", "a", DIGEST, 10))]
    for waits in sending, Noting.noted:
        assert len(waits) == 5
        assert waits[0] >= 0.005 and waits[-1] > 4 * waits[0]


class _Away:
    async def __aenter__(self) -> None:
        raise Unavailable("The target is away")

    async def __aexit__(self, *error: object) -> None:
        """Nothing was begun."""
