"""What a broker is like, found by trying: whether it takes dots in topics, and whether it keeps clients apart.

Each trial is on short connections of its own, so that a broker that closes one closes nothing that matters.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from broker.external.access import BrokerAccess
from broker.external.connection import Arrived, Connection
from broker.external.limits import ExternalLimits
from broker.external.reasons import Refuses
from broker.external.window import Window
from broker.mqtt.contract import Message
from broker.mqtt.topicnames import ANONYMOUS
from feeds.errors import Unavailable

log = logging.getLogger("spile.mqtt")


async def closes_on_dots(access: BrokerAccess, limits: ExternalLimits, prefix: str) -> bool:
    """Whether the broker closes the connection on `.` and space in a topic, as NATS before 2.10 does.

    Asked twice, since a broker that ends in the middle closes it too. Raises Unavailable where nothing can be told:
    it does not answer, is lost meanwhile, or closes the connection on any topic.
    """
    for _ in range(2):
        if await _takes(access, limits, f"{prefix}to/spile/probe/a.b c"):
            return False
        if not await _takes(access, limits, f"{prefix}to/spile/probe/ab_c"):
            raise Unavailable(f"{access.address} takes no messages of this user.")
    return True


async def _takes(access: BrokerAccess, limits: ExternalLimits, topic: str) -> bool:
    connection = await Connection.open(access.beside(_name()), limits)
    try:
        async with asyncio.timeout(limits.ack_s):
            await connection.publish([Message(topic, b"{}", 1)], _window(), _as_it_is)
    except TimeoutError:
        raise Unavailable(f"{access.address} does not acknowledge a message in time.") from None
    except Unavailable:
        if connection.ended.result().by_broker:
            return False
        raise
    finally:
        await connection.close()
    return True


async def unprotected(
    service: BrokerAccess, device: BrokerAccess, limits: ExternalLimits, prefix: str
) -> tuple[str, ...]:
    """The topics that a device's account can publish to and should not: of `barrels/`, `to/`, and another's `from/`.

    What arrives is watched, since MQTT 3.1.1 acknowledges a denied publication like any other. Raises Unavailable
    where nothing can be told: the device is not let in, or its own topics do not arrive either.
    """
    nonce = secrets.token_hex(8)
    heard: set[str] = set()
    arrived = asyncio.Event()
    name = _name()
    own = f"{prefix}from/{device.user or ANONYMOUS}/{name}/probe/{nonce}"
    others = {
        f"{prefix}barrels/_probe/{nonce}": "barrels/",
        f"{prefix}to/spile/probe/{nonce}": "to/",
        f"{prefix}from/spile-nobody/{name}/probe/{nonce}": "from/ of other users",
    }

    def hear(message: Arrived) -> None:
        heard.add(message.topic)
        if message.topic == own:
            arrived.set()
        if message.mid:
            watching.acknowledge(message.mid)

    watching = await Connection.open(service.beside(_name()), limits, hear)
    try:
        for topic in (own, *others):
            await watching.subscribe(topic)
        await _publish_as(device.beside(name), limits, (*others, own))
        try:
            async with asyncio.timeout(limits.ack_s):
                await arrived.wait()
        except TimeoutError:
            raise Unavailable(f"What {device.user} publishes to its own topics does not arrive.") from None
    finally:
        await watching.close()
    return tuple(told for topic, told in others.items() if topic in heard)


async def _publish_as(device: BrokerAccess, limits: ExternalLimits, topics: tuple[str, ...]) -> None:
    """Publish to each topic, on a new connection where the broker closes one instead of denying."""
    for topic in topics:
        try:
            connection = await Connection.open(device, limits)
        except Refuses as refused:
            raise Unavailable(f"As {device.user or ANONYMOUS}: {refused.reason}", hint=refused.hint) from None
        try:
            async with asyncio.timeout(limits.ack_s):
                await connection.publish([Message(topic, b"{}", 1)], _window(), _as_it_is)
        except (Unavailable, TimeoutError) as fault:
            log.debug("%s: %s", topic, fault)
        finally:
            await connection.close()


def _name() -> str:
    return f"spile-probe-{secrets.token_hex(6)}"


def _window() -> Window:
    return Window("mqtt_probe", 1, 1 << 16)


_as_it_is: Callable[[str], str] = str
