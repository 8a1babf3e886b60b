"""Sending an answer: whole, or chunk by chunk as fast as the client takes it.

A client that leaves, or takes nothing for too long, ends its answer, and what it is made from is let go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from broker.http.answers import Answer, Chunks, Header, Streamed
from broker.http.call import Call, ClientGone, Send

_BODILESS = frozenset((204, 304))


async def send_answer(send: Send, answer: Answer) -> None:
    """Send a whole answer. A HEAD's body is dropped by the server."""
    headers: list[Header] = answer.headers
    if answer.status not in _BODILESS:
        length = b"%d" % len(answer.body)
        headers = [(b"content-type", answer.content_type), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def send_streamed(call: Call, send: Send, answer: Streamed, closing: asyncio.Event) -> None:
    """Send an answer's chunks until they end, the client is gone (ClientGone), or the service stops.

    A client that takes nothing for `send_s_max` is cut off (ClientGone); what the chunks raise passes through.
    """
    headers = [(b"content-type", answer.content_type), *answer.headers]
    try:
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if call.method != "HEAD":
            async with aclosing(_until_gone(call, answer.chunks, closing if answer.live else None)) as chunks:
                async for chunk in chunks:
                    await _send_in_time(call, send, chunk)
                    await call.sent(len(chunk))
        await send({"type": "http.response.body", "body": b""})
    finally:
        await answer.chunks.close()


async def _send_in_time(call: Call, send: Send, chunk: bytes) -> None:
    try:
        async with asyncio.timeout(call.services.limits.send_s_max):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except TimeoutError as error:
        raise ClientGone from error


async def _until_gone(call: Call, chunks: Chunks, closing: asyncio.Event | None) -> AsyncGenerator[bytes, None]:
    gone = asyncio.create_task(call.gone(), name="spile-http-gone")
    ends: list[asyncio.Task[object]] = [gone]
    if closing is not None:
        ends.append(asyncio.create_task(closing.wait(), name="spile-http-closing"))
    step: asyncio.Task[bytes | None] | None = None
    try:
        while True:
            step = asyncio.create_task(chunks.next(), name="spile-http-chunk")
            await asyncio.wait((step, *ends), return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                gone.result()
                raise ClientGone
            if not step.done() or (chunk := step.result()) is None:
                return
            yield chunk
    finally:
        for task in (step, *ends):
            if task is not None and not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
