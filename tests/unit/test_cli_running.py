"""Running a command for each change."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from broker.cli.running import ChangeCommand, CommandFailed
from feeds.errors import BadRequest

CHANGE = b'{"seq":7,"id":"FR","rev":"1-a","paths":["region/Europe","area/5"],"doc":{"name":"France"}}'


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "script.py"
    path.write_text(text)
    return f"{sys.executable} '{path}'"


def test_the_command_gets_the_change_on_standard_input_and_in_its_environment(tmp_path: Path) -> None:
    command = script(
        tmp_path,
        "import json, os, sys, pathlib\n"
        "told = {name: value for name, value in os.environ.items() if name.startswith('SPILE_')}\n"
        f"pathlib.Path({str(tmp_path / 'told')!r}).write_text(json.dumps([json.load(sys.stdin), told]))\n",
    )
    ChangeCommand(command, barrel="geo", attempts=1).run(CHANGE)
    change, told = json.loads((tmp_path / "told").read_text())
    assert change == json.loads(CHANGE)
    assert told["SPILE_BARREL"] == "geo"
    assert (told["SPILE_ID"], told["SPILE_REV"], told["SPILE_SEQ"]) == ("FR", "1-a", "7")
    assert told["SPILE_PATH"] == "region/Europe"


def test_a_command_that_fails_is_run_again_until_it_succeeds(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    command = script(
        tmp_path,
        f"import sys\nwith open({str(tries)!r}, 'a') as file: file.write('x')\n"
        f"sys.exit(len(open({str(tries)!r}).read()) < 3)\n",
    )
    ChangeCommand(command, barrel="geo", attempts=5, wait=0.001).run(CHANGE)
    assert tries.read_text() == "xxx"


def test_after_the_last_attempt_it_is_told_what_failed() -> None:
    with pytest.raises(CommandFailed, match="exit code 1 for FR at 7"):
        ChangeCommand("false", barrel="geo", attempts=2, wait=0.001).run(CHANGE)


def test_a_failing_change_can_be_kept_aside(tmp_path: Path) -> None:
    letters = tmp_path / "letters.ndjson"
    command = ChangeCommand("false", barrel="geo", attempts=1, dead_letters=letters)
    command.run(CHANGE)
    command.run(CHANGE.replace(b"7", b"8"))
    kept = [json.loads(line) for line in letters.read_text().splitlines()]
    assert [letter["change"]["seq"] for letter in kept] == [7, 8]
    assert kept[0]["barrel"] == "geo"
    assert command.set_aside == 2


@pytest.mark.parametrize("command", ["", "  ", "echo 'no end"])
def test_what_is_no_command_is_refused_at_once(command: str) -> None:
    with pytest.raises(BadRequest):
        ChangeCommand(command, barrel="geo", attempts=1)


def test_a_program_that_is_not_there_is_not_tried_again() -> None:
    with pytest.raises(BadRequest, match="cannot be run"):
        ChangeCommand("/nowhere/program", barrel="geo", attempts=5).run(CHANGE)
