"""A large attachment passes through a service process with flat memory, while others are served."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from running import Running, serve

PIECE = 1 << 20
PIECES = 384
GROWTH_MIB_MAX = 64
PATTERN = bytes(range(256)) * 4096


def pieces() -> Iterator[bytes]:
    for at in range(PIECES):
        yield at.to_bytes(8, "big") + PATTERN[8:]


class Watch:
    """Looks at the service's memory, and how long it takes to read a document meanwhile."""

    def __init__(self, service: Running) -> None:
        self.peak_mib = 0.0
        self.waits_s: list[float] = []
        self._service = service
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._ended.wait(0.01):
            began = time.perf_counter()
            assert self._service.http.get("/barrels/geo/docs/x").status_code == 200
            self.waits_s.append(time.perf_counter() - began)
            self.peak_mib = max(self.peak_mib, self._service.memory_mib())

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


@pytest.mark.alone
def test_a_large_file_goes_in_and_out_byte_for_byte_with_flat_memory(tmp_path: Path) -> None:
    with serve(tmp_path / "data") as service:
        service.http.post("/barrels/geo").raise_for_status()
        service.http.put("/barrels/geo/docs/x", json={}).raise_for_status()
        service.http.put("/barrels/geo/attachments/x/warm", content=PATTERN * 4).raise_for_status()
        service.http.get("/barrels/geo/attachments/x/warm").raise_for_status()
        idle_mib = service.memory_mib()
        client = http.client.HTTPConnection(service.url.removeprefix("http://"))
        with Watch(service) as watch:
            client.putrequest("PUT", "/barrels/geo/attachments/a/large")
            client.putheader("Content-Length", str(PIECE * PIECES))
            client.endheaders()
            for piece in pieces():
                client.send(piece)
            answer = client.getresponse()
            assert (answer.status, msgspec.json.decode(answer.read())["length"]) == (201, PIECE * PIECES)
            client.request("GET", "/barrels/geo/attachments/a/large")
            answer = client.getresponse()
            assert all(answer.read(PIECE) == piece for piece in pieces())
            assert answer.read() == b""
        client.close()
    assert watch.peak_mib - idle_mib < GROWTH_MIB_MAX
    assert len(watch.waits_s) > 10 and sorted(watch.waits_s)[len(watch.waits_s) // 2] < 0.25


def test_a_service_that_stops_in_the_middle_leaves_nothing_and_goes_on(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for end in ("stop", "kill"):
        with serve(data) as service:
            service.http.post("/barrels/geo")
            client = http.client.HTTPConnection(service.url.removeprefix("http://"))
            client.putrequest("PUT", "/barrels/geo/attachments/a/cut")
            client.putheader("Content-Length", str(PIECE * 10))
            client.endheaders()
            client.send(PATTERN * 3)
            service.http.close()
            getattr(service, end)()
            client.close()
    with serve(data) as service:
        assert service.http.get("/barrels/geo/attachments/a/cut").status_code == 404
        service.http.put("/barrels/geo/attachments/a/whole", content=PATTERN).raise_for_status()
        assert service.http.get("/barrels/geo/attachments/a/whole").content == PATTERN
