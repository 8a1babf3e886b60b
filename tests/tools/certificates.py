"""Certificates for 127.0.0.1 of an authority that is made for a run of tests, and a door with TLS before any port."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")  # made in no time


class Certificates:
    """An authority, a broker's certificate for 127.0.0.1, and a client's; all made for this run."""

    def __init__(self, place: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed (Debian: openssl)")
        self.place = place
        self._openssl("req", "-x509", *_NEW_KEY, "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
                      "-days", "2", "-subj", "/CN=an authority of this test")  # fmt: skip
        self.make("broker", "subjectAltName=IP:127.0.0.1")
        self.make("client", "extendedKeyUsage=clientAuth")
        self.make("elsewhere", "subjectAltName=DNS:elsewhere.example")

    def make(self, name: str, extension: str) -> None:
        (self.place / "extension").write_text(extension)
        self._openssl("req", *_NEW_KEY, "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                      "-subj", f"/CN={name}")  # fmt: skip
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                      "-days", "2", "-extfile", "extension", "-out", f"{name}.pem")  # fmt: skip

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.place, check=True, capture_output=True)

    def __getattr__(self, name: str) -> Path:
        return self.place / name.replace("_", ".")


@asynccontextmanager
async def tls_door(port: int, certificates: Certificates, *, asks_client: bool = False) -> AsyncIterator[int]:
    """A port that speaks TLS and passes on to another one; with `asks_client` only for who has a certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates.ca_pem))
    context.load_cert_chain(certificates.broker_pem, certificates.broker_key)
    context.verify_mode = ssl.CERT_REQUIRED if asks_client else ssl.CERT_NONE
    serving: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            return  # one side has gone
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        ways = [asyncio.create_task(pass_on(reader, outer)), asyncio.create_task(pass_on(inner, writer))]
        serving.update(ways)
        await asyncio.wait(ways)
        serving.difference_update(ways)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)
