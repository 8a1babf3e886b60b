"""`spile put --p2p-write` and `spile get --p2p-read`, against a service and with a store that is opened directly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import Service, spile
from ports import free_port


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("far")) as running:
        spile("create", "geo", "--url", running.url)
        yield running


@pytest.fixture(scope="module")
def near(far: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    peers = f"far={far.url},dead=http://127.0.0.1:{free_port()}"
    with Service(tmp_path_factory.mktemp("near"), SPILE_PEERS=peers) as running:
        spile("create", "geo", "--url", running.url)
        yield running


def test_a_write_is_passed_on_and_it_is_told_who_has_it(near: Service, far: Service) -> None:
    done = spile("put", "geo", "FR", "--p2p-write", "2", "--p2p-timeout", "60", "--url", near.url, stdin=b'{"n": 1}')
    assert done.code == 0
    assert [holder["peer"] for holder in done.value["p2p"]["holders"]] == ["here", "far"]
    assert spile("get", "geo", "FR", "--url", far.url).value["_rev"] == done.value["rev"]
    gone = spile("delete", "geo", "FR", "--p2p-write", "2", "--p2p-timeout", "60", "--url", near.url)
    assert gone.code == 0
    assert "deleted" in spile("get", "geo", "FR", "--url", far.url).err


def test_too_few_are_exit_code_1_with_everyone_named(near: Service) -> None:
    done = spile(
        "put",
        "geo",
        "DE",
        "--p2p-write",
        "3",
        "--p2p-timeout",
        "20",
        "--p2p-depth",
        "1",
        "--url",
        near.url,
        stdin=b"{}",
    )
    assert done.code == 1
    assert done.value["p2p"]["reached"] == 2
    assert "2 of 3 have it" in done.err
    assert "  dead: " in done.err
    assert "[unavailable]" in done.err


def test_a_document_is_looked_for_and_kept(near: Service, far: Service) -> None:
    rev = spile("put", "geo", "IT", "--url", far.url, stdin=b'{"n": 3}').value["rev"]
    assert spile("get", "geo", "IT", "--url", near.url).code == 1
    assert spile("get", "geo", "IT", "--p2p-read", "--p2p-timeout", "60", "--url", near.url).value["n"] == 3
    assert spile("get", "geo", "IT", "--url", near.url).code == 1
    assert spile("get", "geo", "IT", "--p2p-first", "--keep", "--url", near.url).value["_rev"] == rev
    assert spile("get", "geo", "IT", "--url", near.url).value["_rev"] == rev
    none = spile("get", "geo", "XX", "--p2p-read", "--p2p-timeout", "60", "--url", near.url)
    assert none.code == 1
    assert "without it: far" in none.err
    assert "dead (unavailable)" in none.err


def test_a_store_that_is_opened_directly_has_the_peers_of_the_environment(
    far: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPILE_PEERS", f"far={far.url}")
    at = ("--database", str(tmp_path / "edge"))
    spile("create", "geo", *at)
    done = spile("put", "geo", "edge/1", "--p2p-write", "2", "--p2p-timeout", "60", *at, stdin=b'{"n": 1}')
    assert (done.code, done.value["p2p"]["reached"]) == (0, 2)
    rev = spile("put", "geo", "hub/1", "--url", far.url, stdin=b'{"n": 2}').value["rev"]
    assert spile("get", "geo", "hub/1", "--p2p-read", "--p2p-timeout", "60", *at).value["_rev"] == rev
    assert (
        spile("get", "geo", "hub/1", "--p2p-read", "--p2p-timeout", "60", "--keep", "--history", *at).value["_rev"]
        == rev
    )
    assert spile("get", "geo", "hub/1", *at).value["_rev"] == rev
    assert spile("get", "geo", "nobody", "--p2p-read", "--p2p-timeout", "60", *at).code == 1


def test_the_peers_of_a_barrel_are_set_by_their_names(near: Service) -> None:
    told = spile("configure", "geo", "--peer", "far", "--url", near.url)
    assert told.value["settings"]["peers"] == ["far"]
    done = spile("put", "geo", "ES", "--p2p-write", "3", "--p2p-timeout", "60", "--url", near.url, stdin=b"{}")
    assert (done.code, done.value["p2p"]["failed"]) == (1, [])


@pytest.mark.parametrize(
    "wrong",
    [
        ("put", "geo", "x", "--p2p-depth", "2"),
        ("put", "geo", "x", "--p2p-write", "0"),
        ("get", "geo", "x", "--keep"),
        ("get", "geo", "x", "--p2p-read", "--p2p-timeout", "60", "--p2p-depth", "99"),
    ],
)
def test_wrong_use_is_told(wrong: tuple[str, ...]) -> None:
    assert spile(*wrong).code == 2


def test_a_peer_is_shown_without_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPILE_PEERS", "hub=http://:s3cret@hub:8000,edge=https://me:s3cret@edge/x")
    shown = spile("settings")
    assert shown.code == 0
    assert "s3cret" not in shown.out.decode()
    (peers,) = (row["value"] for row in shown.values if row["setting"] == "peers")
    assert peers == ["hub=http://hub:8000/", "edge=https://edge/x"]
    monkeypatch.setenv("SPILE_PEERS", "hub=http://:s3cret@hub:port")
    wrong = spile("settings")
    assert wrong.code == 2
    assert "s3cret" not in wrong.err
    monkeypatch.setenv("SPILE_PEERS", "hub=http://a,hub=http://b")
    assert "a name of its own" in spile("settings").err
