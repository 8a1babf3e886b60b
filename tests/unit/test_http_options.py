"""Options mean the same in a query and in a body, and a wrong one is refused by name."""

from typing import Any

import pytest

from broker.http.feed_options import KNOWN, read_feed_options
from broker.http.options import Options
from broker.http.paths import path_text
from feeds.errors import BadRequest
from feeds.positions import FIRST, NOW, Position


def query(text: str) -> Options:
    return Options.from_query(text.encode(), KNOWN + ("from", "rev"))


def test_a_query_and_a_body_mean_the_same() -> None:
    asked = query("since=7-abc&limit=5&pattern=a/%23&pattern=b/%2B&docs=true&feed=continuous&timeout=1500")
    body = Options.from_json(
        {
            "since": "7-abc",
            "limit": 5,
            "pattern": ["a/#", "b/+"],
            "docs": True,
            "feed": "continuous",
            "timeout": 1500,
        },
        KNOWN,
    )
    assert read_feed_options(asked, None) == read_feed_options(body, None)


def test_nothing_given_reads_everything_once() -> None:
    asked = read_feed_options(query(""), None)
    assert (asked.mode, asked.since, asked.patterns, asked.docs, asked.limit) == ("normal", FIRST, (), False, None)
    assert (asked.heartbeat_s, asked.timeout_s) == (10.0, None)


def test_a_long_poll_waits_a_minute_by_itself() -> None:
    assert read_feed_options(query("feed=longpoll"), None).timeout_s == 60.0


@pytest.mark.parametrize(
    ("since", "place"),
    [("0", FIRST), ("first", FIRST), ("now", NOW), ("12", Position(12)), ("12-ab", Position(12, "ab"))],
)
def test_since_is_a_place_in_the_log(since: str, place: object) -> None:
    assert read_feed_options(query(f"since={since}"), None).since == place


def test_an_event_source_goes_on_from_its_last_event() -> None:
    assert read_feed_options(query("feed=eventsource&since=now"), "9-ab").since == Position(9, "ab")
    assert read_feed_options(query("feed=continuous&since=now"), "9-ab").since == NOW


@pytest.mark.parametrize(("text", "beat"), [("false", None), ("true", 10.0), ("500", 0.5)])
def test_a_heartbeat_is_milliseconds_or_a_switch(text: str, beat: float | None) -> None:
    assert read_feed_options(query(f"heartbeat={text}"), None).heartbeat_s == beat


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("limit=-1", "limit"),
        ("limit=1.5", "limit"),
        ("limit=1e3", "limit"),
        ("limit=٣", "limit"),
        ("limit=1&limit=2", "limit"),
        ("docs=yes", "docs"),
        ("docs", "docs"),
        ("docs=1", "docs"),
        ("feed=push", "feed"),
        ("since=soon", "soon"),
        ("since=-1", "-1"),
        ("pattern=a%2B", "a+"),
        ("pattern=", "empty"),
        ("heartbeat=1", "heartbeat"),
        ("heartbeat=", "heartbeat"),
        ("timeout=x", "timeout"),
        ("patterns=a", "patterns"),
        ("since=%ff", "query"),
        ("descending=true&feed=continuous", "descending"),
    ],
)
def test_a_wrong_option_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read_feed_options(query(text), None)
    assert named in refused.value.reason


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadRequest) as refused:
        Options.from_query(b"include_docs=true", {"docs"})
    assert "include_docs" in refused.value.reason
    assert "docs" in refused.value.hint


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10),
        ("-1.5", -1.5),
        ("true", True),
        ("null", None),
        ("Paris", "Paris"),
        ("%2210%22", "10"),
        ("[a", "[a"),
        ("[" * 9999, "[" * 9999),
        ("1e999", "1e999"),
    ],
)
def test_a_bound_is_json_or_else_plain_text(text: str, value: Any) -> None:
    asked = query(f"from={text}")
    assert asked.has("from")
    assert asked.scalar("from") == value


@pytest.mark.parametrize("text", ["[1]", "{}"])
def test_a_bound_is_a_single_value(text: str) -> None:
    with pytest.raises(BadRequest, match="single value"):
        query(f"from={text}").scalar("from")


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("region/Europe", "region/Europe"),
        ("a%2Fb/c", "a%2Fb/c"),
        ("caf%C3%A9/x%20y", "café/x y"),
        ("locations/+/country", "locations/+/country"),
        ("locations/*/country", "locations/*/country"),
        ("locations/%2B/country", "locations/%2B/country"),
        ("a+b", "a%2Bb"),
    ],
)
def test_a_url_names_a_path_segment_by_segment(raw: str, path: str) -> None:
    assert path_text(raw) == path
