"""Starting the service from the command line, and what keeps it from starting."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from cli_tools import Service, spile, spile_process

NOWHERE = ("--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0")


def test_a_second_service_on_the_same_store_is_refused(tmp_path: Path) -> None:
    with Service(tmp_path / "data") as service:
        second = spile_process("serve", "--data", str(tmp_path / "data"), *NOWHERE)
        assert second.code == 3
        assert "Traceback" not in second.err
        assert "--url" in second.err
        assert spile("barrels", "--url", service.url).code == 0


@pytest.mark.parametrize("option", ["--http", "--mqtt"])
def test_an_address_in_use_is_named(option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = spile_process("serve", "--data", str(tmp_path), *NOWHERE, option, address)
    assert refused.code == 3
    assert address in refused.err
    assert "Traceback" not in refused.err


def test_with_a_token_only_those_who_send_it_are_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Service(tmp_path / "data", SPILE_TOKEN="secret") as service:
        at = ("--url", service.url)
        monkeypatch.delenv("SPILE_TOKEN", raising=False)
        assert spile("create", "geo", *at).code == 1
        monkeypatch.setenv("SPILE_TOKEN", "wrong")
        assert spile("create", "geo", *at).code == 1
        monkeypatch.setenv("SPILE_TOKEN", "secret")
        assert spile("create", "geo", *at).code == 0
        assert spile("load", "geo", "-", *at, stdin=b'{"_id":"a"}').code == 0
        assert [row["id"] for row in spile("listen", "geo", "--once", *at).values] == ["a"]


def test_the_token_opens_mqtt_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Service(tmp_path / "data", SPILE_TOKEN="secret") as service:
        monkeypatch.setenv("SPILE_TOKEN", "secret")
        spile("load", "geo", "-", "--url", service.url, stdin=b'{"_id":"a"}')
        heard = spile("listen", "geo", "--once", "--mqtt", f"mqtt://127.0.0.1:{service.mqtt}")
        assert [row["id"] for row in heard.values] == ["a"]


def test_a_settings_file_and_the_environment_are_read(tmp_path: Path) -> None:
    file = tmp_path / "spile.toml"
    file.write_text("colour = 1")
    refused = spile_process("serve", "--config", str(file))
    assert refused.code == 2
    assert "colour" in refused.err
    file.write_text("readers = 7")
    shown = spile_process("settings", SPILE_CONFIG=str(file), SPILE_STREAMS_MAX="9", SPILE_TOKEN="hush")
    values = {row["setting"]: row["value"] for row in shown.values}
    assert (values["readers"], values["streams_max"]) == (7, 9)
    assert b"hush" not in shown.out
