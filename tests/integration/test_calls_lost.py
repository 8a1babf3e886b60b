"""Calls over MQTT whose connection is lost in the moment in which it comes about."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec
import pytest
from http_tools import eventually
from mqtt_tools import CONNACK, SUBACK, packet
from running import until

from feeds.errors import SpileError
from listeners.links.address import Address, parse_address
from listeners.replication.over_mqtt_calls import Calls, CallTimes

_PAHO = "paho-mqtt-client"


class Fleeting:
    """A broker that takes whoever comes, and closes the connection as soon as it was subscribed with."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.taken = 0
        self._others = threading.enumerate()
        self._loop = loop
        self._held, self._goes_on = threading.Event(), threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, name="fleeting broker")
        self._thread.start()

    @property
    def address(self) -> Address:
        found = parse_address(f"mqtt://127.0.0.1:{self._socket.getsockname()[1]}/geo")
        assert isinstance(found, Address)
        return found

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                wire, _ = self._socket.accept()
            except OSError:
                return
            try:
                with wire, suppress(OSError):
                    self._subscribed(wire)
                if self.taken == 1:
                    until(lambda: not self._clients(), "the end of the client")
            finally:
                self._goes_on.set()

    def _subscribed(self, wire: socket.socket) -> None:
        wire.recv(4096)
        wire.sendall(packet(CONNACK << 4, b"\0\0"))
        asked = wire.recv(4096)
        self.taken += 1
        if self.taken == 1:
            self._loop.call_soon_threadsafe(self._hold)
            self._held.wait()
        wire.sendall(packet(SUBACK << 4, asked[2:4] + b"\1\1"))

    def _clients(self) -> list[threading.Thread]:
        return [each for each in threading.enumerate() if _PAHO in each.name and each not in self._others]

    def _hold(self) -> None:
        """The loop hears of the connection and of its end at once."""
        self._held.set()
        self._goes_on.wait()


@pytest.fixture
async def broker() -> AsyncIterator[Fleeting]:
    made = Fleeting(asyncio.get_running_loop())
    yield made
    await asyncio.to_thread(made.close)


async def test_a_connection_that_ends_as_it_comes_about_is_made_again(broker: Fleeting) -> None:
    calls = Calls(broker.address, CallTimes(first=5.0, answer=5.0, again=1.0))

    async def asked_again() -> bool:
        with pytest.raises(SpileError) as failed:
            await calls.ask("head", b"{}", msgspec.Raw)
        assert failed.value.retryable
        return broker.taken >= 2

    try:
        await eventually(asked_again)
    finally:
        await calls.close()
