"""`spile listen` against a running service."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_tools import TIMEOUT_S, Service, begun, spile


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture
def at(service: Service) -> tuple[str, str]:
    return ("--url", service.url)


def put(barrel: str, doc_id: str, doc: dict[str, Any], at: tuple[str, str]) -> None:
    ended = spile("put", barrel, doc_id, "--update", *at, stdin=json.dumps(doc).encode())
    assert ended.code == 0, ended.err


def next_row(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


@pytest.mark.parametrize("over", ["http", "mqtt"])
def test_what_stands_under_a_pattern_is_told_now_and_as_it_comes(over: str, service: Service) -> None:
    at = ("--url", service.url)
    barrel = f"pattern/{over}"
    spile("create", barrel, *at)
    put(barrel, "FR", {"region": "Europe"}, at)
    put(barrel, "JP", {"region": "Asia"}, at)
    where = at if over == "http" else ("--mqtt", f"mqtt://127.0.0.1:{service.mqtt}")
    with begun("listen", barrel, "region/Europe", "--docs", *where) as process:
        told = next_row(process)
        assert (told["id"], told["paths"], told["doc"]["region"]) == ("FR", ["region/Europe"], "Europe")
        put(barrel, "DE", {"region": "Europe"}, at)
        assert next_row(process)["entered"] is True
        put(barrel, "FR", {"region": "Asia"}, at)
        assert next_row(process)["removed"] is True
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 130


def test_once_ends_at_the_present_and_a_name_goes_on_there(at: tuple[str, str]) -> None:
    spile("create", "named", *at)
    put("named", "a", {}, at)
    first = spile("listen", "named", "--once", "--name", "archive", *at)
    assert (first.code, [row["id"] for row in first.values]) == (0, ["a"])
    put("named", "b", {}, at)
    again = spile("listen", "named", "--once", "--name", "archive", *at)
    assert [row["id"] for row in again.values] == ["b"]


def test_a_command_is_run_for_each_change_and_goes_on_after_a_restart(
    service: Service, at: tuple[str, str], tmp_path: Path
) -> None:
    spile("create", "run", *at)
    put("run", "a", {"n": 1}, at)
    told = tmp_path / "told"
    command = f"sh -c 'echo $SPILE_SEQ $SPILE_ID $SPILE_PATH >> {told}'"
    with begun("listen", "run", "n/#", "--name", "runner", "--exec", command, *at) as process:
        wait_for_lines(told, ["1 a n/1"], process)
        service.restart(signal.SIGKILL)
        put("run", "b", {"n": 2}, at)
        wait_for_lines(told, ["1 a n/1", "2 b n/2"], process)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 130


def wait_for_lines(file: Path, lines: list[str], process: subprocess.Popen[bytes]) -> None:
    while not file.exists() or file.read_text().splitlines()[-1:] != lines[-1:]:
        assert process.poll() is None
    # At least once: what was told before the service died may be told again.
    assert list(dict.fromkeys(file.read_text().splitlines())) == lines


def test_a_failing_command_stops_and_its_change_is_told_again(at: tuple[str, str], tmp_path: Path) -> None:
    spile("create", "fail", *at)
    put("fail", "good", {}, at)
    put("fail", "bad", {}, at)
    told = tmp_path / "told"
    command = f"""sh -c 'echo $SPILE_ID >> {told}; test "$SPILE_ID" = good'"""
    options = ("--once", "--name", "picky", "--attempts", "2", "--exec")
    stopped = spile("listen", "fail", *options, command, *at)
    assert stopped.code == 1
    assert "for bad at 2" in stopped.err
    assert told.read_text().split() == ["good", "bad", "bad"]
    letters = tmp_path / "letters"
    passed = spile("listen", "fail", *options, command, "--dead-letters", str(letters), *at)
    assert passed.code == 0
    assert told.read_text().split() == ["good", "bad", "bad", "bad", "bad"]
    assert json.loads(letters.read_text())["change"]["id"] == "bad"


def test_a_barrel_that_is_not_there_is_1_and_no_service_is_3(at: tuple[str, str]) -> None:
    assert spile("listen", "nowhere", "--once", *at).code == 1
    assert spile("listen", "nowhere", "--once", "--patience", "0.1", "--url", "http://127.0.0.1:9").code == 3


def test_a_store_opened_directly_can_be_told_once(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    spile("load", "geo", "-", "--database", store, stdin=b'{"_id":"a"}\n{"_id":"b"}\n')
    told = spile("listen", "geo", "--once", "--database", store)
    assert [row["id"] for row in told.values] == ["a", "b"]
