"""`spile health`: what a container's health check asks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cli_tools import Service, spile, spile_process


def test_a_service_that_is_well_is_0_and_shows_its_parts(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        ended = spile("health", "--url", service.url)
        assert ended.code == 0
        assert (ended.value["ok"], ended.value["state"]) == (True, "running")
        assert {"store", "mqtt", "publisher"} <= set(ended.value["parts"])
        assert spile_process("health", SPILE_URL=service.url).code == 0


def test_no_service_is_3(tmp_path: Path) -> None:
    ended = spile("health", "--url", "http://127.0.0.1:9")
    assert (ended.code, ended.out) == (3, b"")
    assert "no service answers at http://127.0.0.1:9" in ended.err


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """The address of a server that says this to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """It keeps quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("status", "state", "code"), [(503, "failing", 3), (200, "waiting", 0)])
def test_a_failing_service_is_3_and_a_waiting_one_is_0(status: int, state: str, code: int) -> None:
    parts = {
        "store": {"ok": status == 200, "state": state, "since": None, "failure": "no space", "hint": "free some"}
    }
    body = {"ok": status == 200, "state": state, "version": "0.1.0", "parts": parts}
    with answering(status, json.dumps(body).encode()) as url:
        ended = spile("health", "--url", url)
    assert ended.code == code
    assert ended.value["parts"] == parts


def test_another_program_at_that_port_is_3() -> None:
    with answering(200, b"<html>") as url:
        ended = spile("health", "--url", url)
    assert ended.code == 3
    assert "not as Spile does" in ended.err
