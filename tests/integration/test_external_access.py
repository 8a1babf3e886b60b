"""The shipped access file keeps clients apart on Mosquitto, and a service finds out where none does."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from brokers import Mosquitto, Nats
from external_tools import access, connected
from mqtt_tools import RawClient, until
from running import ROOT

from broker.external import ExternalBroker
from broker.health import PartHealth
from broker.mqtt.contract import Message

SHIPPED = ROOT / "setup" / "mosquitto"
USERS = {"spile": "secret of the service", "sensor": "secret of sensors", "other": "secret of others"}


def shipped(place: Path, *lines: str) -> Mosquitto:
    """Mosquitto with the configuration that is shipped, on a free port and with its files in `place`."""
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(SHIPPED / "acl", place / "acl")
    for name, password in USERS.items():
        create = () if (place / "passwords").exists() else ("-c",)
        subprocess.run(["mosquitto_passwd", "-b", *create, str(place / "passwords"), name, password], check=True)

    class Shipped(Mosquitto):
        def lines(self) -> list[str]:
            text = (SHIPPED / "mosquitto.conf").read_text()
            text = text.replace("listener 1883", f"listener {self.port} 127.0.0.1\nuser root")
            return (
                text.replace("/mosquitto/config/", f"{place}/").replace("/mosquitto/data/", f"{place}/").splitlines()
            )

    return Shipped(place, *lines)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Mosquitto]:
    with shipped(tmp_path / "broker") as started:
        yield started


def login(name: str) -> dict[str, Any]:
    return {"user": name, "password": USERS[name]}


async def client(process: Mosquitto, user: str, name: str) -> RawClient:
    return await RawClient.connect(process.port, name, user=user, password=USERS[user].encode())


@asynccontextmanager
async def publishing(process: Mosquitto, **options: Any) -> AsyncIterator[ExternalBroker]:
    async with connected(process, login=login("spile"), **options) as broker:
        yield broker


async def bounds_tried(broker: ExternalBroker) -> PartHealth:
    """How the broker is once its access file was tried."""
    await until(lambda: "open_to_clients" in broker.health().figures, "what was found of the access file")
    return broker.health()


async def test_only_the_service_publishes_changes_and_answers(process: Mosquitto) -> None:
    async with publishing(process) as broker:
        intruder = await client(process, "sensor", "s1")
        hears = await client(process, "other", "o1")
        await hears.subscribe(("barrels/#", 1), ("to/other/o1/#", 1))
        for topic in ("barrels/geo/_id/a", "to/other/o1/accepted/put/geo/a"):
            await intruder.publish(topic, b"forged", 1)
        await broker.publish([Message("barrels/geo/_id/a", b"true", 1)])
        assert (await hears.heard()).payload == b"true"
        assert await broker.publish_to("other/o1", Message("to/other/o1/x", b"answer", 1))
        assert (await hears.heard()).payload == b"answer"


async def test_a_client_asks_under_its_own_name_only_and_hears_only_its_own_answers(process: Mosquitto) -> None:
    watching = await client(process, "spile", "watching")
    await watching.subscribe(("from/#", 1))
    async with publishing(process) as broker:
        device = await client(process, "sensor", "s1")
        await device.subscribe(("to/#", 1), ("to/other/o1/#", 1), ("to/sensor/s1/#", 1))
        for topic in ("from/other/o1/set/geo/a", "from/sensor/s2/set/geo/a", "from/sensor/s1/set/geo/a"):
            await device.publish(topic, b"{}", 1)
        assert (await watching.heard()).topic == "from/sensor/s1/set/geo/a"
        for name in ("other/o1", "sensor/s2", "sensor/s1"):
            await broker.publish_to(name, Message(f"to/{name}/x", name.encode(), 1))
        heard = [each.payload for each in await device.hear_until_quiet()]
        assert set(heard) == {b"sensor/s1"}


async def test_bounds_that_hold_are_found_to_hold(process: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    async with publishing(process, device=access(process, **login("sensor"))) as broker:
        health = await bounds_tried(broker)
    assert health.figures["open_to_clients"] == []
    assert health.hint is None
    assert "can publish" not in caplog.text


async def test_a_broker_without_an_access_file_is_found_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Mosquitto(tmp_path) as process:
        async with connected(process, device=access(process, **login("sensor"))) as broker:
            health = await bounds_tried(broker)
            assert health.state == "running"
            assert health.figures["open_to_clients"] == ["barrels/", "to/", "from/ of other users"]
            assert health.hint is not None and "external-brokers.md" in health.hint
    assert "clients of mqtt://127.0.0.1" in caplog.text


async def test_a_hole_in_the_access_file_is_named(tmp_path: Path) -> None:
    with shipped(tmp_path) as process:
        with (tmp_path / "acl").open("a") as acl:
            acl.write("\npattern write to/#\n")
        process.kill()
        process.start()
        async with publishing(process, device=access(process, **login("sensor"))) as broker:
            assert (await bounds_tried(broker)).figures["open_to_clients"] == ["to/"]


async def test_bounds_that_cannot_be_tried_are_told(process: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    wrong = access(process, user="sensor", password="wrong")
    async with publishing(process, device=wrong) as broker:
        await until(lambda: "is tried no more" in caplog.text, "the end of the trials")
        figures = broker.health().figures
        assert "open_to_clients" not in figures
        assert "As sensor: " in figures["untried"]["bounds"]
        await broker.publish([Message("barrels/geo/x", b"x", 1)])


async def test_bounds_are_tried_under_the_prefix(tmp_path: Path) -> None:
    with shipped(tmp_path) as process:
        acl = tmp_path / "acl"
        acl.write_text(
            acl.read_text()
            .replace(" from/", " site1/from/")
            .replace(" to/", " site1/to/")
            .replace(" barrels/", " site1/barrels/")
        )
        process.kill()
        process.start()
        async with publishing(process, prefix="site1/", device=access(process, **login("sensor"))) as broker:
            assert (await bounds_tried(broker)).figures["open_to_clients"] == []


NATS_USERS = """
authorization {
  users: [
    { user: spile, password: "%(spile)s", permissions: { publish: [">"], subscribe: [">"] } }
    { user: sensor, password: "%(sensor)s", permissions: {
        publish: ["from.sensor.>"],
        subscribe: ["barrels", "barrels.>", "to.sensor.>", "$MQTT.sub.>"] } }
  ]
}
"""


async def test_users_are_kept_apart_on_nats_as_the_docs_show(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "external-brokers.md").read_text()
    shown = NATS_USERS.replace('"%(spile)s"', "…").replace('"%(sensor)s"', "…").strip()
    assert shown in page
    with Nats(tmp_path, NATS_USERS % USERS) as process:
        async with publishing(process, device=access(process, **login("sensor"))) as broker:
            assert (await bounds_tried(broker)).figures["open_to_clients"] == []
            device = await client(process, "sensor", "s1")
            await device.subscribe(("barrels/#", 1), ("to/sensor/s1/#", 1))
            await broker.publish([Message("barrels/geo/x", b"x", 1)])
            assert (await device.heard()).topic == "barrels/geo/x"
            await broker.publish_to("sensor/s1", Message("to/sensor/s1/x", b"y", 1))
            assert (await device.heard()).topic == "to/sensor/s1/x"
            curious = await client(process, "sensor", "s2")
            await curious.subscribe(("$MQTT/sub/#", 1), ("$MQTT/#", 1))
            await broker.publish_to("sensor/s1", Message("to/sensor/s1/x", b"z", 1))
            assert (await device.heard()).payload == b"z"
            assert await curious.hear_until_quiet() == []
