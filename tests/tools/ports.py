"""Ports for servers that have to be told theirs.

They lie below those that the system gives to whoever asks for any, so that a server which is away for a while finds
its own still free; and each of the processes that the tests run in has a share of its own.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Iterator
from contextlib import suppress

FIRST, SHARES, SHARE = 10_000, 8, 2_500


def _walk() -> Iterator[int]:
    """This process's share again and again, from anywhere in it: another run of the tests may be at work."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = FIRST + worker % SHARES * SHARE
    begin = random.SystemRandom().randrange(SHARE)
    return (first + (begin + step) % SHARE for step in itertools.count())


_ports = _walk()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has."""
    for port in itertools.islice(_ports, SHARE):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError(f"none of {SHARE} ports is free")
