"""An S3-compatible server for tests: moto's, as a process of its own on 127.0.0.1, with a proxy before it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
from ports import free_port
from proxy import Proxy
from running import clean_environment

BUCKET = "attachments"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTKEY", "AWS_SECRET_ACCESS_KEY": "test-secret-key", "AWS_REGION": "us-east-1"}
_START_S = 60.0


class ObjectStore:
    """A server with one bucket."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.proxy = Proxy(lambda: port)

    def url(self, prefix: str, *, bucket: str = BUCKET, direct: bool = True) -> str:
        """Where contents can be opened; not `direct`: through the proxy."""
        port = self.port if direct else self.proxy.port
        return f"s3://{bucket}/{prefix}?endpoint={quote(f'http://127.0.0.1:{port}', safe='')}"


@contextmanager
def object_store(log: Path, **variables: str) -> Iterator[ObjectStore]:
    """A running server. Clients need `KEYS` in their environment."""
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=output,
            stderr=output,
            env=clean_environment(**variables),
        )
    try:
        _wait(port, process, log)
        httpx.put(f"http://127.0.0.1:{port}/{BUCKET}", timeout=_START_S).raise_for_status()
        store = ObjectStore(port)
        try:
            yield store
        finally:
            store.proxy.close()
    finally:
        process.kill()
        process.wait()


@contextmanager
def keys_in_environment(**keys: str) -> Iterator[None]:
    """The credentials of a client, for the length of a block."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in before:
        del os.environ[name]
    os.environ.update(keys or KEYS)
    try:
        yield
    finally:
        for name in keys or KEYS:
            os.environ.pop(name, None)
        os.environ.update(before)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"the object store did not start:\n{log.read_text()[-2000:]}")
