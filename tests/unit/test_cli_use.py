"""Using the command line wrongly, and its help."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.cli.main import app


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "Geo"), "is no name for a barrel"),
        (("create", "geo", "--ttl", "soon"), "--ttl"),
        (("configure", "geo"), "nothing to change"),
        (("changes", "geo", "a/#/b"), "PATTERN"),
        (("changes", "geo", "--since", "yesterday"), "not a position"),
        (("changes", "geo", "--descending"), "--limit"),
        (("load", "geo", "--batch", "0", "x.json"), "--batch"),
        (("load", "geo", "--format", "xml", "x"), "ndjson, json or csv"),
        (("put", "geo", "x", "--update", "--rev", "1-a"), "--update"),
        (("find", "geo", "a", "--order", "size"), "--order"),
        (("barrels", "--url", "http://127.0.0.1:1", "--database", "x"), "exclude each other"),
        (("check", "--data", "x", "--database", "y"), "exclude each other"),
        (("get", "geo"), "ID"),
        (("listeners", "--forget", "alarm"), "needs the BARREL"),
        (("listeners", "Geo"), "is no name for a barrel"),
        (("nonsense",), "nonsense"),
        (("find", "geo", "a/#/b"), "has levels after `#`"),
        (("barrels", "--url", "127.0.0.1:8000"), "does not begin with http://HOST"),
        (("listen", "geo", "--mqtt", "http://127.0.0.1:1883"), "does not begin with mqtt://HOST"),
        (("listen", "geo", "--mqtt", "mqtt://127.0.0.1:port"), "is no URL of a service"),
        (("barrels", "--url", "http://u:secret@127.0.0.1:port"), "'127.0.0.1:port' is no URL of a service"),
        (("barrels", "--url", "http://127.0.0.1:9?token=hush"), "each once, with a file, not 'token'"),
        (("barrels", "--url", "http://127.0.0.1:9?hush"), "each once, with a file"),
        (("barrels", "--url", "https://127.0.0.1:9?ca=x&"), "each once, with a file"),
        (("barrels", "--url", "http://["), "is no URL of a service"),
        (("--url", "nowhere", "barrels"), "is no URL of a service"),
        (("--url", "http://127.0.0.1:9", "barrels", "--database", "x"), "exclude each other"),
        (("--url", "http://127.0.0.1:9", "serve"), "`spile serve` has no option --url"),
        (("--database", "x", "check", "--data", "y"), "exclude each other"),
        (("--limit", "3", "find", "geo", "a"), "It is an option of: conflicts, find, changes"),
        (("--url", "http://127.0.0.1:9", "--limit=3", "find", "geo", "a"), "--limit stands before the command"),
        (("--nonsense", "find", "geo", "a"), "--nonsense"),
        (("serve", "--http", "0.0.0.0:0"), "SPILE_TOKEN"),
        (("serve", "--http", "nowhere"), "HOST:PORT"),
    ],
)
def test_wrong_use_is_2_before_anything_is_asked(
    arguments: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = CliRunner(env={"COLUMNS": "300"}).invoke(app, arguments)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert told in ended.stderr and "hush" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


COMMANDS = [
    *("serve", "settings", "version", "health", "create", "configure", "barrels", "info", "drop"),
    *("put", "get", "delete", "purge", "load", "find", "changes", "listen", "listeners"),
    *("check", "backup", "restore", "begin-anew"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command: str) -> None:
    ended = CliRunner().invoke(app, [command, "--help"])
    assert ended.exit_code == 0
    assert f"spile {command}" in ended.stdout
    assert "Examples" in ended.stdout or command == "version"


def test_the_help_names_every_command() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    for command in COMMANDS:
        assert f" {command} " in shown


def words(text: str) -> str:
    """What a help page says, without its frame."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


def test_help_says_what_is_surprising() -> None:
    find = words(CliRunner().invoke(app, ["find", "--help"]).stdout)
    assert "Sort by path and then value, or by value alone." in re.sub(r"<[^>]+>", "", find)
    listen = words(CliRunner().invoke(app, ["listen", "--help"]).stdout)
    assert "without a shell" in listen
    assert "[PATTERN]... " in listen


def test_the_version_can_be_asked_for_both_ways() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == CliRunner().invoke(app, ["version"]).stdout
