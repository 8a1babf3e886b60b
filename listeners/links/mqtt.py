"""A link over MQTT: `from/<client>/…` to the service, `to/<client>/…` back.

What arrives is bounded by the stream's credit.
"""

from __future__ import annotations

import logging
import secrets

import msgspec

from feeds.errors import SpileError
from feeds.paths import encode_segment
from listeners.errors import LinkLost, error_of
from listeners.following import Events
from listeners.links.address import Address
from listeners.links.mqtt_connection import MqttConnection, client_levels

log = logging.getLogger("spile.listeners")


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
        client = client_levels(address, self._client_id)
        tail = f"{encode_segment(address.barrel)}/{encode_segment(stream)}"
        at = address.prefix
        self._open_topic = f"{at}from/{client}/stream/{tail}"
        self._credit_topic = f"{at}from/{client}/credit/{tail}"
        self._arrays_topic = f"{at}to/{client}/stream/{tail}"
        self._rejected_topics = [f"{at}to/{client}/rejected/{verb}/{tail}" for verb in ("stream", "credit")]
        self._connection: MqttConnection | None = None
        self._events: Events | None = None

    @property
    def address(self) -> str:
        """Where it leads, without secrets."""
        return str(self._address)

    async def connect(self, events: Events) -> None:
        """Connect and subscribe; every wait ends with the connection."""
        self._events = events
        filters = [self._arrays_topic, *self._rejected_topics]
        connection = self._connection = MqttConnection(self._address, self._client_id, filters, self)
        await connection.connect()

    async def send(self, data: bytes, *, opens: bool) -> None:
        """Publish the message; paho sends it on its own thread."""
        if self._connection is None:
            raise LinkLost(f"{self.address} is not connected.")
        self._connection.publish(self._open_topic if opens else self._credit_topic, data)

    async def close(self) -> None:
        """Disconnect, after what was published has been taken: the last acknowledgement is in it."""
        connection, self._connection, self._events = self._connection, None, None
        if connection is not None:
            await connection.close()

    # What the connection tells

    def message(self, topic: str, payload: bytes) -> None:
        """An array, or a refusal."""
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

    def taken(self, mid: int) -> None:
        """Nothing waits for it: what is lost is found by the stream."""

    def lost(self, error: SpileError) -> None:
        """The connection has ended."""
        if self._events is not None:
            self._events.lost(error)
