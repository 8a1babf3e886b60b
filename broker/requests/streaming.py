"""The verbs of streams: a listener's open and credit go to the stream service, its arrays back to the client.

What the messages mean is the stream service's; access is asked here, since the service knows no clients.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from broker.mqtt.contract import Message
from broker.requests.serving import Asked, Serving
from broker.requests.topics import answer_topic
from feeds.errors import SpileError, Unavailable
from listeners.stream.messages import decode_open, decode_run
from listeners.stream.sender import refusal
from listeners.stream.service import StreamService

Answer = Callable[[str, Message], Awaitable[bool]]


class Streaming:
    """Carries streams over MQTT. A stream belongs to the client's name, so that a client has only its own."""

    def __init__(self, serving: Serving, streams: StreamService | None, answer: Answer) -> None:
        self._serving = serving
        self._streams = streams
        self._answer = answer

    async def open(self, asked: Asked) -> None:
        """Open a stream; BadRequest where not even its run can be read, all else is told by its arrays."""
        streams, stream = self._service(), asked.place.name("stream")
        send = self._send(asked)
        try:
            for pattern in decode_open(asked.payload).patterns or ["#"]:
                self._serving.allow(asked, "read", pattern.removeprefix("/"))
        except SpileError as error:
            run = decode_run(asked.payload)
            if run is None:
                raise
            await send(refusal(run, error))
            return
        await streams.open(
            asked.client.name,
            asked.place.barrel,
            stream,
            asked.payload,
            send,
            doc_bytes_max=self._serving.limits.publish_bytes_max,
        )

    async def credit(self, asked: Asked) -> None:
        """Give credit to a stream, or close it."""
        streams, stream = self._service(), asked.place.name("stream")
        closed = streams.credit(asked.client.name, asked.place.barrel, stream, asked.payload)
        if closed is not None:
            await self._send(asked)(closed)

    def gone(self, client_name: str) -> None:
        """The client's connection ended, and its streams with it."""
        if self._streams is not None:
            self._streams.gone(client_name)

    def _service(self) -> StreamService:
        if self._streams is None:
            raise Unavailable("This service carries no streams.")
        return self._streams

    def _send(self, asked: Asked) -> Callable[[bytes], Awaitable[None]]:
        """What takes the stream's arrays; it waits while the client's queue is full, and while its units are used up.

        Nobody listening is no error: a stream that hears nothing of its listener ends by itself.
        """
        regulator = self._serving.regulator
        name, topic = asked.client.name, answer_topic(asked.client.name, "stream", asked.place.tail)

        async def send(array: bytes) -> None:
            await self._answer(name, Message(topic, array, qos=1))
            await regulator.paid(regulator.has_read(name, len(array)))

        return send
