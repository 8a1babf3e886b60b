"""What keeps a service from starting with an external broker: one clear line each, that says what to change."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import Mosquitto
from certificates import Certificates
from cli_tools import spile_process
from external_tools import QUICK, access, connected, scripted
from mqtt_tools import packet
from ports import free_port

from broker.external import BrokerAccess, BrokerAddress, ExternalBroker
from broker.external.access import read_password, tls_context
from broker.external.connection import Connection
from broker.mqtt.contract import Message
from feeds.errors import BadRequest, SpileError, Unauthorized, Unavailable


async def refusal(broker_access: BrokerAccess) -> SpileError:
    """What the start of a service with this broker ends with."""
    broker = ExternalBroker(broker_access, requests=None, limits=QUICK)
    try:
        with pytest.raises(SpileError) as caught:
            await broker.start()
    finally:
        await broker.stop()
    assert "\n" not in caught.value.reason + caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        (1, BadRequest, "3.1.1"),
        (2, BadRequest, "client id"),
        (4, Unauthorized, "bad user or password"),
        (5, Unauthorized, "not authorized"),
        (77, BadRequest, "code 77"),
    ],
)
async def test_a_broker_that_refuses_the_connection_says_why(code: int, kind: type[SpileError], told: str) -> None:
    async with scripted() as there:
        there.greeting = bytes([0x20, 2, 0, code])
        error = await refusal(access(there))
    assert isinstance(error, kind)
    assert told in error.reason


@pytest.mark.parametrize("host", ["broker..example", "x" * 64 + ".example"])
async def test_what_can_be_no_name_of_a_host_is_told(host: str) -> None:
    where = BrokerAccess(BrokerAddress.parse(f"mqtt://{host}"), "spile-test")
    with pytest.raises(Unavailable, match="no name of a host"):
        await Connection.open(where, QUICK)


async def test_a_broker_that_is_not_available_now_is_tried_again() -> None:
    async with scripted() as there:
        there.greeting = bytes([0x20, 2, 0, 3])
        async with connected(there) as broker:
            assert "not available" in (broker.failure or "")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", packet(0x40, b"\0\1"), b"-"]
)
async def test_another_protocol_is_told(answer: bytes) -> None:
    async with scripted() as there:
        there.greeting = answer
        error = await refusal(access(there))
    assert "speaks another protocol" in error.reason
    assert "1883" in error.hint


async def test_a_broker_that_closes_after_the_connect_is_told() -> None:
    async with scripted() as there:
        there.greeting = b""
        error = await refusal(access(there))
        assert there.connects == 3  # it may have been about to start
    assert "without an answer" in error.reason


async def test_a_login_that_is_refused_is_told_and_shows_no_password(tmp_path: Path) -> None:
    with _with_users(tmp_path) as process:
        for login in ({}, {"user": "spile", "password": "hush"}, {"user": "nobody", "password": "secret"}):
            error = await refusal(access(process, **login))
            assert isinstance(error, Unauthorized)
            assert "SPILE_BROKER_PASSWORD" in error.hint
            assert "hush" not in f"{error.reason}{error.hint}{error!r}"
        async with connected(process, login={"user": "spile", "password": "secret"}) as broker:
            await broker.publish([Message("barrels/b/x", b"x", 1)])


def _with_users(place: Path) -> Mosquitto:
    place.mkdir(exist_ok=True)
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(place / "users"), "spile", "secret"], check=True)
    return Mosquitto(place, "allow_anonymous false", f"password_file {place}/users", anyone=False)


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def tls_lines(certificates: Certificates, name: str = "broker") -> list[str]:
    place = certificates.place
    return [f"certfile {place}/{name}.pem", f"keyfile {place}/{name}.key", f"cafile {place}/ca.pem"]


@pytest.fixture
def tls_broker(certificates: Certificates, tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker", *tls_lines(certificates)) as process:
        yield process


def tls_access(process: Mosquitto, certificates: Certificates | None, client: str | None = None) -> BrokerAccess:
    address = BrokerAddress.parse(process.url.replace("mqtt://", "mqtts://"))
    ca = certificates.ca_pem if certificates else None
    pair = (
        (certificates.place / f"{client}.pem", certificates.place / f"{client}.key")
        if certificates and client
        else (None, None)
    )
    return BrokerAccess(address, "spile-test", tls=tls_context(ca, *pair))


async def works(broker_access: BrokerAccess) -> None:
    broker = ExternalBroker(broker_access, requests=None, limits=QUICK)
    await broker.start()
    try:
        await broker.publish([Message("barrels/b/x", b"x" * 100_000, at % 2) for at in range(200)])
    finally:
        await broker.stop()


async def test_messages_go_over_tls(tls_broker: Mosquitto, certificates: Certificates) -> None:
    await works(tls_access(tls_broker, certificates))


async def test_a_certificate_of_an_unknown_authority_is_told(tls_broker: Mosquitto) -> None:
    error = await refusal(tls_access(tls_broker, None))
    assert "not trusted" in error.reason
    assert "broker_ca" in error.hint


async def test_a_certificate_for_another_host_is_told(certificates: Certificates, tmp_path: Path) -> None:
    with Mosquitto(tmp_path, *tls_lines(certificates, "elsewhere")) as process:
        error = await refusal(tls_access(process, certificates))
    assert "not trusted" in error.reason
    assert "127.0.0.1" in error.reason


async def test_a_port_without_tls_is_told(certificates: Certificates, tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as process:
        error = await refusal(tls_access(process, certificates))
    assert "mqtt://" in error.hint


async def test_a_port_with_tls_that_is_spoken_to_without_is_told(tls_broker: Mosquitto) -> None:
    error = await refusal(access(tls_broker))
    assert "mqtts://" in error.hint


async def test_a_client_certificate_is_shown_where_the_broker_asks_for_one(
    certificates: Certificates, tmp_path: Path
) -> None:
    with Mosquitto(tmp_path, *tls_lines(certificates), "require_certificate true") as process:
        await works(tls_access(process, certificates, "client"))
        error = await refusal(tls_access(process, certificates))
    assert "client certificate" in error.hint


def test_files_that_cannot_be_used_are_named(certificates: Certificates, tmp_path: Path) -> None:
    nothing, garbage = tmp_path / "nothing.pem", tmp_path / "garbage.pem"
    garbage.write_text("this is no certificate")
    for wrong in (
        lambda: tls_context(nothing, None, None),
        lambda: tls_context(garbage, None, None),
        lambda: tls_context(None, garbage, None),
        lambda: tls_context(None, certificates.client_pem, certificates.broker_key),
        lambda: tls_context(None, None, certificates.client_key),
        lambda: read_password(nothing),
    ):
        with pytest.raises(BadRequest) as caught:
            wrong()
        assert "broker_" in caught.value.hint


# The command


def served(tmp_path: Path, url: str, **variables: str) -> tuple[int, str]:
    done = spile_process(
        "serve", "--data", str(tmp_path / "data"), "--http", "127.0.0.1:0", "--broker", url, **variables
    )
    assert "Traceback" not in done.err
    return done.code, done.err


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("127.0.0.1:1883", "mqtt://HOST:PORT"),
        ("http://127.0.0.1:1883", "mqtt://HOST:PORT"),
        ("mqtt://", "names no host"),
        ("mqtt://h:99999", "no address"),
        ("mqtt://h/site1", "broker_prefix"),
        ("mqtt://u:hush@h", "SPILE_BROKER_PASSWORD"),
        ("ws://h", "WebSocket"),
    ],
)
def test_a_wrong_url_stops_the_start(tmp_path: Path, url: str, told: str) -> None:
    code, said = served(tmp_path, url)
    assert code == 2
    assert told in " ".join(said.replace("│", " ").split())
    assert "hush" not in said


def test_a_refused_login_stops_the_start_with_one_line(tmp_path: Path) -> None:
    with _with_users(tmp_path / "broker") as process:
        code, said = served(tmp_path, process.url, SPILE_BROKER_USER="spile", SPILE_BROKER_PASSWORD="hush")
    assert code == 1
    assert "refuses the login" in said
    assert "hush" not in said
    assert len([line for line in said.splitlines() if "refuses the login" in line]) == 1


def test_another_protocol_stops_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        import threading

        def speak() -> None:
            while True:
                try:
                    taken, _ = listening.accept()
                except OSError:
                    return
                with taken:
                    taken.recv(100)
                    taken.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=speak, daemon=True).start()
        code, said = served(tmp_path, f"mqtt://127.0.0.1:{listening.getsockname()[1]}")
        listening.shutdown(socket.SHUT_RDWR)
    assert code == 1
    assert "speaks another protocol" in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--mqtt", "127.0.0.1:0"), "leave out mqtt"),
        (("--mqtt-ws", "127.0.0.1:0"), "leave out mqtt_ws"),
    ],
)
def test_two_brokers_are_refused(tmp_path: Path, arguments: tuple[str, str], told: str) -> None:
    done = spile_process("serve", "--data", str(tmp_path), "--broker", f"mqtt://127.0.0.1:{free_port()}", *arguments)
    assert done.code == 2
    assert told in " ".join(done.err.replace("│", " ").split())


async def test_nothing_is_left_open_by_a_start_that_fails() -> None:
    async with scripted() as there:
        there.greeting = bytes([0x20, 2, 0, 5])
        await refusal(access(there))
        async with asyncio.timeout(20):
            while there._writers:
                await asyncio.sleep(0.01)
