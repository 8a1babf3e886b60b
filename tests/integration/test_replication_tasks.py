"""Replications that a service keeps and runs, over HTTP: from being asked for to being forgotten."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_tools import eventually
from ports import free_port
from task_tools import SECONDS, Two, is_in, side, two_services

from broker.replication.ledger import Ledger
from broker.replication.runner import Opened
from broker.replication.task import Asked, Login, task_of
from broker.replication.tasks import Tasks
from feeds import Store
from feeds.errors import SpileError
from listeners.replication import LocalPeer, Peer


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    async with two_services(tmp_path) as both:
        yield both


# -- from asking to forgetting


async def test_a_continuous_task_brings_what_is_there_and_what_comes(two: Two) -> None:
    made = await two.one.begin("geo", two.other.place(), continuous=True)
    assert (made["source"], made["target"], made["created_by"]) == ("geo", two.other.place(), "anonymous")
    await two.arrived(100)
    two.one.barrel().put({"_id": "new"})
    await two.arrived(101)
    told = await two.one.until(made["id"], lambda told: told["state"] == "idle" and told["progress"]["behind"] == 0)
    assert (told["progress"]["written"], told["progress"]["refused"], told["error"]) == (101, 0, None)
    assert [each["target"] for each in told["directions"]] == [two.other.place()]


async def test_the_same_task_asked_for_twice_is_one(two: Two) -> None:
    made = await two.one.begin("geo", two.other.place(), continuous=True)
    again = await two.one.begin("geo", two.other.place(), 200, continuous=True)
    other = await two.one.begin("geo", two.other.place(), continuous=True, patterns=["n/1"])
    listed = await two.one.ask(200, "GET", "/replications")
    assert again["id"] == made["id"]
    assert [each["id"] for each in listed["replications"]] == [made["id"], other["id"]]


async def test_a_pull_and_both_directions_at_once(two: Two) -> None:
    two.other.barrel().put({"_id": "theirs"})
    pull = await two.one.begin(two.other.place(), "geo", ids=["theirs"])
    await two.one.until(pull["id"], is_in("done"))
    assert two.one.barrel().get("theirs").rev == two.other.barrel().get("theirs").rev
    both = await two.one.begin("geo", two.other.place(), both=True)
    told = await two.one.until(both["id"], is_in("done"))
    assert [each["state"] for each in told["directions"]] == ["done", "done"]
    assert two.other.barrel().info().doc_count == two.one.barrel().info().doc_count == 101


async def test_a_barrel_behind_a_broker_is_as_good_as_one_behind_http(two: Two) -> None:
    broker = f"mqtt://127.0.0.1:{two.other.service.mqtt.port}"  # type: ignore[union-attr]
    push = await two.one.begin("geo", f"{broker}/sea", continuous=True, create_target=True)
    await two.arrived(100, "sea")
    assert (await two.one.until(push["id"], is_in("idle")))["target"] == f"{broker}/sea"
    pull = await two.one.begin(f"{broker}/sea", "copy", create_target=True)
    assert (await two.one.until(pull["id"], is_in("done")))["progress"]["written"] == 100


async def test_a_paused_task_rests_until_it_is_resumed(two: Two) -> None:
    id = (await two.one.begin("geo", two.other.place(), continuous=True))["id"]
    await two.arrived(100)
    assert (await two.one.ask(200, "POST", f"/replications/{id}/pause"))["state"] == "paused"
    two.one.barrel().put({"_id": "new"})
    assert two.other.barrel().info().doc_count == 100
    assert (await two.one.begin("geo", two.other.place(), 200, continuous=True))["state"] == "paused"
    assert (await two.one.ask(200, "POST", f"/replications/{id}/resume"))["state"] == "starting"
    await two.arrived(101)


async def test_a_cancelled_task_is_forgotten_and_what_it_brought_stays(two: Two) -> None:
    id = (await two.one.begin("geo", two.other.place(), continuous=True))["id"]
    await two.arrived(100)
    assert (await two.one.ask(200, "DELETE", f"/replications/{id}"))["state"] == "cancelled"
    two.one.barrel().put({"_id": "new"})
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")):
        assert (await two.one.ask(404, method, f"/replications/{id}{path}"))["error"] == "not_found"
    assert (await two.one.ask(200, "GET", "/replications"))["replications"] == []
    assert two.other.barrel().info().doc_count == 100


async def test_what_is_done_is_done_until_it_is_asked_for_again(two: Two) -> None:
    id = (await two.one.begin("geo", two.other.place()))["id"]
    assert (await two.one.until(id, is_in("done")))["progress"]["written"] == 100
    assert (await two.one.ask(409, "POST", f"/replications/{id}/pause"))["error"] == "conflict"
    two.one.barrel().put({"_id": "new"})
    await two.one.begin("geo", two.other.place(), 200)
    await two.arrived(101)
    two.one.barrel().put({"_id": "newer"})
    await two.one.until(id, is_in("done"))
    await two.one.ask(200, "POST", f"/replications/{id}/resume")
    await two.arrived(102)
    assert (await two.one.until(id, is_in("done")))["progress"]["written"] == 102


async def test_a_task_goes_on_after_a_restart_and_so_do_its_counts(tmp_path: Path) -> None:
    async with side(tmp_path / "other") as other:
        other.store.create("geo")
        async with side(tmp_path / "one") as one:
            one.store.create("geo").bulk([{"_id": f"d{number}"} for number in range(50)])
            id = (await one.begin("geo", other.place(), continuous=True))["id"]
            paused = (await one.begin("geo", other.place("sea"), continuous=True))["id"]
            await one.ask(200, "POST", f"/replications/{paused}/pause")
            await eventually(lambda: other.barrel().info().doc_count == 50, SECONDS)
        with Store.open(tmp_path / "one") as store:
            assert Ledger(store).entry(id).report.state == "stopped"
            store.barrel("geo").put({"_id": "while it was away"})
        async with side(tmp_path / "one") as one:
            await eventually(lambda: other.barrel().info().doc_count == 51, SECONDS)
            told = await one.until(id, is_in("idle"))
            assert (told["progress"]["written"], told["progress"]["read"]) == (51, 51)
            assert (await one.stands(paused))["state"] == "paused"


# -- waiting for the end


async def test_a_client_may_wait_for_the_end_of_one_that_is_not_kept(two: Two) -> None:
    body = {"source": "geo", "target": two.other.place()}
    first, second = await asyncio.gather(
        *(two.one.ask(200, "POST", "/replications?wait=true", json=body) for _ in range(2))
    )
    assert (first["state"], second["state"]) == ("done", "done")
    assert two.other.barrel().info().doc_count == 100
    assert (await two.one.ask(200, "GET", "/replications"))["replications"] == []
    refused = await two.one.ask(400, "POST", "/replications?wait=true", json={**body, "continuous": True})
    assert refused["error"] == "bad_request"
    body["target"] = two.other.place("nowhere")
    assert (await two.one.ask(404, "POST", "/replications?wait=true", json=body))["error"] == "not_found"


async def test_one_that_nobody_waits_for_any_more_ends(two: Two) -> None:
    body = {"source": "geo", "target": f"http://127.0.0.1:{free_port()}/geo"}
    async with httpx.AsyncClient(base_url=two.one.url, timeout=60) as impatient:
        waiting = asyncio.create_task(impatient.post("/replications?wait=true", json=body))

        async def listed() -> list[Any]:
            found: list[Any] = (await two.one.ask(200, "GET", "/replications"))["replications"]
            return found

        async def runs() -> bool:
            return [each["target"] for each in await listed()] == [body["target"]]

        await eventually(runs, SECONDS)
        id = (await listed())[0]["id"]
        await two.one.until(id, is_in("waiting"))
        waiting.cancel()

    async def ended() -> bool:
        return not await listed()

    await eventually(ended, SECONDS)


async def test_who_asks_for_one_that_is_being_ended_does_not_get_what_is_left_of_it(tmp_path: Path) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()

    class Slow(LocalPeer):
        async def write(self, docs: Any, handles: Any) -> Any:
            begun.set()
            await goes_on.wait()
            return await super().write(docs, handles)

    @asynccontextmanager
    async def opened(place: str, login: Login | None) -> AsyncIterator[Peer]:
        peer = Slow(store, place)
        yield peer
        await peer.close()

    async with AsyncExitStack() as stack:
        store = stack.enter_context(Store.open(tmp_path))
        store.create("a").put({"_id": "d"})
        store.create("b")
        tasks = Tasks(store, None, open=opened)  # type: ignore[arg-type]
        stack.push_async_callback(tasks.stop)
        asked = task_of(Asked("a", "b"))
        first = asyncio.create_task(tasks.run(*asked))
        await begun.wait()
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(tasks.run(*asked))
        for _ in range(5):
            await asyncio.sleep(0)
        goes_on.set()
        assert (await second)["state"] == "done"


async def test_who_asks_when_a_task_has_just_ended_gets_what_is_new_since_then(tmp_path: Path) -> None:
    """The end of it is not stored yet, as the database takes its time."""
    goes_on, stored = asyncio.Event(), threading.Event()
    closed: list[str] = []

    @asynccontextmanager
    async def opened(place: str, login: Login | None) -> AsyncIterator[Peer]:
        peer = LocalPeer(store, place)
        yield peer
        await goes_on.wait()
        await peer.close()
        closed.append(place)

    async with AsyncExitStack() as stack:
        store = stack.enter_context(Store.open(tmp_path))
        store.create("a").put({"_id": "d"})
        store.create("b")
        executor = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(stored.set)
        tasks = Tasks(store, executor, open=opened)
        tasks.start()
        stack.push_async_callback(tasks.stop)
        stack.callback(stored.set)
        await tasks.create(*task_of(Asked("a", "b")), "me")
        await eventually(lambda: store.barrel("b").info().doc_count == 1)
        executor.submit(stored.wait)
        goes_on.set()
        await eventually(lambda: closed == ["b", "a"])
        await eventually(
            lambda: not any(each.get_name() == "spile-replication a -> b" for each in asyncio.all_tasks())
        )
        store.barrel("a").put({"_id": "e"})
        told = await tasks.run(*task_of(Asked("a", "b")))
        assert (told["state"], store.barrel("b").info().doc_count) == ("done", 2)


# -- what goes wrong


async def test_a_target_that_is_not_there_is_named_and_waited_for(two: Two) -> None:
    once = await two.one.begin("geo", two.other.place("sea"))
    told = await two.one.until(once["id"], is_in("failed"))
    assert (told["error"], "'sea'" in told["reason"]) == ("not_found", True)
    id = (await two.one.begin("geo", two.other.place("sea"), continuous=True))["id"]
    told = await two.one.until(id, is_in("waiting"))
    assert (told["error"], "'sea'" in told["reason"], bool(told["retry_at"])) == ("not_found", True, True)
    part = (await two.one.ask(200, "GET", "/health"))["parts"]["replications"]
    assert (part["ok"], part["state"], "'sea'" in part["failure"]) == (True, "waiting", True)
    two.other.store.create("sea")
    await two.arrived(100, "sea")
    assert (await two.one.until(id, is_in("idle")))["error"] is None


async def test_a_resumed_task_does_not_wait_for_its_time(two: Two) -> None:
    id = (await two.one.begin("geo", two.other.place("sea"), continuous=True))["id"]
    for _ in range(2):
        await two.one.until(id, is_in("waiting"))
        await two.one.ask(200, "POST", f"/replications/{id}/resume")
    two.other.store.create("sea")
    await two.one.ask(200, "POST", f"/replications/{id}/resume")
    await two.arrived(100, "sea")


async def test_a_barrel_is_made_here_and_there_where_that_is_asked_for(two: Two) -> None:
    there = await two.one.begin("geo", two.other.place("sea"), create_target=True)
    here = await two.one.begin("geo", "copy", create_target=True)
    for made in (there, here):
        await two.one.until(made["id"], is_in("done"))
    assert two.other.barrel("sea").info().doc_count == two.one.barrel("copy").info().doc_count == 100


async def test_refused_documents_are_named_and_kept_in_mind(tmp_path: Path) -> None:
    async with side(tmp_path / "one") as one, side(tmp_path / "other", document_bytes_max=1000) as other:
        other.store.create("geo")
        one.store.create("geo").bulk([{"_id": "small"}, {"_id": "large", "text": "x" * 2000}])
        made = await one.begin("geo", other.place())
        told = await one.until(made["id"], is_in("done"))
        assert (told["progress"]["written"], told["progress"]["refused"]) == (1, 1)
        (refusal,) = told["progress"]["refusals"]
        assert (refusal["id"], refusal["error"], refusal["target"]) == ("large", "too_large", other.place())


async def test_a_wrong_token_is_told_and_a_new_one_mends_it_and_neither_is_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "spile")
    async with side(tmp_path / "one") as one, side(tmp_path / "other", token="r1ght-token") as other:
        one.store.create("geo").put({"_id": "a"})
        other.store.create("geo")
        place = other.place(login="u5er:pa55word@")
        made = await one.begin("geo", place, continuous=True, target_token="wr0ng-token")
        told = await one.until(made["id"], is_in("waiting"))
        assert (told["error"], told["credentials"], told["target"]) == ("unauthorized", ["target"], other.place())
        again = await one.begin("geo", other.place(), 200, continuous=True, target_token="r1ght-token")
        assert again["id"] == made["id"]
        await eventually(lambda: other.barrel().info().doc_count == 1, SECONDS)
        await one.begin("geo", other.place(), 200, continuous=True)
        assert (await one.stands(made["id"]))["credentials"] == ["target"]
        shown = str(told) + str(again) + caplog.text
        for path in ("/replications", f"/replications/{made['id']}", "/health", "/metrics"):
            shown += (await one.http.get(path)).text
        assert not [secret for secret in ("u5er", "pa55word", "wr0ng-token", "r1ght-token") if secret in shown]


async def test_only_who_may_do_everything_is_answered(tmp_path: Path) -> None:
    async with side(tmp_path, token="secret") as one:
        async with httpx.AsyncClient(base_url=one.url, timeout=60) as stranger:
            body = {"source": "a", "target": "b"}
            assert (await stranger.post("/replications", json=body)).status_code == 401
            assert (await stranger.get("/replications")).status_code == 401
        assert (await one.begin("a", "b"))["created_by"] == "token"


async def test_there_are_only_so_many(tmp_path: Path) -> None:
    async with side(tmp_path, replications_max=2) as one:
        for name in "ab":
            await one.begin("geo", name, continuous=True)
        refused = await one.begin("geo", "c", 413, continuous=True)
        assert (refused["error"], "replications_max" in refused["hint"]) == ("too_large", True)
        await one.begin("geo", "a", 200, continuous=True)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b'{"source": "a"}',
        b'{"source": "a", "target": 1}',
        b'{"source": "a", "target": "b", "other": 1}',
        b'{"source": "a", "target": "b", "leaves": "tell"}',
        b'{"source": "a", "target": "a"}',
        b'{"source": "a", "target": "data#b"}',
    ],
)
async def test_what_is_no_replication_is_refused_and_not_kept(tmp_path: Path, body: bytes) -> None:
    async with side(tmp_path) as one:
        assert (await one.ask(400, "POST", "/replications", content=body))["error"] == "bad_request"
        assert (await one.ask(200, "GET", "/replications"))["replications"] == []


async def test_source_and_target_that_turn_out_to_be_the_same_end_for_good(two: Two) -> None:
    made = await two.one.begin("geo", two.one.place(), continuous=True)
    told = await two.one.until(made["id"], is_in("failed"))
    assert told["error"] == "bad_request"


async def test_a_fault_of_ours_ends_one_task_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(place: str, login: Login | None) -> Opened:
        raise ZeroDivisionError(place)

    async with AsyncExitStack() as stack:
        store = stack.enter_context(Store.open(tmp_path))
        tasks = Tasks(store, None, open=broken)  # type: ignore[arg-type]
        tasks.start()
        stack.push_async_callback(tasks.stop)
        id = (await tasks.create(*task_of(Asked("a", "b", continuous=True)), "me"))[0]["id"]

        async def failed() -> bool:
            return bool((await tasks.get(id))["state"] == "failed")

        await eventually(failed, SECONDS)
        assert (await tasks.get(id))["error"] == "internal"
        await eventually(lambda: tasks.health().state == "running", SECONDS)  # it is at work until that is stored
        with pytest.raises(SpileError) as refused:
            await tasks.run(*task_of(Asked("a", "b")))
        assert refused.value.code == "internal"
    assert "ZeroDivisionError" in caplog.text


def test_a_restored_store_writes_nowhere_before_somebody_says_so(tmp_path: Path) -> None:
    with Store.open(tmp_path / "one") as store:
        ledger = Ledger(store)
        runs, _ = ledger.create(*task_of(Asked("a", "b", continuous=True)), "me")
        paused, _ = ledger.create(*task_of(Asked("a", "c", continuous=True)), "me")
        ledger.pause(paused.id)
        store.backup(tmp_path / "backup")
    Store.restore(tmp_path / "backup", tmp_path / "two")
    with Store.open(tmp_path / "two") as store:
        found = {entry.id: entry for entry in Ledger(store).entries()}
        assert not any(entry.runs for entry in found.values())
        told = found[runs.id].shown()
        assert (told["state"], "restored" in told["reason"]) == ("paused", True)
        assert found[paused.id].shown()["reason"] is None
        assert Ledger(store).resume(runs.id).runs
    Store.begin_anew(tmp_path / "two")
    with Store.open(tmp_path / "two") as store:
        assert not Ledger(store).entry(runs.id).runs
