"""What people give the command line that cannot be, and what it is told then: never a trace, never half a truth."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cli_tools import COMMAND, environment, spile

from broker.cli.output import Output

NOT_UTF8 = "\udcff"
"""The byte 0xff, as Python gives it in an argument."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    at = str(tmp_path / "store")
    assert spile("create", "geo", "--database", at).code == 0
    assert spile("put", "geo", "FR", "--database", at, stdin=b'{"name": "France"}').code == 0
    return at


@pytest.mark.parametrize(
    "command",
    [
        ("get", "geo", NOT_UTF8),
        ("delete", "geo", NOT_UTF8),
        ("find", "geo", "name", "--from", NOT_UTF8),
        ("create", "other", "--ttl-field", NOT_UTF8),
        ("listeners", "geo", "--forget", NOT_UTF8),
    ],
)
def test_an_argument_that_is_no_text_is_refused(store: str, command: tuple[str, ...]) -> None:
    ended = spile(*command, "--database", store)
    assert ended.code == 1
    assert "is not UTF-8" in ended.err


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_number_of_seconds_is_finite(value: str) -> None:
    nobody = ("--url", "http://127.0.0.1:9")
    for command in (("create", "g", "--ttl"), ("configure", "g", "--log-kept")):
        ended = spile(*command, value, *nobody)
        assert ended.code == 2
        assert "is no number of seconds" in " ".join(ended.err.split())


def test_a_token_that_cannot_be_sent_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("hemlig\n", "hemligé"):
        monkeypatch.setenv("SPILE_TOKEN", token)
        ended = spile("barrels", "--url", "http://127.0.0.1:9")
        assert ended.code == 1
        assert "token has characters that cannot be sent" in ended.err
        assert "hemlig" not in ended.err


def test_a_url_that_gets_too_long_and_a_host_that_is_none_are_told() -> None:
    assert "too long" in spile("get", "geo", "x" * 70_000, "--url", "http://127.0.0.1:9").err
    assert spile("barrels", "--url", "http://.").code == 3


class Other(BaseHTTPRequestHandler):
    """Answers everything with 200 and the same."""

    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture(params=[b"<html>\n\xff</html>", b"[]", b"{}"])
def another(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server of something else."""
    kind = type("Another", (Other,), {"body": request.param})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "command",
    [
        *(("get", "geo", "FR"), ("delete", "geo", "FR"), ("put", "geo", "FR"), ("resolve", "geo", "FR", "1-a")),
        *(("barrels",), ("conflicts", "geo"), ("listeners",)),
    ],
)
def test_another_server_is_no_service(another: str, command: tuple[str, ...]) -> None:
    ended = spile(*command, "--url", another, stdin=b"{}")
    assert (ended.code, ended.out) == (3, b"")
    assert "not as Spile does" in ended.err


def test_an_attachment_goes_into_what_is_no_file_and_into_no_folder(store: str, tmp_path: Path) -> None:
    at = ("--database", store)
    (tmp_path / "flag").write_bytes(b"x" * 100_000)
    spile("attach", "geo", "FR", "flag", *at)
    for target in (".", "", "/", str(tmp_path)):
        refused = spile("fetch", "geo", "FR", "flag", "-o", target, *at)
        assert refused.code == 1
        assert "is a folder" in refused.err
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert spile("fetch", "geo", "FR", "flag", "-o", str(pipe), *at).code == 0
    reader.join()
    assert len(read[0]) == 100_000
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def ended_in_shell(line: str) -> subprocess.CompletedProcess[str]:
    """How a line of a shell ended, in which $SPILE stands for the command."""
    called = environment(CALLED=" ".join(COMMAND))
    return subprocess.run(["sh", "-c", line], env=called, capture_output=True, text=True, timeout=60, check=False)


def test_whoever_reads_an_attachment_may_leave_early(store: str, tmp_path: Path) -> None:
    (tmp_path / "flag").write_bytes(b"x" * 3_000_000)
    spile("attach", "geo", "FR", "flag", "--database", store)
    ended = ended_in_shell(f"$CALLED fetch geo FR flag -o - --database {store} | head -c 1")
    assert (ended.stdout, ended.stderr) == ("x", "")


def test_closed_standard_streams_are_empty(store: str) -> None:
    assert ended_in_shell(f"$CALLED barrels --database {store} >&-").returncode == 0
    closed = ended_in_shell(f"$CALLED put geo DE --database {store} <&-")
    assert closed.returncode == 1
    assert "it is empty [bad_request]" in closed.stderr


def test_an_input_that_does_not_wait_is_made_to() -> None:
    """As of a pipe that another program has set so: what is not there yet would be taken for the end."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    line = "import os; from broker.cli.streams import make_usable; make_usable(); print(os.get_blocking(0))"
    ended = subprocess.run([sys.executable, "-c", line], stdin=ours, stdout=subprocess.PIPE, timeout=60, check=False)
    os.close(ours)
    os.close(theirs)
    assert ended.stdout == b"True\n"


def test_what_a_document_holds_does_not_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    held = io.BytesIO()
    output = Output(held, is_terminal=True)
    document = {"title": "\x1b]0;mine\x07", "c1": "\x9b31m"}
    output.table(("title", "c1"), [document])
    output.facts(document)
    output.document(json.dumps(document, ensure_ascii=False).encode())
    output.text(str(document["title"] + document["c1"]))
    for shown in (capsys.readouterr().out, held.getvalue().decode()):
        assert not {"\x1b", "\x07", "\x9b"} & set(shown)
        assert "\\u001b]0;mine" in shown


def test_an_id_cannot_be_looked_for_within_the_id(store: str, tmp_path: Path) -> None:
    (tmp_path / "docs").write_bytes(b'{"a":1}\n')
    assert "ids cannot be taken from" in spile("load", "geo", "docs", "--id", "_id.x", "--database", store).err


def test_a_file_that_cannot_be_read_from_is_told(store: str) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("reads a file of Linux")
    ended = spile("load", "geo", "/proc/self/mem", "--database", store)
    assert ended.code == 1
    assert "reading /proc/self/mem failed" in ended.err


def test_where_letters_cannot_be_kept_is_told_before_any_command_runs(store: str, tmp_path: Path) -> None:
    letters = tmp_path / "nowhere" / "letters"
    asked = ("listen", "geo", "--once", "--exec", "touch ran", "--dead-letters", str(letters))
    ended = spile(*asked, "--database", store)
    assert ended.code == 1
    assert f"changes cannot be kept aside in {letters}" in ended.err
    assert not (tmp_path / "ran").exists()


def test_a_path_that_the_system_refuses_is_told(store: str) -> None:
    for command in (("backup", "x" * 300, "--data", store), ("restore", "x" * 300, "--data", "new")):
        ended = spile(*command)
        assert ended.code == 1
        assert "cannot be used: File name too long" in ended.err


def test_a_backup_may_have_any_name_of_a_file(store: str, tmp_path: Path) -> None:
    assert spile("backup", NOT_UTF8, "--data", store).value["damaged"] == []
    assert (tmp_path / NOT_UTF8).is_file()
