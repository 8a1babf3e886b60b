"""What brokers have and lack, tried one by one: the table in the docs says the same."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from brokers import BrokerProcess
from external_tools import KINDS
from mqtt_tools import CONNACK, PATIENCE_S, PUBACK, Closed, RawClient, leave_no_client, packet, publish_packet, text
from running import ROOT

PAGE = ROOT / "docs" / "how-to" / "external-brokers.md"
QUIET_S = 1.0  # nothing comes by then where the table says that nothing comes; what it says to come is waited for

Trial = Callable[[int, float], Awaitable[bool]]


async def _hears_retained(port: int, patience_s: float, topic_filter: str) -> bool:
    one = await RawClient.connect(port, "one")
    await one.publish("a/b/c", b"kept", 1, retain=True)
    two = await RawClient.connect(port, "two")
    await two.subscribe((topic_filter, 1))
    try:
        return (await two.heard(patience_s)).retain
    except TimeoutError:
        return False


async def retained(port: int, patience_s: float) -> bool:
    """Retained messages, for who subscribes to the very topic"""
    return await _hears_retained(port, patience_s, "a/b/c")


async def retained_wildcards(port: int, patience_s: float) -> bool:
    """Retained messages, for who subscribes with `+` or `#`"""
    return await _hears_retained(port, patience_s, "a/#") and await _hears_retained(port, patience_s, "a/+/c")


async def dots(port: int, _patience_s: float) -> bool:
    """`.` and space in topics (else encoded as `%2E` and `%20`)"""
    client = await RawClient.connect(port, "one")
    try:
        await client.publish("a/1.5/b c", b"x", 1)
    except Closed:
        return False
    return True


async def qos_2(port: int, _patience_s: float) -> bool:
    """QoS 2"""
    client = await RawClient.connect(port, "one")
    try:
        await client.publish("a/b", b"x", 2)
    except Closed:
        return False
    return True


async def mqtt_5(port: int, _patience_s: float) -> bool:
    """MQTT 5"""
    client = await RawClient.open(port)
    await client.send(packet(0x10, text("MQTT") + bytes([5, 2, 0, 0, 0]) + text("one")))
    try:
        answer = await client.expect(CONNACK)
    except Closed:
        return False
    return answer.body[1] == 0


async def shared_subscriptions(port: int, patience_s: float) -> bool:
    """Shared subscriptions (`$share/…`)"""
    client = await RawClient.connect(port, "one")
    try:
        codes = await client.subscribe(("$share/group/a/#", 1))
        if codes == [0x80]:
            return False
        await client.send(publish_packet("a/b", b"x"))
        await client.heard(patience_s)
    except (Closed, TimeoutError):
        return False
    return True


async def kept_messages(port: int, patience_s: float) -> bool:
    """Messages kept for a session that is away"""
    away = await RawClient.connect(port, "away", clean=False)
    await away.subscribe(("a/#", 1))
    await away.disconnect()
    other = await RawClient.connect(port, "other")
    await other.publish("a/b", b"x", 1)
    again = await RawClient.connect(port, "away", clean=False)
    try:
        return (await again.heard(patience_s)).payload == b"x"
    except TimeoutError:
        return False


async def redelivery_at_once(port: int, patience_s: float) -> bool:
    """What was not acknowledged comes again as soon as its session is back"""
    first = await RawClient.connect(port, "slow", clean=False, acking=False)
    await first.subscribe(("a/#", 1))
    other = await RawClient.connect(port, "other")
    await other.publish("a/b", b"x", 1)
    await first.heard()
    await first.vanish()
    again = await RawClient.connect(port, "slow", clean=False)
    try:
        return (await again.heard(patience_s)).again
    except TimeoutError:
        return False


async def empty_levels(port: int, _patience_s: float) -> bool:
    """Empty levels in topics"""
    client = await RawClient.connect(port, "one")
    await client.subscribe(("a/#", 1))
    await client.send(publish_packet("a//b/", b"x", 1, 7))
    came = await client.receive()
    if came.kind == PUBACK:
        came = await client.receive()
    return b"a//b/" in came.body


TRIALS: list[Trial] = [
    retained,
    retained_wildcards,
    dots,
    empty_levels,
    kept_messages,
    redelivery_at_once,
    qos_2,
    mqtt_5,
    shared_subscriptions,
]


def table() -> dict[str, list[str]]:
    """The rows of the table in the docs: the feature, and a word for each broker."""
    rows: dict[str, list[str]] = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3:
            rows[cells[0]] = cells[1:]
    return rows


def version(kind: str) -> str:
    program = KINDS[kind].program()
    said = subprocess.run([str(program), "-v" if kind == "nats" else "-h"], capture_output=True, text=True).stdout
    found = re.search(r"(\d+\.\d+)\.\d+", said)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.__name__)
@pytest.mark.parametrize("kind", list(KINDS))
async def test_the_table_tells_what_a_broker_has(kind: str, trial: Trial, tmp_path: Path) -> None:
    brokers = next(cells for name, cells in table().items() if "feature" in name)
    column = next(at for at, name in enumerate(brokers) if name.lower().startswith(kind))
    if version(kind) not in brokers[column]:
        pytest.skip(f"the table is about {brokers[column]}")
    assert trial.__doc__ in table(), "the table has no such row"
    told = table()[trial.__doc__][column]
    process: BrokerProcess
    with KINDS[kind](tmp_path) as process:
        try:
            found = await trial(process.port, PATIENCE_S if told == "yes" else QUIET_S)
        finally:
            await leave_no_client()
    assert told == ("yes" if found else "no")


def test_every_row_of_the_table_is_tried() -> None:
    tried = {trial.__doc__ for trial in TRIALS}
    assert {name for name, cells in table().items() if set(cells) <= {"yes", "no"}} == tried
