"""The command line speaking to a running service."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import DATA, TIMEOUT_S, Service, begun, on_terminal, spile


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture
def at(service: Service) -> tuple[str, str]:
    return ("--url", service.url)


def test_a_document_goes_through_its_life(at: tuple[str, str]) -> None:
    assert spile("create", "life", "--retain", *at).value["settings"]["retain"] is True
    assert spile("create", "life", *at).code == 1
    first = spile("put", "life", "a/b c", *at, stdin=b'{"name": "x"}').value
    assert first["id"] == "a/b c"
    assert spile("put", "life", "a/b c", *at, stdin=b'{"name": "y"}').code == 1
    assert spile("put", "life", "a/b c", "--update", *at, stdin=b'{"name": "y"}').code == 0
    assert spile("put", "life", "a/b c", "--merge", *at, stdin=b'{"n": 1}').code == 0
    assert spile("get", "life", "a/b c", *at).value["name"] == "y"
    history = spile("get", "life", "a/b c", "--history", *at).value["_history"]
    assert len(history) == 3
    assert spile("get", "life", "a/b c", "--rev", first["rev"], *at).value["name"] == "x"
    stale = spile("delete", "life", "a/b c", "--rev", first["rev"], *at)
    assert stale.code == 1
    assert spile("delete", "life", "a/b c", *at).code == 0
    gone = spile("get", "life", "a/b c", *at)
    assert (gone.code, gone.out) == (1, b"")
    assert "deleted" in gone.err
    assert spile("purge", "life", "a/b c", *at).code == 0
    assert spile("changes", "life", *at).values == []


@pytest.mark.parametrize("doc_id", ["..", ".", "a/../b", "50%", "%2F", "ü+*#?&=", "a//b", "x/"])
def test_odd_ids_arrive_as_they_are(doc_id: str, service: Service) -> None:
    from broker.cli.backend import GetQuery
    from broker.cli.over_http import HttpBackend

    with HttpBackend.at(service.url) as backend:
        if "odd/ids" not in [barrel["name"] for barrel in backend.barrels()]:
            backend.create("odd/ids", {})
        assert backend.put("odd/ids", doc_id, b"{}")["id"] == doc_id
        assert json.loads(backend.get("odd/ids", doc_id, GetQuery()))["_id"] == doc_id


def test_countries_are_loaded_found_and_told(at: tuple[str, str]) -> None:
    file = DATA / "countries.json"
    if not file.is_file():
        pytest.skip("the shared data is not here")
    report = spile("load", "geo", str(file), "--id", "cca3", "--batch", "50", *at).value
    assert (report["stored"], report["seq"]) == (250, 250)
    found = spile("find", "geo", "region", "--from", "Europe", "--to", "Europe", "--limit", "1000", *at).values
    largest = spile("find", "geo", "area", "--order", "value", "--descending", "--limit", "1", "--docs", *at).value
    assert (largest["id"], largest["doc"]["name"]["common"]) == ("RUS", "Russia")
    rows = spile("changes", "geo", "region/Europe", *at).values
    assert {row["id"] for row in rows} == {hit["id"] for hit in found}
    assert len(spile("changes", "geo", "--limit", "7", *at).values) == 7
    newest = spile("changes", "geo", "--descending", "--limit", "2", *at).values
    assert [row["seq"] for row in newest] == [250, 249]


def test_updates_are_taken_in_the_order_of_the_file(at: tuple[str, str]) -> None:
    lines = b"".join(b'{"sensor":"s%d","n":%d}\n' % (n % 7, n) for n in range(5000))
    report = spile("load", "sensors", "-", "--id", "sensor", "--update", "--batch", "100", *at, stdin=lines).value
    assert (report["stored"], report["refused"]) == (5000, 0)
    last = {row["id"]: row["doc"]["n"] for row in spile("changes", "sensors", "--docs", *at).values}
    assert last == {f"s{n % 7}": n for n in range(4993, 5000)}


def test_refused_documents_are_named_and_the_code_is_1(at: tuple[str, str]) -> None:
    lines = b'{"_id":"good"}\n{"_id":"_bad"}\n{"_odd":1}\n{"_id":"good"}\n'
    report = spile("load", "refusals", "-", *at, stdin=lines)
    assert report.code == 1
    assert (report.value["stored"], report.value["refused"]) == (1, 3)
    for number in (2, 3, 4):
        assert f"standard input line {number}: " in report.err


def test_following_shows_what_comes_and_goes_on_after_a_restart(service: Service, at: tuple[str, str]) -> None:
    spile("create", "follow", *at)
    spile("put", "follow", "before", *at, stdin=b"{}")
    with begun("changes", "follow", "--follow", "--limit", "4", *at) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["id"] == "before"
        spile("put", "follow", "live", *at, stdin=b"{}")
        assert json.loads(process.stdout.readline())["id"] == "live"
        service.restart(signal.SIGKILL)
        spile("put", "follow", "after", *at, stdin=b"{}")
        assert json.loads(process.stdout.readline())["id"] == "after"
        spile("delete", "follow", "after", *at)
        assert json.loads(process.stdout.readline())["deleted"] is True
        assert process.wait(TIMEOUT_S) == 0


def test_following_ends_with_130_by_an_interrupt(at: tuple[str, str]) -> None:
    spile("create", "stop", *at)
    spile("put", "stop", "x", *at, stdin=b"{}")
    with begun("changes", "stop", "--follow", *at) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 130
        assert process.stderr.read() == b""


def test_a_load_goes_on_through_a_restart_and_stores_everything_once(service: Service, at: tuple[str, str]) -> None:
    with begun("load", "through", "-", "--batch", "20", *at) as process:
        assert process.stdin is not None
        for number in range(200):
            process.stdin.write(b'{"n":%d}\n' % number)
        process.stdin.flush()
        while spile("info", "through", *at).code != 0:
            assert process.poll() is None
        service.restart(signal.SIGKILL)
        out, err = process.communicate(b"".join(b'{"n":%d}\n' % number for number in range(200, 400)), TIMEOUT_S)
        assert process.returncode == 0, err.decode()
    assert json.loads(out)["stored"] == 400
    rows = spile("changes", "through", "--docs", *at).values
    assert sorted(row["doc"]["n"] for row in rows) == list(range(400))


def test_a_position_of_another_life_is_refused_with_what_to_do(at: tuple[str, str]) -> None:
    spile("create", "again", *at)
    refused = spile("changes", "again", "--since", "3-nosuchepoch", *at)
    assert refused.code == 1
    assert "first" in refused.err


def test_people_see_tables_and_progress(at: tuple[str, str]) -> None:
    spile("create", "seen", *at)
    assert "doc_count" in on_terminal("barrels", *at)[1]
    assert "seen is dropped" in on_terminal("drop", "seen", *at)[1]


def test_another_program_at_the_address_is_no_service(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<html>")
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path), "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with server:
        assert server.stdout is not None
        address = server.stdout.readline().split(b"(")[1].split(b"/)")[0].decode()
        ended = spile("barrels", "--url", address)
        server.terminate()
    assert ended.code == 3
    assert "not as Spile does" in ended.err
