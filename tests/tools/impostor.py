"""A server on 127.0.0.1 that answers as a test wants it to: with lies, with half an answer, with nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

Handler = Callable[[str, str], bytes | None]
"""Gives the bytes of the answer to a method and a path; None closes the connection without one."""


def answer(status: int, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A whole answer; with another `length` than it has, it breaks off or goes on too long."""
    lines = [f"HTTP/1.1 {status} Told", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


@dataclass
class Impostor:
    """Where it listens, and what it was asked."""

    port: int
    asked: list[str]
    heads: list[str]
    """Of the requests, in lower case."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def impostor(handler: Handler) -> AsyncIterator[Impostor]:
    """Serve for the length of the block; each connection is closed after one answer."""
    asked: list[str] = []
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path, _ = head.split(" ", 2)
            length = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
            if length:
                await reader.readexactly(int(length[0].partition(":")[2]))
            asked.append(f"{method} {path}")
            heads.append(head.lower())
            told = handler(method, path)
            if told is not None:
                writer.write(told)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # who asked has gone
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Impostor(server.sockets[0].getsockname()[1], asked, heads)
    finally:
        server.close()
