"""The page on selectors says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from feeds.selector import OPERATORS, Selector, parsing, regexes
from feeds.selector.fields import CHARACTERS_MAX, LEVELS_MAX

PAGE = (Path(__file__).parents[2] / "docs" / "concepts" / "selectors.md").read_text()
ROWS = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| `$")]
SELECTORS = re.findall(r"`(\{\"[^`]*\})`", PAGE) + re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)


def test_the_table_has_every_operator_and_no_other() -> None:
    assert sorted(row[0].strip("|` ") for row in ROWS) == sorted(OPERATORS)
    assert all(len(row) == 3 for row in ROWS)


@pytest.mark.parametrize(
    "text", [text for text in SELECTORS if not text.startswith('{"$lt"') and text != '{"$gt": 5}']
)
def test_every_selector_on_the_page_can_be_read(text: str) -> None:
    assert Selector.parse(msgspec.json.decode(text)).canonical


def test_there_are_selectors_on_the_page() -> None:
    assert len(SELECTORS) > 10


def test_limits_are_those_of_the_code() -> None:
    assert (
        f"{parsing.BYTES_MAX // 1024} KiB of JSON, {parsing.DEPTH_MAX} levels, {parsing.OPERATORS_MAX:,} operators"
        in PAGE
    )
    assert f"{LEVELS_MAX} keys, {CHARACTERS_MAX:,} characters" in PAGE
    assert f"{regexes.CHARACTERS_MAX:,} characters each; {regexes.STEPS_MAX:,} steps" in PAGE
    assert f"Texts of more than {regexes.TEXT_BYTES_MAX // 1024} KiB" in PAGE
    assert abs(regexes.check_regex("[a-z]{3}") - 10) < 5
    assert regexes.check_regex("\\pL") == pytest.approx(1200, abs=50)
