"""The packets of a connection's rarer moments, through amqtt's classes: CONNECT, SUBSCRIBE, UNSUBSCRIBE.

amqtt reads them leniently (bad UTF-8 becomes text, missing fields become None). Here what it read must encode
to the very bytes that came; anything else is malformed.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from amqtt.adapters import BufferReader
from amqtt.codecs_amqtt import decode_data_with_length, encode_data_with_length
from amqtt.errors import AMQTTError, CodecError, MQTTError, NoDataError
from amqtt.mqtt.connack import ConnackPacket
from amqtt.mqtt.connect import ConnectPacket, ConnectPayload, ConnectVariableHeader
from amqtt.mqtt.packet import MQTTFixedHeader, MQTTPacket
from amqtt.mqtt.suback import SubackPacket
from amqtt.mqtt.subscribe import SubscribePacket
from amqtt.mqtt.unsuback import UnsubackPacket
from amqtt.mqtt.unsubscribe import UnsubscribePacket

from broker.mqtt.frames import Malformed
from broker.mqtt.topicnames import topic_fault

T = TypeVar("T")

ACCEPTED, BAD_PROTOCOL, BAD_CLIENT_ID, UNAVAILABLE = 0, 1, 2, 3  # return codes of a CONNACK
FAILURE = 0x80  # of a SUBACK


class UnknownProtocol(Malformed):
    """This broker speaks MQTT 3.1.1."""


@dataclass(frozen=True, slots=True)
class Will:
    """What a client leaves to be published when it vanishes."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True)
class Connect:
    """A CONNECT as it was sent; an empty `client_id` asks for one."""

    client_id: str
    clean: bool
    keepalive_s: int
    user: str | None
    password: bytes | None
    will: Will | None


class _Payload(ConnectPayload):  # type: ignore[misc]
    """amqtt reads passwords as text; MQTT has them as bytes."""

    raw_password: bytes | None = None

    @classmethod
    async def from_stream(cls, reader: Any, fixed: Any, variable_header: Any) -> Any:
        has_password = variable_header.password_flag
        variable_header.password_flag = False
        payload = await super().from_stream(reader, fixed, variable_header)
        variable_header.password_flag = has_password
        if has_password:
            payload.raw_password = await decode_data_with_length(reader)
        return payload

    def to_bytes(self, fixed_header: Any = None, variable_header: Any = None) -> bytes:
        if self.client_id_is_random:
            self.client_id = ""
        out = bytes(super().to_bytes(fixed_header, variable_header))
        return out if self.raw_password is None else out + encode_data_with_length(self.raw_password)


class _ConnectPacket(ConnectPacket):  # type: ignore[misc]
    PAYLOAD = _Payload


def read_connect(flags: int, body: bytes) -> Connect:
    """A CONNECT; raises UnknownProtocol for other versions, Malformed for what is none at all."""
    if flags:
        raise Malformed("A CONNECT has no flags.")
    name_length = int.from_bytes(body[:2], "big")
    level = body[2 + name_length : 3 + name_length]
    if body[2 : 2 + name_length] not in (b"MQTT", b"MQIsdp") or not level:
        raise Malformed("The first packet is no CONNECT.")
    if body[2 : 2 + name_length] != b"MQTT" or level != b"\x04":
        raise UnknownProtocol(f"Protocol level {level[0]} is not spoken here; MQTT 3.1.1 (4) is.")
    packet = _read(_ConnectPacket, flags, body)
    header: ConnectVariableHeader = packet.variable_header
    payload: _Payload = packet.payload
    if header.reserved_flag or (header.password_flag and not header.username_flag):
        raise Malformed("The flags of this CONNECT do not go together.")
    if header.username_flag and payload.username is None:
        raise Malformed("This CONNECT ends before its user name.")
    client_id = "" if payload.client_id_is_random else str(payload.client_id)
    if "\0" in client_id or "\0" in (payload.username or ""):
        raise Malformed("A text in this CONNECT holds a NUL character.")
    return Connect(
        client_id=client_id,
        clean=header.clean_session_flag,
        keepalive_s=header.keep_alive,
        user=payload.username,
        password=payload.raw_password,
        will=_will(header, payload),
    )


def _will(header: Any, payload: Any) -> Will | None:
    if not header.will_flag:
        if header.will_qos or header.will_retain_flag:
            raise Malformed("A CONNECT without a will says how to publish it.")
        return None
    if payload.will_topic is None or payload.will_message is None or header.will_qos > 2:
        raise Malformed("The will of this CONNECT is incomplete.")
    fault = topic_fault(payload.will_topic)
    if fault is not None:
        raise Malformed(f"The will has no valid topic: {fault}.")
    return Will(payload.will_topic, bytes(payload.will_message), header.will_qos, header.will_retain_flag)


def read_subscribe(flags: int, body: bytes) -> tuple[int, list[tuple[str, int]]]:
    """The packet id and the filters with their QoS, in order."""
    packet = _read(SubscribePacket, flags, body)
    topics: list[tuple[str, int]] = packet.payload.topics
    if flags != 2 or not topics or any(qos > 2 for _, qos in topics):
        raise Malformed("This SUBSCRIBE has wrong flags, no filters, or a QoS above 2.")
    return _packet_id(packet), topics


def read_unsubscribe(flags: int, body: bytes) -> tuple[int, list[str]]:
    """The packet id and the filters, in order."""
    packet = _read(UnsubscribePacket, flags, body)
    topics: list[str] = packet.payload.topics
    if flags != 2 or not topics:
        raise Malformed("This UNSUBSCRIBE has wrong flags, or no filters.")
    return _packet_id(packet), topics


def connack(present: bool, code: int) -> bytes:
    """The answer to a CONNECT."""
    return _bytes(ConnackPacket.build(int(present), code))


def suback(packet_id: int, codes: list[int]) -> bytes:
    """The answer to a SUBSCRIBE: for each filter the QoS granted, or FAILURE."""
    return _bytes(SubackPacket.build(packet_id, codes))


def unsuback(packet_id: int) -> bytes:
    """The answer to an UNSUBSCRIBE."""
    return _bytes(UnsubackPacket.build(packet_id))


def _bytes(packet: MQTTPacket[Any, Any, Any]) -> bytes:
    return bytes(packet.to_bytes())


def _packet_id(packet: Any) -> int:
    packet_id: int = packet.variable_header.packet_id
    if not packet_id:
        raise Malformed("A packet id is not 0.")
    return packet_id


def _read(kind: Any, flags: int, body: bytes) -> Any:
    header = MQTTFixedHeader(0, flags, len(body))
    header.packet_type = kind().fixed_header.packet_type
    try:
        packet = _finish(kind.from_stream(BufferReader(body), header))
        again = packet.variable_header.to_bytes() + packet.payload.to_bytes(header, packet.variable_header)
    except (AMQTTError, MQTTError, CodecError, NoDataError, UnicodeError, IndexError) as fault:
        raise Malformed(f"This packet cannot be read: {fault}") from fault
    if bytes(again) != body:
        raise Malformed("This packet holds bytes that have no meaning, or text that is not UTF-8.")
    return packet


def _finish(steps: Coroutine[Any, Any, T]) -> T:
    """Run one of amqtt's readers to its end; it never waits, since all its bytes are here."""
    try:
        steps.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    steps.close()
    raise Malformed("This packet ends too early.")
