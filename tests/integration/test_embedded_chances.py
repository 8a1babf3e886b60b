"""A persistent client that comes and goes by chance, on a broker that is restarted by chance, misses nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from broker.mqtt.contract import Message
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.gate import OpenGate
from broker.mqtt.limits import BrokerLimits

from .mqtt_tools import (
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    RawClient,
    ack_packet,
    leave_no_client,
    packet,
    read_heard,
    until,
)


class Follower:
    """The client's side of QoS 1 and 2, written down as the standard has it, with a memory that survives."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.once: list[int] = []  # first arrivals at QoS 1, in order
        self.exactly: list[int] = []
        self.unreleased: set[int] = set()
        self.client: RawClient | None = None

    async def connect(self, port: int) -> None:
        self.client = await RawClient.connect(port, "follower", clean=False, acking=False)

    async def vanish(self) -> None:
        if self.client is not None:
            await self.client.vanish()
            self.client = None

    async def take(self, eager: bool) -> int:
        """Take what is there, and acknowledge it, or only some of it; returns how many packets came."""
        assert self.client is not None
        await self.client.send(packet(0xC0, b""))
        count = 0
        while (came := await self.client.receive()).kind != PINGRESP:
            count += 1
            answers = eager or self.chance.random() < 0.7
            if came.kind == PUBREL:
                packet_id = int.from_bytes(came.body, "big")
                self.unreleased.discard(packet_id)
                await self.client.send(ack_packet(PUBCOMP, packet_id))
                continue
            assert came.kind == PUBLISH
            heard = read_heard(came)
            number = int(heard.payload)
            if heard.qos == 1:
                if number not in self.once:
                    self.once.append(number)
                if answers:
                    await self.client.send(ack_packet(PUBACK, heard.packet_id))
            else:
                if heard.packet_id not in self.unreleased:
                    self.unreleased.add(heard.packet_id)
                    self.exactly.append(number)
                if answers:
                    await self.client.send(ack_packet(PUBREC, heard.packet_id))
        return count


async def started(state: Path) -> EmbeddedBroker:
    limits = BrokerLimits(window=5)
    broker = EmbeddedBroker(host="127.0.0.1", port=0, gate=OpenGate(), requests=None, state=state, limits=limits)
    await broker.start()
    return broker


@pytest.mark.parametrize("seed", range(8))
async def test_nothing_is_missed_and_qos_2_comes_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    broker = await started(tmp_path)
    follower = Follower(chance)
    await follower.connect(broker.port)
    assert follower.client is not None
    await follower.client.subscribe(("one/#", 1), ("two/#", 2))
    sent: dict[int, list[int]] = {1: [], 2: []}
    number = 0
    for _ in range(60):
        action = chance.random()
        if action < 0.5:
            batch = []
            for _ in range(chance.randrange(1, 8)):
                qos = chance.choice((1, 2))
                batch.append(Message("one/x" if qos == 1 else "two/x", str(number).encode(), qos))
                sent[qos].append(number)
                number += 1
            await broker.publish(batch)
        elif action < 0.75 and follower.client is not None:
            await follower.take(eager=False)
        elif action < 0.85:
            await follower.vanish()
        elif action < 0.97 and follower.client is None:
            await follower.connect(broker.port)
        elif action >= 0.97:
            await follower.vanish()
            await broker.stop()
            broker = await started(tmp_path)
    await follower.vanish()
    await follower.connect(broker.port)

    async def all_taken() -> bool:
        return await follower.take(eager=True) == 0 and broker.stats().queues["mqtt_kept"] == 0

    await until(all_taken)
    assert follower.once == sent[1]
    assert follower.exactly == sent[2]
    await broker.stop()
    await leave_no_client()
