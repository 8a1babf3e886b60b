"""One MQTT connection of a client of Spile's: MQTT 3.1.1, QoS 1, clean session, its messages told on the event loop.

paho's network thread only hands messages over. It never connects again: whoever opened it decides that.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Protocol

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from feeds.errors import SpileError, Unauthorized
from feeds.paths import encode_segment
from listeners.errors import LinkLost, Unreached, error_of
from listeners.links.address import Address
from listeners.links.tls import HINT, tls_words

log = logging.getLogger("spile.listeners")

_CONNECT_S_MAX = 10.0
_SETTLE_S_MAX = 2.0
_KEEPALIVE_S = 30
# CONNACK codes 4 and 5 of MQTT 3.1.1, as paho names them.
_DENIED = {"Bad user name or password", "Not authorized"}


class Hears(Protocol):
    """What a connection tells, on the event loop; nothing before it stands, nor after it was closed."""

    def message(self, topic: str, payload: bytes) -> None:
        """A message came."""
        ...

    def taken(self, mid: int) -> None:
        """The broker has acknowledged a message."""
        ...

    def lost(self, error: SpileError) -> None:
        """The connection has ended."""
        ...


def _send_at_once(_client: paho.Client, _data: Any, wire: Any) -> None:
    # Else the end of a large message waits for the broker's system to acknowledge what went before: 40 ms each.
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _Socket(ssl.SSLSocket):
    """A connection that is closed where no TLS comes about; paho leaves it open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def client_levels(address: Address, client_id: str) -> str:
    """The two levels that name the client in its topics."""
    return f"{encode_segment(address.user or 'anonymous')}/{encode_segment(client_id)}"


class MqttConnection:
    """A connection under one client id, which listens to some topics."""

    def __init__(self, address: Address, client_id: str, filters: Sequence[str], hears: Hears) -> None:
        """External brokers want client ids of `[A-Za-z0-9_-]+`. Of the `filters` the first has to be granted."""
        self._address = address
        self._client_id = client_id
        self._filters = filters
        self._hears: Hears | None = hears
        self._client: paho.Client | None = None
        self._sent: paho.MQTTMessageInfo | None = None
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()

    async def connect(self) -> None:
        """Connect and subscribe; every wait ends with the connection. Unreached, Unauthorized, Forbidden."""
        client = self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=True,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
        )
        if self._address.user is not None:
            client.username_pw_set(self._address.user, self._address.password)
        if self._address.tls:
            context = self._address.files.context()
            context.sslsocket_class = _Socket
            client.tls_set_context(context)
        client.connect_timeout = _CONNECT_S_MAX
        client.on_socket_open = _send_at_once
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        at = self._address
        try:
            async with asyncio.timeout(_CONNECT_S_MAX):
                await self._loop.run_in_executor(None, client.connect, at.host, at.port, _KEEPALIVE_S)
                client.loop_start()
                await self._ready
        except (OSError, TimeoutError, ValueError) as fault:
            wrong = tls_words(fault)
            raise Unreached(
                f"No MQTT broker answers at {at}: {wrong or fault or 'no answer in time'}.",
                hint=HINT if at.tls else "Check the address, and that the service runs.",
            ) from None

    def publish(self, topic: str, payload: bytes) -> int:
        """Publish with QoS 1, on paho's own thread; what `taken` will tell of it. Raises LinkLost."""
        client = self._client
        if client is None or not client.is_connected():
            raise LinkLost(f"{self._address} is not connected.")
        sent = client.publish(topic, payload, qos=1)
        if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise LinkLost(f"{self._address} takes no messages: {paho.error_string(sent.rc)}")
        self._sent = sent
        return sent.mid

    async def close(self) -> None:
        """Disconnect, after what was published has been taken: the last acknowledgement is in it."""
        client, self._client, self._hears = self._client, None, None
        if client is not None:
            await self._loop.run_in_executor(None, self._settle)
            client.disconnect()
            await self._loop.run_in_executor(None, client.loop_stop)

    def _settle(self) -> None:
        """Wait a little for the broker to acknowledge what was sent last; in vain where the connection is lost."""
        try:
            if self._sent is not None:
                self._sent.wait_for_publish(_SETTLE_S_MAX)
        except (ValueError, RuntimeError) as fault:
            log.debug("%s took no last word: %s", self._address, fault)

    # On paho's network thread

    def _on_connect(self, client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            error: SpileError = Unreached(f"{self._address} refuses the connection: {reason}.")
            if str(reason) in _DENIED:
                error = Unauthorized(f"{self._address} does not let this user in: {reason}.")
            self._tell(self._failed, error)
            return
        client.subscribe([(topic, 1) for topic in self._filters])

    def _on_subscribe(
        self, _client: paho.Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        if reasons and reasons[0].is_failure:
            self._tell(self._failed, error_of("forbidden", f"{self._address} denies {self._filters[0]}."))
        else:
            self._tell(self._subscribed)

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        self._tell(self._arrived, message.topic, message.payload)

    def _on_publish(self, _client: paho.Client, _data: Any, mid: int, _reason: ReasonCode, _properties: Any) -> None:
        self._tell(self._published, mid)

    def _on_disconnect(
        self, _client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        self._tell(self._failed, LinkLost(f"{self._address} closed the connection: {reason}."))

    def _tell(self, call: Any, *values: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *values)

    # On the event loop

    def _subscribed(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _failed(self, error: SpileError) -> None:
        if not self._ready.done():
            if self._address.tls and isinstance(error, LinkLost):
                error.hint = HINT
            self._ready.set_exception(error)
        elif self._hears is not None:
            self._hears.lost(error)

    def _arrived(self, topic: str, payload: bytes) -> None:
        if self._hears is not None:
            self._hears.message(topic, payload)

    def _published(self, mid: int) -> None:
        if self._hears is not None:
            self._hears.taken(mid)
