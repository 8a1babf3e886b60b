"""A link over MQTT: `from/<client>/…` to the service, `to/<client>/…` back. MQTT 3.1.1, QoS 1, clean session.

paho's network thread only hands messages to the event loop; there they are bounded by the stream's credit.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from typing import Any

import msgspec
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from feeds.errors import SpileError, Unauthorized, Unavailable
from feeds.paths import encode_segment
from listeners.errors import LinkLost, error_of
from listeners.following import Events
from listeners.links.address import Address

log = logging.getLogger("spile.listeners")

_CONNECT_S_MAX = 10.0
_SETTLE_S_MAX = 2.0
_KEEPALIVE_S = 30
# CONNACK codes 4 and 5 of MQTT 3.1.1, as paho names them.
_DENIED = {"Bad user name or password", "Not authorized"}


class _Refusal(msgspec.Struct):
    error: str
    reason: str | None = None
    hint: str | None = None


class MqttLink:
    """One MQTT connection, which carries one stream under a client id of its own."""

    def __init__(self, address: Address, *, client_id: str | None = None, stream: str = "feed") -> None:
        """To the broker; external brokers want client ids of `[A-Za-z0-9_-]+`, as the one made here is."""
        self._address = address
        self._client_id = client_id or f"spile-listen-{secrets.token_hex(6)}"
        client = f"{encode_segment(address.user or 'anonymous')}/{encode_segment(self._client_id)}"
        tail = f"{encode_segment(address.barrel)}/{encode_segment(stream)}"
        at = address.prefix
        self._open_topic = f"{at}from/{client}/stream/{tail}"
        self._credit_topic = f"{at}from/{client}/credit/{tail}"
        self._arrays_topic = f"{at}to/{client}/stream/{tail}"
        self._rejected_topics = [f"{at}to/{client}/rejected/{verb}/{tail}" for verb in ("stream", "credit")]
        self._client: paho.Client | None = None
        self._sent: paho.MQTTMessageInfo | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: Events | None = None
        self._ready: asyncio.Future[None] | None = None

    @property
    def address(self) -> str:
        """Where it leads, without secrets."""
        return str(self._address)

    async def connect(self, events: Events) -> None:
        """Connect and subscribe; every wait ends with the connection."""
        loop = self._loop = asyncio.get_running_loop()
        self._events = events
        self._ready = loop.create_future()
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
            client.tls_set_context(ssl.create_default_context())
        client.connect_timeout = _CONNECT_S_MAX
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        try:
            async with asyncio.timeout(_CONNECT_S_MAX):
                await loop.run_in_executor(None, client.connect, self._address.host, self._address.port, _KEEPALIVE_S)
                client.loop_start()
                await self._ready
        except (OSError, TimeoutError, ValueError) as fault:
            raise Unavailable(
                f"No MQTT broker answers at {self.address}: {fault or 'no answer in time'}.",
                hint="Check the address, and that the service runs.",
            ) from None

    async def send(self, data: bytes, *, opens: bool) -> None:
        """Publish the message; paho sends it on its own thread."""
        client = self._client
        if client is None or not client.is_connected():
            raise LinkLost(f"{self.address} is not connected.")
        sent = client.publish(self._open_topic if opens else self._credit_topic, data, qos=1)
        if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise LinkLost(f"{self.address} takes no messages: {paho.error_string(sent.rc)}")
        self._sent = sent

    async def close(self) -> None:
        """Disconnect, after what was published has been taken: the last acknowledgement is in it."""
        client, self._client, self._events = self._client, None, None
        if client is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._settle)
            client.disconnect()
            await asyncio.get_running_loop().run_in_executor(None, client.loop_stop)

    def _settle(self) -> None:
        """Wait a little for the broker to acknowledge what was sent last; in vain where the connection is lost."""
        try:
            if self._sent is not None:
                self._sent.wait_for_publish(_SETTLE_S_MAX)
        except (ValueError, RuntimeError) as fault:
            log.debug("%s took no last word: %s", self.address, fault)

    # On paho's network thread

    def _on_connect(self, client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            error: SpileError = Unavailable(f"{self.address} refuses the connection: {reason}.")
            if str(reason) in _DENIED:
                error = Unauthorized(f"{self.address} does not let this user in: {reason}.")
            self._tell(self._failed, error)
            return
        client.subscribe([(topic, 1) for topic in (self._arrays_topic, *self._rejected_topics)])

    def _on_subscribe(
        self, _client: paho.Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        if reasons and reasons[0].is_failure:
            self._tell(self._failed, error_of("forbidden", f"{self.address} denies {self._arrays_topic}."))
        else:
            self._tell(self._subscribed)

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        self._tell(self._arrived, message.topic, message.payload)

    def _on_disconnect(
        self, _client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        self._tell(self._failed, LinkLost(f"{self.address} closed the connection: {reason}."))

    def _tell(self, call: Any, *values: Any) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(call, *values)

    # On the event loop

    def _subscribed(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _failed(self, error: SpileError) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
        elif self._events is not None:
            self._events.lost(error)

    def _arrived(self, topic: str, payload: bytes) -> None:
        if self._events is None:
            return
        if topic == self._arrays_topic:
            self._events.message(payload)
            return
        try:
            told = msgspec.json.decode(payload, type=_Refusal)
        except msgspec.MsgspecError as fault:
            log.warning("%s sent a refusal that cannot be read: %s", self.address, fault)
            return
        self._events.refused(error_of(told.error, told.reason, told.hint))
