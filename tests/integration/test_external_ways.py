"""What is found out of an external broker is found out beside the work, and waited for only where it counts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from external_tools import QUICK, ScriptedBroker, access, connected, scripted
from mqtt_tools import until

from broker.external import ways
from broker.external.connection import Arrived
from broker.external.desk import Acknowledgements, Desk
from broker.mqtt.contract import Client, Message
from feeds.errors import Unavailable

SLOW = replace(QUICK, connect_s=120.0)  # for so long a trial waits for its answer
PROMPT_S = 30.0  # far less
DOTTED = "barrels/b/version/1.5"


def one(topic: str = "barrels/b/_id/a") -> Message:
    return Message(topic, b"x", 1)


def answers_no_trial(there: ScriptedBroker) -> None:
    """The service is answered at once, a trial never."""
    there.greeting_of = lambda client_id: None if client_id.startswith("spile-probe") else there.greeting


def trials(there: ScriptedBroker) -> int:
    """How many connections there were to try something."""
    return sum(each.startswith("spile-probe") for each in there.client_ids)


async def test_a_broker_that_answers_no_trial_is_connected_to_and_published_to_all_the_same() -> None:
    async with scripted() as there:
        answers_no_trial(there)
        async with (
            asyncio.timeout(PROMPT_S),
            connected(there, limits=SLOW, device=access(there, user="sensor")) as broker,
        ):
            await broker.publish([one()])
            assert await broker.publish_to("u/c", one("to/u/c/accepted/put/b/a"))
            assert broker.health().state == "running"
            there.cut()
            await until(lambda: broker.connects > 1)
            await broker.publish([one()])


@pytest.mark.parametrize("takes_dots", [True, False])
async def test_a_topic_that_may_be_written_two_ways_waits_until_it_is_known_which(takes_dots: bool) -> None:
    limits = replace(QUICK, retry_max_s=0.1)
    async with scripted() as there:
        there.greeting_of = lambda client_id: b"" if client_id.startswith("spile-probe") else there.greeting
        there.on_publish = lambda topic: "ack" if takes_dots or not set(". ") & set(topic) else "close"
        async with connected(there, limits=limits) as broker:
            await until(lambda: broker.health().state == "running")
            publishing = asyncio.create_task(broker.publish([one(DOTTED)]))
            answering = asyncio.create_task(broker.publish_to("u/c", one("to/u/c/document/b/1.5")))
            await until(lambda: "dots" in broker.health().figures.get("untried", {}))
            await broker.publish([one()])
            assert set(there.came) == {"barrels/b/_id/a"}
            there.greeting_of = lambda _client_id: there.greeting
            await publishing
            assert await answering
            assert broker.connects == 1
            assert "untried" not in broker.health().figures
        dot = "." if takes_dots else "%2E"
        wanted = {"barrels/b/_id/a", f"barrels/b/version/1{dot}5", f"to/u/c/document/b/1{dot}5"}
        assert {each for each in there.came if "probe" not in each} == wanted


async def test_whoever_waits_too_long_for_how_a_topic_is_written_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "SURE_S", 0.05)
    async with scripted() as there:
        answers_no_trial(there)
        async with connected(there) as broker:
            with pytest.raises(Unavailable, match="space in topics is not known yet") as raised:
                await broker.publish([one(DOTTED)])
            assert "broker_kind" in raised.value.hint
            assert not await broker.publish_to("u/c", one("to/u/c/document/b/1.5"))
            await broker.publish([one()])


async def test_stopping_does_not_wait_for_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "SURE_S", 120.0)
    async with scripted() as there:
        answers_no_trial(there)
        async with connected(there) as broker:
            publishing = asyncio.create_task(broker.publish([one(DOTTED)]))
            await asyncio.sleep(0)
            broker.hurry()
            with pytest.raises(Unavailable):
                await asyncio.wait_for(publishing, PROMPT_S)


async def test_a_broker_that_ends_while_it_is_tried_is_not_taken_for_one_that_closes_on_dots() -> None:
    async with scripted() as there:
        there.on_publish = lambda topic: "close" if there.came[topic] == 1 and "." in topic else "ack"
        async with connected(there) as broker:
            assert await broker.topic_there("a.b") == "a.b"


async def test_a_trial_that_fails_is_not_tried_again_with_each_new_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with scripted() as there:
        there.greeting_of = lambda client_id: bytes([0x20, 2, 0, 5 if client_id.startswith("spile-probe") else 0])
        async with connected(there, kind="plain", device=access(there, user="sensor")) as broker:
            await until(lambda: "is tried again" in caplog.text)
            assert "refuses the login" in broker.health().figures["untried"]["bounds"]
            for _ in range(2 * ways.BOUNDS_TRIES):
                connects = broker.connects
                there.cut()
                await until(lambda connects=connects: broker.connects > connects)  # type: ignore[misc]
                await broker.publish([one()])
            await until(lambda: "is tried no more" in caplog.text)
            connects = broker.connects
            there.cut()
            await until(lambda: broker.connects > connects)
            await broker.publish([one()])
            assert 0 < trials(there) <= ways.BOUNDS_TRIES  # a cut may come before a trial has said its name
            assert "bounds" in broker.health().figures["untried"]


async def test_a_trial_that_breaks_is_told_as_any_other_task_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Exception):
        pass

    async def broken(*_: Any) -> bool:
        raise Broken

    monkeypatch.setattr(ways, "closes_on_dots", broken)
    async with scripted() as there, connected(there) as broker:
        assert isinstance(await asyncio.wait_for(broker.failed(), PROMPT_S), Broken)


class Asked:
    """Requests as they came to be handled."""

    def __init__(self) -> None:
        self.topics: list[str] = []

    def accepts(self, topic: str) -> bool:
        return True

    async def handle(self, client: Client, topic: str, payload: bytes) -> None:
        self.topics.append(topic)

    async def refused(self, client: Client, topic: str, payload: bytes, reason: str) -> None:
        raise AssertionError(reason)

    def gone(self, client: Client) -> None:
        raise AssertionError(client)


@pytest.mark.parametrize("known_in_time", [True, False])
async def test_a_request_that_may_be_meant_two_ways_waits_until_it_is_known_which(
    known_in_time: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "SURE_S", 60.0 if known_in_time else 0.05)
    asked, acknowledged = Asked(), Acknowledged()
    desk, line = Desk(asked, QUICK), Acknowledgements(acknowledged, 10)
    async with scripted() as there:
        known = ways.Ways(access(there), QUICK, prefix="", kind="auto", device=None, connected=asyncio.Event().wait)
        desk.take(Arrived("from/u/c/set/b/1%2E5", b"{}", 1), known, line)
        desk.take(Arrived("from/u/c/set/b/2", b"{}", 2), known, line)
        await until(lambda: asked.topics == ["from/u/c/set/b/2"])
        if known_in_time:
            known.learn(dots_encoded=True)
        await until(lambda: not len(desk))
    if known_in_time:
        assert asked.topics == ["from/u/c/set/b/2", "from/u/c/set/b/1.5"]
        assert (acknowledged.mids, desk.dropped) == ([1, 2], 0)
    else:
        assert (acknowledged.mids, desk.dropped) == ([], 1)  # so that it comes again


class Acknowledged:
    """What was acknowledged."""

    def __init__(self) -> None:
        self.mids: list[int] = []

    def acknowledge(self, mid: int) -> None:
        self.mids.append(mid)
