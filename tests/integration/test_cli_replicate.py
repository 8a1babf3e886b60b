"""`spile replicate` and `spile replications`: in the foreground, over folders and services, and by the service."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_tools import TIMEOUT_S, Service, begun, on_terminal, spile
from ports import free_port
from running import until

from feeds import Store

TOKEN = "t0ken-of-the-service"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("data"), SPILE_TOKEN=TOKEN) as running:
        yield running


@pytest.fixture
def at(service: Service, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.setenv("SPILE_TOKEN", TOKEN)
    return ("--url", service.url)


def filled(name: str, at: tuple[str, str], count: int = 20) -> str:
    """A barrel of the service with documents in it."""
    lines = "\n".join(json.dumps({"_id": f"d{number}", "n": number}) for number in range(count))
    assert spile("load", name, "-", "--update", *at, stdin=lines.encode()).code == 0
    return name


def ids(folder: Path, name: str = "geo") -> set[str]:
    with Store.open(folder) as store:
        return {row.id for row in store.barrel(name).changes().results}


# -- in the foreground


def test_from_a_service_into_a_folder_that_is_made_and_only_what_is_new_the_next_time(
    at: tuple[str, str], tmp_path: Path
) -> None:
    barrel = filled("first", at)
    done = spile("replicate", barrel, f"{tmp_path}/new#geo", "--create-target", *at)
    assert (done.code, done.value["written"], done.value["refused"]) == (0, 20, 0)
    assert len(ids(tmp_path / "new")) == 20
    spile("put", barrel, "more", *at, stdin=b"{}")
    again = spile("replicate", barrel, f"{tmp_path}/new#geo", *at).value
    assert (again["read"], again["written"]) == (1, 1)


def test_between_two_barrels_of_one_folder_and_by_name_with_database(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.create("geo").bulk([{"_id": "a"}, {"_id": "b"}])
    there = spile("replicate", f"{tmp_path}#geo", f"{tmp_path}/.#copy", "--create-target")
    assert (there.code, there.value["written"]) == (0, 2), there.err
    named = spile("replicate", "copy", "third", "--create-target", "--database", str(tmp_path))
    assert (named.code, ids(tmp_path, "third")) == (0, {"a", "b"}), named.err


def test_there_and_back_over_http(at: tuple[str, str], tmp_path: Path) -> None:
    barrel = filled("pair", at, 3)
    with Store.open(tmp_path) as store:
        store.create("geo").put({"_id": "ours"})
    done = spile("replicate", f"{tmp_path}#geo", barrel, "--both", *at)
    assert (done.code, done.value["written"]) == (0, 4), done.err
    assert ids(tmp_path) == {"d0", "d1", "d2", "ours"}
    assert spile("get", barrel, "ours", *at).code == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--pattern", "n/3", "--pattern", "n/4"), {"d3", "d4"}),
        (("--ids", "d5", "--ids", "d6"), {"d5", "d6"}),
        (("--ids-file", "-"), {"d7", "d8"}),
        (("--selector", '{"n": {"$gte": 18}}'), {"d18", "d19"}),
        (("--selector", '{"n": {"$gte": 18}}', "--ids", "d1", "--ids", "d19"), {"d19"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_part_of_a_barrel(
    at: tuple[str, str], tmp_path: Path, options: tuple[str, ...], expected: set[str]
) -> None:
    barrel = filled("part", at)
    stdin = b"d7\nd8\n"
    done = spile("replicate", barrel, f"{tmp_path}#geo", "--create-target", *options, *at, stdin=stdin)
    assert (done.code, ids(tmp_path)) == (0, expected), done.err


@pytest.mark.parametrize(
    "options",
    [
        ("--selector", "{"),
        ("--selector", '{"a": {"$no": 1}}'),
        ("--pattern", "a/#/b"),
        ("--pattern", "a", "--ids", "b"),
        ("--ids-file", "/nowhere"),
        ("--database", "x"),
    ],
    ids=" ".join,
)
def test_wrong_use_is_told_before_anything_is_asked(at: tuple[str, str], options: tuple[str, ...]) -> None:
    assert spile("replicate", "a", "b", *options, *at).code == 2


def test_refused_documents_are_named_and_the_exit_code_says_so(tmp_path: Path) -> None:
    with Store.open(tmp_path / "one") as store:
        store.create("geo").bulk([{"_id": "good"}, {"_id": "bad", "text": "x" * 2000}, {"_id": "also good"}])
    with Service(tmp_path / "other", SPILE_DOCUMENT_BYTES_MAX="1000") as small:
        done = spile("replicate", f"{tmp_path}/one#geo", f"{small.url}/geo", "--create-target")
        assert (done.code, done.value["written"], done.value["refused"]) == (1, 2, 1), done.err
        assert done.err.startswith("spile: bad 1-")
        assert "[too_large]" in done.err
        assert spile("get", "geo", "also good", "--url", small.url).code == 0


def test_what_is_not_there_and_who_does_not_answer(at: tuple[str, str], tmp_path: Path) -> None:
    missing = spile("replicate", "nowhere", f"{tmp_path}#geo", "--create-target", *at)
    assert (missing.code, "'nowhere'" in missing.err, "[not_found]" in missing.err) == (1, True, True)
    filled("there", at)
    target = spile("replicate", "there", "nowhere", *at)
    assert (target.code, "'nowhere'" in target.err) == (1, True)
    assert spile("replicate", "there", "there", *at).code == 1
    assert spile("replicate", "there", f"{tmp_path}/none#geo", *at).code == 3


def test_the_token_goes_to_its_own_service_and_to_no_other(
    service: Service, at: tuple[str, str], tmp_path: Path
) -> None:
    filled("closed", at, 2)
    place = f"{service.url}/closed"
    into = (f"{tmp_path}#geo", "--create-target")
    assert spile("replicate", place, *into, *at).code == 0
    elsewhere = ("--url", "http://127.0.0.1:1")
    refused = spile("replicate", place, *into, *elsewhere)
    assert (refused.code, "[unauthorized]" in refused.err) == (1, True)
    wrong = spile("replicate", place, *into, "--source-token", "wr0ng", *at)
    assert (wrong.code, "[unauthorized]" in wrong.err, "wr0ng" in wrong.err) == (1, True, False)
    assert spile("replicate", place, *into, "--source-token", TOKEN, *elsewhere).code == 0


def test_a_continuous_one_goes_on_until_it_is_interrupted_and_has_a_checkpoint_then(
    at: tuple[str, str], tmp_path: Path
) -> None:
    barrel = filled("live", at, 5)
    arguments = ("replicate", barrel, f"{tmp_path}#geo", "--create-target", *at)
    with begun(*arguments, "--continuous", SPILE_TOKEN=TOKEN) as process:
        until(lambda: _documents(tmp_path) == 5, "what was there")
        spile("put", barrel, "new", *at, stdin=b"{}")
        until(lambda: _documents(tmp_path) == 6, "what came")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (130, b"")
    assert json.loads(out)["written"] == 6
    assert spile(*arguments).value["read"] == 0


def test_one_that_waits_says_why_and_can_be_interrupted(at: tuple[str, str]) -> None:
    barrel = filled("lonely", at, 5)
    nobody = f"http://me:s3cret@127.0.0.1:{free_port()}/geo"
    with begun("replicate", barrel, nobody, "--continuous", *at, SPILE_TOKEN=TOKEN) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, b"waiting" in line, b"cannot be reached" in line) == (130, True, True)
    assert b"s3cret" not in line + err


def test_a_terminal_sees_how_far_it_is(at: tuple[str, str], tmp_path: Path) -> None:
    barrel = filled("shown", at)
    code, shown = on_terminal(
        *("replicate", barrel, f"{tmp_path}#geo", "--create-target", *at), SPILE_TOKEN=TOKEN, COLUMNS="200"
    )
    assert code == 0
    assert "20 revisions written in" in shown


def _documents(folder: Path) -> int:
    """How many there are, seen from beside the process that has the store."""
    import sqlite3
    from contextlib import closing

    try:
        with closing(sqlite3.connect(f"file:{folder}/spile.db?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM docs").fetchone()[0])
    except sqlite3.OperationalError:
        return -1  # it is being made


# -- by the service


def test_the_service_does_it_in_the_background_and_can_be_asked_about_it(at: tuple[str, str]) -> None:
    barrel = filled("worked", at, 7)
    arguments = ("replicate", barrel, "copy", "--background", "--continuous", "--create-target", *at)
    made = spile(*arguments).value
    assert spile(*arguments).value["id"] == made["id"]

    def shown() -> dict[str, Any]:
        told: dict[str, Any] = spile("replications", "show", made["id"][:8], *at).value
        return told

    until(lambda: shown()["progress"]["written"] == 7, "all documents")
    listed = spile("replications", *at).values
    assert made["id"] in [each["id"] for each in listed]
    assert spile("replications", "pause", made["id"], *at).value["state"] == "paused"
    assert shown()["state"] == "paused"
    spile("replications", "resume", made["id"], *at)
    until(lambda: shown()["state"] == "idle", "rest")
    code, table = on_terminal("replications", *at, SPILE_TOKEN=TOKEN)
    assert (code, made["id"][:8] in table, "idle" in table) == (0, True, True)
    code, facts = on_terminal("replications", "show", made["id"][:8], *at, SPILE_TOKEN=TOKEN)
    assert (code, made["id"] in facts) == (0, True)
    assert spile("replications", "cancel", made["id"], *at).value["state"] == "cancelled"
    gone = spile("replications", "show", made["id"], *at)
    assert (gone.code, "[not_found]" in gone.err) == (1, True)


@pytest.mark.parametrize("arguments", [("show",), ("list", "abcd"), ("stop", "abcd")])
def test_an_action_needs_what_it_needs(at: tuple[str, str], arguments: tuple[str, ...]) -> None:
    assert spile("replications", *arguments, *at).code == 2


def test_the_service_opens_no_other_stores(at: tuple[str, str], tmp_path: Path) -> None:
    refused = spile("replicate", "a", f"{tmp_path}#geo", "--background", *at)
    assert (refused.code, "opens its own alone" in refused.err) == (1, True)


def test_tasks_of_a_store_that_is_not_served_can_be_seen_and_changed(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.create("geo")
    here = ("--database", str(tmp_path))
    made = spile("replicate", "geo", "http://hub:8000/geo", "--background", "--continuous", *here)
    assert made.code == 0, made.err
    id = made.value["id"]
    assert spile("replications", "pause", id[:6], *here).value["state"] == "paused"
    assert [each["state"] for each in spile("replications", *here).values] == ["paused"]
    assert spile("replications", "resume", id[:6], *here).value["state"] == "starting"
    assert spile("replications", "show", id[:6], *here).value["target"] == "http://hub:8000/geo"
    assert spile("replications", "cancel", id[:6], *here).code == 0
    assert spile("replications", *here).values == []
