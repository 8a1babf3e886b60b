"""The stream service on a real store: what goes over the wire, and what bounds it."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from feeds import Barrel, Store
from listeners.stream.hub import HubLimits
from listeners.stream.sender import SenderLimits
from listeners.stream.service import ServiceLimits, StreamService

QUICK = ServiceLimits(tick_s=0.02, sender=SenderLimits(heartbeat_s=0.1, silence_s=1.0), hub=HubLimits(poll_s=0.05))
PATIENT = replace(QUICK, sender=SenderLimits(heartbeat_s=0.1, silence_s=30.0))
runs = itertools.count()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def barrel(store: Store) -> Barrel:
    return store.create("geo")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(6) as executor:
        yield executor


@pytest.fixture
async def service(store: Store, pool: ThreadPoolExecutor) -> AsyncIterator[StreamService]:
    running = StreamService(store, pool)
    yield running
    await running.stop()


@pytest.fixture
async def quick(store: Store, pool: ThreadPoolExecutor) -> AsyncIterator[StreamService]:
    running = StreamService(store, pool, limits=QUICK)
    yield running
    await running.stop()


class Client:
    """A listener by hand: keeps the arrays, and gives credit when told to, or at once."""

    def __init__(self, service: StreamService, *, owner: str = "me", stream: str = "s", barrel: str = "geo") -> None:
        self.service, self.owner, self.stream, self.barrel = service, owner, stream, barrel
        self.arrays: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.came = asyncio.Event()
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self.run = ""
        self.asked: dict[str, Any] = {}
        self.eager = False

    async def open(self, *, eager: bool = False, **asked: Any) -> Client:
        self.run = f"run{next(runs)}"
        self.asked = {"window": 1000, "bytes": 1 << 20, **asked}
        self.eager = eager
        await self.service.open(
            self.owner, self.barrel, self.stream, msgspec.json.encode({"run": self.run, **self.asked}), self.receive
        )
        return self

    async def receive(self, data: bytes) -> None:
        await self.open_gate.wait()
        array = msgspec.json.decode(data)
        self.raw.append(data)
        self.arrays.append(array)
        if self.eager and array.get("seq") and "end" not in array:
            self.credit(array["seq"])
        self.came.set()

    def credit(self, ack: str, **other: Any) -> bytes | None:
        word = {"run": self.run, "ack": ack, "window": self.asked["window"], "bytes": self.asked["bytes"], **other}
        return self.service.credit(self.owner, self.barrel, self.stream, msgspec.json.encode(word))

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for array in self.arrays for row in array["rows"]]

    @property
    def ids(self) -> list[str]:
        return [row["id"] for row in self.rows]

    async def until(self, state: Callable[[], object], seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not state():
                self.came.clear()
                await self.came.wait()

    async def caught_up(self, seq: int) -> None:
        await self.until(lambda: any(a.get("caught_up") and int(a["seq"].split("-")[0]) >= seq for a in self.arrays))

    async def ended(self) -> dict[str, Any]:
        await self.until(lambda: self.arrays and "end" in self.arrays[-1])
        end: dict[str, Any] = self.arrays[-1]["end"]
        return end


def fill(barrel: Barrel, count: int, **more: Any) -> None:
    barrel.bulk([{"_id": f"d{number:05}", "n": number, **more} for number in range(count)])


async def test_the_first_array_is_empty_and_fixes_the_position(barrel: Barrel, service: StreamService) -> None:
    fill(barrel, 3)
    client = await Client(service).open(since="now")
    await client.caught_up(3)
    start = client.arrays[0]
    assert start == {
        "run": client.run,
        "start": True,
        "prev": barrel.position(3),
        "seq": barrel.position(3),
        "rows": [],
    }


async def test_each_array_begins_where_the_one_before_ended(barrel: Barrel, service: StreamService) -> None:
    fill(barrel, 2_000, text="x" * 200)
    client = await Client(service).open(since="first", docs=True, window=5_000, bytes=4 << 20)
    await client.caught_up(2_000)
    assert [row["seq"] for row in client.rows] == list(range(1, 2_001))
    assert all(after["prev"] == before["seq"] for before, after in itertools.pairwise(client.arrays))
    assert max(map(len, client.raw)) <= 64 << 10
    assert client.rows[7]["doc"] == {"_id": "d00007", "_rev": client.rows[7]["rev"], "n": 7, "text": "x" * 200}


async def test_no_more_is_sent_than_there_is_credit_for(barrel: Barrel, service: StreamService) -> None:
    fill(barrel, 100)
    client = await Client(service).open(since="first", window=10)
    await client.until(lambda: len(client.rows) == 10)
    fill(barrel, 1)
    client.credit(client.arrays[-1]["seq"])
    await client.until(lambda: len(client.rows) == 20)
    client.credit(f"{client.rows[14]['seq']}-{barrel.epoch}")
    await client.until(lambda: len(client.rows) == 25)
    assert service.stats()["streams"][0]["unacknowledged_rows"] == 10  # type: ignore[index]


async def test_with_nothing_unacknowledged_one_row_is_sent_however_large(
    barrel: Barrel, service: StreamService
) -> None:
    barrel.put({"text": "x" * 300_000}, id="large")
    barrel.put({"text": "y" * 300_000}, id="larger")
    client = await Client(service).open(since="first", docs=True, bytes=1_000)
    await client.until(lambda: len(client.rows) == 1)
    client.credit(client.arrays[-1]["seq"])
    await client.until(lambda: len(client.rows) == 2)
    assert client.ids == ["large", "larger"]


@pytest.mark.parametrize("live", [True, False])
async def test_a_row_with_more_paths_than_a_message_holds_tells_the_first(
    barrel: Barrel, service: StreamService, live: bool
) -> None:
    client = Client(service)
    asked = {"run": "r", "since": "first", "patterns": ["n/#"], "window": 1000, "bytes": 1 << 20}

    async def begin() -> None:
        await service.open("me", "geo", "s", msgspec.json.encode(asked), client.receive, doc_bytes_max=1_000)

    if live:
        await begin()
        await client.caught_up(0)
    barrel.put({"_id": "big", "n": [f"größe {number}" for number in range(500)]})
    if not live:
        await begin()
    await client.until(lambda: client.rows)
    (row,) = client.rows
    assert 10 < len(row["paths"]) < 100
    assert max(map(len, client.raw)) < 2_000


async def test_without_follow_it_ends_with_done_and_still_takes_the_acknowledgement(
    barrel: Barrel, service: StreamService
) -> None:
    fill(barrel, 3)
    client = await Client(service).open(since="first", follow=False, name="once")
    assert await client.ended() == {"code": "done"}
    assert len(client.rows) == 3
    assert client.credit(client.arrays[-1]["seq"]) is None
    again = await Client(service, stream="t").open(since="first", follow=False, name="once")
    await again.ended()
    assert again.rows == []


async def test_a_change_is_told_once_however_many_patterns_match(barrel: Barrel, service: StreamService) -> None:
    client = await Client(service).open(since="now", patterns=["region/#", "region/Europe", "name/+"])
    await client.caught_up(0)
    barrel.put({"region": "Europe", "name": "France"}, id="fr")
    await client.until(lambda: client.rows)
    row = client.rows[0]
    assert sorted(row["paths"]) == ["name/France", "region/Europe"]
    assert row["entered"] is True
    assert "removed" not in row


@pytest.mark.parametrize("live", [True, False])
async def test_coming_staying_and_leaving_are_told_apart(barrel: Barrel, service: StreamService, live: bool) -> None:
    barrel.put({"region": "Asia"}, id="other")
    client = Client(service)
    before = barrel.head()
    if live:
        await client.open(since="now", patterns=["region/Europe"])
        await client.caught_up(before)
    told = []
    for doc in ({"region": "Europe"}, {"region": "Europe", "n": 2}, {"region": "Asia"}, {"region": "Asia", "n": 3}):
        barrel.put(doc, id="moving", update=True)
        if not live:
            client = await Client(service).open(since=barrel.position(before), patterns=["region/Europe"])
            await client.caught_up(barrel.head())
            told.append([{k: row.get(k) for k in ("paths", "entered", "removed")} for row in client.rows])
            before = barrel.head()
    if live:
        await client.until(lambda: len(client.rows) == 3)
        told = [[{k: row.get(k) for k in ("paths", "entered", "removed")}] for row in client.rows] + [[]]
    assert [[(row["entered"], row["removed"]) for row in rows] for rows in told] == [
        [(True, None)],
        [(None, None)],
        [(None, True)],
        [],
    ]


async def test_a_deletion_leaves_every_pattern_but_its_own_id(barrel: Barrel, service: StreamService) -> None:
    written = barrel.put({"region": "Europe"}, id="fr")
    by_path = await Client(service, stream="p").open(since="now", patterns=["region/#"])
    by_id = await Client(service, stream="i").open(since="now", patterns=["_id/fr"])
    await by_path.caught_up(1)
    await by_id.caught_up(1)
    barrel.delete("fr", rev=written.rev)
    await by_path.until(lambda: by_path.rows)
    await by_id.until(lambda: by_id.rows)
    assert (by_path.rows[0]["deleted"], by_path.rows[0]["removed"]) == (True, True)
    assert by_id.rows[0]["deleted"] is True
    assert "removed" not in by_id.rows[0]


async def test_without_changes_a_heartbeat_comes_and_without_a_word_the_stream_ends(
    barrel: Barrel, quick: StreamService
) -> None:
    client = await Client(quick).open(since="now")
    await client.until(lambda: sum(not array["rows"] for array in client.arrays) >= 4)
    assert (await client.ended())["code"] == "timeout"
    assert quick.stats()["streams"] == []


async def test_changes_that_do_not_concern_a_stream_still_move_its_position(
    store: Store, barrel: Barrel, pool: ThreadPoolExecutor
) -> None:
    service = StreamService(store, pool, limits=PATIENT)
    client = await Client(service).open(since="now", patterns=["region/#"], eager=True)
    await client.caught_up(0)
    fill(barrel, 50)
    await client.caught_up(50)
    assert client.rows == []
    await service.stop()


async def test_what_cannot_be_opened_is_answered_with_an_end(barrel: Barrel, service: StreamService) -> None:
    async def code(client: Client, **asked: Any) -> str:
        await client.open(**asked)
        end = await client.ended()
        assert end["reason"]
        assert end["hint"]
        return str(end["code"])

    assert await code(Client(service, barrel="none")) == "not_found"
    assert await code(Client(service), patterns=["a/#/b"]) == "bad_request"
    assert await code(Client(service), since="yesterday") == "bad_request"
    assert await code(Client(service), window="many") == "bad_request"
    assert service.stats()["streams"] == []


async def test_an_owner_has_a_limit_of_streams(store: Store, barrel: Barrel, pool: ThreadPoolExecutor) -> None:
    service = StreamService(store, pool, limits=ServiceLimits(streams_per_owner=2))
    for stream in ("a", "b"):
        await (await Client(service, stream=stream).open()).caught_up(0)
    third = await Client(service, stream="c").open()
    assert (await third.ended())["code"] == "overloaded"
    await (await Client(service, owner="you").open()).caught_up(0)
    await (await Client(service, stream="b").open()).caught_up(0)
    service.gone("me")
    await (await Client(service, stream="c").open()).caught_up(0)
    await service.stop()


async def test_a_new_open_takes_the_place_of_the_old_one_and_a_doubled_one_changes_nothing(
    barrel: Barrel, service: StreamService
) -> None:
    client = await Client(service).open(since="now")
    await client.caught_up(0)
    first = client.run
    await client.open(since="now")
    await client.until(lambda: client.arrays[-1]["run"] == client.run and client.arrays[-1].get("caught_up"))
    again = msgspec.json.encode({"run": client.run, **client.asked})
    await service.open("me", "geo", "s", again, client.receive)
    barrel.put({}, id="a")
    await client.until(lambda: client.rows)
    assert [array["run"] for array in client.arrays if array.get("start")] == [first, client.run]
    assert len(client.rows) == 1


async def test_credit_for_a_run_that_is_not_here_is_answered_so_that_it_opens_again(
    barrel: Barrel, service: StreamService
) -> None:
    client = Client(service)
    client.run, client.asked = "old", {"window": 1, "bytes": 1}
    answer = client.credit("1-abc")
    assert answer is not None
    assert msgspec.json.decode(answer)["end"]["code"] == "closed"


async def test_acknowledging_what_was_not_sent_ends_the_stream(barrel: Barrel, service: StreamService) -> None:
    fill(barrel, 2)
    client = await Client(service).open(since="first")
    await client.caught_up(2)
    client.credit(barrel.position(3))
    assert (await client.ended())["code"] == "bad_request"


async def test_the_stored_cursor_beats_since_and_outlives_the_service(
    store: Store, barrel: Barrel, pool: ThreadPoolExecutor
) -> None:
    fill(barrel, 10)
    first = StreamService(store, pool)
    client = await Client(first).open(since="first", name="mine", window=4)
    await client.until(lambda: len(client.rows) == 4)
    client.credit(barrel.position(3))
    await first.stop()
    assert (await client.ended())["code"] == "unavailable"
    assert str(barrel.store.cursors.get("geo", "mine")) == barrel.position(3)
    second = StreamService(store, pool)
    again = await Client(second).open(since="first", name="mine")
    await again.caught_up(10)
    assert again.rows[0]["seq"] == 4
    await second.stop()


async def test_a_name_has_one_stream_the_one_that_came_last(barrel: Barrel, service: StreamService) -> None:
    fill(barrel, 3)
    first = await Client(service, owner="a").open(since="first", name="mine")
    await first.caught_up(3)
    second = await Client(service, owner="b").open(since="first", name="mine")
    assert (await first.ended())["code"] == "replaced"
    await second.caught_up(3)
    first.credit(barrel.position(3))
    third = await Client(service, owner="c").open(since="first", name="mine")
    await third.caught_up(3)
    assert len(third.rows) == 3


async def test_a_dropped_barrel_ends_its_streams_and_a_new_one_begins_with_a_snapshot(
    store: Store, barrel: Barrel, service: StreamService
) -> None:
    fill(barrel, 3)
    client = await Client(service).open(since="first", name="mine")
    await client.caught_up(3)
    client.credit(barrel.position(3))
    old = barrel.position(3)
    store.drop("geo")
    assert (await client.ended())["code"] == "not_found"
    new = store.create("geo")
    new.put({"n": 1}, id="only")
    client = await Client(service).open(since=old, name="mine")
    await client.caught_up(1)
    assert client.arrays[0]["snapshot"] == "start"
    assert client.arrays[0]["seq"] == new.position(0)
    assert [array["seq"] for array in client.arrays if array.get("snapshot") == "end"] == [new.position(1)]
    assert client.ids == ["only"]


async def test_who_was_away_while_its_barrel_was_made_anew_begins_with_a_snapshot(
    store: Store, barrel: Barrel, service: StreamService
) -> None:
    fill(barrel, 3)
    client = await Client(service).open(since="first", name="mine")
    await client.caught_up(3)
    client.credit(barrel.position(3))
    store.drop("geo")
    assert (await client.ended())["code"] == "not_found"
    while store.maintain()["dropped"]:  # the old barrel is cleared away as well
        pass
    new = store.create("geo")
    new.put({"n": 1}, id="only")
    client = await Client(service).open(since="first", name="mine")
    await client.caught_up(1)
    assert client.arrays[0]["snapshot"] == "start"
    assert client.ids == ["only"]
    client.credit(new.position(1))
    again = await Client(service).open(since="first", name="mine")
    await again.caught_up(1)
    assert "snapshot" not in again.arrays[0]
    assert again.rows == []


async def test_a_cursor_that_was_deleted_is_forgotten_by_the_running_service_too(
    store: Store, barrel: Barrel, service: StreamService
) -> None:
    fill(barrel, 3)
    client = await Client(service).open(since="first", name="mine")
    await client.caught_up(3)
    client.credit(barrel.position(3))
    assert await service.forget_cursor("geo", "mine")
    assert not await service.forget_cursor("geo", "mine")
    again = await Client(service).open(since="first", name="mine")
    await again.caught_up(3)
    assert len(again.rows) == 3


async def test_during_a_snapshot_the_stored_cursor_stays(
    store: Store, barrel: Barrel, service: StreamService
) -> None:
    fill(barrel, 10)
    client = await Client(service).open(since="3-strange", name="mine", window=4)
    await client.until(lambda: len(client.rows) == 4)
    client.credit(barrel.position(4))
    await client.until(lambda: len(client.rows) == 8)
    again = await Client(service).open(since="3-strange", name="mine", window=100)
    await again.caught_up(10)
    assert again.arrays[0]["snapshot"] == "start"
    again.credit(barrel.position(10))
    last = await Client(service).open(since="3-strange", name="mine")
    await last.caught_up(10)
    assert "snapshot" not in last.arrays[0]
    assert last.rows == []


async def test_a_slow_stream_slows_only_itself_and_is_told_newest_states_later(
    barrel: Barrel, service: StreamService
) -> None:
    fill(barrel, 20)
    slow = await Client(service, stream="slow").open(since="now", window=5)
    fast = await Client(service, stream="fast").open(since="now", eager=True)
    await slow.caught_up(20)
    await fast.caught_up(20)
    slow.open_gate.clear()
    for step in range(50):
        barrel.bulk([{"_id": f"d{number:05}", "step": step} for number in range(20)], update=True)
    await fast.until(lambda: fast.rows and fast.rows[-1]["seq"] == 1_020)
    held = next(each for each in service.stats()["streams"] if each["stream"] == "slow")  # type: ignore[attr-defined]
    assert held["buffered"] <= 5
    slow.eager = True
    slow.open_gate.set()
    for array in slow.arrays[1:]:
        slow.credit(array["seq"])
    await slow.until(lambda: slow.rows and slow.rows[-1]["seq"] == 1_020)
    assert len(slow.rows) < 100
    assert [row["seq"] for row in slow.rows] == sorted({row["seq"] for row in slow.rows})


@pytest.mark.parametrize("left", [True, False])
async def test_a_leave_is_told_though_the_document_changes_again_while_the_past_is_read(
    barrel: Barrel, service: StreamService, left: bool
) -> None:
    count = 1_500
    barrel.bulk([{"_id": f"d{number}", "region": "Europe"} for number in range(count)])
    at = barrel.position(barrel.head())
    barrel.bulk(
        [{"_id": f"d{number}", "region": "Asia" if left else "Europe"} for number in range(count)], update=True
    )
    client = await Client(service).open(since=at, patterns=["region/Europe"], window=2)
    await client.until(lambda: len(client.rows) == 2)
    barrel.bulk([{"_id": f"d{number}", "region": "Asia", "again": 1} for number in range(count)], update=True)
    client.eager = True
    client.credit(client.arrays[-1]["seq"], window=1_000)
    client.asked["window"] = 1_000
    await client.caught_up(2 * count)
    barrel.put({"region": "Europe"}, id="last")
    await client.until(lambda: "last" in client.ids)
    assert len({row["id"] for row in client.rows if row.get("removed")}) == count


async def test_heartbeats_come_while_reading_takes_long(store: Store, barrel: Barrel) -> None:
    fill(barrel, 20)
    with ThreadPoolExecutor(1) as busy:
        service = StreamService(store, busy, limits=PATIENT)
        client = await Client(service).open(since="first", window=5)
        await client.until(lambda: len(client.rows) == 5)
        released = threading.Event()
        blocked = busy.submit(released.wait, 30)
        client.credit(client.arrays[-1]["seq"])
        before = len(client.arrays)
        await client.until(lambda: len(client.arrays) >= before + 2)
        assert len(client.rows) == 5
        released.set()
        assert await asyncio.wrap_future(blocked)
        await client.until(lambda: len(client.rows) == 10)
        await service.stop()


async def test_a_transport_that_takes_nothing_for_long_loses_its_stream(barrel: Barrel, quick: StreamService) -> None:
    client = Client(quick)
    client.open_gate.clear()
    await client.open(since="first")
    async with asyncio.timeout(30):
        while quick.stats()["streams"]:
            await asyncio.sleep(0.02)
    assert client.arrays == []


async def test_a_transport_that_fails_ends_its_stream_alone(barrel: Barrel, service: StreamService) -> None:
    async def broken(_: bytes) -> None:
        raise ConnectionError("gone")

    other = await Client(service, stream="other").open(since="now")
    await service.open("me", "geo", "s", b'{"run":"r","since":"now"}', broken)
    await other.caught_up(0)
    fill(barrel, 1)
    await other.until(lambda: other.rows)
    async with asyncio.timeout(30):
        while len(service.stats()["streams"]) > 1:  # type: ignore[arg-type]
            await asyncio.sleep(0.01)
    assert [each["stream"] for each in service.stats()["streams"]] == ["other"]  # type: ignore[attr-defined]
