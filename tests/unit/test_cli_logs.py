"""What a line of the log looks like."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from broker.logs import set_up_logging


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("spile")
    before = (list(root.handlers), root.level, ours.level)
    yield
    root.handlers[:], root.level = before[0], before[1]
    ours.setLevel(before[2])
    logging.captureWarnings(False)


def test_a_line_of_text_has_time_level_logger_message_and_fields() -> None:
    stream = io.StringIO()
    set_up_logging("info", "text", stream)
    logging.getLogger("spile.http").info("served %s", "geo", extra={"status": 200})
    line = stream.getvalue()
    assert line[:4].isdigit()
    assert line.endswith("Z INFO spile.http: served geo status=200\n")


def test_a_line_of_json_has_them_by_name_and_a_trace_with_an_exception() -> None:
    stream = io.StringIO()
    set_up_logging("info", "json", stream)
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("spile.store").exception("it\nfailed", extra={"seq": 7, "kept": {1}})
    line = json.loads(stream.getvalue())
    assert (line["level"], line["logger"], line["message"]) == ("error", "spile.store", "it\nfailed")
    assert line["seq"] == 7
    assert "ValueError: odd" in line["trace"]


def test_the_level_holds_for_spile_and_others_are_heard_from_warning_on() -> None:
    stream = io.StringIO()
    set_up_logging("debug", "text", stream)
    logging.getLogger("spile").debug("ours")
    logging.getLogger("amqtt").info("theirs")
    logging.getLogger("amqtt").warning("look out")
    assert [line.rpartition(": ")[2] for line in stream.getvalue().splitlines()] == ["ours", "look out"]


def test_setting_up_again_replaces_what_was_set_up() -> None:
    first, second = io.StringIO(), io.StringIO()
    set_up_logging("info", "text", first)
    set_up_logging("error", "text", second)
    logging.getLogger("spile").warning("quiet")
    logging.getLogger("spile").error("loud")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1
