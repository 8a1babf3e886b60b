"""PouchDB in a browser, in a page of another origin, against a service with a password."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import pytest
from pouchdb import modules
from running import serve, until

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PAGE = Path(__file__).with_name("page.html")
BROWSER_S = 60.0  # its first start takes long on a machine that has other work to do


class Site:
    """Serves the page, and takes what it reports."""

    def __init__(self) -> None:
        files = {
            "/": ("text/html", PAGE.read_bytes()),
            "/pouchdb.js": ("text/javascript", (modules() / "node_modules/pouchdb/dist/pouchdb.js").read_bytes()),
        }
        reports: list[dict[str, Any]] = []
        self.reports = reports

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, data = files.get(self.path.partition("?")[0], ("text/plain", b""))
                self._answer(200 if data else 404, kind, data)

            def do_POST(self) -> None:
                reports.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer(200, "text/plain", b"taken")

            def _answer(self, status: int, kind: str, data: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def holds(self, id: str) -> dict[str, Any]:
        """A document as the page told of it last; empty where it told of none."""
        assert not [report for report in self.reports if "error" in report or "denied" in report], self.reports
        docs = self.reports[-1]["docs"] if self.reports else []
        found: dict[str, Any] = next((doc for doc in docs if doc["_id"] == id), {})
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@contextmanager
def browser(folder: Path, url: str) -> Iterator[None]:
    """A page in a browser without a window, whose profile is in the folder."""
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed (Debian: chromium)")
    with TemporaryDirectory() as scratch:  # its sockets are there, whose names must be short
        process = subprocess.Popen(
            [
                *(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                *(
                    "--no-first-run",
                    "--disable-background-networking",
                    "--disable-sync",
                    "--disable-component-update",
                ),
                *(f"--user-data-dir={folder}", "--remote-debugging-port=0", url),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": scratch},
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_a_page_of_another_origin_syncs_live(tmp_path: Path) -> None:
    site = Site()
    allowed = {"SPILE_ALLOWED_ORIGINS": site.url, "SPILE_TOKEN": "secret"}
    try:
        with serve(tmp_path / "data", **allowed) as service:
            service.http.headers["Authorization"] = "Bearer secret"
            service.http.post("/barrels/db")
            service.http.put("/barrels/db/docs/before", json={"n": 0})
            attached = "/barrels/db/attachments/with-file/b.txt"
            service.http.put(attached, content=b"of spile", headers={"Content-Type": "text/plain"})
            place = service.url.replace("http://", "http://ann:secret@") + "/couch/db"
            with browser(tmp_path / "profile", f"{site.url}/?url={quote(place, safe='')}"):
                until(lambda: site.holds("before"), "what was there, in the page", BROWSER_S)
                until(
                    lambda: service.http.get("/barrels/db/docs/from-page").status_code == 200, "the page's document"
                )
                file = service.http.get("/barrels/db/attachments/from-page/a.txt")
                assert file.content == b"of the browser"
                service.http.put("/barrels/db/docs/later", json={"n": 2})
                until(lambda: site.holds("later").get("n") == 2, "what was written later, in the page")
                data = site.holds("with-file")["_attachments"]["b.txt"]["data"]
                assert data == "b2Ygc3BpbGU="
    finally:
        site.close()
