"""The command line on a store that it opens itself."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_tools import COMMAND, begun, on_terminal, spile, spile_process

from feeds import Store


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def test_a_document_goes_through_its_life(store: str) -> None:
    at = ("--database", store)
    assert spile("create", "geo", *at).value["name"] == "geo"
    first = spile("put", "geo", "FR", *at, stdin=b'{"name": "France"}').value
    assert first["id"] == "FR"

    refused = spile("put", "geo", "FR", *at, stdin=b'{"name": "Frankreich"}')
    assert (refused.code, refused.out) == (1, b"")
    assert refused.err.startswith("spile: ")
    assert " [conflict]\n  hint: " in refused.err

    spile("put", "geo", "FR", *at, "--rev", first["rev"], stdin=b'{"name": "La France"}')
    spile("put", "geo", "FR", *at, "--merge", stdin=b'{"area": 551695}')
    document = spile("get", "geo", "FR", *at).value
    assert (document["name"], document["area"]) == ("La France", 551695)

    assert spile("delete", "geo", "FR", *at, "--rev", first["rev"]).code == 1
    assert spile("delete", "geo", "FR", *at).value["id"] == "FR"
    gone = spile("get", "geo", "FR", *at)
    assert gone.code == 1
    assert "deleted" in gone.err
    assert [row["id"] for row in spile("changes", "geo", *at).values] == ["FR"]


def test_barrels_are_made_set_up_listed_and_dropped(store: str) -> None:
    at = ("--database", store)
    spile("create", "a/b", "--retain", "--ttl", "60", *at)
    assert spile("create", "a/b", *at).code == 1
    assert spile("configure", "a/b", "--publish", "_id/#", *at).code == 0
    settings = spile("info", "a/b", *at).value["settings"]
    assert (settings["retain"], settings["ttl"], settings["publish"]) == (True, 60.0, ["_id/#"])
    assert [barrel["name"] for barrel in spile("barrels", *at).values] == ["a/b"]
    assert spile("drop", "a/b", *at).value == {"dropped": "a/b"}
    assert spile("info", "a/b", *at).code == 1


def test_documents_are_loaded_found_and_told(store: str, tmp_path: Path) -> None:
    at = ("--database", store)
    file = tmp_path / "cities.csv"
    file.write_text("city,country,people\n" + "".join(f"c{n},{'FR' if n % 2 else 'DE'},{n}\n" for n in range(50)))
    report = spile("load", "geo", str(file), "--id", "city", "--batch", "7", *at).value
    assert (report["stored"], report["refused"], report["seq"]) == (50, 0, 50)

    found = spile("find", "geo", "people", "--from", "40", "--order", "value", "--descending", "--limit", "3", *at)
    assert [row["id"] for row in found.values] == ["c49", "c48", "c47"]
    rows = spile("changes", "geo", "country/FR", "--since", "40", "--docs", *at).values
    assert [row["id"] for row in rows] == [f"c{n}" for n in range(41, 50, 2)]
    assert rows[0]["doc"]["people"] == 41
    newest = spile("changes", "geo", "--descending", "--limit", "2", *at).values
    assert [row["seq"] for row in newest] == [50, 49]


def test_loading_again_is_refused_document_by_document_unless_it_updates(store: str) -> None:
    at = ("--database", store)
    lines = b'{"s":"a","v":1}\n{"s":"b","v":2}\n'
    assert spile("load", "geo", "-", "--id", "s", *at, stdin=lines).code == 0
    again = spile("load", "geo", "-", "--id", "s", *at, stdin=lines + b'{"s":"c","v":3}\n')
    assert (again.code, again.value["stored"], again.value["refused"]) == (1, 1, 2)
    assert "standard input line 1: 'a' exists, and you sent no _rev [conflict]\n" in again.err
    assert again.err.endswith("  hint: With --update documents that are there already are extended.\n")
    updated = spile("load", "geo", "-", "--id", "s", "--update", *at, stdin=b'{"s":"a","v":7}\n{"s":"a","v":8}\n')
    assert (updated.code, updated.value["stored"]) == (0, 2)
    assert spile("get", "geo", "a", *at).value["v"] == 8


def test_a_line_that_is_no_json_stops_the_load_and_says_what_was_stored(store: str) -> None:
    at = ("--database", store)
    lines = b'{"a":1}\n' * 25 + b"oops\n" + b'{"a":1}\n' * 5
    stopped = spile("load", "geo", "-", "--batch", "10", *at, stdin=lines)
    assert stopped.code == 1
    assert "standard input line 26: it is not JSON" in stopped.err
    assert "20 documents were stored before" in stopped.err
    assert spile("info", "geo", *at).value["doc_count"] == 20
    passed = spile("load", "geo2", "-", "--skip-bad", *at, stdin=lines)
    assert (passed.code, passed.value["stored"], passed.value["skipped"]) == (0, 30, 1)


def test_a_packed_file_that_ends_early_is_named_and_what_it_held_is_stored(store: str, tmp_path: Path) -> None:
    at = ("--database", store)
    packed = gzip.compress(b"".join(b'{"n":"%b"}\n' % os.urandom(32).hex().encode() for _ in range(10_000)))
    cut = tmp_path / "cut.gz"
    cut.write_bytes(packed[: len(packed) // 2])
    stopped = spile("load", "geo", str(cut), "--batch", "100", *at)
    assert stopped.code == 1
    stored = spile("info", "geo", *at).value["doc_count"]
    assert stored > 4000
    assert stopped.err.startswith(
        f"spile: {cut} ends early: a part of the packed file is missing; {stored:,} documents were stored before ["
    )
    cut.write_bytes(packed[:100])
    assert "; nothing was stored [bad_request]" in spile("load", "geo", str(cut), *at).err


def test_a_load_of_a_file_that_is_not_there_makes_nothing(store: str, tmp_path: Path) -> None:
    missing = spile("load", "geo", str(tmp_path / "x.json"), "--database", store)
    assert missing.code == 1 and "x.json is not there" in missing.err
    assert "There is no store" in spile("info", "geo", "--database", store).err


def test_a_load_that_stored_nothing_names_no_seq(store: str) -> None:
    spile("load", "geo", "-", "--database", store, stdin=b'{"_id":"a"}')
    again = spile("load", "geo", "-", "--database", store, stdin=b'{"_id":"a"}').value
    assert (again["stored"], again["refused"], again["seq"]) == (0, 1, None)


@pytest.mark.parametrize(
    "path", ["#", "region/#", "/region/*", "region/*", "*/*", "region/50%", "region/a%2Fb", "+/x"]
)
def test_a_path_means_the_same_wherever_it_is_looked_for(store: str, path: str) -> None:
    documents = [{"_id": name, "region": name} for name in ("x", "50%", "a/b")]
    with Store.open(store) as opened:
        opened.create("geo").bulk(documents)
    matching = {"region/50%": ["50%"], "region/a%2Fb": ["a/b"], "+/x": ["x"]}
    found = spile("find", "geo", path, "--database", store).values
    assert sorted(hit["id"] for hit in found if not hit["path"].startswith("_id")) == matching.get(
        path, ["50%", "a/b", "x"]
    )


def test_the_store_may_be_named_before_the_command_and_the_command_has_the_last_word(store: str) -> None:
    assert spile("--database", store, "create", "geo").code == 0
    assert spile("--database", "nowhere", "info", "geo", "--database", store).value["name"] == "geo"
    assert spile("--url", "http://127.0.0.1:9", "barrels").err.startswith("spile: no service answers at http://127")


def test_a_store_that_another_process_holds_is_no_service_and_the_hint_names_url(store: str) -> None:
    with Store.open(store):
        held = spile("barrels", "--database", store)
    assert held.code == 3
    assert "--url" in held.err


def test_without_a_service_the_code_is_3_and_the_address_is_named() -> None:
    ended = spile("barrels", "--url", "http://u:secret@127.0.0.1:9")
    assert ended.code == 3
    assert "http://u@127.0.0.1:9" in ended.err
    assert "secret" not in ended.err
    ended = spile_process("barrels", SPILE_URL="http://127.0.0.1:9")
    assert (ended.code, ended.out) == (3, b"")
    assert ended.err.startswith("spile: no service answers at http://127.0.0.1:9")


def test_a_store_that_is_not_there_is_not_made_by_looking_for_it(store: str) -> None:
    ended = spile("barrels", "--database", store)
    assert ended.code == 3
    assert store in ended.err
    assert not Path(store).exists()


def test_a_missing_file_is_1(store: str) -> None:
    assert spile("load", "geo", "nowhere.json", "--database", store).code == 1
    assert spile("put", "geo", "x", "nowhere.json", "--database", store).code == 1


def test_people_on_a_terminal_see_tables_and_sentences(store: str) -> None:
    with Store.open(store) as opened:
        barrel = opened.create("geo")
        barrel.put({"name": "France", "langs": ["fr"]}, id="FR")
    code, shown = on_terminal("barrels", "--database", store)
    assert code == 0
    assert "doc_count" in shown
    assert "Nothing is found under nosuch." in on_terminal("find", "geo", "nosuch", "--database", store)[1]
    with pytest.raises(json.JSONDecodeError):
        json.loads(shown)
    assert "France" in on_terminal("get", "geo", "FR", "--database", store)[1]
    assert "FR" in on_terminal("changes", "geo", "--database", store)[1]
    assert "FR is deleted at 2-" in on_terminal("delete", "geo", "FR", "--database", store)[1]


def test_an_interrupted_load_ends_with_130_and_no_trace(store: str) -> None:
    with begun("load", "geo", "-", "--batch", "1", "--database", store) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b'{"_id":"a"}\n{"_id":"b"}\n')
        process.stdin.flush()
        wait_for_barrel = Path(store) / "spile.db"
        while not wait_for_barrel.exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        told = process.stderr.read().decode()
    assert "Traceback" not in told


def test_whoever_reads_may_leave_early(store: str) -> None:
    with Store.open(store) as opened:
        opened.create("geo").bulk([{"_id": f"d{n}"} for n in range(5000)])
    with begun("changes", "geo", "--database", store) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""


def test_an_output_that_cannot_be_written_is_told(store: str) -> None:
    with Store.open(store) as opened:
        opened.create("geo").bulk([{"_id": f"d{n}"} for n in range(5000)])
    for command in (("barrels",), ("changes", "geo"), ("version",)):
        options = () if command == ("version",) else ("--database", store)
        with open("/dev/full", "wb") as full:
            ended = subprocess.run([*COMMAND, *command, *options], stdout=full, stderr=subprocess.PIPE, check=False)
        assert ended.returncode == 1
        told = ended.stderr.decode()
        assert told.startswith("spile: the output cannot be written: No space left on device [error]\n  hint: ")
        assert "Traceback" not in told


def test_following_a_store_that_nobody_else_writes_is_refused(store: str) -> None:
    spile("create", "geo", "--database", store)
    refused = spile("changes", "geo", "--follow", "--database", store)
    assert refused.code == 1
    assert "--url" in refused.err


def test_help_comes_at_once() -> None:
    shown = spile_process("--help")
    assert (shown.code, shown.err) == (0, "")
    code = "import sys, broker.cli.main; sys.exit('sqlalchemy' in sys.modules or 'httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_completion_can_be_shown() -> None:
    assert b"_SPILE_COMPLETE" in spile_process("--show-completion", "bash").out
